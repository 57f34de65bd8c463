"""Where instances run: the Launcher seam, and its local implementation with asyncio.

The seam is at whole lines, so a recorded or simulated stream is a launcher too. Budgets are unknown here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from claude_orchestrator.claude.stream import Batch, LineFramer
from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.launch import processes
from claude_orchestrator.launch.processes import MARK_VARIABLE
from claude_orchestrator.launch.threads import off_loop

if sys.platform == "linux":
    import fcntl
if sys.platform != "win32":
    import resource

STDERR_TAIL_BYTES = 64 * 1024
READ_AHEAD_BYTES = 4 * 1024 * 1024
PIPE_BYTES = 256 * 1024  # what asyncio reads at most at once
SWEEP_EVERY_S = 0.25
MOST_LOOKS = 40
SPARE_FILES = 2  # /proc and one file in it
FILES_OWN, FILES_EACH = 64, 5
END_OF_STREAM_S = 2.0
BY_FILE = {"append-system-prompt": "append-system-prompt-file", "mcp-config": "mcp-config"}
LADDER = ((signal.SIGINT, 0.4), (signal.SIGTERM, 0.7), (None, 1.0))  # what follows, and when, in parts of the grace


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its code (negative: the signal), the end of its standard error, lines too long to read."""

    code: int | None
    stderr: str = ""
    dropped_lines: int = 0


class Running(Protocol):
    """A launched instance."""

    def output(self) -> AsyncIterator[Batch]:
        """Its standard output as it comes, cut into whole lines, until the stream ends."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a JSON message to its standard input; nothing happens where that is closed."""

    def close_input(self) -> None:
        """Close its standard input: no further turn comes; a second call does nothing."""

    def stop(self, grace_s: float) -> None:
        """Start the ladder and return; called again with less grace it hurries."""

    async def wait(self) -> Exit:
        """Wait until it and all that it started has ended."""


class Launcher(Protocol):
    """Starts instances."""

    async def launch(self, spec: LaunchSpec) -> Running:
        """Start one instance. Raises OSError where that is not possible."""


def control_request(request_id: str, subtype: str, **more: object) -> dict[str, Any]:
    """A control request of the CLI's streaming input: `get_usage`, `interrupt`."""
    return {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **more}}


def use_pidfd_watcher() -> None:
    """Let asyncio learn of a child's end without a thread for each (the default before Python 3.12)."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


def raise_file_limit(instances: int) -> None:
    """Let so many instances run at once, as far as the system allows: each takes its pipes, its log and its handle."""
    if sys.platform != "win32":
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES_OWN + instances * FILES_EACH
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and means less
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class LocalLauncher:
    """Runs instances as processes of this machine, each in a group of its own and marked with `run_id`.

    `keep` stores a private option's text and gives the file's path; without it the text is an argument.
    """

    def __init__(
        self,
        run_id: str,
        environ: Mapping[str, str] | None = None,
        keep: Callable[[LaunchSpec, str, str], str] | None = None,
    ) -> None:
        self.run_id = run_id
        self._keep = keep
        self._environ = dict(os.environ if environ is None else environ)
        self._sweep_due = 0.0
        self._sweeping: asyncio.Task[dict[str, list[int]]] | None = None
        self._spare: list[int] = []
        self._take_spare_files()

    def _take_spare_files(self) -> None:
        """Numbers of files that nobody else gets: a stop must be able to look around when all others are taken."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE_FILES:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))

    def _give_spare_files(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    async def launch(self, spec: LaunchSpec) -> LocalRunning:
        """Start the process. Raises OSError where that is not possible."""
        running = self.running(spec)
        environ = {**self._environ, **dict(spec.env), MARK_VARIABLE: running.mark}
        await asyncio.get_running_loop().subprocess_exec(
            lambda: running,
            *spec.argv,
            *self._private_args(spec),
            cwd=spec.cwd,
            env=environ,
            start_new_session=sys.platform != "win32",
        )
        return running

    def _private_args(self, spec: LaunchSpec) -> list[str]:
        if self._keep is None:
            return [f"--{option}={text}" for option, text in spec.private]
        return [f"--{BY_FILE[option]}={self._keep(spec, option, text)}" for option, text in spec.private]

    def running(self, spec: LaunchSpec) -> LocalRunning:
        """The object for an instance that is about to be started."""
        return LocalRunning(self, f"{self.run_id}/{spec.index}")

    async def end_marked(self, mark: str) -> None:
        """End every process that carries the mark; looks around at most four times a second, for all instances.

        They are frozen first, until a look finds no new ones: an unmarked child of one that is killed while it starts
        another is found by nobody.
        """
        frozen: set[int] = set()
        for _ in range(MOST_LOOKS):
            try:
                pids = set((await self._sweep()).get(mark, ()))
            except OSError:  # too many open files: those that are being ended give theirs back
                await asyncio.sleep(SWEEP_EVERY_S)
                continue
            if not pids:
                return
            if pids <= frozen:
                processes.kill(pids)
            else:
                processes.freeze(pids - frozen)
                frozen |= pids

    def _sweep(self) -> asyncio.Task[dict[str, list[int]]]:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.ensure_future(self._look())
        return self._sweeping

    async def _look(self) -> dict[str, list[int]]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._sweep_due - loop.time())
        # in the one helper thread: a look takes some ms, and a budget stop must not wait for it
        self._give_spare_files()
        try:
            found = await off_loop(partial(processes.marked, self.run_id))
        finally:
            self._take_spare_files()
        # those with leftovers look again soon
        self._sweep_due = loop.time() + (0.02 if found else SWEEP_EVERY_S)
        return found


