"""A process that a keeper of the fence started."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import socket
from collections.abc import Mapping, Sequence

from claude_orchestrator.launch.fence.guard import FenceGuard, GuardGone


class _Pipe(asyncio.Protocol):
    """Passes what one of the standard streams does on to the protocol of the process."""

    def __init__(self, fd: int, process: KeptProcess) -> None:
        self._fd = fd
        self._process = process

    def data_received(self, data: bytes) -> None:
        self._process.protocol.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.pipe_lost(self._fd, exc)


class KeptProcess(asyncio.SubprocessTransport):
    """A process that a keeper started, as the transport that asyncio has for a subprocess of its own."""

    protocol: asyncio.SubprocessProtocol

    def __init__(self) -> None:
        super().__init__()
        self.fenced = False
        self._loop = asyncio.get_running_loop()
        self._control, self._keepers_end = socket.socketpair()
        self._control.setblocking(False)
        self._pipes: dict[int, asyncio.BaseTransport] = {}
        self._open = {0, 1, 2}
        self._pid: int | None = None
        self._code: int | None = None
        self._answers = b""
        self._ended = asyncio.Event()
        self._lost = False

    async def start(
        self,
        protocol: asyncio.SubprocessProtocol,
        guard: FenceGuard,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
    ) -> None:
        """Start it. Raises OSError where that is not possible."""
        self.protocol = protocol
        theirs: list[int] = []
        try:
            await self._connect(theirs)
            await guard.request([*theirs, self._keepers_end.fileno()])
        except BaseException:
            self._abandon()
            raise
        finally:
            self._keepers_end.close()
            for fd in theirs:
                os.close(fd)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer has the reason
                await self._loop.sock_sendall(self._control, _launch(argv, env, cwd))
            await self._read_start(argv[0], cwd)
        except BaseException:
            self._abandon()
            raise
        self.protocol.connection_made(self)
        self._loop.add_reader(self._control, self._read_answers)
        self._take_answers()

    async def _connect(self, theirs: list[int]) -> None:
        """Make the three pipes; their other ends are added to `theirs`."""
        for fd in (0, 1, 2):
            reading, writing = os.pipe()
            ours, other = (writing, reading) if fd == 0 else (reading, writing)
            theirs.append(other)
            connect = self._loop.connect_write_pipe if fd == 0 else self._loop.connect_read_pipe
            file = os.fdopen(ours, "wb" if fd == 0 else "rb", 0)
            self._pipes[fd], _ = await connect(lambda fd=fd: _Pipe(fd, self), file)  # type: ignore[misc]

    async def _read_start(self, program: str, cwd: str | None) -> None:
        while b"\n" not in self._answers:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                data = await self._loop.sock_recv(self._control, 256)
            if not data:
                raise GuardGone
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        kind, number, detail = line.split()
        if kind != b"started":
            code = int(number)
            raise OSError(code, os.strerror(code), cwd if detail == b"cwd" else program)
        self._pid, self.fenced = int(number), detail == b"1"

    def _abandon(self) -> None:
        """Give up a process that did not start."""
        self._lost = True
        self.close()

    # -- what the keeper answers --

    def _read_answers(self) -> None:
        try:
            data = self._control.recv(256)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._answers += data
        self._take_answers()
        if not data:
            self._keeper_gone()

    def _take_answers(self) -> None:
        while b"\n" in self._answers:
            line, _, self._answers = self._answers.partition(b"\n")
            kind, number = line.split()[:2]
            if kind == b"exited":
                self._exit(int(number))
            elif kind == b"ended":
                self._ended.set()

    def _keeper_gone(self) -> None:
        """The keeper exits when everything has ended. If something killed it, the kernel killed its process too."""
        self._loop.remove_reader(self._control)
        if not self._ended.is_set():
            self.fenced = False
            self._exit(-9)
            self._ended.set()

    def _exit(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self.protocol.process_exited()
            self._finish()

    def pipe_lost(self, fd: int, exc: Exception | None) -> None:
        """One of the standard streams has ended."""
        if not self._lost:
            self._open.discard(fd)
            self.protocol.pipe_connection_lost(fd, exc)
            self._finish()

    def _finish(self) -> None:
        if not self._open and self._code is not None and not self._lost:
            self._lost = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    async def end_all(self) -> None:
        """End the process and everything that it started, and wait until nothing is left."""
        self._command(0)
        await self._ended.wait()

    # -- asyncio.SubprocessTransport --

    def get_pid(self) -> int | None:  # type: ignore[override]
        return self._pid

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return self._pipes.get(fd)

    def send_signal(self, number: int) -> None:
        self._command(number)

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)

    def _command(self, byte: int) -> None:
        if not self._ended.is_set():
            with contextlib.suppress(OSError):
                self._control.send(bytes([byte]))

    def is_closing(self) -> bool:
        return self._control.fileno() < 0

    def close(self) -> None:
        """Close the streams. The keeper ends what is still there."""
        if not self.is_closing():
            self._loop.remove_reader(self._control)
            self._control.close()
        for pipe in self._pipes.values():
            pipe.close()


def _launch(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> bytes:
    """A launch as the keeper reads it."""
    program = os.fsencode(argv[0])
    found = [program] if b"/" in program else [os.path.join(os.fsencode(d), program) for d in os.get_exec_path(env)]  # noqa: PTH118
    arguments = [os.fsencode(argument) for argument in argv]
    environ = [(os.fsencode(name), os.fsencode(value)) for name, value in env.items()]
    if any(b"\0" in text for text in (*arguments, *(text for pair in environ for text in pair))):
        raise ValueError("embedded null byte")
    if any(b"=" in name for name, _ in environ):
        raise ValueError("illegal environment variable name")
    data = marshal.dumps((found, arguments, environ, os.fsencode(cwd or os.getcwd())))  # noqa: PTH109
    return len(data).to_bytes(4, "little") + data
