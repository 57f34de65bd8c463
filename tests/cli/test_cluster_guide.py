"""The guide for two machines, word for word: its commands come from the page, and run in two network namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import FAKE, ROOT
from tests.hosts import Hosts, can_have_hosts, ip
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY

pytestmark = [
    WITH_RAY,
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not can_have_hosts(), reason="network namespaces need root, and ip of iproute2"),
]


def commands() -> list[tuple[str, str]]:
    """The machine and the text of each command in the guide."""
    section = (ROOT / "docs" / "cluster.md").read_text().partition("## Two machines\n")[2].partition("\n## ")[0]
    return re.findall(r"^(first|second)\$ (.+)$", section, re.MULTILINE)


class Shells:
    """A shell for each machine, with a home and a folder of Ray of its own. What it exports stays."""

    def __init__(self, hosts: Hosts, folder: Path, own: dict[str, str]) -> None:
        self._hosts = hosts
        self._own = own
        self._exported: dict[str, list[str]] = {"first": [], "second": []}
        self.homes = {name: folder / name for name in self._exported}
        for home in self.homes.values():
            (home / ".ray").mkdir(parents=True)

    def run(self, machine: str, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        home, exported = str(self.homes[machine]), self._exported[machine]
        if command.startswith("export "):
            exported.append(command)
        inside = self._hosts.inside(1 + (machine == "second"))
        return subprocess.run(
            [*inside, "sh", "-c", "\n".join([*exported, command])],
            env={**self._own, "HOME": home, "RAY_TMPDIR": home},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )


@contextlib.contextmanager
def two_machines() -> Iterator[Hosts]:
    """Two machines that reach each other. Ray finds its own address by the default route."""
    hosts = Hosts(1)
    try:
        hosts.make()
        for host, other in ((1, 2), (2, 1)):
            ip("-n", hosts.name(host), "route", "add", "default", "via", hosts.address(other))
        yield hosts
    finally:
        hosts.remove()


def test_the_guide_for_two_machines_word_for_word() -> None:
    folder = Path(tempfile.mkdtemp(prefix="g-"))  # with a short name, for Ray's sockets
    work = folder / "work"
    work.mkdir()
    (folder / "claude").write_text(f'#!/bin/sh\nexec {FAKE} "$@"\n')
    (folder / "claude").chmod(0o755)
    env = {"FAKE_CLAUDE": "ok", "FAKE_DIR": str(folder)}
    (work / "runs.json").write_text(json.dumps({"instances": [{"name": "one", "prompt": "x", "env": env}]}))
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "ANTHROPIC_API_KEY": "dummy", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        with two_machines() as hosts:
            shells = Shells(hosts, folder, own)
            for machine, command in commands():
                done = shells.run(machine, command.replace("FIRST", hosts.address(1)), work)
                assert done.returncode == 0, (machine, command, done.stdout, done.stderr)
                if "get-auth-token" in command:
                    shutil.copy(shells.homes["first"] / ".ray" / "auth_token", shells.homes["second"] / ".ray")
            assert "one: completed" in done.stderr and done.stderr.count("Ray does not encrypt") == 1
            shown = shells.run("first", f"{command} --dry-run", work)
            assert "Cluster: 1 node for " in shown.stdout, shown.stderr
            (shells.homes["second"] / ".ray" / "auth_token").write_text("not the token of this cluster, but a long one")
            refused = shells.run("second", f"ray start --address={hosts.address(1)}:6379", work)
            assert refused.returncode != 0 and "InvalidAuthToken" in refused.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
