"""`claude-runs` on rehearsals: at work, ended, interrupted, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from claude_orchestrator.cli.runs.main import PROGRAM, group
from claude_orchestrator.cli.runs.show import decision_line
from claude_orchestrator.engine.control.socket_place import NAME as SOCKET
from claude_orchestrator.errors import UserError
from tests.engine.control.rehearsals import Rehearsal, instances, rehearsal, until
from tests.limits import HUNG_S

pytestmark = pytest.mark.processes


def runs(place: Path, *args: str) -> str:
    """What the command prints. Raises UserError."""
    result = CliRunner().invoke(group, ["--output-dir", str(place), *args], standalone_mode=False)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exception is None, result.output
    assert not result.return_value, result.output
    return result.output


def refused(place: Path, *args: str) -> str:
    with pytest.raises(UserError) as error:
        runs(place, *args)
    (line,) = error.value.lines
    return line


def status(run: Rehearsal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runs(run.runs, "show", "last", "--json"))
    return found


def become(run: Rehearsal, **wanted: str) -> None:
    until(lambda: {row["name"]: row["state"] for row in status(run)["instances"]}.items() >= wanted.items())


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    place = tmp_path_factory.mktemp("over")
    with rehearsal(place, instances("one", "two", seconds=0.2), "--overall-token-budget", "9k") as run:
        assert run.wait()[0] == 0
    return place / "runs"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """A run that no test changes."""
    with rehearsal(tmp_path_factory.mktemp("live"), instances("one"), "--overall-token-budget", "9k") as run:
        run.connect().close()
        become(run, one="running")
        yield run


def test_a_run_is_steered_from_another_terminal(tmp_path: Path) -> None:
    config = instances("one", "two", "three", "four")
    with rehearsal(tmp_path, config, "--max-parallel", "2", "--overall-token-budget", "900k") as run:
        run.connect().close()
        become(run, one="running", two="running", three="pending")
        assert "running" in runs(run.runs)
        assert runs(run.runs, "pause", "last") == (
            f"launches are paused; launch again: claude-runs --output-dir {run.runs} resume {run.directory.name}\n"
        )
        assert runs(run.runs, "stop", "last", "one", "--why", "enough") == "stopping one\n"
        become(run, one="stopped", three="pending")
        assert runs(run.runs, "resume", "last") == "launches continue\n"
        become(run, three="running")
        assert runs(run.runs, "parallel", "last", "3") == "3 instances at once\n"
        become(run, four="running")
        assert "the limit of the overall budget is 1,000,000 now" in runs(run.runs, "limit", "last", "overall=1M")
        shown = runs(run.runs, "show", "last")
        assert re.search(r"stop of one \(\w+: enough\)", shown)
        assert f"claude-runs --output-dir {run.runs} watch" in shown
        assert runs(run.runs, "stop", "last", "--at-once") == f"stopping run {run.directory.name}\n"
        assert run.wait()[0] == 1
    actions = [record["action"] for record in run.journal() if record["kind"] == "steer"]
    assert actions == ["pause", "stop", "resume", "set_max_parallel", "set_limit", "stop_run"]


def test_a_run_that_is_over_answers_from_its_directory(over: Path) -> None:
    name = next(over.glob("*/")).name
    assert "completed (rehearsal)" in runs(over, "list")
    shown = runs(over, "show", name[:20])
    assert "2/2 done" in shown
    assert f"Next: claude-runs --output-dir {over} results {name}" in shown
    assert "── one\nRehearsed: do one\n" in runs(over, "results", "last")
    row = json.loads(runs(over, "results", "last", "two", "--json"))
    assert (row["instance"], row["state"], row["text"]) == ("two", "completed", "Rehearsed: do two")
    assert Path(row["file"]).read_text() == row["text"]
    assert "answer" in runs(over, "logs", "last", "one")
    assert runs(over, "logs", "last", "one", "-f") == runs(over, "logs", "last", "one")
    assert runs(over, "wait", "last", "--success") == f"run {name} completed\n"
    assert "2/2 done" in runs(over, "watch", "last")
    assert json.loads(runs(over, "list", "--json"))["live"] is False


def test_raw_logs_are_the_bytes_of_the_log(over: Path) -> None:
    argv = [sys.executable, "-c", "from claude_orchestrator.cli.runs.main import main; main()"]
    argv += ["--output-dir", str(over), "logs", "last", "one", "--raw"]
    printed = subprocess.run(argv, capture_output=True, check=True, timeout=HUNG_S).stdout
    assert printed == next(over.glob("*/001-one.jsonl")).read_bytes()


def test_waiting_and_following_end_with_the_run(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one", seconds=2.0)) as run:
        run.connect().close()
        followed = runs(run.runs, "logs", "last", "one", "-f")
        assert "Rehearsed: do one" in followed
        assert "completed" in runs(run.runs, "wait", "last", "--success")


def test_watching_without_a_terminal_prints_endings(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one", seconds=2.0)) as run:
        run.connect().close()
        watched = runs(run.runs, "watch", "last")
    assert "one: completed, 1.0K tokens" in watched or "one: completed, 1,000 tokens" in watched
    assert "the run has ended with exit code 0" in watched


def test_a_wait_that_takes_too_long_and_one_for_a_failure(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one")) as run:
        run.connect().close()
        result = CliRunner().invoke(
            group, ["--output-dir", str(run.runs), "wait", "last", "--timeout", "0.2"], standalone_mode=False
        )
        assert result.return_value == 1
        runs(run.runs, "stop", "last", "--at-once")
        result = CliRunner().invoke(
            group, ["--output-dir", str(run.runs), "wait", "last", "--success"], standalone_mode=False
        )
        assert (result.return_value, result.output) == (1, f"run {run.directory.name} failed\n")


@pytest.mark.parametrize("args", [("wait", "last"), ("watch", "last"), ("watch", "last", "one"), ("show", "last")])
def test_an_orchestrator_that_leaves_at_this_moment_is_no_failure(over: Path, args: tuple[str, ...]) -> None:
    """It takes the connection, and ends before it answers: the run's folder has the answer then."""
    with leaving_at_once(next(over.iterdir())):
        assert "Traceback" not in runs(over, *args)


