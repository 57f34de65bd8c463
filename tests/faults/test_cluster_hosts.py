"""The real CLI on machines of a cluster that fail: the API's ledger shows what each of them still asked for.

Those that are marked `hosts` run by hand: CLAUDE_BIN=PATH python -m pytest -m hosts -n 0
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.launch.cluster.launcher import NO_NODE_S
from claude_orchestrator.launch.cluster.leases import END_S, RENEWALS
from tests.faults.test_cluster import until
from tests.hosts import HostCluster, can_have_hosts, host_cluster
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY, RayNodes
from tests.repositories import sh
from tests.stand_in import Call, StandIn, Text, Tools, claude_env

pytestmark = [
    WITH_RAY,
    pytest.mark.real_cli,
    pytest.mark.processes,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not can_have_hosts(), reason="network namespaces need root, and ip of iproute2"),
]
GATE, BY_HAND = pytest.mark.slow, pytest.mark.hosts
LEASE_S = 5.0
SLACK_S = 1.0  # of a busy machine
STEPS = 12
NAMES = ("alpha", "bravo")
# a tool that outlives its call and fetches a page all the time; the guard ends it with its instance
STRAY = (
    'setsid bash -c \'while :; do exec 3<>/dev/tcp/$AT; printf "GET /tool HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3; '
    "sleep 0.1; done' > /dev/null 2>&1 &"
)


def steps_of(name: str, count: int = STEPS, last_s: float = 0.3) -> list[Text | Tools]:
    """An instance that takes steps, each of which it writes down. It waits for `$GO` before it sleeps in its third."""
    lasting = [*[0.3] * (count - 1), last_s]
    note = f">> steps.{name}; date +%s >> times"
    waits = {2: "until [ -e $GO ]; do sleep 0.1; done; "}
    texts = [
        f"{'' if n else STRAY} echo {n} {note}; {waits.get(n, '')}sleep {lasts_s}" for n, lasts_s in enumerate(lasting)
    ]
    return [*(Tools((Call.bash(text),)) for text in texts), Text("All done.")]


SCRIPT = {
    **{f"work {name}": steps_of(name) for name in (*NAMES, "delta")},
    "work long": steps_of("long", 3, last_s=300),
    "work brief": steps_of("brief", 3, last_s=10),
    "work slow": steps_of("slow", 3, last_s=20),
    "work late": steps_of("late", 3, last_s=25),
}
RAY_ENDS_S = 75.0  # Ray's processes look for their head for a minute


class Trial:
    """A run of the real CLI on a cluster of hosts. The nodes share a workspace and a home."""

    def __init__(self, cluster: HostCluster, claude: str, root: Path) -> None:
        self.cluster, self.hosts, self.root = cluster, cluster.hosts, root
        self.workspace = root / "work"
        self.workspace.mkdir()
        self.api = StandIn(SCRIPT, host=self.hosts.at_api(1))
        self._claude = claude
        self._process: subprocess.Popen[bytes] | None = None

    # -- the driver --

    def start(
        self, *args: str, budget: int = 0, names: tuple[str, ...] = NAMES, lease: str = "", host: int = 1
    ) -> None:
        """Start a run, and wait until its first two instances have taken two steps, each on its node."""
        go = self.root / "go"  # or the first would be done before the second has begun
        env = {"AT": self.api.url.removeprefix("http://").replace(":", "/"), "GO": str(go)}
        own = {"permission_mode": "bypassPermissions", "env": env}
        setup: dict[str, Any] = {"instances": [{"name": name, "prompt": f"work {name}", **own} for name in names]}
        if budget:
            setup["budget"] = {"overall_budget": budget}
        (self.root / "runs.json").write_text(json.dumps(setup))
        self.drive("--config", str(self.root / "runs.json"), *args, lease=lease, host=host)
        until(lambda: self.ended or all(self.asked(name) > 2 for name in names[:2]), HUNG_S)
        go.touch()
        if self.ended:
            pytest.fail(f"the run has ended: {self.said}")
        assert all(self.calls(host) and self.visits(host) for host in (2, 3))

    def asked(self, name: str) -> int:
        """How many requests an instance has sent."""
        with self.api.lock:
            return sum(call.marker == f"work {name}" for call in self.api.entries)

    def drive(self, *args: str, nodes: RayNodes | None = None, lease: str = "", host: int = 1) -> None:
        """Start the program on the first machine, with its own cluster or another; or on a node."""
        nodes = nodes or self.cluster.nodes
        own = ["--workspace", str(self.workspace), "--output-dir", str(self.root / "out"), "--claude-bin", self._claude]
        rest = ["--report", str(self.root / "report.json"), "--ledger", "off", "--cluster", nodes.address]
        rest += ["--lease", lease or f"{LEASE_S:g}s"]
        inside = nodes.inside if host == 1 else self.cluster.beside_ray(host)
        argv = [*inside, sys.executable, "-m", "claude_orchestrator", *own, *rest, *args]
        env = {**claude_env(self.cluster.home, self.api.url), **nodes.env}
        with (self.root / "stderr").open("w") as said:
            self._process = subprocess.Popen(argv, env=env, cwd=self.root, stdout=subprocess.DEVNULL, stderr=said)

    @property
    def driver(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def ended(self) -> bool:
        return self.driver.poll() is not None

    def end(self, limit_s: float = HUNG_S) -> tuple[int, str]:
        """Wait for the end of the run; returns its exit code, and what it said."""
        return self.driver.wait(limit_s), self.said

    @property
    def said(self) -> str:
        """What the driver has said so far."""
        return (self.root / "stderr").read_text()

    def close(self) -> None:
        if self._process is not None and not self.ended:
            self.driver.kill()
            self.driver.wait()

    # -- the judges --

    def calls(self, host: int) -> list[float]:
        """When a node has asked the API for something."""
        with self.api.lock:
            return [call.at for call in self.api.entries if call.caller == self.hosts.at_api(host)]

    def visits(self, host: int) -> list[float]:
        """When a tool on a node has fetched its page."""
        return [at_s for caller, at_s in list(self.api.visits) if caller == self.hosts.at_api(host)]

    def dies(self, host: int, fault: Callable[[], object]) -> float:
        """Everything of the run on a node is dead within the lease and 2 s of a fault; returns when that was.

        Nothing is heard of it until its instances may be started again.
        """
        assert self.hosts.at_work(host)
        fault()
        at_s = time.monotonic()
        until(lambda: not self.hosts.at_work(host), LEASE_S + END_S + SLACK_S)
        ended_s = time.monotonic()
        fenced_s = at_s + LEASE_S * (1 - 1 / RENEWALS) + END_S
        time.sleep(max(0.5, fenced_s - time.monotonic()))
        late = [t - at_s for t in (*self.calls(host), *self.visits(host)) if ended_s < t < max(fenced_s, ended_s + 0.5)]
        assert late == []
        return ended_s

    def steps(self, name: str) -> list[int]:
        path = self.workspace / f"steps.{name}"
        return [int(step) for step in path.read_text().split()] if path.exists() else []

    def off_h(self) -> set[int]:
        """By how many hours the clocks were wrong that the steps have seen."""
        times = (self.workspace / "times").read_text().split()
        return {round((int(at) - time.time()) / 3600) for at in times}

    def works_once(self, *interrupted: str) -> None:
        """Each step ran once. If claude was killed during a step, the session continued after it."""
        for name in NAMES:
            taken = self.steps(name)
            assert taken == sorted(set(taken)) and taken[-1] == STEPS - 1, (name, taken)
            assert len(taken) >= STEPS - (name in interrupted), (name, taken)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "report.json").read_text())
        return found

    def states(self) -> list[str]:
        return [instance["status"] for instance in self.report()["instances"]]

    def counted(self) -> tuple[int, bool]:
        """How many tokens the report has, and whether it says that this is exact."""
        totals = self.report()["totals"]
        return totals["total_tokens"], totals["exact"]

    def is_exact(self) -> None:
        """The report has what the API has billed."""
        assert self.counted() == (self.api.billed().total_tokens, True)

    def is_below(self) -> None:
        """The report counts no more than the API billed, and marks the count inexact."""
        tokens, exact = self.counted()
        assert not exact and tokens <= self.api.billed().total_tokens


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    """A head and two nodes, which share a home. All tests use them, one after the other."""
    with host_cluster(2, tmp_path_factory.mktemp("home")) as cluster:
        yield cluster


@pytest.fixture
def run(hosts: HostCluster, claude: str, tmp_path: Path) -> Iterator[Trial]:
    hosts.restore()
    trial = Trial(hosts, claude, tmp_path)
    with trial.api:
        try:
            yield trial
        finally:
            trial.close()


METERS = [
    pytest.param(("--meter", "api"), 0, marks=GATE),
    pytest.param(("--meter", "stream"), 0, marks=BY_HAND),
    pytest.param(("--meter", "api", "--budget-enforcement-mode", "block"), 10_000_000, marks=BY_HAND),
]


@pytest.mark.parametrize(("meter", "budget"), METERS, ids=["api", "stream", "api with a budget"])
def test_a_node_whose_cable_is_pulled_asks_for_nothing_after_its_lease(
    run: Trial, meter: tuple[str, ...], budget: int
) -> None:
    run.start("--retries", "1", *meter, budget=budget)
    run.dies(2, lambda: run.hosts.pull(2))
    run.hosts.plug_in(2)
    assert not run.hosts.at_work(2)
    code, stderr = run.end()
    assert code == 0 and stderr.count("the node node2 is lost") == 1, stderr
    assert run.states() == ["completed", "completed"]
    run.works_once(*NAMES)
    if budget:  # what was on its way counts with all that it can cost
        tokens, exact = run.counted()
        assert not exact and tokens >= run.api.billed().total_tokens
    else:
        run.is_below()


@BY_HAND
def test_a_cable_that_is_pulled_for_less_than_the_lease_stops_nothing(run: Trial) -> None:
    run.start(lease="8s")
    run.hosts.pull(2)
    time.sleep(3.0)
    run.hosts.plug_in(2)
    code, stderr = run.end()
    assert code == 0 and "is lost" not in stderr, stderr
    run.works_once()
    run.is_exact()


@BY_HAND
@pytest.mark.parametrize("meter", ["api", "stream"])
def test_with_three_of_ten_packets_lost_the_run_succeeds_and_counts_exactly(run: Trial, meter: str) -> None:
    run.start("--meter", meter, lease="30s")  # one of 10 s ends now and then, with so many lost
    with run.hosts.loss(2, 3):
        code, stderr = run.end()
    assert code == 0 and run.states() == ["completed", "completed"], stderr
    run.works_once()
    run.is_exact()


def kill_agent(run: Trial) -> None:
    (agent,) = run.cluster.agents(2)
    os.kill(agent, signal.SIGKILL)


def kill_raylet(run: Trial) -> None:
    os.kill(run.cluster.raylets[2], signal.SIGKILL)


def power_off(run: Trial) -> None:
    run.hosts.power_off(2)


def kill_all(run: Trial) -> None:
    run.hosts.kill_all(2)


@BY_HAND
@pytest.mark.parametrize("fault", [kill_agent, kill_raylet, kill_all, power_off])
def test_what_a_lost_node_was_at_continues_elsewhere(run: Trial, fault: Callable[[Trial], None]) -> None:
    run.start("--retries", "1")
    run.dies(2, lambda: fault(run))
    code, stderr = run.end()
    assert code == 0 and stderr.count("the node node2 is lost") == 1, stderr
    assert run.states() == ["completed", "completed"]
    run.works_once(*NAMES)
    run.is_below()


@BY_HAND
def test_without_retries_the_instances_of_a_lost_node_fail_and_the_others_complete(run: Trial) -> None:
    run.start()
    run.dies(2, lambda: power_off(run))
    code, stderr = run.end()
    assert code == 1 and sorted(run.states()) == ["completed", "failed"], stderr
    assert "the node node2 was lost" in stderr
    run.is_below()


def on_the_same_cluster(run: Trial) -> contextlib.AbstractContextManager[RayNodes]:
    return contextlib.nullcontext(run.cluster.nodes)


@contextlib.contextmanager
def on_another_cluster(run: Trial) -> Iterator[RayNodes]:
    """It has the same first machine, and its node is on the third."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        nodes = RayNodes(folder, run.hosts.address(1), run.hosts.inside(1))
        try:
            nodes.start_head()
            own = {"HOME": str(run.cluster.home), "IS_SANDBOX": "1"}
            nodes.add(host=run.hosts.address(3), inside=run.hosts.inside(3), env=own)
            yield nodes
        finally:
            nodes.stop()


