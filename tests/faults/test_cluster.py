"""Something of a cluster is killed: every instance on the node, and its tools, end within the lease."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from claude_orchestrator.launch.cluster.leases import END_S
from claude_orchestrator.launch.processes import MARK_VARIABLE
from tests.harness import FAKE, Workplace, alive
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY, RayNodes, command_lines, ray_nodes

pytestmark = [WITH_RAY, pytest.mark.slow, pytest.mark.processes, pytest.mark.xdist_group("ray")]
LEASE_S = 3.0
CALLING = Path(__file__).with_name("calling_claude.py")
SLACK_S = 1.0  # of a busy machine


class Calls:
    """An API that notes who calls it, by `/claude/PID` or `/tool/PID`, and when."""

    def __init__(self, host: str) -> None:
        self.last: dict[str, float] = {}
        calls = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                calls.last[self.path] = time.monotonic()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self.server.server_port}"

    @property
    def callers(self) -> list[int]:
        return [int(path.rpartition("/")[2]) for path in list(self.last)]


@contextlib.contextmanager
def calls_taken(host: str = "127.0.0.1") -> Iterator[Calls]:
    calls = Calls(host)
    thread = threading.Thread(target=calls.server.serve_forever)
    thread.start()
    try:
        yield calls
    finally:
        calls.server.shutdown()
        thread.join()
        calls.server.server_close()


def start(
    nodes: RayNodes, calls: Calls, root: Path, *args: str, instances: int = 2, callers: int = 0
) -> subprocess.Popen[str]:
    """A run whose instances never end; returns once they and their tools call."""
    place = Workplace(root)
    env = {} if "api" in args else {"CALL_URL": calls.url}
    setup = {"instances": [{"name": f"i{n}", "prompt": "x", "env": env} for n in range(instances)]}
    report = ("--report", str(root / "report.json"), "--lease", f"{LEASE_S:g}s", "--cluster", nodes.address)
    argv = place.argv("--config", place.config(setup), *report, *args, claude=str(CALLING))
    env = {**place.env, **nodes.env, "ANTHROPIC_API_KEY": "dummy", "ANTHROPIC_BASE_URL": calls.url}
    process = subprocess.Popen([*nodes.inside, *argv], env=env, cwd=root, stderr=subprocess.PIPE, text=True)
    until(lambda: len(calls.last) >= (callers or 2 * instances) or process.poll() is not None, HUNG_S)
    if process.poll() is not None:
        pytest.fail(f"the run has ended: {process.stderr.read() if process.stderr else ''}")
    return process


def until(condition: object, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def agents(nodes: RayNodes) -> list[int]:
    """The agents of this cluster: their parents are its raylets."""
    titles = (b"ray::NodeAgent", b"ray::MeteredAgent")
    found = [pid for pid, line in command_lines() if line.startswith(titles)]
    return [pid for pid in found if int(read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1]) in nodes.workers]


def kill_agent(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
    (agent,) = agents(nodes)
    os.kill(agent, signal.SIGKILL)


def stop_agent(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
    """It neither answers nor ends by itself."""
    (agent,) = agents(nodes)
    os.kill(agent, signal.SIGSTOP)


def kill_raylet(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
    (raylet,) = nodes.workers
    os.kill(raylet, signal.SIGKILL)


def kill_driver(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
    process.kill()


def stop_driver(nodes: RayNodes, process: subprocess.Popen[str]) -> None:
    """Its connections stay open, and nothing comes through them."""
    process.send_signal(signal.SIGSTOP)


FAULTS = [(fault, "stream") for fault in (kill_driver, stop_driver, kill_agent, stop_agent, kill_raylet)]


@pytest.mark.parametrize(("fault", "meter"), [*FAULTS, (stop_driver, "api"), (kill_agent, "api")])
def test_nothing_calls_the_api_after_the_lease(fault: object, meter: str, tmp_path: Path) -> None:
    """With the meter at the API, the calls go through the gateway of the node."""
    assert callable(fault)
    with calls_taken() as calls, ray_nodes(1) as nodes:
        process = start(nodes, calls, tmp_path, "--meter", meter)
        at_s = time.monotonic()
        fault(nodes, process)
        callers = calls.callers
        until(lambda: not any(map(alive, callers)), LEASE_S + END_S + SLACK_S)
        ended_s = time.monotonic() - at_s
        process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        late = {path: when - at_s for path, when in calls.last.items() if when - at_s > ended_s + 0.2}
        assert late == {} and calls.callers == callers
        if fault is kill_driver:
            process.wait()
            return
        _, stderr = process.communicate(timeout=HUNG_S)
        assert "is lost" in stderr and process.returncode == 1
        report = json.loads((tmp_path / "report.json").read_text())
        assert [one["status"] for one in report["instances"]] == ["failed", "failed"]
        # what was counted stays counted, and is no longer exact
        assert (report["totals"]["total_tokens"] >= 2000 or meter == "api") and not report["totals"]["exact"]


def test_an_instance_of_a_lost_node_is_retried_elsewhere_once_the_lease_has_ended(tmp_path: Path) -> None:
    with calls_taken() as calls, ray_nodes(2) as nodes:
        process = start(nodes, calls, tmp_path, "--retries", "1", instances=1)
        before, at_s = calls.callers, time.monotonic()
        agent = next(pid for pid in agents(nodes) if works_for(before[0], pid))
        os.kill(agent, signal.SIGSTOP)  # it still runs its instances, until the lease ends
        until(lambda: len(calls.last) >= 4, HUNG_S)
        assert time.monotonic() - at_s > LEASE_S
        assert not any(map(alive, before))
        later = [pid for pid in calls.callers if pid not in before]
        assert all(map(alive, later))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HUNG_S)
        assert "is lost" in stderr and "retry 1 of 1" in stderr + (tmp_path / "report.json").read_text()
        assert not any(map(alive, later))


def works_for(pid: int, agent: int) -> bool:
    """Whether an instance runs on the node of this agent: the process that watches the agent's lease has its mark."""
    environ = read(f"/proc/{pid}/environ").split(b"\0")
    (mark,) = [value.partition(b"=")[2] for value in environ if value.startswith(MARK_VARIABLE.encode())]
    words = [line.split(b"\0") for _, line in command_lines()]
    return any(mark.partition(b"/")[0] in line and str(agent).encode() in line for line in words)