def test_an_action_on_a_run_that_leaves_at_this_moment_is_refused(over: Path) -> None:
    with leaving_at_once(next(over.iterdir())):
        assert refused(over, "pause", "last").endswith(": the run has just ended")


@pytest.mark.parametrize(
    "by", [{"by": {"user": "ann", "via": "socket", "why": "safe"}}, {"user": "ann", "why": "safe"}]
)
def test_an_answer_to_a_question_shows_what_it_is_and_why(by: dict[str, Any]) -> None:
    """An event of a run at work has `by`, and a record of the journal its keys."""
    line = decision_line(
        {
            "at": 0.0,
            "kind": "approval_ended",
            "id": "7",
            "instance": "fix",
            "outcome": "denied",
            "text": "Bash: ls",
            **by,
        }
    )
    assert line.partition(" ")[2] == "fix: approval 7 denied: Bash: ls (ann: safe)"


@contextlib.contextmanager
def leaving_at_once(directory: Path) -> Iterator[None]:
    """A control socket whose owner closes each connection with the request unread."""
    path = directory / SOCKET
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connection.recv(1)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def test_a_run_whose_orchestrator_was_killed(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one")) as run:
        run.connect().close()
        until(lambda: any(path.stat().st_size for path in run.directory.glob("001-one.jsonl")))
        name = run.directory.name
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        assert "interrupted" in runs(run.runs, "list")
        assert f"claude-orchestrator --resume {name}" in runs(run.runs, "show", "last")
        text = f"run {name} was interrupted; continue it: claude-orchestrator --resume {name} --output-dir {run.runs}"
        assert refused(run.runs, "pause", "last") == text
        assert "was interrupted" in runs(run.runs, "wait", "last")
        assert "session" in runs(run.runs, "logs", "last", "one")


@pytest.mark.slow  # a rehearsal is killed and resumed
def test_what_is_always_allowed_stays_allowed_when_a_run_is_resumed(tmp_path: Path) -> None:
    config = {**instances("one", "two"), "rehearsal": {"turns": 6, "tokens": 600, "seconds": 2, "seed": 3}}
    with rehearsal(tmp_path, config, "--approvals", "ask") as run:
        run.connect().close()
        until(lambda: "Bash: npm test" in runs(run.runs, "approvals", "last"))
        runs(run.runs, "approve", "last", "1", "--always")
        until(lambda: [record for record in run.journal() if record["kind"] == "rule"])
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        before = len(run.journal())
        argv = [
            "--resume",
            "last",
            "--rehearse",
            "--output-dir",
            str(run.runs),
            "--config",
            str(tmp_path / "config.json"),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "claude_orchestrator", *argv],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )
        assert done.returncode == 0 and "still allowed, as approved before: Bash(npm test)" in done.stderr
        later = run.journal()[before:]
    assert [record["kind"] for record in later].count("ask") == 0
    assert {record["via"] for record in later if record["kind"] == "answer"} == {"rules"}


