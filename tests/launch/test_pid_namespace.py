"""What a process sees in a namespace of its own, and what ends with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.fence_kind import FENCE_VARIABLE
from claude_orchestrator.launch.local import LocalLauncher
from tests.harness import ROOT, Workplace
from tests.limits import HUNG_S
from tests.namespaces import WITH_NAMESPACES

pytestmark = WITH_NAMESPACES
OWN = Path("/proc/self/ns")


def in_namespace(script: str) -> tuple[list[str], Exit]:
    """What a shell script prints, and how it ends."""

    async def run() -> tuple[list[str], Exit]:
        async with asyncio.timeout(HUNG_S):
            with FenceGuard("test", "namespace") as guard:
                launcher = LocalLauncher("test", {"PATH": os.environ["PATH"]}, fence=guard)
                running = await launcher.start(["/bin/sh", "-c", script], {}, "/", "0")
                printed = [line.decode() async for batch in running.output() for line in batch.lines.splitlines()]
                return printed, await running.wait()

    return asyncio.run(run())


def test_it_sees_its_own_processes_only_and_its_own_user() -> None:
    printed, ended = in_namespace("echo $$; cat /proc/$$/comm; set -- /proc/[0-9]*; echo $#; id -u; exit 7")
    assert printed == ["2", "sh", "2", str(os.geteuid())]  # the first process and the shell
    assert ended == Exit(7)


def test_its_mounts_are_not_those_of_others() -> None:
    printed, _ = in_namespace("readlink /proc/self/ns/mnt /proc/self/ns/net")
    assert printed[0] != str((OWN / "mnt").readlink())
    assert printed[1] == str((OWN / "net").readlink())


@pytest.mark.parametrize(("script", "code"), [("kill -9 $$", -9), ("kill -15 $$", -15), ("kill -9 1; exit 3", 3)])
def test_a_signal_of_its_own_is_its_end_and_none_reaches_the_first_process(script: str, code: int) -> None:
    assert in_namespace(script)[1] == Exit(code)


def test_what_it_leaves_ends_with_it() -> None:
    daemon = "env -i setsid sh -c 'sleep 4711 & exec sleep 4712' </dev/null >/dev/null 2>&1 &"
    _, ended = in_namespace(f"{daemon} sleep 0.05; ls -d /proc/[0-9]*; exit 0")
    assert ended == Exit(0)
    assert not {b"sleep\x004711\x00", b"sleep\x004712\x00"} & set(map(arguments_of, Path("/proc").iterdir()))


def arguments_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_the_program_reports_which_fence_holds(place: Workplace) -> None:
    config = place.config({"instances": [{"name": "a", "prompt": "x"}]})
    for kind in ("namespace", "subreaper", "mark"):
        done = place.run("--config", config, "--report", "report.json", **{FENCE_VARIABLE: kind})
        assert done.returncode == 0 and place.report()["fence"] == kind
        assert f"\nFence: {kind}: " in place.run("--config", config, "--dry-run", **{FENCE_VARIABLE: kind}).stdout


def test_a_system_without_namespaces_is_reported_before_anything_starts(place: Workplace) -> None:
    argv = place.argv("--config", place.config({"instances": [{"name": "a", "prompt": "x"}]}))
    forbid = 'echo 0 > /proc/sys/user/max_pid_namespaces && echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    env = {**place.env, FENCE_VARIABLE: "namespace", "PYTHONPATH": str(ROOT)}
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", *argv]
    done = subprocess.run(command, env=env, cwd=place.root, capture_output=True, text=True, timeout=HUNG_S, check=False)
    assert done.returncode == 2 and "this system does not allow process namespaces" in done.stderr
