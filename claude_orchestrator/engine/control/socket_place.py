"""The control socket of a run in its directory: opened, or connected to, by its owner alone."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from token_budget.folders import Folder
from token_budget.owned import is_trusted

NAME = "control.sock"
MAX_PATH_BYTES = 100  # 104 on some systems, with the end
BACKLOG = 128
RETRY_S = 0.02
CAN_LISTEN = hasattr(socket, "AF_UNIX") and sys.platform != "win32"


class NotListening(Exception):
    """Nobody listens. `is_stale`: a socket is there, and the orchestrator that made it is gone."""

    def __init__(self, *, is_stale: bool) -> None:
        super().__init__("stale" if is_stale else "no socket")
        self.is_stale = is_stale


def listen(folder: Folder) -> socket.socket:
    """Listen in a run's directory, which this process has locked. Raises OSError.

    A socket that an earlier orchestrator of the run has left is replaced.
    """
    path = folder.short_path(NAME, MAX_PATH_BYTES)
    remove(folder)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.bind(path)
        Path(path).chmod(0o600)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def remove(folder: Folder) -> None:
    """Remove the socket of a run's directory, if there is one. Raises OSError."""
    folder.remove_socket(NAME)


def connect(folder: Folder, timeout_s: float | None, uid_of: Callable[[socket.socket], int | None]) -> socket.socket:
    """Connect to the orchestrator of a run. Raises NotListening, or OSError."""
    if not CAN_LISTEN:
        raise NotListening(is_stale=False)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(timeout_s)
    try:
        _connect(connected, folder.short_path(NAME, MAX_PATH_BYTES), timeout_s)
        uid = uid_of(connected)
        if uid is not None and not is_trusted(uid):
            raise PermissionError("the control socket belongs to another user")
    except FileNotFoundError:
        connected.close()
        raise NotListening(is_stale=False) from None
    except ConnectionRefusedError:
        connected.close()
        raise NotListening(is_stale=True) from None
    except BaseException:
        connected.close()
        raise
    return connected


def _connect(connected: socket.socket, path: str, timeout_s: float | None) -> None:
    """Connect, and wait while the orchestrator has more connections than it can take at once."""
    give_up_at = time.monotonic() + (timeout_s or 0.0)
    while True:
        try:
            connected.connect(path)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(RETRY_S)
        else:
            return


def peer_uid(connected: socket.socket) -> int | None:
    """The user at the other end of a connection; None if the system does not report it. Then the file mode alone
    protects the socket."""
    if sys.platform != "linux":
        return None
    _, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
