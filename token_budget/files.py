"""Files that other programs may read: written completely or not at all, and changed by one program at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from token_budget.owned import NEW, keeps_mode, place_of

if sys.platform != "win32":
    import fcntl

LOCK_RETRY_S = 0.01


def write_atomically(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace a file's content in one step: a reader sees all of the old content or all of the new.

    A link of this user stays, and one of another user is refused. The mode of an existing file stays; a new one gets
    `mode` less the umask. Devices and pipes are written to. With `durable` the content outlives the machine, for
    which the disk takes its time. Raises OSError, and whatever `chunks` raises; then a regular file is as it was.
    """
    with place_of(path) as place:
        before = place.status()
        if before is not None and not stat.S_ISREG(before.st_mode):
            with os.fdopen(place.open(os.O_WRONLY), "wb") as stream:
                stream.writelines(chunks)
            return
        temporary = f".{place.path.name}.{os.urandom(8).hex()}"
        descriptor = place.open(os.O_WRONLY | NEW, mode, name=temporary)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.writelines(chunks)
                stream.flush()
                if durable:
                    os.fsync(descriptor)
            if before is not None and keeps_mode(before):
                os.chmod(place.beside(temporary), stat.S_IMODE(before.st_mode), dir_fd=place.folder)
            place.replace_by(temporary)
        except BaseException:
            place.unlink(temporary)
            raise


@contextlib.contextmanager
def locked(folder: Path, timeout_s: float) -> Iterator[None]:
    """Lock a folder against all others that use this lock. Raises TimeoutError if that takes too long.

    The lock is on the folder, because a file loses its lock when another one replaces it.
    There is no lock if the folder does not exist, if its file system has none, and on Windows.
    """
    descriptor = _lock(folder, timeout_s)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(folder: Path, timeout_s: float) -> int | None:
    """A descriptor that holds the lock until it is closed; None if nothing can be locked."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    until = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise TimeoutError(f"{folder}: another program locks the folder") from None
            time.sleep(LOCK_RETRY_S)
        except OSError:  # a file system without locks
            return descriptor
        else:
            return descriptor


def append_whole(descriptor: int, data: bytes) -> None:
    """Write all of it. If the disk is full, remove the part that was written. Raises OSError."""
    left = data
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if len(left) < len(data) and stat.S_ISREG(status.st_mode):
                os.ftruncate(descriptor, status.st_size - (len(data) - len(left)))
        raise
