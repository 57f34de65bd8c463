"""The orchestrator is killed: nothing that it started goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.fence_kind import FENCE_VARIABLE
from claude_orchestrator.launch.processes import MarkGuard
from tests.harness import ROOT, Workplace, alive, content_of, sleeping
from tests.stand_in import Call, StandIn, Text, Tools, claude_env

LIMIT_S = 2.0


@pytest.fixture(params=["subreaper", "mark"])
def fence(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that chooses a fence: the kernel's, and the search for marks that other systems have."""
    return {FENCE_VARIABLE: request.param}


def wait_until_gone(pids: list[int]) -> float:
    """Seconds until none of them is alive, ten at most."""
    begun = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - begun < 10:
        time.sleep(0.005)
    return time.monotonic() - begun


@pytest.mark.parametrize("meter", ["stream", "api"])
@pytest.mark.parametrize("scenario", ["hang", "stubborn", "hydra"])
def test_sigkill_of_the_orchestrator_ends_instances_and_their_tools(
    tmp_path: Path, scenario: str, meter: str, fence: dict[str, str]
) -> None:
    """With the meter at the API they have lost that too."""
    place = Workplace(tmp_path)
    env = {"FAKE_CLAUDE": scenario, "ANTHROPIC_API_KEY": "dummy"}
    setup = {"instances": [{"name": "one", "prompt": "x", "env": env}]}
    argv = place.argv("--config", place.config(setup), "--quiet", "--meter", meter)
    process = subprocess.Popen(argv, env=place.env | fence, cwd=tmp_path)
    pids = json.loads(content_of(tmp_path / "pids.json", process))
    process.kill()
    process.wait()
    assert wait_until_gone(pids) < LIMIT_S


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("started", [1, 3, 6])
def test_sigkill_while_instances_are_being_started(tmp_path: Path, started: int) -> None:
    """Each starts, among others, a process that carries no mark: it must not outlive its parent unseen."""
    place, seconds = Workplace(tmp_path), f"600.{os.getpid()}{started}"
    env = {"FAKE_CLAUDE": "hydra", "FAKE_SLEEP": seconds}
    setup = {"instances": [{"name": f"i{n}", "prompt": "x", "env": env} for n in range(8)]}
    argv = place.argv("--config", place.config(setup), "--quiet", "--max-parallel", "8")
    process = subprocess.Popen(argv, env=place.env, cwd=tmp_path)
    while len(list(tmp_path.glob("turns-*.json"))) < started:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    begun = time.monotonic()
    while sleeping(seconds) and time.monotonic() - begun < 10:
        time.sleep(0.02)
    assert not sleeping(seconds) and time.monotonic() - begun < LIMIT_S


@pytest.mark.slow
@pytest.mark.real_cli
def test_no_api_call_starts_after_a_sigkill(claude: str, tmp_path: Path) -> None:
    home, workspace, pidfile = tmp_path / "home", tmp_path / "work", tmp_path / "pid"
    home.mkdir()
    workspace.mkdir()
    tool = Call.bash(f"echo $$ > {pidfile}; exec python3 -c 'import time; time.sleep(600)'")
    with StandIn({"MAGENTA": [Tools((tool,)), Text()]}) as api:
        argv = [sys.executable, "-m", "claude_orchestrator", "MAGENTA work", "--permission-mode", "bypassPermissions"]
        argv += [
            "--claude-bin",
            claude,
            "--workspace",
            str(workspace),
            "--output-dir",
            str(tmp_path / "out"),
            "--quiet",
        ]
        env = {**claude_env(home, api.url), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(argv, env=env)
        pid = int(content_of(pidfile, process))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wait_until_gone([pid]) < LIMIT_S
        calls = len(api.entries)
        time.sleep(0.5)
        assert len(api.entries) == calls == 1


def test_a_guard_that_was_killed_is_replaced(place: Workplace, fence: dict[str, str]) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hydra"}}]}
    argv = place.argv("--config", place.config(setup))
    process = subprocess.Popen(
        argv, env=place.env | fence, cwd=place.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    pids = json.loads(content_of(place.root / "pids.json", process))
    (run,) = (place.root / "out").iterdir()
    (guard,) = guards_of(run.name)
    os.kill(guard, signal.SIGKILL)
    assert process.stderr is not None
    said = next(line for line in process.stderr if b" INFO: " not in line)
    assert b"something killed the guard process: starting another one" in said
    while not (now := guards_of(run.name)):
        time.sleep(0.01)
    assert now != [guard]
    process.kill()
    process.wait()
    assert wait_until_gone(pids) < LIMIT_S


def guards_of(run_id: str, *, keepers: bool = False) -> list[int]:
    """Processes that have the run's id as an argument: its guards, or the keepers that a guard forked."""
    folders = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if run_id.encode() in _read(path)]
    return [int(path.name) for path in folders if (_read(path / "comm") == b"claude-keeper\n") == keepers]


def test_an_orderly_end_leaves_no_guard(tmp_path: Path, fence: dict[str, str]) -> None:
    place = Workplace(tmp_path)
    assert place.run("hello", "--quiet", **fence).returncode == 0
    (run,) = (tmp_path / "out").iterdir()  # the guard's argument is the run's id
    assert guards_of(run.name) == guards_of(run.name, keepers=True) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("kind", [MarkGuard, FenceGuard])
def test_the_guard_is_not_reached_by_ctrl_c(kind: type[MarkGuard | FenceGuard]) -> None:
    with kind("test-guard") as guard:
        process = guard._process
        assert process is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process.pid, number) if _ignores(process.pid, number) else None
        assert os.getsid(process.pid) == process.pid
    assert process.returncode == 0


def _ignores(pid: int, number: signal.Signals) -> bool:
    """Wait until the process has set itself to ignore a signal."""
    for _ in range(500):
        for row in Path(f"/proc/{pid}/status").read_text().splitlines():
            if row.startswith("SigIgn:") and int(row.split()[1], 16) >> (number - 1) & 1:
                return True
        time.sleep(0.01)
    return False
