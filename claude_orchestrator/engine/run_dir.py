"""A run directory: the run's journal, and a raw stream log for each attempt, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.engine import journal
from claude_orchestrator.engine.resume import JournalHistory, read_history
from claude_orchestrator.errors import UserError

LAST = "last"


def new_run_id(now: datetime) -> str:
    """A new id; ids sort by time: `20261123-164205-3f9a1c`."""
    return f"{now:%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


class RunDirectory:
    """A run's directory. It opens the logs, and warns once if they cannot be written."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._reported = False

    @classmethod
    def make(cls, output_dir: Path, run_id: str, warn: Callable[[str], None]) -> RunDirectory:
        """Make `output_dir/run_id` with mode 0700. Raises UserError if that fails."""
        path = output_dir / run_id
        try:
            output_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"--output-dir: {output_dir}: cannot be written: {error.strerror or error}") from None
        return cls(path, warn)

    def open_log(self, spec: LaunchSpec, attempt: int) -> LogFile | None:
        """Open a new log for an attempt; None if that fails, which is reported once."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.name).strip("-.")[:60] or "instance"
        number = f".{attempt}" if attempt > 1 else ""
        path = self.path / f"{spec.position + 1:03}-{name}{number}.jsonl"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            self.failed(error)
            return None
        return LogFile(self, path, fd)

    def keep(self, spec: LaunchSpec, option: str, text: str) -> str:
        """Store an option's text in a file that only its owner can read; returns the path. Raises OSError."""
        path = (self.path / f"{spec.position + 1:03}.{option}").absolute()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        return str(path)

    def failed(self, error: OSError) -> None:
        """Report once that logs cannot be written; the run continues."""
        if not self._reported:
            self._reported = True
            self._warn(f"logs cannot be written ({error.strerror or error}): the run continues without them")


class LogFile:
    """One instance's raw stream."""

    def __init__(self, directory: RunDirectory, path: Path, fd: int) -> None:
        self.path = str(path)
        self._directory = directory
        self._fd: int | None = fd

    def write(self, data: bytes) -> None:
        """Append what the instance has written. After a first failure, nothing more is written."""
        if self._fd is None:
            return
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.close()
            self._directory.failed(error)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None


class EarlierRun(NamedTuple):
    """A run to resume: its directory, what its journal records, and the journal, locked."""

    directory: RunDirectory
    history: JournalHistory
    journal: journal.Journal


def reopen_run(output_dir: Path, run_id: str, warn: Callable[[str], None], *, rehearsal: bool) -> EarlierRun:
    """Open the run with this id; `last` is the latest rehearsal or the latest real run, as `rehearsal` asks.

    Raises UserError if there is none, or if another orchestrator is running it.
    """
    if run_id == LAST:
        path = _last_run(output_dir, warn, rehearsal=rehearsal)
    else:
        path = output_dir / run_id
        if path.name != run_id or run_id in ("", "..") or path.is_symlink() or not path.is_dir():
            raise UserError(f"--resume: no run {run_id!r} in {output_dir}")
    data, opened = journal.reopen(path, warn)
    history = read_history(journal.records(data))
    if not history.header:
        opened.close()
        raise UserError(f"--resume: {path / journal.NAME}: its first line is damaged: this run cannot be resumed")
    opened.continue_after(history.last_number)
    return EarlierRun(RunDirectory(path, warn), history, opened)


def _last_run(output_dir: Path, warn: Callable[[str], None], *, rehearsal: bool) -> Path:
    found, unreadable = [], []
    for path in output_dir.glob(f"*/{journal.NAME}"):
        if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(OSError), path.open("rb") as file:
            header = journal.decode(file.readline().rstrip(b"\n"))
            if header is None:
                unreadable.append((path.stat().st_mtime_ns, path.parent))
            elif header.get("rehearsal") is rehearsal:
                found.append((path.stat().st_mtime_ns, path.parent))
    if not found:
        raise UserError(f"--resume: no {'rehearsal' if rehearsal else 'run'} to resume in {output_dir}")
    last = max(found)
    for _, path in sorted(newer for newer in unreadable if newer > last):
        warn(f"--resume last: {path.name} is newer, but its journal is damaged: skipped")
    return last[1]
