"""A pipe, a device or a huge file where a file to read is expected: refused at once, never waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Workplace
from tests.limits import HUNG_S
from tests.repositories import sh
from token_budget.usage.json_file import JsonFileError, read_bytes

CLAUDE_RUNS = "from claude_orchestrator.cli.runs.main import main; main()"
INSTANCE = {"name": "a", "prompt": "/x"}


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


@pytest.mark.parametrize("place_of_it", ["config", "for_each", "json_schema", "mcp_config", "profile", "journal"])
def test_a_pipe_is_refused_at_once(place: Workplace, place_of_it: str) -> None:
    root = place.root
    match place_of_it:
        case "config":
            args = ["--config", pipe(root / "pipe.json")]
        case "for_each":
            args = ["{{item}}", "--for-each", f"@{pipe(root / 'pipe')}"]
        case "profile":
            pipe(place.workspace / "claude-orchestrator-profiles.json")
            args = ["x", "--budget-profile", "x"]
        case "journal":
            (root / "out" / "run").mkdir(parents=True)
            pipe(root / "out" / "run" / "journal.jsonl")
            args = ["--resume", "run"]
        case key:
            value = pipe(root / "pipe.json")
            args = ["--config", place.config({"instances": [{**INSTANCE, key: value}]})]
    done = place.run("--rehearse", *args)
    assert done.returncode == 2 and "regular file" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_a_pipe_among_the_commands_is_passed_over(place: Workplace) -> None:
    (place.workspace / ".claude" / "commands").mkdir(parents=True)
    pipe(place.workspace / ".claude" / "commands" / "x.md")
    assert place.run("--rehearse", "--config", place.config({"instances": [INSTANCE]})).returncode == 0


def test_devices_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JsonFileError, match="is not a regular file"):
        read_bytes(Path("/dev/zero"), 1024)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(JsonFileError, match="is larger than 1 MiB"):
        read_bytes(tmp_path / "huge", 2**20)


def test_a_pipe_in_place_of_an_answer_or_a_patch(place: Workplace) -> None:
    """An instance can put one there. Nobody waits for its writer."""
    sh(place.workspace, "git init -q; git commit -q --allow-empty -m first")
    one = {"name": "one", "prompt": "x", "worktree": True, "check": {"command": "echo work > work", "rounds": 1}}
    two = {"name": "two", "prompt": "{{results.one}}", "depends_on": ["one"], "env": {"FAKE_CLAUDE": "crash"}}
    config = place.config({"instances": [one, two]})
    assert place.run("--config", config).returncode == 1
    (run,) = (place.root / "out").iterdir()
    for name in ("one.md", "one.patch"):
        (run / "results" / name).unlink()
        os.mkfifo(run / "results" / name)
    assert place.run("--resume", "last").returncode == 1
    applied = place.run("--apply", "last")
    assert applied.returncode == 2 and "one.patch: is not a regular file" in applied.stderr
    shown = subprocess.run(
        [sys.executable, "-c", CLAUDE_RUNS, "--output-dir", str(run.parent), "results", run.name],
        capture_output=True,
        text=True,
        env=place.env,
        check=False,
        timeout=HUNG_S,
    )
    assert shown.returncode == 0, shown.stderr


def test_a_journal_with_holes_is_refused(place: Workplace) -> None:
    assert place.run("/test").returncode == 0
    (run,) = (place.root / "out").iterdir()
    os.truncate(run / "journal.jsonl", 2**40)
    done = place.run("/test", "--resume", "last")
    assert done.returncode == 2 and "journal.jsonl: is larger than 4 GiB: this run cannot be read" in done.stderr
