"""Any machine: full disks, no more files or processes, a terminal that is gone, clocks that jump."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from claude_orchestrator.engine import journal
from claude_orchestrator.engine.journal_history import read_history
from claude_orchestrator.engine.results.report_json import json_report
from claude_orchestrator.engine.state import State
from claude_orchestrator.launch.simulated import SimulatedLauncher
from claude_orchestrator.ui.junit import junit_report
from tests.faults.test_journal import small_plan
from tests.harness import ROOT, Workplace, content_of, run_config, sleeping
from tests.limits import HUNG_S
from tests.scripted import Script
from tests.views import a_view

TWO = {"instances": [{"name": "one", "command": "/test a"}, {"name": "two", "command": "/test b"}]}


def limited(place: Workplace, kind: int, limit: int, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the program with a limit of the system's."""
    return subprocess.run(
        place.argv(*args),
        env={**place.env, "PYTHONDONTWRITEBYTECODE": "1"},  # which would be cut off too
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )


def test_a_disk_that_fills_up_during_a_run_is_reported_once_and_budgets_still_hold(place: Workplace) -> None:
    """Files end at 3,000 bytes: logs and journal fail in the middle."""
    entries = [{"name": f"i{n}", "command": "/test", "pre_commands": ["/a", "/b", "/c"]} for n in range(12)]
    args = ("--overall-token-budget", "20000", "--budget-enforcement-mode", "block", "--max-parallel", "2")
    done = limited(place, resource.RLIMIT_FSIZE, 3000, "--config", place.config({"instances": entries}), *args)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("the journal cannot be written (File too large)") == 1
    assert "BLOCK MODE: Budget exceeded for instance i11. Skipping." in done.stderr
    assert "Total: " in done.stdout


@pytest.mark.slow
def test_a_run_folder_that_disappears_is_reported_once(place: Workplace) -> None:
    env = {"FAKE_CLAUDE": "hang"}
    setup = {"instances": [{"name": "first", "prompt": "x", "timeout_s": 2, "env": env}, *TWO["instances"]]}
    argv = place.argv("--config", place.config(setup), "--max-parallel", "1", "--report", "report.json")
    process = subprocess.Popen(
        argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    content_of(place.root / "pids.json", process)
    shutil.rmtree(place.root / "out")
    _, said = process.communicate(timeout=HUNG_S)
    assert [instance["status"] for instance in place.report()["instances"]] == ["timed_out", "completed", "completed"]
    assert said.count("logs cannot be written (No such file or directory)") == 1 and process.returncode == 1


@pytest.mark.parametrize("files", [10, 14, 18, 22, 26, 30, 40])
def test_with_too_many_open_files_only_instances_that_cannot_start_fail(place: Workplace, files: int) -> None:
    entries = [{"name": f"i{n}", "command": "/test", "env": {"FAKE_SECONDS": "0.3"}} for n in range(8)]
    args = ("--config", place.config({"instances": entries}), "--report", "report.json", "--quiet")
    done = limited(place, resource.RLIMIT_NOFILE, files, *args)
    assert "Traceback" not in done.stderr and done.returncode in (0, 1, 2), done.stderr
    if done.returncode == 2:  # not even a guard
        assert "Too many open files" in done.stderr and done.stderr.count("\n") == 1
        return
    for instance in place.report()["instances"]:
        completed = instance["status"] == "completed" and instance["usage"]["total_tokens"] == 1050
        assert completed or "Too many open files" in instance["reason"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("files", [32, 36, 40])
def test_stops_reach_everything_when_no_file_descriptor_is_free(place: Workplace, files: int) -> None:
    seconds = f"600.{os.getpid()}{files}"
    env = {"FAKE_CLAUDE": "hydra", "FAKE_SLEEP": seconds}
    entries = [{"name": f"i{n}", "command": "/test", "env": env} for n in range(8)]
    args = ("--max-parallel", "8", "--timeout", "1.5", "--grace", "1", "--report", "report.json")
    done = limited(place, resource.RLIMIT_NOFILE, files, "--config", place.config({"instances": entries}), *args)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert {instance["status"] for instance in place.report()["instances"]} <= {"timed_out", "failed"}
    assert not sleeping(seconds)


WITHOUT_THREADS = """
import sys, threading
def start(thread): raise RuntimeError("can't start new thread")
threading.Thread.start = start
from claude_orchestrator.cli.main import main
main()
"""


def test_a_machine_that_gives_no_threads(place: Workplace) -> None:
    """What is done in threads elsewhere is then done here and now; the ledger of all runs is left out."""
    options = ("--report", "report.json", "--ledger", "ledger.db", "--alert-command", "true")
    argv = place.argv("--config", place.config(TWO), *options)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS, *argv[3:]],
        env={**place.env, "PYTHONPATH": str(ROOT)},
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert place.report()["totals"]["total_tokens"] == 2100
    assert done.stderr.count("can't start new thread") == 2  # the ledger, the alerts


def test_nohup_is_obeyed(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_SECONDS": "1"}}]}
    argv = ["nohup", *place.argv("--config", place.config(setup), "--report", "report.json")]
    with (place.root / "said").open("w") as said:
        process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=said, stderr=said)
        content_of(place.root / "turns.json", process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=HUNG_S) == 0
    assert place.report()["instances"][0]["status"] == "completed"


@pytest.mark.parametrize("option", ["--workspace", "--output-dir", "--claude-bin", "--config"])
def test_a_name_that_is_too_long_is_reported(place: Workplace, option: str) -> None:
    done = place.run(option, str(place.root / ("x" * 300)))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    setup = {"instances": [{"prompt": "x", "cwd": "x" * 300}]}
    assert "no such folder" in place.run("--config", place.config(setup)).stderr


@pytest.mark.slow
def test_the_limit_of_open_files_is_raised_if_the_system_allows(place: Workplace) -> None:
    entries = [{"name": f"i{n}", "command": "/test", "env": {"FAKE_SECONDS": "0.5"}} for n in range(20)]
    args = ("--config", place.config({"instances": entries}), "--max-parallel", "20", "--quiet")
    done = subprocess.run(
        place.argv(*args),
        env=place.env,
        cwd=place.root,
        capture_output=True,
        timeout=HUNG_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (30, 4096)),
    )
    assert done.returncode == 0, done.stderr


