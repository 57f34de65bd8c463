"""Patches are applied to a workspace together, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claude_orchestrator.cli.apply import chosen_of
from claude_orchestrator.engine.journal_history import EarlierInstance
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.worktrees.changes import Changes
from claude_orchestrator.engine.worktrees.patches import Conflict, Patch, apply_patches
from claude_orchestrator.errors import UserError
from tests.engine.worktrees.test_worktrees import instance
from tests.harness import Workplace
from tests.repositories import sh

LINES = "".join(f"{number}\n" for number in range(30))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(LINES)
    (tmp_path / "b.txt").write_text("b\n")
    sh(tmp_path, "git init -q; git add .; git commit -qm first")
    return tmp_path


def patch(repo: Path, name: str, command: str) -> Patch:
    """What a command changes, which is undone again."""
    sh(repo, f"{command}; git add -A")
    data = sh(repo, "git diff --cached --binary") + "\n"
    sh(repo, "git reset -q --hard")
    return Patch(name, data.encode())


def test_several_patches_of_one_file(repo: Path) -> None:
    top, end = (
        patch(repo, "top", "sed -i s/^1$/one/ a.txt"),
        patch(repo, "end", "sed -i s/^28$/last/ a.txt; echo n > n"),
    )
    (repo / "b.txt").write_text("my own work\n")
    assert apply_patches(repo, [top, end]) == []
    assert (repo / "a.txt").read_text() == LINES.replace("\n1\n", "\none\n").replace("28", "last")
    assert (repo / "n").read_text() == "n\n" and (repo / "b.txt").read_text() == "my own work\n"
    assert sh(repo, "git diff --cached") == ""
    assert apply_patches(repo, [top]) == [Conflict("top", "its changes are in the workspace already", ())]


def test_conflicts_are_named_and_nothing_is_changed(repo: Path) -> None:
    one, two = patch(repo, "one", "sed -i s/^5$/x/ a.txt; echo 1 > n"), patch(repo, "two", "sed -i s/^5$/y/ a.txt")
    three = patch(repo, "three", "echo c > b.txt")
    (repo / "b.txt").write_text("mine\n")
    before = sh(repo, "git status --porcelain; cat a.txt b.txt")
    assert apply_patches(repo, [one, two, three]) == [
        Conflict("two", "its changes conflict with those of another instance", ("a.txt",)),
        Conflict("three", "its changes conflict with the files of the workspace", ("b.txt",)),
    ]
    assert sh(repo, "git status --porcelain; cat a.txt b.txt") == before
    (repo / "n").write_text("in the way\n")
    (conflict,) = apply_patches(repo, [one])
    assert conflict.files == ("n",)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file that even its owner cannot replace")
def test_what_fails_half_way_is_undone(repo: Path) -> None:
    """As on a full disk: the second file cannot be written."""
    both = patch(repo, "both", "sed -i s/^5$/x/ a.txt; mkdir sub; echo 1 > sub/n; echo c > b.txt")
    if os.system(f"chattr +i {repo}/b.txt 2>/dev/null"):
        pytest.skip("no immutable files here")
    try:
        with pytest.raises(OSError, match="b"):
            apply_patches(repo, [both])
    finally:
        os.system(f"chattr -i {repo}/b.txt")
    assert (repo / "a.txt").read_text() == LINES and not (repo / "sub" / "n").exists()


def test_names_and_groups() -> None:
    changes = Changes("b", "c", "d", None, 1, 1, 1, "p")
    names = ("plan", "fix[a,b]", "fix[c]", "race#1", "clean")
    every = [
        EarlierInstance(name, state=State.COMPLETED, changes=None if name == "clean" else changes) for name in names
    ]
    every.append(EarlierInstance("broken", state=State.FAILED, changes=changes))

    def chosen(only: str | None) -> list[str]:
        return [one.name for one in chosen_of(every, only)]

    assert chosen(None) == ["plan", "fix[a,b]", "fix[c]", "race#1"]
    assert chosen("fix") == ["fix[a,b]", "fix[c]"] and chosen("broken, fix[a,b],race") == [
        "broken",
        "fix[a,b]",
        "race#1",
    ]
    for bad, why in (("nobody", "no instance called 'nobody'"), ("clean", "clean: it changed nothing")):
        with pytest.raises(UserError, match=why):
            chosen_of(every, bad)


@pytest.mark.slow
def test_from_the_command_line(place: Workplace) -> None:
    sh(place.workspace, "git init -q; mkdir sub; echo one > a.txt; git add .; git commit -qm first")
    names = [f"n{number}" for number in range(8)]
    config = place.config({"instances": [*(instance(name) for name in names), instance("same", env={"NAME": "n0"})]})
    assert place.run("--config", config).returncode == 0
    done = place.run("--apply", "last")
    assert (
        done.returncode == 1
        and "ERROR: same: its changes conflict with those of another instance: new-n0" in done.stderr
    )
    assert "nothing was changed" in done.stderr and sh(place.workspace, "git status --porcelain") == ""
    done = place.run("--apply", "last", "--only", ",".join(names))
    assert done.returncode == 0 and "n7: 8 files in" in done.stdout
    assert sorted(path.name for path in place.workspace.glob("new-*")) == [f"new-{name}" for name in names]
    assert "n0: its changes are in the workspace already" in place.run("--apply", "last", "--only", "n0").stderr


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--only", "x"), "--only: chooses the instances of --apply"),
        (("--apply", "last", "hello"), "--apply: excludes PROMPT and --resume"),
        (("--apply", "last"), "--apply: no run to apply in"),
        (("--apply", "../x"), "--apply: no run '../x'"),
    ],
)
def test_bad_usage(place: Workplace, args: tuple[str, ...], why: str) -> None:
    done = place.run(*args)
    assert done.returncode == 2 and why in done.stderr


def test_a_run_without_changes(place: Workplace) -> None:
    place.run("hello")
    done = place.run("--apply", "last")
    assert done.returncode == 2 and "completed with changes in a worktree" in done.stderr
