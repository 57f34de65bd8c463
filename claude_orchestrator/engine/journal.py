"""A run's journal: every launch, count, decision and ending, written as it happens, so that a kill loses nothing.

Each line is a JSON object with its number. Its last member is the CRC-32 of the bytes before it. Counts are totals,
so the next line makes up for one that is missing or torn. Prompts and the environment are never written.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from claude_orchestrator.engine.journal_records import record_of
from claude_orchestrator.engine.run_events import RunEvent
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.background import run_in_thread
from token_budget.folders import Folder
from token_budget.owned import NEW, NotOursError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = "journal.jsonl"
MAX_BYTES = 4 * 1024 * 1024 * 1024  # a run of 10,000 instances writes some 10 MB
MAX_PENDING_BYTES = 16 * 1024 * 1024
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_CRC_BYTES = len(b',"crc":"01234567"}')

Record = dict[str, Any]


def encode(record: Record) -> bytes:
    """A record as one line, with the line end."""
    body = _ENCODER.encode(record).encode()
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> Record | None:
    """The record in a line; None if the line is torn or damaged."""
    body = line[:-_CRC_BYTES] + b"}"
    if line[len(body) - 1 :] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    try:
        record = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def records(data: bytes) -> Iterator[Record | None]:
    """The records of a journal; None for each damaged line, except a torn last one, which a kill may leave."""
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        record = decode(line) if line else None
        if record is not None or (line and number < len(lines) - 1):
            yield record


class Journal:
    """Appends records to a run's journal; `begin` is written before the first.

    A full disk is reported once. What cannot be written waits for free space, up to 16 MiB.
    """

    def __init__(
        self, fd: int, warn: Callable[[str], None], now: Callable[[], float] = time.time, *, begin: bytes = b""
    ) -> None:
        self._fd: int | None = fd
        self._warn: Callable[[str], None] | None = warn
        self._now = now
        self._pending: deque[bytes] = deque([begin] if begin else [])
        self._pending_bytes = len(begin)
        self._given_up = False
        self._written = self._synced = 0
        self._syncing: asyncio.Task[None] | None = None

    def write(self, kind: str, /, **fields: object) -> None:
        """Append a record and hand it to the operating system: it outlives this process, whatever kills it."""
        if self._fd is None or self._given_up:
            return
        self._written += 1
        line = encode({"n": self._written, "kind": kind, "at": round(self._now(), 3), **fields})
        self._pending.append(line)
        self._pending_bytes += len(line)
        try:
            while self._pending:
                written = os.write(self._fd, self._pending[0])
                self._pending_bytes -= written
                rest = self._pending.popleft()[written:]
                if rest:
                    self._pending.appendleft(rest)
        except OSError as error:
            self._failed(error)
            if self._pending_bytes > MAX_PENDING_BYTES:
                self._pending.clear()
                self._given_up = True  # the lock stays: no other orchestrator may take the run

    def observe(self, event: RunEvent) -> None:
        """Append the record of an event, if the journal keeps it."""
        record = record_of(event)
        if record is not None:
            kind, fields = record
            self.write(kind, **fields)

    def continue_after(self, number: int) -> None:
        """Continue the numbers of the lines that the journal has already."""
        self._written = self._synced = number

    async def sync(self) -> None:
        """Wait until what was written so far is on the disk; concurrent callers share one fsync."""
        upto = self._written
        while self._synced < upto and self._fd is not None:
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.ensure_future(self._fsync(self._fd))
            await asyncio.shield(self._syncing)

    async def _fsync(self, fd: int) -> None:
        upto = self._written
        try:
            await run_in_thread(partial(os.fsync, fd))
        except OSError as error:
            self._failed(error)
        self._synced = upto

    def _failed(self, error: OSError) -> None:
        if self._warn is not None:
            why = error.strerror or error
            self._warn(f"the journal cannot be written ({why}): the run continues, but may not be resumable")
        self._warn = None

    def close(self) -> None:
        """Close the journal and give up its lock: another orchestrator may resume the run."""
        self._pending.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def create(directory: Folder, warn: Callable[[str], None]) -> Journal:
    """Create a new run's journal, readable by its owner alone, and lock it. Raises UserError if that fails."""
    try:
        fd = directory.file(NAME, os.O_WRONLY | os.O_APPEND | NEW)
    except OSError as error:
        raise UserError(f"{directory.path / NAME}: cannot be written: {error.strerror or error}") from None
    _lock(fd)
    return Journal(fd, warn)


def reopen(directory: Folder, warn: Callable[[str], None], verb: str = "resume") -> tuple[bytes, Journal]:
    """Open and lock an earlier run's journal to continue it; returns its content and the journal.

    Raises UserError if it cannot be read, if another user can write to it, or if another orchestrator is running it.
    """
    try:
        fd = directory.file(NAME, os.O_RDWR | os.O_APPEND)
    except NotOursError as error:
        raise UserError(f"--{verb}: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"--{verb}: {directory.path / NAME}: cannot be opened: {error.strerror or error}") from None
    if not _lock(fd):
        os.close(fd)
        raise UserError(f"--{verb}: run {directory.path.name} is in use by another orchestrator")
    if os.fstat(fd).st_size > MAX_BYTES:
        os.close(fd)
        what = f"{directory.path / NAME}: is larger than {MAX_BYTES // 2**30} GiB"
        raise UserError(f"--{verb}: {what}: this run cannot be read")
    with open(fd, "rb", closefd=False) as file:
        data = file.read()
    torn = bool(data) and not data.endswith(b"\n")  # a torn last line stays as it is
    return data, Journal(fd, warn, begin=b"\n" if torn else b"")


def _lock(fd: int) -> bool:
    """Lock a file until this process ends; False if another process has the lock. Some file systems have no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, 2**40, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            os.lseek(fd, 0, os.SEEK_SET)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    return True


def is_locked(fd: int) -> bool:
    """Whether an orchestrator has a journal, which is open for reading. The lock itself is not touched."""
    if sys.platform == "linux":
        inode = str(os.fstat(fd).st_ino)
        try:
            locks = Path("/proc/locks").read_text()
        except OSError:
            return False
        return any(
            line.split()[1:2] == ["FLOCK"] and line.split()[5].rpartition(":")[2] == inode
            for line in locks.splitlines()
        )
    return False
