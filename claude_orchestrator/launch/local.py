"""Runs instances as processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.launch.base import Capabilities
from claude_orchestrator.launch.local_process import LocalRunning
from claude_orchestrator.launch.processes import MARK_VARIABLE
from claude_orchestrator.launch.sweep import Sweep

if sys.platform != "win32":
    import resource

FILES_OWN, FILES_EACH = 64, 5
BY_FILE = {"append-system-prompt": "append-system-prompt-file", "mcp-config": "mcp-config"}


def use_pidfd_watcher() -> None:
    """Let asyncio notice a child's end without a thread for each child (the default before Python 3.12)."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


def raise_file_limit(instances: int) -> None:
    """Allow enough open files for so many instances at once, as far as the system permits.

    Each instance takes its pipes, its log and its process handle.
    """
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES_OWN + instances * FILES_EACH
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with contextlib.suppress(ValueError, OSError):  # macOS reports "unlimited" and allows less
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class LocalLauncher:
    """Runs instances as processes of this machine, each in a group of its own and marked with `run_id`.

    `keep` stores a private option's text and returns the file's path; without it the text is an argument.
    """

    capabilities = Capabilities(metering=True, isolation="process")

    def __init__(
        self,
        run_id: str,
        environ: Mapping[str, str] | None = None,
        keep: Callable[[LaunchSpec, str, str], str] | None = None,
    ) -> None:
        self.run_id = run_id
        self._keep = keep
        self._environ = dict(os.environ if environ is None else environ)
        self.sweep = Sweep(run_id)

    async def launch(self, spec: LaunchSpec) -> LocalRunning:
        """Start the process. Raises OSError where that is not possible."""
        running = self.running(spec)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: running,
            *spec.argv,
            *self._private_args(spec),
            cwd=spec.cwd,
            env={**self._environ, **dict(spec.env), MARK_VARIABLE: running.mark},
            start_new_session=sys.platform != "win32",
        )
        return running

    def running(self, spec: LaunchSpec) -> LocalRunning:
        """The object for an instance that is about to be started."""
        return LocalRunning(f"{self.run_id}/{spec.index}", self.sweep.end_marked)

    def _private_args(self, spec: LaunchSpec) -> list[str]:
        if self._keep is None:
            return [f"--{option}={text}" for option, text in spec.private]
        return [f"--{BY_FILE[option]}={self._keep(spec, option, text)}" for option, text in spec.private]
