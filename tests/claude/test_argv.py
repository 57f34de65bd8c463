"""The arguments of a claude that works in a git worktree."""

from __future__ import annotations

from claude_orchestrator.claude.argv import argv_in_worktree, asks_for_worktree


def test_a_worktree_is_asked_for_in_each_form() -> None:
    assert all(asks_for_worktree(("claude", arg)) for arg in ("--worktree", "-w", "--worktree=x"))
    assert not asks_for_worktree(("claude", "--model=x"))


def test_in_its_worktree_claude_makes_no_other_one_and_finds_its_files() -> None:
    argv = ("claude", "-w", "name", "--mcp-config=a.json", "--worktree=x", "--worktree", "--model=m")
    assert argv_in_worktree(argv, "/work") == ("claude", "--mcp-config=/work/a.json", "--model=m")
