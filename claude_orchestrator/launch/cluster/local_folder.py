"""The folder of a cluster that lives as long as its run. A later run removes that of a run that was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = "co-ray-"  # short, because the paths of Ray's sockets are limited
LOCK = "lock"  # held by the run
OF_RAY = "r"  # Ray lets everybody into the folder that it gets


@contextlib.contextmanager
def local_folder() -> Iterator[Path]:
    """A new folder for Ray inside one that only its owner may enter, until the end of this context."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if sys.platform != "win32":
            new = folder / f"{LOCK}.new"
            lock = stack.enter_context(new.open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            new.rename(folder / LOCK)  # nobody finds it without its lock
        yield folder / OF_RAY


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's runs that were killed."""
    if sys.platform == "win32":
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or not a folder of a run, or another run removes it
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder / OF_RAY)  # first: what cannot be removed yet is found again
                shutil.rmtree(folder)
