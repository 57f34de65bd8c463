"""Races: the attempts of an entry, and what cannot race."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.racing import expand_races
from claude_orchestrator.errors import UserError

CHECK = {"command": "true"}


def race(**keys: Any) -> dict[str, Any]:
    return {"name": "a", "prompt": "x", "race": 2, "check": CHECK, **keys}


def test_without_a_race_nothing_changes() -> None:
    config = parse_config({"instances": [{"name": "a", "prompt": "x"}]}, "x")
    assert expand_races(config) is config


def test_attempts_have_names_worktrees_and_a_group() -> None:
    config = parse_config({"instances": [race(), {"name": "b", "prompt": "x"}, race(name="c", worktree="t")]}, "x")
    made = expand_races(config).instances
    assert [(one.name, one.worktree, one.group) for one in made] == [
        ("a#1", True, "a"),
        ("a#2", True, "a"),
        ("b", False, None),
        ("c#1", "t#1", "c"),
        ("c#2", "t#2", "c"),
    ]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([race(check=None)], "x: a.race: it needs a check, which decides who wins"),
        ([race(session_id="s")], "x: a.race: several attempts cannot continue one session: leave out session_id"),
        ([race(), {"name": "a#1", "prompt": "x"}], "x: two instances have the name a#1: rename one of them"),
    ],
)
def test_what_cannot_race(entries: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError) as caught:
        expand_races(parse_config({"instances": entries}, "x"))
    assert list(caught.value.lines) == [said]
