"""The other end of the control socket: asks the orchestrator of a run, and follows its events."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from claude_orchestrator.engine.control.rpc import Code, request_line
from claude_orchestrator.engine.control.socket_place import connect, peer_uid
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple

ANSWER_S = 10.0  # an orchestrator that is silent for longer hangs
CHUNK_BYTES = 1 << 18


class AnsweredError(Exception):
    """The orchestrator refuses a request. `refused`: the request is sound, and not possible now."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.refused = code == Code.REFUSED


class Notification(NamedTuple):
    """A notification: `event` or `snapshot`, and its data."""

    kind: str
    data: Mapping[str, Any]


class ControlClient:
    """A connection to the orchestrator of a run. Raises NotListening and OSError."""

    def __init__(self, folder: Folder, timeout_s: float | None = ANSWER_S) -> None:
        self._socket: socket.socket = connect(folder, timeout_s, peer_uid)
        self._received = bytearray()
        self._count = 0

    def call(self, method: str, **params: Any) -> Any:
        """The result of a request. Raises AnsweredError, or OSError if the orchestrator has left."""
        self._count += 1
        self._socket.sendall(request_line(self._count, method, params))
        while True:
            data = self._next()
            if "method" in data:
                continue
            if "error" in data:
                raise AnsweredError(data["error"]["code"], data["error"]["message"])
            return data["result"]

    def follow(self, since: int = -1, source: str = "") -> Iterator[Notification | None]:
        """Ask for a snapshot, or for the events after a number. They come until the orchestrator leaves.

        Yields None if nothing has come within the time limit of `quiet_after`. Raises AnsweredError, or OSError if the
        orchestrator does not answer. Yields nothing if it has just left.
        """
        try:
            self.call("events", since=since, source=source)
        except ConnectionError:
            return iter(())
        return self._notifications()

    def _notifications(self) -> Iterator[Notification | None]:
        while True:
            try:
                data = self._next()
            except TimeoutError:
                yield None
                continue
            except ConnectionError:
                return
            if "method" in data:
                yield Notification(data["method"], data["params"])

    def quiet_after(self, seconds: float | None) -> None:
        """Set how long `follow` waits before it yields None. None sets no limit."""
        self._socket.settimeout(seconds)

    def fileno(self) -> int:
        """The descriptor, for `select`."""
        return self._socket.fileno()

    def shut(self) -> None:
        """End the wait of another thread for this connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> Mapping[str, Any]:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            data = self._socket.recv(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("the orchestrator has left")
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        parsed: Mapping[str, Any] = json.loads(line)
        return parsed
