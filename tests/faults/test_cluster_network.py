"""Two machines of a cluster, as network namespaces: the cable between them is pulled, and put back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_orchestrator.launch.cluster.leases import DRIFT, END_S
from tests.faults.test_cluster import LEASE_S, SLACK_S, calls_taken, start, until
from tests.harness import alive
from tests.ray_nodes import WITH_RAY, RayNodes


def can_have_namespaces() -> bool:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


pytestmark = [
    WITH_RAY,
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(not can_have_namespaces(), reason="network namespaces need root, and ip of iproute2"),
]


@dataclass
class Machines:
    """A first machine for the head and the driver, and a second one that reaches the API by another cable."""

    number: int

    @property
    def names(self) -> tuple[str, str]:
        return f"first{self.number}", f"second{self.number}"

    def host(self, last: int) -> str:
        """An address of the cable between the two (1, 2), or of that to the API (3, 4)."""
        return f"10.{77 if last < 3 else 78}.{self.number % 250}.{last}"

    def inside(self, name: str) -> tuple[str, ...]:
        return "ip", "netns", "exec", name

    def run(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def make(self) -> None:
        first, second = self.names
        cable, other = f"c{self.number}", f"o{self.number}"
        for name in (first, second):
            self.run("netns", "add", name)
            self.run("-n", name, "link", "set", "lo", "up")
        self.run("link", "add", f"{cable}a", "netns", first, "type", "veth", "peer", f"{cable}b", "netns", second)
        self.run("link", "add", f"{other}a", "type", "veth", "peer", f"{other}b", "netns", second)
        for name, link, last in ((first, f"{cable}a", 1), (second, f"{cable}b", 2), (second, f"{other}b", 4)):
            self.run("-n", name, "addr", "add", f"{self.host(last)}/24", "dev", link)
            self.run("-n", name, "link", "set", link, "up")
        self.run("addr", "add", f"{self.host(3)}/24", "dev", f"{other}a")
        self.run("link", "set", f"{other}a", "up")

    def pull(self) -> None:
        """Pull the cable between the two machines."""
        self.run("-n", self.names[0], "link", "set", f"c{self.number}a", "down")

    def put_back(self) -> None:
        self.run("-n", self.names[0], "link", "set", f"c{self.number}a", "up")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", f"o{self.number}a"], check=False, capture_output=True)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machines, RayNodes]]:
    machines = Machines(os.getpid() % 10_000)
    folder = tempfile.mkdtemp(prefix="ray-")
    first, second = machines.names
    nodes = RayNodes(folder, machines.host(1), machines.inside(first))
    try:
        machines.make()
        nodes.start_head()
        nodes.add(host=machines.host(2), inside=machines.inside(second))
        yield machines, nodes
    finally:
        nodes.stop()
        machines.remove()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_node_that_is_cut_off_has_nothing_running_and_works_again_when_it_is_back(tmp_path: Path) -> None:
    with two_machines() as (machines, nodes), calls_taken(machines.host(3)) as calls:
        process = start(nodes, calls, tmp_path, "--meter", "stream", "--retries", "3", instances=1)
        before = calls.callers
        machines.pull()
        at_s = time.monotonic()
        until(lambda: not any(map(alive, before)), LEASE_S + END_S + SLACK_S)
        ended_s = time.monotonic()
        time.sleep(1.0)
        assert all(when <= ended_s + 0.2 for when in calls.last.values()) and calls.callers == before
        machines.put_back()
        until(lambda: len(calls.callers) > len(before), 60.0)
        # the fence: nothing was started again before the lease must have ended
        first_new = min(when for path, when in calls.last.items() if int(path.rpartition("/")[2]) not in before)
        assert first_new - at_s > LEASE_S * (1 - 1 / 5) + END_S - DRIFT
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert "is lost" in stderr and not any(map(alive, calls.callers))


def test_a_cable_that_is_pulled_for_less_than_the_lease_stops_nothing(tmp_path: Path) -> None:
    with two_machines() as (machines, nodes), calls_taken(machines.host(3)) as calls:
        process = start(nodes, calls, tmp_path, "--meter", "stream", "--lease", "12s", instances=1)
        before = calls.callers
        machines.pull()
        time.sleep(4.0)
        machines.put_back()
        time.sleep(12.0)
        assert all(map(alive, before)) and calls.callers == before
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert "is lost" not in stderr and not any(map(alive, before))


def has_loss() -> bool:
    """Whether this kernel and nft can drop packets at random."""
    return shutil.which("nft") is not None and os.geteuid() == 0


@pytest.mark.skipif(not has_loss(), reason="random loss needs root and nft")
def test_with_three_of_ten_packets_lost_no_instance_runs_twice(tmp_path: Path) -> None:
    """The lease may end then. Whatever happens, nothing of an earlier attempt is left when the next one begins."""
    with two_machines() as (machines, nodes), calls_taken(machines.host(3)) as calls:
        process = start(nodes, calls, tmp_path, "--meter", "stream", "--retries", "9", instances=1)
        rules = (
            "add table inet loss",
            "add chain inet loss in { type filter hook input priority 0; }",
            "add chain inet loss out { type filter hook output priority 0; }",
            f"add rule inet loss in iifname c{machines.number}a numgen random mod 10 < 3 drop",
            f"add rule inet loss out oifname c{machines.number}a numgen random mod 10 < 3 drop",
        )
        inside = [*machines.inside(machines.names[0]), "nft", "; ".join(rules)]
        subprocess.run(inside, check=True)
        deadline, most = time.monotonic() + 30.0, 0
        while time.monotonic() < deadline:
            living = [pid for pid in calls.callers if alive(pid)]
            most = max(most, len(living))
            time.sleep(0.02)
        assert most == 2  # one claude and its tool
        subprocess.run([*machines.inside(machines.names[0]), "nft", "delete table inet loss"], check=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        until(lambda: not any(map(alive, calls.callers)), LEASE_S + END_S + SLACK_S)