def test_a_run_without_a_socket_is_seen_but_not_changed(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one"), "--no-control") as run:
        until(lambda: run.journal() and "launch" in [record["kind"] for record in run.journal()])
        assert "unreachable" in runs(run.runs, "list")
        assert "was started with --no-control" in refused(run.runs, "stop", "last")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["show", "nope"], "no run is called 'nope'; see claude-runs list"),
        (["show", ""], "no run is called ''"),
        (["show", "../runs"], "no run is called '../runs'"),
        (["pause", "last"], "has ended"),
        (["stop", "last", "one"], "has ended"),
        (["approve", "last", "1"], "has ended"),
        (["limit", "last", "overall=5k"], "has ended"),
        (["limit", "last", "overall"], "overall: expected BUDGET=LIMIT, such as overall=200k"),
        (["limit", "last", "=5"], "=5: expected BUDGET=LIMIT"),
        (["logs", "last", "on"], "has no instance called 'on'; nearest: one"),
        (["results", "last", "nobody"], "has no instance called 'nobody'"),
        (["wait", "last", "--timeout", "soon"], "--timeout: expected"),
        (["prune", "--before", "tomorrow"], "--before: expected a past moment"),
    ],
)
def test_what_is_refused_of_a_run_that_is_over(over: Path, args: list[str], text: str) -> None:
    assert text in refused(over, *args)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["stop", "last", "nobody"], "no instance or group is called 'nobody'"),
        (["stop", "last", "one", "--at-once"], "--at-once: only for a whole run"),
        (["limit", "last", "overall=5k", "nope=1"], "no budget is called 'nope'"),
        (["limit", "last", "overall=5k", "instance one=-1"], "instance one: expected a positive whole number"),
        (["limit", "last", "overall=many"], "overall: expected a positive whole number"),
        (["parallel", "last", "0"], "parallel: expected a positive whole number"),
        (["approve", "last", "all"], "approve: no tool waits for approval"),
        (["deny", "last", "7"], "deny: no tool waits for approval under 7"),
        (["resume", "last"], "launches are not paused"),
        (["results", "last", "one"], "one: has no answer: it is running"),
    ],
)
def test_what_is_refused_of_a_run_at_work_changes_nothing(live: Rehearsal, args: list[str], text: str) -> None:
    assert text in refused(live.runs, *args)
    now = status(live)
    assert [budget["limit"] for budget in now["budgets"]] == [9000, 1000]
    assert (now["run"]["paused"], now["run"]["max_parallel"], now["decisions"]) == (False, 8, [])