def test_a_fork_that_fails_for_a_moment_can_be_retried() -> None:
    class Full(Script):
        async def launch(self, spec: Any) -> Any:
            if self.fail is not None:
                fail, self.fail = self.fail, None
                raise fail
            return await super().launch(spec)

    def outcome(retries: int) -> State:
        script = Full(fail=OSError(errno.EAGAIN, "Resource temporarily unavailable"))
        entry = {"name": "one", "command": "/test", "retries": retries}
        return run_config({"instances": [entry]}, script, workspace=Path("/")).only.state

    assert outcome(0) is State.FAILED
    assert outcome(1) is State.COMPLETED


def test_without_a_guard_nothing_is_started(place: Workplace) -> None:
    """The interpreter is gone (an environment that was removed)."""
    code = "import sys; sys.executable = '/gone/python'; from claude_orchestrator.cli.main import main; main()"
    argv = [sys.executable, "-c", code, *place.argv("hello")[3:]]
    env = {**place.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, cwd=place.root, capture_output=True, text=True, timeout=HUNG_S, check=False)
    assert done.returncode == 2
    assert "ERROR: the guard process cannot be started: No such file or directory: nothing has started" in done.stderr
    assert not (place.root / "turns.json").exists()


def test_closed_standard_output_does_not_end_the_run(place: Workplace) -> None:
    argv = place.argv("--config", place.config(TWO), "--report", "report.json")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=HUNG_S) == 0 and place.report()["exit_code"] == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_streams_that_the_shell_has_closed(place: Workplace, closed: tuple[int, ...]) -> None:
    argv = place.argv("--config", place.config({"instances": [{"name": "one", "command": "/test"}]}))
    command = f"{shlex.join(argv)} --report report.json {' '.join(f'{fd}>&-' for fd in closed)}"
    done = subprocess.run(["sh", "-c", command], env=place.env, cwd=place.root, capture_output=True, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert place.report()["totals"]["total_tokens"] == 1050
    (log,) = place.root.glob("out/*/001-one.jsonl")
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_terminal_that_goes_away_does_not_end_the_run(place: Workplace) -> None:
    ours, theirs = pty.openpty()
    env = {"FAKE_SECONDS": "1"}
    setup = {"instances": [{"name": "one", "prompt": "x", "env": env}]}
    argv = place.argv("--config", place.config(setup), "--report", "report.json")
    process = subprocess.Popen(
        argv, env=place.env, cwd=place.root, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert os.read(ours, 10)
    content_of(place.root / "turns.json", process)
    os.close(ours)
    assert process.wait(timeout=HUNG_S) == 0 and place.report()["instances"][0]["status"] == "completed"


@pytest.mark.slow
def test_a_reader_who_stops_reading_does_not_hold_up_the_run(place: Workplace) -> None:
    """A pager, or Ctrl-S: the pipe is full, and the budgets and stops go on."""
    hang = {"name": "one", "prompt": "x", "timeout_s": 2, "env": {"FAKE_CLAUDE": "hang"}}
    argv = place.argv(
        "--config", place.config({"instances": [hang]}), "--report", "report.json", "--status-report-interval", "0.01"
    )
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)
    report_data = json.loads(content_of(place.root / "report.json", process))  # nobody has read anything yet
    assert report_data["instances"][0]["status"] == "timed_out"
    out, _ = process.communicate(timeout=HUNG_S)
    assert process.returncode == 1 and b"Total:" in out


def test_a_clock_that_jumps_back_changes_no_duration(tmp_path: Path) -> None:
    times = iter(range(10**6, 0, -1000))
    fd = os.open(tmp_path / "journal", os.O_WRONLY | os.O_CREAT)
    records = journal.Journal(fd, print, now=lambda: float(next(times)))
    records.write("run", number=1, instances=[{"name": "a", "base_command": None, "turns": ""}])
    records.write("launch", instance="a", attempt=1, session=None, turns_done=0, goes_on=False)
    records.write("usage", instance="a", attempt=1, usage=[1, 2, 3, 4], cost_usd=None)
    records.close()
    (past,) = read_history(journal.records((tmp_path / "journal").read_bytes())).instances.values()
    assert past.attempts[0].seconds == 0.0 and past.attempts[0].usage.total_tokens == 10
    # the report's durations are those of the monotonic clock, whatever the wall's says
    outcome = run_config(
        {"instances": [{"prompt": "x", "rehearsal": {"seconds": 0.05}}]}, SimulatedLauncher(), workspace=Path("/")
    )
    run = a_view(small_plan(), list(outcome.instances), outcome.manager, datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    suite = ElementTree.fromstring(junit_report(run, 0.5))[0]
    assert suite.get("time") == "0.500" and 0 <= float(suite[0].get("time", "-1")) < 60
    data = json_report(run, datetime(2020, 1, 1, tzinfo=UTC), 0)
    assert 0 <= data["instances"][0]["duration_s"] < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_records_that_wait_for_a_full_disk_are_bounded() -> None:
    said: list[str] = []
    records = journal.Journal(os.open("/dev/full", os.O_WRONLY), said.append)
    for _ in range(20_000):
        records.write("usage", instance="x" * 1000, attempt=1, usage=[1, 2, 3, 4], cost_usd=None)
    assert len(said) == 1 and sum(map(len, records._pending)) <= journal.MAX_PENDING_BYTES


@pytest.mark.slow
def test_a_pause_of_everything_changes_no_count(place: Workplace) -> None:
    """SIGSTOP to the whole group, as a suspended machine or Ctrl-Z does."""
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_SECONDS": "1"}}]}
    argv = place.argv("--config", place.config(setup), "--report", "report.json", "--quiet")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL)
    content_of(place.root / "turns.json", process)
    (pid,) = (int(path.stem.removeprefix("turns-")) for path in place.root.glob("turns-*.json"))
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(process.pid, number)
        os.kill(pid, number)
        time.sleep(1)
    assert process.wait(timeout=HUNG_S) == 0
    assert place.report()["totals"]["total_tokens"] == 1050 and place.report()["totals"]["exact"]
