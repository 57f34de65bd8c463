"""Starts the guard of the fence, and has it fork keepers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

START = "import sys;sys.path.insert(0,sys.argv[1]);import guard_program;guard_program.main()"
PROBE = START.replace("main()", "probe()")
NO_NAMESPACE = "this system does not allow process namespaces, which CLAUDE_ORCHESTRATOR_FENCE asks for"
FULL_S = 0.002  # before the next try, while the guard has many requests to read


class GuardGone(OSError):
    """The guard, or the keeper, was killed during a launch. Another try can succeed."""

    def __init__(self) -> None:
        super().__init__(errno.ESRCH, "the guard process has ended")


class FenceGuard:
    """A context in which a second process forks keepers. However this process dies, they end what they keep.

    `kind` is `subreaper`, or `namespace` if each process gets a process namespace.
    """

    def __init__(self, mark: str, kind: str = "subreaper") -> None:
        self.kind = kind
        self._mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def start(self) -> None:
        """Start the second process, without waiting until it is ready. Raises OSError where that is not possible."""
        if self.kind == "namespace" and self._process is None:
            _probe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    # the mark is for people who look at the list of processes
                    [sys.executable, "-I", "-S", "-c", START, str(Path(__file__).parent), self._mark, self.kind],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._requests = ours

    def end_of_guard(self) -> socket.socket | None:
        """A socket that becomes readable when the guard itself has ended."""
        return self._requests

    def revive(self) -> None:
        """Start another guard if this one has ended. Keepers outlive it. Raises OSError where that is not possible."""
        if self._process is not None and self._requests is not None and _has_ended(self._requests):
            self._process.wait()
            self._requests = None
            self.start()

    async def request(self, fds: Sequence[int]) -> None:
        """Have a keeper forked that takes these descriptors. Raises GuardGone if there is no guard."""
        while self._requests is not None:
            try:
                socket.send_fds(self._requests, [b"k"], list(fds))
                return
            except BlockingIOError:
                await asyncio.sleep(FULL_S)
            except (BrokenPipeError, ConnectionResetError):
                break
        raise GuardGone

    def __enter__(self) -> FenceGuard:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)


def _probe() -> None:
    """Raise OSError if the system gives a process no namespace."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROBE, str(Path(__file__).parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        timeout=10,
        check=False,
    )
    if done.returncode:
        raise PermissionError(errno.EPERM, NO_NAMESPACE)


def _has_ended(peer: socket.socket) -> bool:
    """Whether the other end of a socket is closed."""
    try:
        return not peer.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionResetError:  # it has left something unread
        return True
