"""One local process: its pipes as whole lines, and the ladder of signals that stops it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from claude_orchestrator.claude.input_messages import control_request
from claude_orchestrator.claude.stream import LineBatch, LineFramer
from claude_orchestrator.launch.base import Exit

if sys.platform == "linux":
    import fcntl

STDERR_TAIL_BYTES = 64 * 1024
READ_AHEAD_BYTES = 4 * 1024 * 1024
PIPE_BYTES = 256 * 1024  # what asyncio reads at most at once
END_OF_STREAM_S = 2.0
# the signal that follows the interrupt request (None: SIGKILL), and when, as a part of the grace
LADDER = ((signal.SIGINT, 0.4), (signal.SIGTERM, 0.7), (None, 1.0))
DEAF_S = 0.3  # without an answer to the interrupt request, SIGINT follows sooner
_INTERRUPT = "stop"  # the request's id


def _widen(pipe: asyncio.ReadTransport) -> None:
    """Let a pipe hold more than 64 KiB (Linux): reads are fewer and larger, and a burst does not block the instance."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):  # ValueError: the process has ended, and the pipe is closed
            fcntl.fcntl(pipe.get_extra_info("pipe").fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class LocalRunning(asyncio.SubprocessProtocol):
    """A process of this machine. `end_all` ends it and everything that it started."""

    def __init__(self, mark: str, end_all: Callable[[LocalRunning], Awaitable[None]]) -> None:
        self.mark = mark
        self._end_all = end_all
        self._framer = LineFramer()
        self._batches: deque[LineBatch] = deque()
        self._unread_bytes = 0
        self._paused = False
        self._arrived = asyncio.Event()
        self._stream_ended = asyncio.Event()
        self._exited = asyncio.Event()
        self._hurry = asyncio.Event()
        self._acknowledged = False
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
        batch = LineBatch(data, self._framer.feed(data))
        if self._ladder is not None and not self._acknowledged:
            self._acknowledged = any(map(_acknowledges, batch.lines.split(b"\n")))
        self._batches.append(batch)
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
            self._batches.append(LineBatch(b"", self._framer.flush()))
            self._stream_ended.set()
            self._arrived.set()

    def _stdout(self) -> asyncio.ReadTransport:
        stdout = self._transport.get_pipe_transport(1)
        assert isinstance(stdout, asyncio.ReadTransport)
        return stdout

    # -- Running --

    async def output(self) -> AsyncIterator[LineBatch]:
        """Yield what arrives, in whole lines. The stream ends with the process, even if a child holds the pipe open."""
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
        """Once the process has ended, end what it left. That closes the pipe; if it does not, close it here."""
        await self._exited.wait()
        await self._end_all(self)
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
                self.send(control_request(_INTERRUPT, "interrupt"))  # at once: every ms costs tokens
            self._ladder = asyncio.ensure_future(self._run_ladder(grace_s))
        elif grace_s <= 0:
            self._hurry.set()

    async def _run_ladder(self, grace_s: float) -> None:
        if grace_s > 0:
            started = asyncio.get_running_loop().time()
            is_deaf = await self._is_deaf(started + min(DEAF_S, grace_s * LADDER[0][1]))
            if is_deaf:
                self._signal(LADDER[0][0])
            for step, part in LADDER[is_deaf:]:
                if await self._has_exited_by(started + grace_s * part):
                    return
                if step is not None and not self._hurry.is_set():
                    self._signal(step)
        await self._end_all(self)

    async def _is_deaf(self, deadline: float) -> bool:
        """Whether the process is still there and has not answered the interrupt request."""
        return not await self._has_exited_by(deadline) and not self._acknowledged and not self._hurry.is_set()

    async def _has_exited_by(self, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._exited, self._hurry)]
        await asyncio.wait(waits, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()
        return self._exited.is_set()

    def _signal(self, number: signal.Signals) -> None:
        """Send it to the process alone, which ends its tools itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._transport.terminate()
            elif not self._exited.is_set():
                self._transport.send_signal(number)

    def signal_group(self, name: str) -> None:
        """Send it to the group of a process that has not exited."""
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


def _acknowledges(line: bytes) -> bool:
    """Whether a line is the answer to the interrupt request."""
    return b'"control_response"' in line and b'"request_id":"%s"' % _INTERRUPT.encode() in line
