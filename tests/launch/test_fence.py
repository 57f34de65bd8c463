"""What the guard and its keepers do when something else goes wrong: they are killed, paused, or asked too much."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.fence.kept_process import KeptProcess
from claude_orchestrator.launch.local import LocalLauncher
from claude_orchestrator.launch.local_process import LocalRunning
from tests.harness import alive
from tests.limits import HUNG_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fence is the Linux kernel's")
ENV = {"PATH": os.environ["PATH"]}
# a daemon without an environment, in a session of its own, that prints its id first
DAEMON = "env -i setsid /bin/sh -c 'sleep 600 & echo $!' </dev/null 2>/dev/null"


def with_fence(work: Callable[[FenceGuard, LocalLauncher], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(HUNG_S):
            with FenceGuard("test-fence") as guard:
                await work(guard, LocalLauncher("test-fence", ENV, fence=guard))

    asyncio.run(limited())


async def shell(launcher: LocalLauncher, script: str, *args: str) -> LocalRunning:
    return await launcher.start(["/bin/sh", "-c", script, *args], {}, "/", "0")


async def lines(running: LocalRunning) -> AsyncIterator[bytes]:
    async for batch in running.output():
        for line in batch.lines.splitlines():
            yield line


async def first_line(running: LocalRunning) -> bytes:
    async for line in lines(running):
        return line
    raise AssertionError("it printed nothing")


def pid_of(running: LocalRunning) -> int:
    assert isinstance(running._transport, KeptProcess)
    return running._transport.get_pid() or 0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def until_dead(*pids: int) -> None:
    while any(map(alive, pids)):  # noqa: ASYNC110 - nothing tells of the death of another's child
        await asyncio.sleep(0.005)


def pid_of_guard(guard: FenceGuard) -> int:
    assert guard._process is not None
    return guard._process.pid


def test_a_daemon_is_left_alone_until_its_instance_ends() -> None:
    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        running = await shell(launcher, f"{DAEMON}; read line; exit 3")
        daemon = int(await first_line(running))
        other = await shell(launcher, "exit 0")  # the end of another instance does not touch it either
        assert await other.wait() == Exit(0) and alive(daemon)
        assert parent_of(daemon) == parent_of(pid_of(running))  # it came back to the keeper
        running.close_input()
        assert await running.wait() == Exit(3)
        assert not alive(daemon)

    with_fence(work)


def test_the_guard_ends_what_a_killed_keeper_leaves() -> None:
    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        running = await shell(launcher, f"{DAEMON}; sleep 600")
        daemon, keeper = int(await first_line(running)), parent_of(pid_of(running))
        os.kill(keeper, signal.SIGKILL)
        assert await running.wait() == Exit(-9)
        await until_dead(daemon, pid_of(running))
        assert await (await shell(launcher, "exit 4")).wait() == Exit(4)

    with_fence(work)


def test_a_launch_after_the_guards_death_starts_another_guard() -> None:
    """What runs continues, and can still be stopped with all that it started."""

    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        running = await shell(launcher, f"{DAEMON}; sleep 600")
        daemon, killed = int(await first_line(running)), pid_of_guard(guard)
        os.kill(killed, signal.SIGKILL)
        ended = [await (await shell(launcher, "exit 5")).wait() for _ in range(2)]
        assert ended == [Exit(5), Exit(5)] and pid_of_guard(guard) != killed
        assert alive(daemon) and alive(pid_of(running))
        running.stop(0.0)
        assert await running.wait() == Exit(-9)
        assert not alive(daemon)

    with_fence(work)


def test_a_launch_waits_for_a_paused_guard_and_can_be_cancelled() -> None:
    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        os.kill(pid_of_guard(guard), signal.SIGSTOP)
        launches = [asyncio.ensure_future(shell(launcher, "echo $$; sleep 600")) for _ in range(40)]
        done, _ = await asyncio.wait(launches, timeout=0.1)
        assert not done  # and the event loop is free
        for launch in launches[1:]:
            launch.cancel()
        os.kill(pid_of_guard(guard), signal.SIGCONT)
        running = await launches[0]
        running.stop(0.0)
        assert await running.wait() == Exit(-9)

    with_fence(work)


def test_many_at_once_with_much_to_pass_on() -> None:
    """The launch goes through the control socket, so its size has no bound but the system's for arguments."""

    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        texts = [str(n) * 100_000 for n in range(8)]
        script = 'printf "%s\\n" "${#1} ${#2}"'
        started = await asyncio.gather(*(shell(launcher, script, "sh", text, text) for text in texts * 4))
        assert {await first_line(running) for running in started} == {b"100000 100000"}
        assert [(await running.wait()).code for running in started] == [0] * 32
        with pytest.raises(OSError, match="too long"):
            await shell(launcher, "exit 0", "x" * 200_000)

    with_fence(work)


def test_an_orchestrator_inside_an_instance_is_ended_with_its_instances() -> None:
    """The inner guard's instance has another mark, and no environment that shows one."""
    inner = """
import asyncio, sys
from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.local import LocalLauncher
async def main():
    with FenceGuard("inner") as guard:
        running = await LocalLauncher("inner", {"PATH": sys.argv[2]}, fence=guard).start(
            ["/bin/sh", "-c", sys.argv[1]], {}, "/", "0")
        async for batch in running.output():
            print(batch.lines.decode(), end="", flush=True)
asyncio.run(main())
"""

    async def work(guard: FenceGuard, launcher: LocalLauncher) -> None:
        argv = [sys.executable, "-c", inner, f"{DAEMON}; echo $$; sleep 600", ENV["PATH"]]
        running = await launcher.start(argv, {}, str(Path(__file__).parents[2]), "0")
        printed = lines(running)
        pids = [int(await anext(printed)), int(await anext(printed))]
        assert all(map(alive, pids))
        running.stop(0.0)
        assert await running.wait() == Exit(-9)
        assert not any(map(alive, pids))

    with_fence(work)


def test_children_are_found_without_the_kernels_list() -> None:
    from claude_orchestrator.launch.fence import guard_program

    with subprocess.Popen(["sleep", "600"]) as child:
        assert child.pid in guard_program.children_by_search(os.getpid())
        assert guard_program.children_by_search(child.pid) == []
        child.kill()


def test_a_guard_that_cannot_start_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/not/there")
    with pytest.raises(OSError), contextlib.ExitStack() as stack:
        stack.enter_context(FenceGuard("test-fence"))
