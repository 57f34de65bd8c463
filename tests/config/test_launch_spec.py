"""What is left of an instance whose session was interrupted, and an instance that moves into its worktree."""

from __future__ import annotations

from typing import Any

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import (
    CONTINUE_PROMPT,
    InterruptedSession,
    LaunchSpec,
    continued,
    in_worktree,
)
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings


def spec(**keys: Any) -> LaunchSpec:
    config = parse_config({"instances": [{"name": "a", "prompt": "work", **keys}]}, "x")
    return make_plan(config, Settings(), workspace="/w", claude_bin="claude").specs[0]


def test_the_turn_in_progress_is_continued_and_those_after_it_are_sent() -> None:
    left = continued(spec(pre_commands=["first"]), InterruptedSession("s", 0))
    assert left.turns == (CONTINUE_PROMPT, "work")
    assert (left.session_id, left.turns_before, left.resumed) == ("s", 0, True)
    assert "--resume=s" in left.argv
    assert continued(spec(pre_commands=["/compact"]), InterruptedSession("s", 0)).turns == ("/compact", "work")


def test_where_all_turns_are_done_the_last_is_continued_unless_a_check_is_left() -> None:
    assert continued(spec(), InterruptedSession("s", 1)).turns == (CONTINUE_PROMPT,)
    checked = spec(check={"command": "true"})
    assert continued(checked, InterruptedSession("s", 1)).turns == ()
    assert continued(checked, InterruptedSession("s", 1, fix="mend it")).turns == ("mend it",)


def test_a_session_continues_in_the_worktree_that_claude_made() -> None:
    asked = spec(extra_args=["--worktree"])
    left = continued(asked, InterruptedSession("s", 0, "/w/.claude/worktrees/a"))
    assert left.cwd == "/w/.claude/worktrees/a" and "--worktree" not in left.argv
    assert continued(asked, InterruptedSession("s", 0)).cwd == asked.cwd
    assert continued(spec(), InterruptedSession("s", 0, "/w/other")).cwd == "/w"


def test_an_instance_moves_into_its_worktree_once() -> None:
    moved = in_worktree(spec(mcp_config=["servers.json"]), "/trees/a")
    assert (moved.cwd, moved.origin) == ("/trees/a", "/w")
    assert "--mcp-config=/w/servers.json" in moved.argv
    again = in_worktree(moved, "/trees/b")
    assert (again.cwd, again.origin, again.argv) == ("/trees/b", "/w", moved.argv)
