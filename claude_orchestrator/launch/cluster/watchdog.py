"""The agent's side of the process that watches its lease."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

from claude_orchestrator.launch.cluster import lease_program
from claude_orchestrator.launch.cluster.lease_program import DONE, FRAME


class Watchdog:
    """A second process that ends everything of the run on this node, unless its lease is renewed."""

    def __init__(self, mark: str, folder: str) -> None:
        self._mark = mark
        self._folder = folder
        self._ends_at_s = 0.0
        self._requests: int | None = None
        self._alive: int | None = None  # readable when the process has ended

    def start(self, ends_at_s: float) -> None:
        """Start it with a lease that ends then. Raises OSError where that is not possible."""
        reading, writing = os.pipe()
        alive, held = os.pipe()
        os.set_blocking(writing, False)
        program = Path(lease_program.__file__)
        own = [str(program.parent.parent), self._mark, self._folder, str(os.getpid())]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(program), *own],
                stdin=reading,
                stdout=held,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
                timeout=30,
                check=False,
            )
            if done.returncode:
                raise ChildProcessError(None, f"the process that watches the lease has ended with {done.returncode}")
        except BaseException:
            os.close(writing)
            os.close(alive)
            raise
        finally:
            os.close(reading)
            os.close(held)
        self._requests, self._alive = writing, alive
        self.extend(ends_at_s)
        asyncio.get_running_loop().add_reader(alive, self._replace)

    def extend(self, ends_at_s: float) -> None:
        """The lease ends at another time."""
        self._ends_at_s = ends_at_s
        self._write(ends_at_s)

    def _replace(self) -> None:
        """Start another one, because something killed it. Without one, nothing may run here."""
        self._close()
        try:
            self.start(self._ends_at_s)
        except (OSError, subprocess.SubprocessError):
            os._exit(1)

    def end(self) -> None:
        """The work here is done: dismiss it."""
        self._write(DONE)
        self._close()

    def _write(self, value: float) -> None:
        if self._requests is not None:
            with contextlib.suppress(OSError):  # it has ended: `_replace` follows
                os.write(self._requests, FRAME.pack(value))

    def _close(self) -> None:
        if self._alive is not None:
            asyncio.get_running_loop().remove_reader(self._alive)
        for fd in (self._requests, self._alive):
            if fd is not None:
                os.close(fd)
        self._requests = self._alive = None
