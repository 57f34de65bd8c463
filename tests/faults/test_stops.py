"""Stops reach everything: whatever the reason, and whatever the instance does about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.state import State
from tests.harness import ROOT, Workplace, alive, content_of, run_real
from tests.limits import HUNG_S
from tests.stand_in import Call, Reply, StandIn, Text, Tools, claude_env

GRACE_S = 1.0
# ignores SIGINT and SIGTERM; started a process that ignores SIGTERM, a double-forked daemon, and one without the
# mark that holds our pipe open
HYDRA: dict[str, Any] = {"name": "hydra", "command": "/test", "env": {"FAKE_CLAUDE": "hydra"}}


def start(place: Workplace, *args: str, instances: tuple[dict[str, Any], ...] = (HYDRA,)) -> subprocess.Popen[bytes]:
    own = ("--report", "report.json", "--grace", str(GRACE_S), "--quiet")
    argv = place.argv("--config", place.config({"instances": list(instances)}), *own, *args)
    return subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


STOPS = {
    "budget": (("--command-budget", "/test=1500", "--budget-enforcement-mode", "block"), "stopped"),
    "timeout": (("--timeout", "1.5"), "timed_out"),
    "idle timeout": (("--idle-timeout", "1.5"), "timed_out"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPS)
def test_stops_of_our_own_reach_everything(place: Workplace, name: str) -> None:
    args, status = STOPS[name]
    process = start(place, *args)
    pids = json.loads(content_of(place.root / "pids.json", process))
    assert process.wait(timeout=HUNG_S) == 1 and place.report()["instances"][0]["status"] == status
    assert len(pids) == 4 and not any(map(alive, pids))


def test_a_failing_sibling_with_fail_fast_reaches_everything(place: Workplace) -> None:
    failing = {"name": "failing", "prompt": "x", "env": {"FAKE_CLAUDE": "crash-after"}}
    process = start(place, "--fail-fast", instances=(HYDRA, failing))
    pids = json.loads(content_of(place.root / "pids.json", process))
    assert process.wait(timeout=HUNG_S) == 1
    assert [instance["status"] for instance in place.report()["instances"]] == ["cancelled", "failed"]
    assert not any(map(alive, pids))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_reach_everything(place: Workplace, number: signal.Signals, code: int) -> None:
    process = start(place)
    pids = json.loads(content_of(place.root / "pids.json", process))
    process.send_signal(number)
    assert process.wait(timeout=HUNG_S) == code and place.report()["instances"][0]["status"] == "cancelled"
    assert not any(map(alive, pids))


def test_the_second_ctrl_c_is_at_once(place: Workplace) -> None:
    process = start(place, "--grace", "600")
    pids = json.loads(content_of(place.root / "pids.json", process))
    process.send_signal(signal.SIGINT)
    (journal,) = place.root.glob("out/*/journal.jsonl")
    while b'"kind":"stop"' not in journal.read_bytes():  # the first was taken
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=HUNG_S) == 130 and place.report()["exit_code"] == 130
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_paused_instance_is_ended_too(place: Workplace) -> None:
    process = start(place, "--timeout", "1.5", instances=({**HYDRA, "env": {"FAKE_CLAUDE": "hang"}},))
    pids = json.loads(content_of(place.root / "pids.json", process))
    os.kill(pids[0], signal.SIGSTOP)
    assert process.wait(timeout=HUNG_S) == 1 and place.report()["instances"][0]["status"] == "timed_out"
    assert not any(map(alive, pids))


def test_an_instance_that_ends_leaves_nothing_behind(place: Workplace) -> None:
    process = start(place, instances=({**HYDRA, "env": {"FAKE_CLAUDE": "leaves-a-child"}},))
    pids = json.loads(content_of(place.root / "pids.json", process))
    assert process.wait(timeout=HUNG_S) == 0 and not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.real_cli
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_a_daemon_of_a_real_tool_is_ended(claude: str, tmp_path: Path, number: signal.Signals | None) -> None:
    """By a signal, or (None) by the budget, in the middle of a tool that has started a daemon."""
    home, workspace, pidfile = tmp_path / "home", tmp_path / "work", tmp_path / "pids"
    home.mkdir()
    workspace.mkdir()
    daemon = "setsid sh -c 'trap \"\" TERM INT; sleep 600 & echo $! >> pids.tmp; wait' </dev/null >/dev/null 2>&1 &"
    told = "until [ -s pids.tmp ]; do sleep 0.1; done; echo $$ >> pids.tmp; mv pids.tmp pids"
    tool = Call.bash(f"cd {tmp_path}; {daemon} {told}; sleep 600")
    args = ["--grace", "2", "--quiet", "--report", str(tmp_path / "report.json")]
    if number is None:
        args += ["--timeout", "15"]
    with StandIn({"VIOLET": [Tools((tool,)), Text()]}) as api:
        argv = [sys.executable, "-m", "claude_orchestrator", "VIOLET work", "--permission-mode", "bypassPermissions"]
        argv += ["--claude-bin", claude, "--workspace", str(workspace), "--output-dir", str(tmp_path / "out"), *args]
        process = subprocess.Popen(argv, env={**claude_env(home, api.url), "PYTHONPATH": str(ROOT)})
        pids = [int(pid) for pid in content_of(pidfile, process).split()]
        if number is not None:
            process.send_signal(number)
        assert process.wait(timeout=HUNG_S) == (128 + number if number is not None else 1)
        assert len(pids) == 2 and not any(map(alive, pids))
        (instance,) = json.loads((tmp_path / "report.json").read_text())["instances"]
        assert instance["usage"]["total_tokens"] >= api.billed().total_tokens - 50 and len(api.entries) == 1


@pytest.mark.real_cli
def test_what_a_subagent_has_in_progress_stops_the_run(claude: str, tmp_path: Path) -> None:
    """Only its own request, which never ends here, takes the run past the limit: no count can have it yet."""
    never = threading.Event()
    subagent = Call.agent("AZURE work", run_in_background=False)
    script: dict[str, list[Reply]] = {
        "VIOLET": [Tools((subagent,))],
        "AZURE": [Tools((Call.bash("true"),)), Text(gate=never, pings=False)],
    }
    entry = {"name": "a", "prompt": "VIOLET work", "permission_mode": "bypassPermissions"}
    with StandIn(script) as api:
        block = {"budget_enforcement_mode": "block", "overall_token_budget": 8000, "timeout_s": 40.0}
        outcome = run_real({"instances": [entry]}, api, claude, tmp_path, **block)
        assert outcome.only.state is State.STOPPED and not outcome.only.exact
        assert "at least 3,103 tokens of responses in progress" in outcome.only.reason
        assert len(api.entries) <= 3  # the stop can come before the API has the request
