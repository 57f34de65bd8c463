"""Files that other programs may read: written completely or not at all, and changed by one program at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

LOCK_RETRY_S = 0.01
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace a file's content in one step: a reader sees all of the old content or all of the new.

    A symbolic link stays, and so does the mode of an existing file; a new one gets `mode` less the umask. Devices and
    pipes are written to. With `durable` the content outlives the machine, for which the disk takes its time. Raises
    OSError, and whatever `chunks` raises; then a regular file is as it was.
    """
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        with path.open("wb") as stream:
            stream.writelines(chunks)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            if durable:
                os.fsync(descriptor)
        if before is not None:
            temporary.chmod(stat.S_IMODE(before.st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
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
