"""Moves the state of earlier versions to its new place: completely or not at all, and never while a run uses it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from token_budget.files import locked

if sys.platform != "win32":
    import fcntl

LOCK_TIMEOUT_S = 10.0
_JOURNAL = "journal.jsonl"
_BESIDE_LEDGER = ("-wal", "-shm", "-journal")  # https://sqlite.org/tempfiles.html


class InUseError(Exception):
    """A run is using the state, so it cannot be moved."""


def move_state(old: Path, new: Path, notify: Callable[[str], None]) -> Path:
    """Move a ledger or a folder of run directories; returns the place to use from now on.

    Safe when several programs start at once. `notify` receives one line: what was moved, or why nothing was.
    """
    try:
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(old.parent, LOCK_TIMEOUT_S):
            if os.path.lexists(new) or not os.path.lexists(old):  # another program was first
                return new
            _move_runs(old, new) if old.is_dir() else _move_ledger(old, new)
    except InUseError:
        notify(f"{old} stays in use until it can be moved to {new}: a run is using it")
        return old
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        notify(f"{old} stays in use: it cannot be moved to {new}: {reason}")
        return old
    notify(f"moved {old} to {new}")
    return new


def _move_ledger(old: Path, new: Path) -> None:
    """Move a database that nobody uses as one file. Raises InUseError, OSError or sqlite3.Error; then it stays."""
    if _is_database(old):
        _fold_in(old)
    if any(os.path.lexists(Path(f"{old}{suffix}")) for suffix in _BESIDE_LEDGER):
        raise InUseError
    _move(old, new)


def _is_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _fold_in(file: Path) -> None:
    """Write what a database's log holds into the database itself. Raises InUseError where it is open elsewhere."""
    database = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        # leave WAL mode, which only a sole connection can do: https://sqlite.org/wal.html
        database.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InUseError from None
        raise
    finally:
        database.close()


def _move_runs(old: Path, new: Path) -> None:
    """Move the run directories. Raises InUseError or OSError; then they stay."""
    if any(_is_locked(journal) for journal in old.glob(f"*/{_JOURNAL}")):
        raise InUseError
    _move(old, new)


def _is_locked(journal: Path) -> bool:
    """Whether an orchestrator has this journal open."""
    if sys.platform == "win32":
        return False  # there open files cannot be moved
    try:
        with journal.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _move(old: Path, new: Path) -> None:
    """Move a file or folder: `new` appears complete, and only then is `old` removed. Raises OSError."""
    if old.is_symlink():
        new.symlink_to(old.resolve())  # a relative target would not be found from there
        old.unlink()
        return
    try:
        old.rename(new)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:  # not merely another file system
            raise
    copy = new.with_name(f".{new.name}.{os.urandom(8).hex()}")
    try:
        if old.is_dir():
            shutil.copytree(old, copy, symlinks=True)
        else:
            shutil.copy2(old, copy)
        for path in (copy, *copy.rglob("*")) if copy.is_dir() else (copy,):
            _to_disk(path)
        copy.rename(new)
    except BaseException:
        _remove(copy)
        raise
    with contextlib.suppress(OSError):
        _remove(old)


def _to_disk(path: Path) -> None:
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