def _widen(pipe: asyncio.ReadTransport) -> None:
    """Let a pipe hold more than 64 KiB (Linux): fewer, larger reads, and a burst does not stop the instance."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):  # ValueError: the process is gone already, the pipe closed
            fcntl.fcntl(pipe.get_extra_info("pipe").fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class LocalRunning(asyncio.SubprocessProtocol):
    """A process of this machine."""

    def __init__(self, launcher: LocalLauncher, mark: str) -> None:
        self._launcher = launcher
        self.mark = mark
        self._framer = LineFramer()
        self._batches: deque[Batch] = deque()
        self._unread_bytes = 0
        self._paused = False
        self._arrived = asyncio.Event()
        self._stream_ended = asyncio.Event()
        self._exited = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stderr = bytearray()
        self._ladder: asyncio.Task[None] | None = None
        self._kill_at = float("inf")

    # -- called by asyncio --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        self._ended = asyncio.ensure_future(self._end_of_process())
        _widen(self._stdout())

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._stderr += data
            del self._stderr[:-STDERR_TAIL_BYTES]
            return
        self._batches.append(Batch(data, self._framer.feed(data)))
        self._unread_bytes += len(data)
        self._arrived.set()
        if self._unread_bytes > READ_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._stdout().pause_reading()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._end_stream()

    def process_exited(self) -> None:
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_stream()

    def _end_stream(self) -> None:
        if not self._stream_ended.is_set():
            self._batches.append(Batch(b"", self._framer.flush()))
            self._stream_ended.set()
            self._arrived.set()

    def _stdout(self) -> asyncio.ReadTransport:
        stdout = self._transport.get_pipe_transport(1)
        assert isinstance(stdout, asyncio.ReadTransport)
        return stdout

    # -- Running --

    async def output(self) -> AsyncIterator[Batch]:
        """What comes, in whole lines; the stream ends with the process even where a child holds our pipe open."""
        while True:
            while self._batches:
                yield self._batches.popleft()
            self._unread_bytes = 0
            if self._stream_ended.is_set():
                return
            if self._paused:
                self._paused = False
                self._stdout().resume_reading()
            self._arrived.clear()
            await self._arrived.wait()

    async def _end_of_process(self) -> None:
        """Once the process has ended, end what it left; that closes the pipe, or else we do."""
        await self._exited.wait()
        await self._launcher.end_marked(self.mark)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stream_ended.wait(), END_OF_STREAM_S)
        self._transport.close()
        self._end_stream()

    def send(self, message: Mapping[str, Any]) -> None:
        stdin = self._transport.get_pipe_transport(0)
        if isinstance(stdin, asyncio.WriteTransport) and not stdin.is_closing():
            stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def close_input(self) -> None:
        stdin = self._transport.get_pipe_transport(0)
        if isinstance(stdin, asyncio.WriteTransport) and not stdin.is_closing():
            stdin.close()

    def stop(self, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._kill_at = min(self._kill_at, loop.time() + grace_s)
        if self._ladder is None:
            if grace_s > 0:
                self.send(control_request("stop", "interrupt"))  # at once: each ms is spent
            self._ladder = asyncio.ensure_future(self._climb(grace_s))
        elif grace_s <= 0:
            self._hurry.set()

    async def _climb(self, grace_s: float) -> None:
        if grace_s > 0:
            started = asyncio.get_running_loop().time()
            for step, part in LADDER:
                if await self._ends_by(started + grace_s * part):
                    return
                if step is not None and not self._hurry.is_set():
                    self._signal(step)
        # frozen, it spends nothing more, and what it started can still be told by its parent
        self._signal_group("SIGSTOP")
        try:
            await self._launcher.end_marked(self.mark)
        finally:
            self._signal_group("SIGKILL")

    async def _ends_by(self, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._exited, self._hurry)]
        await asyncio.wait(waits, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()
        return self._exited.is_set()

    def _signal(self, number: signal.Signals) -> None:
        """To the process alone: its tools get theirs from it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._transport.terminate()
            elif not self._exited.is_set():
                self._transport.send_signal(number)

    def _signal_group(self, name: str) -> None:
        pid = self._transport.get_pid()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._transport.terminate()
            elif pid is not None and not self._exited.is_set():
                os.killpg(pid, signal.Signals[name])

    async def wait(self) -> Exit:
        await self._ended
        stderr = bytes(self._stderr).decode("utf-8", "replace")
        return Exit(self._transport.get_returncode(), stderr, self._framer.dropped)
