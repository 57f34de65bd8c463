"""Options as every program has them, by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.given import ARGUMENT, ENVIRONMENT, OPTIONS, Given, Options, read_given
from claude_orchestrator.errors import UserError

NOTHING_SHOWN = {"dry_run": False, "list_commands": False, "inspect_command": None}


def test_options_have_values_and_settings() -> None:
    given = {"max_parallel": Given("4", "option"), "quiet": Given(True, "option")}
    options = Options("hi", {**NOTHING_SHOWN, "quiet": True, "workspace": "w"}, given)
    assert (options["quiet"], options.may_write) == (True, True)
    assert options.settings == {"max_parallel": given["max_parallel"]}
    earlier = options.with_earlier({"workspace": "before", "quiet": False})
    assert (earlier["workspace"], earlier["quiet"]) == ("before", True)


@pytest.mark.parametrize("key", NOTHING_SHOWN)
def test_what_only_shows_writes_nothing(key: str) -> None:
    assert not Options(None, {**NOTHING_SHOWN, key: "x"}, {}).may_write


@pytest.mark.parametrize(
    ("origin", "label"),
    [("option", "--max-parallel"), (ENVIRONMENT, "CLAUDE_ORCHESTRATOR_MAX_PARALLEL"), (ARGUMENT, "max_parallel")],
)
def test_a_fault_names_where_the_value_came_from(origin: str, label: str) -> None:
    with pytest.raises(UserError, match=f"^{label}: expected a positive whole number"):
        read_given(OPTIONS["max_parallel"], Given("x", origin))