@pytest.mark.parametrize(
    "where", [pytest.param(on_the_same_cluster, marks=BY_HAND), pytest.param(on_another_cluster, marks=BY_HAND)]
)
def test_a_run_whose_driver_was_killed_is_resumed(
    run: Trial, where: Callable[[Trial], contextlib.AbstractContextManager[RayNodes]]
) -> None:
    run.start()
    assert run.hosts.at_work(3)
    run.dies(2, run.driver.kill)
    assert not run.hosts.at_work(3)
    with where(run) as nodes:
        run.drive("--resume", "last", nodes=nodes)
        code, stderr = run.end()
    assert code == 0 and run.states() == ["completed", "completed"], stderr
    run.works_once(*NAMES)
    run.is_below()


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The library that moves the clock of programs, by the seconds in a file beside it."""
    if shutil.which("cc") is None:
        pytest.skip("a wrong clock needs a C compiler")
    source = Path(__file__).parent.parent / "data" / "wrong_clock.c"
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


@BY_HAND
def test_a_clock_that_jumps_by_hours_changes_nothing(run: Trial, clock: Path) -> None:
    """That of everything on the node: of Ray, of its agent, of claude and of its tools."""
    offset = clock.with_name("offset")
    offset.write_bytes(struct.pack("=q", 0))
    run.cluster.leave(2)
    run.cluster.add(2, {"LD_PRELOAD": str(clock), "WRONG_CLOCK": str(offset)})
    try:
        run.start("--instances-per-node", "1")
        for hours in (5, -7):
            with offset.open("r+b") as file:
                file.write(struct.pack("=q", hours * 3600))
            until(lambda: hours in run.off_h() or run.ended, HUNG_S)  # noqa: B023
        code, stderr = run.end()
    finally:
        run.cluster.leave(2)
    assert code == 0 and "is lost" not in stderr, stderr
    run.works_once()
    run.is_exact()
    assert run.off_h() == {0, 5, -7}


@BY_HAND
def test_a_node_whose_disk_is_full_brings_back_its_work_and_gets_no_more(run: Trial) -> None:
    """Its disk has everything of it: what Ray writes, the home of claude, and the copy that claude works in."""
    sh(run.workspace, "git init -q -b main; echo one > a; git add .; git commit -qm first")
    run.cluster.leave(2)
    run.cluster.add(2, {"HOME": f"{run.cluster.disk}/home"})
    try:
        run.start("--cluster-workspace", "ship", "--instances-per-node", "1", names=(*NAMES, "delta"), lease="4s")
        with contextlib.suppress(OSError), run.cluster.on_disk(2, "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 20))
        code, stderr = run.end()
    finally:
        run.cluster.leave(2)
    assert code == 0 and run.states() == ["completed"] * 3, stderr
    assert stderr.count("the node node2 has 0 MiB of disk left: it gets no more instances until it has 200") == 1, (
        stderr
    )
    of_full = {call.marker for call in run.api.entries if call.caller == run.hosts.at_api(2)}
    assert len(of_full) == 1 and "work delta" not in of_full
    for instance in run.report()["instances"]:
        taken = Path(instance["changes"]["path"], f"steps.{instance['name']}").read_text().split()
        whole = [str(step) for step in range(STEPS)]
        assert taken[:2] == whole[:2] and (taken == whole or f"work {instance['name']}" in of_full)
    run.is_exact()


@BY_HAND
def test_a_head_that_is_gone_is_reported_and_nothing_starts_any_more(run: Trial) -> None:
    """What completes before Ray ends the nodes has completed. The rest fails, and can be resumed elsewhere."""
    run.start("--max-parallel", "2", names=("long", "brief", "alpha"))
    run.cluster.kill_head()
    until(lambda: "the head of the cluster does not answer: nothing starts until it does" in run.said, 10.0)
    until(lambda: "brief: completed" in run.said, HUNG_S)
    until(lambda: not run.hosts.at_work(2) and not run.hosts.at_work(3), RAY_ENDS_S + LEASE_S + END_S)
    ended_s = time.monotonic()
    code, stderr = run.end()
    assert code == 1 and run.states() == ["failed", "completed", "failed"], stderr
    assert "no node of the cluster is left, and its head does not answer" in stderr
    assert not any(call.marker == "work alpha" for call in run.api.entries)
    assert all(at_s < ended_s for host in (2, 3) for at_s in (*run.calls(host), *run.visits(host)))
    run.is_below()


@BY_HAND
def test_a_head_whose_machine_is_off_is_reported_and_the_run_continues_on_another_cluster(run: Trial) -> None:
    """The driver is on a node. Ray ends the nodes after half a minute or some minutes: what runs may complete."""
    run.start("--max-parallel", "2", names=("slow", "late", "alpha"), host=2)
    with run.hosts.first_is_off():
        until(lambda: "the head of the cluster does not answer: nothing starts until it does" in run.said, 10.0)
        code, stderr = run.end(NO_NODE_S + HUNG_S)
        ended_s = time.monotonic()
        *ran, waited = run.states()
        assert code == 1 and set(ran) <= {"completed", "failed"} and waited == "failed", stderr
        assert "and its head does not answer: instances that have not started fail" in stderr
        assert not run.hosts.at_work(2) and not run.hosts.at_work(3)
        assert not any(call.marker == "work alpha" for call in run.api.entries)
        run.is_below() if "failed" in ran else run.is_exact()
    with on_another_cluster(run) as nodes:
        assert all(at_s < ended_s for host in (2, 3) for at_s in (*run.calls(host), *run.visits(host)))
        run.drive("--resume", "last", nodes=nodes)
        code, stderr = run.end()
    assert code == 0 and run.states() == ["completed"] * 3, stderr
