"""Which instances may write into the same folder at once, by values."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.shared_folders import shared_folders, some_of


def warnings_of(*entries: dict[str, Any], at_once: int = 8) -> list[str]:
    named = [{"name": f"i{number}", "prompt": "x", **entry} for number, entry in enumerate(entries)]
    config = parse_config({"instances": named}, "x")
    plan = make_plan(config, Settings(), workspace="/w", claude_bin="claude")
    return list(shared_folders(plan.specs, config.instances, at_once))


EDITS: dict[str, Any] = {"permission_mode": "acceptEdits"}
SAID = "i0, i1 can change files in /w at once: the key worktree gives each its own folder"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([EDITS, EDITS], [SAID]),
        ([EDITS, {"allowed_tools": ["Read", "Write(src/**)"]}], [SAID]),
        ([EDITS, {"permission_mode": "plan"}], []),
        ([EDITS, {"allowed_tools": ["Read"]}], []),
        ([EDITS, {**EDITS, "cwd": "other"}], []),
        ([EDITS, {**EDITS, "worktree": True}], []),
        ([EDITS, {**EDITS, "extra_args": ["--worktree"]}], []),
        ([EDITS, {**EDITS, "depends_on": ["i0"]}], []),
    ],
)
def test_a_warning_for_each_shared_folder(entries: list[dict[str, Any]], said: list[str]) -> None:
    assert warnings_of(*entries) == said


def test_one_after_the_other_is_fine() -> None:
    assert warnings_of(EDITS, EDITS, at_once=1) == []


def test_of_many_names_some_are_shown() -> None:
    assert some_of(["a", "b", "c"]) == "a, b, c"
    assert some_of(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
