"""Machines of a cluster, as network namespaces: each has its own cables, its own disk and its own processes.

The first machine has the head of Ray and the driver. The others are nodes. All of them hang on one switch, which is in
the first machine. Each node has a second cable, which leads to the API.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from claude_orchestrator.launch.processes import MARK_VARIABLE
from tests.harness import alive
from tests.ray_nodes import RayNodes, command_lines

DISK_BYTES = 400 * 1024 * 1024


def can_have_hosts() -> bool:
    """Whether this system allows what they need."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """A first machine, and so many nodes, which are numbered from 2 on."""

    def __init__(self, count: int) -> None:
        self._number = os.getpid() % 10_000
        self._block = self._number % 250
        self.numbers = tuple(range(1, count + 2))

    def name(self, host: int) -> str:
        return f"h{self._number}n{host}"

    def address(self, host: int) -> str:
        """Where the other machines reach it."""
        return f"10.77.{self._block}.{host}"

    def at_api(self, host: int) -> str:
        """Its address at the API, which is host 1 there."""
        return f"10.78.{self._block}.{host}"

    def inside(self, host: int, *, disk: str = "") -> tuple[str, ...]:
        """Return what runs a command there, with the host's own name, and its own disk at a folder that exists."""
        words = ("ip", "netns", "exec", self.name(host))
        if not disk:
            return words
        own = f"hostname node{host} && mount -t tmpfs -o size={DISK_BYTES} none {disk} && mkdir {disk}/home {disk}/tmp"
        return (*words, "unshare", "--uts", "sh", "-c", f'{own} && exec "$@"', "sh")

    def make(self) -> None:
        """Build all of them."""
        switch, first = f"s{self._number}", self.name(1)
        ip("link", "add", f"a{self._number}", "type", "bridge")
        ip("addr", "add", f"{self.at_api(1)}/24", "dev", f"a{self._number}")
        ip("link", "set", f"a{self._number}", "up")
        for host in self.numbers:
            ip("netns", "add", self.name(host))
            ip("-n", self.name(host), "link", "set", "lo", "up")
        ip("-n", first, "link", "add", switch, "type", "bridge")
        ip("-n", first, "addr", "add", f"{self.address(1)}/24", "dev", switch)
        ip("-n", first, "link", "set", switch, "up")
        for host in self.numbers[1:]:
            own, cable, other = self.name(host), self._cable(host), f"o{self._number}n{host}"
            ip("link", "add", cable, "netns", first, "type", "veth", "peer", "lan", "netns", own)
            ip("link", "add", other, "type", "veth", "peer", "api", "netns", own)
            ip("-n", first, "link", "set", cable, "master", switch, "up")
            ip("link", "set", other, "master", f"a{self._number}", "up")
            for link, address in (("lan", self.address(host)), ("api", self.at_api(host))):
                ip("-n", own, "addr", "add", f"{address}/24", "dev", link)
                ip("-n", own, "link", "set", link, "up")

    def _cable(self, host: int) -> str:
        return f"c{self._number}n{host}"

    def pull(self, host: int) -> None:
        """Pull the cable of a node to the other machines. The API is still there."""
        ip("-n", self.name(1), "link", "set", self._cable(host), "down")

    def plug_in(self, host: int) -> None:
        ip("-n", self.name(1), "link", "set", self._cable(host), "up")

    @contextlib.contextmanager
    def loss(self, host: int, of_ten: int) -> Iterator[None]:
        """So many of ten packets on this cable are lost, both ways."""
        rules = (
            "add table inet loss",
            "add chain inet loss in { type filter hook input priority 0; }",
            "add chain inet loss out { type filter hook output priority 0; }",
            f"add rule inet loss in iifname lan numgen random mod 10 < {of_ten} drop",
            f"add rule inet loss out oifname lan numgen random mod 10 < {of_ten} drop",
        )
        subprocess.run([*self.inside(host), "nft", "; ".join(rules)], check=True)
        yield
        subprocess.run([*self.inside(host), "nft", "delete table inet loss"], check=True)

    def processes(self, host: int) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name(host)).split()]

    def power_off(self, host: int) -> None:
        """All of its processes are gone at once, and nobody hears of it."""
        ip("-n", self.name(host), "link", "set", "lan", "down")
        ip("-n", self.name(host), "link", "set", "api", "down")
        self.kill_all(host)
        ip("-n", self.name(host), "link", "set", "lan", "up")
        ip("-n", self.name(host), "link", "set", "api", "up")

    @contextlib.contextmanager
    def first_is_off(self) -> Iterator[None]:
        """The same of the first machine, until the end of this context. Its switch still connects the others."""
        link = (f"{self.address(1)}/24", "dev", f"s{self._number}")
        ip("-n", self.name(1), "addr", "del", *link)
        self.kill_all(1)
        yield
        ip("-n", self.name(1), "addr", "add", *link)

    def kill_all(self, host: int) -> None:
        for pid in self.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def at_work(self, host: int) -> dict[int, bytes]:
        """What runs there for a run: everything that has its mark, which instances and their tools inherit."""
        found = {}
        for pid in self.processes(host):
            with contextlib.suppress(OSError):
                if MARK_VARIABLE.encode() in Path(f"/proc/{pid}/environ").read_bytes() and alive(pid):
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        return found

    def remove(self) -> None:
        """End what is left there, and take them away."""
        for host in self.numbers:
            self.kill_all(host)
            subprocess.run(["ip", "netns", "del", self.name(host)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", f"a{self._number}"], check=False, capture_output=True)


class HostCluster:
    """A cluster of Ray on hosts. Each node has a disk of its own, for Ray and temporary files. They share a home."""

    def __init__(self, hosts: Hosts, folder: str, home: Path) -> None:
        self.hosts = hosts
        self.home = home
        self.disk = str(Path(folder, "disk"))
        Path(self.disk).mkdir()
        self.raylets: dict[int, int] = {}
        self._env = {"IS_SANDBOX": "1", "TMPDIR": f"{self.disk}/tmp", "HOME": str(home)}

    def start(self) -> None:
        """Start the head, and Ray on each node."""
        self.nodes = RayNodes(self.disk, self.hosts.address(1), self.hosts.inside(1))
        self.nodes.start_head()
        for host in self.hosts.numbers[1:]:
            self.add(host)

    def kill_head(self) -> None:
        """The process that knows the cluster is gone. Ray's process on the first machine stays."""
        for pid in self._head():
            os.kill(pid, signal.SIGKILL)

    def _head(self) -> list[int]:
        own = set(self.hosts.processes(1))
        return [pid for pid, line in command_lines() if pid in own and b"/gcs_server" in line.split(b"\0")[0]]

    def add(self, host: int, env: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start Ray on a node. `env` is added to what its processes have."""
        inside = self.hosts.inside(host, disk=self.disk)
        own = {**self._env, **env}
        self.raylets[host] = self.nodes.add(host=self.hosts.address(host), inside=inside, env=own)

    def leave(self, host: int) -> None:
        """End Ray there, so that the head knows at once."""
        os.kill(self.raylets[host], signal.SIGTERM)
        while alive(self.raylets[host]):
            time.sleep(0.02)
        self.hosts.kill_all(host)

    def restore(self) -> None:
        """Start Ray again where it has ended."""
        if not self._head():
            for host in self.hosts.numbers:
                self.hosts.kill_all(host)
            self.start()
        for host, raylet in self.raylets.items():
            if not alive(raylet):
                self.hosts.kill_all(host)
                self.add(host)

    def beside_ray(self, host: int) -> tuple[str, ...]:
        """Return what runs a command on a node, with the disk that its Ray has."""
        return ("nsenter", "--target", str(self.raylets[host]), "--net", "--mount", "--uts")

    def on_disk(self, host: int, *parts: str) -> Path:
        """A path on the disk of a node, seen from outside."""
        return Path(f"/proc/{self.raylets[host]}/root", self.disk.lstrip("/"), *parts)

    def agents(self, host: int) -> list[int]:
        """The agents of runs there."""
        own, titles = set(self.hosts.processes(host)), (b"ray::NodeAgent", b"ray::MeteredAgent")
        return [pid for pid, line in command_lines() if pid in own and line.startswith(titles)]


@contextlib.contextmanager
def host_cluster(count: int, home: Path) -> Iterator[HostCluster]:
    """Hosts with a head, and Ray on each node."""
    hosts, folder = Hosts(count), tempfile.mkdtemp(prefix="h-")  # with a short name, for Ray's sockets
    try:
        hosts.make()
        cluster = HostCluster(hosts, folder, home)
        cluster.start()
        yield cluster
    finally:
        hosts.remove()
        shutil.rmtree(folder, ignore_errors=True)
