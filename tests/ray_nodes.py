"""A cluster of Ray on this machine: a head without instances, and nodes with two cores each."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.limits import HUNG_S

STORE_BYTES = 80 * 1024 * 1024
HAS_RAY = importlib.util.find_spec("ray") is not None
if os.environ.get("REQUIRE_RAY") and not HAS_RAY:
    raise RuntimeError("REQUIRE_RAY is set, and Ray is not installed")
WITH_RAY = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")


class RayNodes:
    """A cluster that `ray start` starts; its own processes are found by its folder, and no other is touched."""

    def __init__(self, folder: str, host: str = "127.0.0.1", inside: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.inside = inside  # what runs a command where the head and the driver are
        self.workers: list[int] = []  # the raylets of the nodes for instances
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"{host}:{free.getsockname()[1]}"
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}

    def start_head(self) -> None:
        """Start the head, which has no cores for instances."""
        port = self.address.rpartition(":")[2]
        where: tuple[str, ...] = (f"--port={port}", f"--temp-dir={self.folder}")
        where = (*where, f"--node-ip-address={self.address.rpartition(':')[0]}")
        self._start(self.inside, "--head", *where, "--num-cpus=0", "--include-dashboard=false")

    def add(
        self,
        *options: str,
        host: str = "127.0.0.1",
        inside: tuple[str, ...] = (),
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """Add a node; returns the process id of its raylet. `env` is added to what its processes have."""
        before = set(self.raylets())
        where = (f"--address={self.address}", f"--node-ip-address={host}")
        self._start(inside, *where, "--num-cpus=2", *options, env=env)
        (raylet,) = set(self.raylets()) - before
        self.workers.append(raylet)
        return raylet

    def _start(self, inside: tuple[str, ...], *options: str, env: Mapping[str, str] = MappingProxyType({})) -> None:
        program = [*inside, sys.executable, "-m", "ray.scripts.scripts", "start"]
        subprocess.run(
            [*program, f"--object-store-memory={STORE_BYTES}", "--num-gpus=0", *options],
            env={**os.environ, "XDG_STATE_HOME": f"{self.folder}/state", **self.env, **env},
            stdout=subprocess.DEVNULL,
            timeout=HUNG_S,
            check=True,
        )

    def raylets(self) -> list[int]:
        """The raylets of the cluster."""
        return self.running("raylet/raylet")

    def running(self, program: str) -> list[int]:
        """The processes of the cluster that run a program of Ray."""
        return [pid for pid, line in self._processes() if f"/{program}".encode() in line.split(b"\0")[0]]

    def _processes(self) -> list[tuple[int, bytes]]:
        lines = [(pid, line) for pid, line in command_lines() if self.folder.encode() in line]
        return [(pid, line) for pid, line in lines if pid != os.getpid()]

    def stop(self) -> None:
        """End all processes of the cluster; workers end with their raylet."""
        for pid, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def ray_nodes(count: int, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[RayNodes]:
    """Start a cluster with so many nodes for instances; it ends with the context. `env` is added to all of it."""
    folder = tempfile.mkdtemp(prefix="ray-")  # with a short name, for its sockets
    nodes = RayNodes(folder)
    nodes.env.update(env)
    try:
        nodes.start_head()
        for _ in range(count):
            nodes.add()
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def command_lines() -> list[tuple[int, bytes]]:
    """All processes with their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append((int(path.parent.name), path.read_bytes()))
    return found