def test_a_run_whose_cluster_is_gone_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Ray has a call in progress then that it never answers."""
    with calls_taken() as calls, ray_nodes(1) as nodes:
        process = start(nodes, calls, tmp_path, "--meter", "stream", "--retries", "1", instances=1)
        nodes.stop()
        until(lambda: not any(map(alive, calls.callers)), LEASE_S + END_S + SLACK_S)
        time.sleep(2.0)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HUNG_S)
        assert "is lost" in stderr and process.returncode == 130, stderr
        assert json.loads((tmp_path / "report.json").read_text())["totals"]["exact"] is False


def test_a_node_that_joins_takes_what_waits(tmp_path: Path) -> None:
    with calls_taken() as calls, ray_nodes(1) as nodes:
        process = start(nodes, calls, tmp_path, "--instances-per-node", "1", "--max-parallel", "2", callers=2)
        time.sleep(1.0)
        assert len(calls.last) == 2
        nodes.add()
        until(lambda: len(calls.last) == 4, HUNG_S)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HUNG_S)
        assert not any(map(alive, calls.callers))


def test_resume_takes_a_run_up_after_the_driver_was_killed(tmp_path: Path) -> None:
    with calls_taken() as calls, ray_nodes(1) as nodes:
        process = start(nodes, calls, tmp_path)
        process.kill()
        process.wait()
        killed_s = time.monotonic()
        env = {"FAKE_CLAUDE": "ok", "FAKE_DIR": str(tmp_path)}
        setup = {"instances": [{"name": f"i{n}", "prompt": "x", "env": env} for n in range(2)]}
        (tmp_path / "runs.json").write_text(json.dumps(setup))
        rest = ("--resume", "last", "--cluster", nodes.address, "--quiet", "--report", str(tmp_path / "report.json"))
        own = ["--workspace", str(tmp_path / "work"), "--output-dir", str(tmp_path / "out"), "--claude-bin", str(FAKE)]
        done = subprocess.run(
            [sys.executable, "-m", "claude_orchestrator", *own, *rest],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **nodes.env, "ANTHROPIC_API_KEY": "dummy"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "report.json").read_text())
        assert [one["status"] for one in report["instances"]] == ["completed", "completed"]
        assert time.monotonic() - killed_s > LEASE_S + END_S  # no two processes may use one session
        assert report["totals"]["total_tokens"] > 2000  # with what the first driver had counted