def test_two_runs_with_one_prefix(over: Path, tmp_path: Path) -> None:
    first = next(over.glob("*/"))
    for name in ("20260101-000000-aaaaaa", "20260101-000000-aabbbb"):
        shutil.copytree(first, tmp_path / name)
    text = "20260101-0: several runs begin with this: 20260101-000000-aaaaaa, 20260101-000000-aabbbb"
    assert refused(tmp_path, "show", "20260101-0") == text
    assert "2/2 done" in runs(tmp_path, "show", "20260101-000000-aab")


def test_no_runs_at_all(tmp_path: Path) -> None:
    assert runs(tmp_path / "missing") == f"There are no runs in {tmp_path / 'missing'}.\n"
    assert refused(tmp_path, "show", "last") == f"there are no runs in {tmp_path}"


def test_old_runs_are_removed_and_those_with_worktrees_stay(over: Path, tmp_path: Path) -> None:
    first = next(over.glob("*/"))
    for name in ("a", "b"):
        shutil.copytree(first, tmp_path / name)
    (tmp_path / "b" / "worktrees" / "one").mkdir(parents=True)
    today = ["prune", "--before", "0h"]
    assert runs(tmp_path, "prune", "--before", "30d", "--yes") == "removed 0 runs\n"
    shown = runs(tmp_path, *today)
    assert shown == "a\nb: kept, because it has worktrees\nwould remove 1 run: add --yes to remove them\n"
    assert runs(tmp_path, *today, "--yes").endswith("removed 1 run\n")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_journal_that_is_damaged_is_skipped_in_lists(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir(mode=0o700)
    (tmp_path / "bad" / "journal.jsonl").write_text("nonsense\n")
    assert "the first line of its journal is damaged" in refused(tmp_path, "show", "bad")
    result = CliRunner().invoke(group, ["--output-dir", str(tmp_path), "list"], standalone_mode=False)
    assert "WARNING: bad: the first line of its journal is damaged" in result.output


def test_a_shell_completes_runs_instances_and_budgets(live: Rehearsal) -> None:
    def offered(words: str, count: int) -> list[str]:
        env = {**os.environ, "_CLAUDE_RUNS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        env["CLAUDE_ORCHESTRATOR_OUTPUT_DIR"] = str(live.runs)
        argv = [sys.executable, "-c", "from claude_orchestrator.cli.runs.main import main; main()"]
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=HUNG_S)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert offered(f"{PROGRAM} wa", 1) == ["wait", "watch"]
    assert offered(f"{PROGRAM} show la", 2) == ["last"]
    assert offered(f"{PROGRAM} show 2", 2) == [live.directory.name]
    assert offered(f"{PROGRAM} logs last o", 3) == ["one"]
    assert offered(f"{PROGRAM} limit last o", 3) == ["overall="]


def test_a_shell_completes_what_the_program_finds(over: Path, tmp_path: Path) -> None:
    commands = tmp_path / ".claude" / "commands"
    commands.mkdir(parents=True)
    (commands / "zebra.md").write_text("Count the stripes")
    (tmp_path / "claude-orchestrator-profiles.json").write_text('{"profiles": {"nightly": {}}}')
    env = {**os.environ, "HOME": str(tmp_path), "CLAUDE_ORCHESTRATOR_OUTPUT_DIR": str(over)}

    def offered(words: str, count: int) -> list[str]:
        asked = {"_CLAUDE_ORCHESTRATOR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        argv = [sys.executable, "-m", "claude_orchestrator"]
        done = subprocess.run(
            argv, capture_output=True, text=True, env={**env, **asked}, cwd=tmp_path, check=False, timeout=HUNG_S
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert offered("claude-orchestrator --resume la", 2) == ["last"]
    assert offered("claude-orchestrator --budget-profile ni", 2) == ["nightly"]
    assert offered("claude-orchestrator --inspect-command /zeb", 2) == ["/zebra"]
    assert offered("claude-orchestrator /zeb", 1) == ["/zebra"]
