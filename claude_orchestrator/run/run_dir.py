"""A run's folder: its journal and a raw stream log for each attempt at an instance, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.errors import UserError
from claude_orchestrator.run import journal
from claude_orchestrator.run.resume import History, read_history

LAST = "last"


def new_run_id(now: datetime) -> str:
    """A run's name, in the order of time: `20261123-164205-3f9a1c`."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class RunFolder:
    """A run's folder, and where its logs are opened."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self.path = path
        self.complain = complain
        self._complained = False

    @classmethod
    def make(cls, output_dir: Path, run_id: str, complain: Callable[[str], None]) -> RunFolder:
        """Make `output_dir/run_id` (mode 0700). Raises UserError where that is not possible."""
        path = output_dir / run_id
        try:
            output_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"--output-dir: {output_dir}: cannot be written: {error.strerror or error}") from None
        return cls(path, complain)

    def open_log(self, spec: LaunchSpec, attempt: int) -> LogFile | None:
        """A new log for an instance's attempt; None, said once, where the folder cannot be written any more."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.name).strip("-.")[:60] or "instance"
        number = f".{attempt}" if attempt > 1 else ""
        path = self.path / f"{spec.index + 1:03}-{name}{number}.jsonl"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            self.failed(error)
            return None
        return LogFile(self, path, fd)

    def keep(self, spec: LaunchSpec, option: str, text: str) -> str:
        """Store an option's text where only its owner reads it; returns the path. Raises OSError."""
        path = (self.path / f"{spec.index + 1:03}.{option}").absolute()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        return str(path)

    def failed(self, error: OSError) -> None:
        """Say once that logs are no longer written; the run goes on."""
        if not self._complained:
            self._complained = True
            self.complain(f"logs cannot be written ({error.strerror or error}): the run goes on without them")


class LogFile:
    """One instance's raw stream."""

    def __init__(self, folder: RunFolder, path: Path, fd: int) -> None:
        self.path = str(path)
        self._folder = folder
        self._fd: int | None = fd

    def write(self, data: bytes) -> None:
        """Append what the instance has written; after a first failure nothing more."""
        if self._fd is None:
            return
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.close()
            self._folder.failed(error)

    def close(self) -> None:
        """No more lines come."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that is to be gone on with: its folder, what its journal tells, and the journal, locked."""

    folder: RunFolder
    history: History
    journal: journal.Journal


def reopen_run(output_dir: Path, run_id: str, complain: Callable[[str], None], *, rehearsal: bool) -> EarlierRun:
    """The run with this id, or for `last` the one that wrote last (rehearsals and real runs apart).

    Raises UserError where there is none, or another orchestrator is at work on it.
    """
    if run_id == LAST:
        path = _last_run(output_dir, complain, rehearsal=rehearsal)
    else:
        path = output_dir / run_id
        if path.name != run_id or run_id in ("", "..") or path.is_symlink() or not path.is_dir():
            raise UserError(f"--resume: no run {run_id!r} in {output_dir}")
    data, opened = journal.reopen(path, complain)
    history = read_history(journal.records(data))
    if not history.header:
        opened.close()
        raise UserError(f"--resume: {path / journal.NAME}: its first line is damaged: this run cannot be resumed")
    opened.continue_after(history.last_number)
    return EarlierRun(RunFolder(path, complain), history, opened)


def _last_run(output_dir: Path, complain: Callable[[str], None], *, rehearsal: bool) -> Path:
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
        complain(f"--resume last: {path.name} is newer, but its journal is damaged: passed over")
    return last[1]
