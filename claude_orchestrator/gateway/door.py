"""The gateway's door: which user's processes may connect, and how many files that takes."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

BATCH = 64  # so many connections are accepted before the first of them is judged

_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1  # sock_diag(7)
_HEADER, _UID_AT = 16, 16 + 4 + 48 + 12  # nlmsghdr; then inet_diag_msg up to idiag_uid


def owner_of_peer(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The user of the process at the other end of a connection on this machine; None where the system does not say."""
    if sys.platform != "linux":
        return None
    try:
        return _ask_kernel(peer, own)
    except (OSError, struct.error):
        return _look_up(peer, own)


def _ask_kernel(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    ends = (socket.inet_aton(end[0]) for end in (peer, own))
    connection = struct.pack("!HH4s12x4s12x", peer[1], own[1], *ends) + struct.pack("=III", 0, 2**32 - 1, 2**32 - 1)
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 2**32 - 1) + connection
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAG) as asking:
        asking.settimeout(0.1)
        asking.send(struct.pack("=IHHII", _HEADER + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body)
        answer = asking.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _BY_FAMILY:
        raise OSError(-struct.unpack_from("=i", answer, _HEADER)[0], "no such connection")
    uid: int = struct.unpack_from("=I", answer, _UID_AT)[0]
    return uid


def _look_up(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The same from the kernel's list of all connections."""
    wanted = [f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}" for host, port in (peer, own)]
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    rows = (line.split() for line in lines)
    return next((int(row[7]) for row in rows if row[1:3] == wanted), None)
