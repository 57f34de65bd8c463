"""Runs instances as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from claude_orchestrator.claude.argv import HOST_VARIABLES
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.base import Capabilities
from claude_orchestrator.launch.fence.guard import FenceGuard, GuardGone
from claude_orchestrator.launch.fence.kept_process import KeptProcess
from claude_orchestrator.launch.local_process import LocalRunning
from claude_orchestrator.launch.processes import MARK_VARIABLE
from claude_orchestrator.launch.sweep import Sweep

if sys.platform != "win32":
    import resource

FILES_OWN, FILES_EACH = 64, 9
FILES_OF_GATEWAY, FILES_METERED = 256, 24  # connections that are not judged yet, as `gateway.door` bounds them
LAUNCH_TRIES = 3  # a guard that is killed meanwhile is replaced
BY_FILE = {"append-system-prompt": "append-system-prompt-file", "mcp-config": "mcp-config"}


def use_pidfd_watcher() -> None:
    """Let asyncio notice a child's end without a thread for each child (the default before Python 3.12)."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


def raise_file_limit(instances: int, *, more: int = 0) -> None:
    """Allow enough open files for so many instances at once, as far as the system permits.

    Each instance takes a log, a socket to its keeper and three pipes, and while it is launched the other ends of these.
    `more` are those that something else needs.
    """
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES_OWN + instances * FILES_EACH + more
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with contextlib.suppress(ValueError, OSError):  # macOS reports "unlimited" and allows less
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allow_files(instances: int, *, metered: bool) -> None:
    """Allow enough open files for so many instances at once; `metered` ones call the API through a gateway here."""
    raise_file_limit(instances, more=FILES_OF_GATEWAY + instances * FILES_METERED if metered else 0)


class LocalLauncher:
    """Runs instances as processes of this machine, each in a group of its own and marked with `run_id`.

    `keep` stores a private option's text and returns the file's path; without it the text is an argument. With a
    `fence`, its guard starts the processes, and nothing that they start can escape. Without one, processes that
    changed their environment and left their parents can.
    """

    def __init__(
        self,
        run_id: str,
        environ: Mapping[str, str] | None = None,
        keep: Callable[[LaunchSpec, str, str], str] | None = None,
        fence: FenceGuard | None = None,
    ) -> None:
        self.run_id = run_id
        self.capabilities = Capabilities(fence=fence.kind if fence else "mark")
        self._keep = keep
        self._fence = fence
        self._environ = dict(os.environ if environ is None else environ)
        self.sweep = Sweep(run_id)

    async def launch(self, spec: LaunchSpec) -> LocalRunning:
        """Start an instance. Raises OSError where that is not possible."""
        env = {**{name: value for name, value in HOST_VARIABLES if name not in self._environ}, **dict(spec.env)}
        return await self.start((*spec.argv, *self._private_args(spec)), env, spec.cwd, str(spec.position))

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> LocalRunning:
        """Start a shell command that checks an instance's work. Raises OSError where that is not possible."""
        argv = ("/bin/sh", "-c", f"exec 2>&1\n{command}")
        running = await self.start(argv, dict(spec.env), folder, f"{spec.position}.check")
        running.close_input()
        return running

    async def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, name: str) -> LocalRunning:
        """Start any process of the run; `env` is added to the environment. Raises OSError where that is not possible.

        It gets the mark `RUN/name`. Its end, and its stops, include everything that it started.
        """
        mark = f"{self.run_id}/{name}"
        environ = {**self._environ, **env, MARK_VARIABLE: mark}
        if self._fence is not None:
            return await self._start_kept(self._fence, argv, environ, cwd, mark)
        running = self.running(mark, self._end_by_mark)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: running, *argv, cwd=cwd, env=environ, start_new_session=sys.platform != "win32"
        )
        return running

    def running(self, mark: str, end_all: Callable[[LocalRunning], Awaitable[None]]) -> LocalRunning:
        """The object for a process that is about to be started."""
        return LocalRunning(mark, end_all)

    async def _start_kept(
        self, fence: FenceGuard, argv: Sequence[str], environ: Mapping[str, str], cwd: str | None, mark: str
    ) -> LocalRunning:
        tries_left = LAUNCH_TRIES
        while True:
            process = KeptProcess()
            running = self.running(mark, partial(self._end_by_keeper, process))
            try:
                await process.start(running, fence, argv, environ, cwd)
            except GuardGone:
                tries_left -= 1
                if not tries_left:
                    raise
                fence.revive()
            else:
                return running

    async def _end_by_keeper(self, process: KeptProcess, running: LocalRunning) -> None:
        await process.end_all()
        if not process.fenced:
            await self.sweep.end_marked(running.mark)

    async def _end_by_mark(self, running: LocalRunning) -> None:
        # a frozen process spends nothing more, and what it started can still be found as its child
        running.signal_group("SIGSTOP")
        try:
            await self.sweep.end_marked(running.mark)
        finally:
            running.signal_group("SIGKILL")

    def _private_args(self, spec: LaunchSpec) -> list[str]:
        if self._keep is None:
            return [f"--{option}={text}" for option, text in spec.private]
        return [f"--{BY_FILE[option]}={self._keep(spec, option, text)}" for option, text in spec.private]
