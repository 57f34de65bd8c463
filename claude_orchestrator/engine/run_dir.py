"""A run directory: the run's journal, and a raw stream log for each attempt, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine import journal
from claude_orchestrator.engine.file_names import log_name
from claude_orchestrator.engine.journal_history import JournalHistory, read_history
from claude_orchestrator.errors import UserError
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple
from token_budget.owned import NEW, NotOursError

LAST = "last"
MAX_HEADER_BYTES = 64 * 1024 * 1024


def new_run_id(now: datetime) -> str:
    """A new id; ids sort by time: `20261123-164205-3f9a1c`."""
    return f"{now:%Y%m%d-%H%M%S}-{os.urandom(3).hex()}"


class RunDirectory:
    """A run's directory. It opens the logs, and warns once if they cannot be written.

    All files are opened relative to the folder's descriptor, so that nobody can put another folder in its place.
    """

    def __init__(self, folder: Folder, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self.path = folder.path
        self._warn = warn
        self._reported = False

    @classmethod
    def make(cls, output_dir: Path, run_id: str, warn: Callable[[str], None]) -> RunDirectory:
        """Make `output_dir/run_id` with mode 0700. Raises UserError if that fails."""
        try:
            with Folder.open(output_dir, create=True, may_be_shared=True) as parent:
                return cls(parent.folder(run_id, new=True), warn)
        except NotOursError as error:
            raise UserError(f"--output-dir: {error.strerror}") from None
        except OSError as error:
            raise UserError(f"--output-dir: {output_dir}: cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the folder; nothing more can be opened in it."""
        self.folder.close()

    def open_log(self, spec: LaunchSpec, attempt: int) -> LogFile | None:
        """Open a new log for an attempt; None if that fails, which is reported once."""
        file_name = log_name(spec.position, spec.name, attempt)
        try:
            fd = self.folder.file(file_name, os.O_WRONLY | NEW)
        except OSError as error:
            self.failed(error)
            return None
        return LogFile(self, self.path / file_name, fd)

    def keep(self, spec: LaunchSpec, option: str, text: str) -> str:
        """Store an option's text in a file that only its owner can read; returns the path. Raises OSError."""
        file_name = f"{spec.position + 1:03}.{option}"
        fd = self.folder.file(file_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        return str((self.path / file_name).absolute())

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


def reopen_run(
    output_dir: Path, run_id: str, warn: Callable[[str], None], *, rehearsal: bool, verb: str = "resume"
) -> EarlierRun:
    """Open the run with this id; `last` is the latest rehearsal or the latest real run, as `rehearsal` asks.

    Messages name the option `verb`.

    Raises UserError if there is none, if another user made it, or if another orchestrator is running it.
    """
    try:
        with Folder.open(output_dir, may_be_shared=True) as runs:
            name = _last_run(runs, warn, rehearsal=rehearsal, verb=verb) if run_id == LAST else _whole(runs, run_id)
            if Path(name).name != name or name in ("", ".."):
                raise FileNotFoundError
            folder = runs.folder(name)
    except NotOursError as error:
        raise UserError(f"--{verb}: {error.strerror}") from None
    except OSError:
        what = f"run {run_id!r}" if run_id != LAST else f"{'rehearsal' if rehearsal else 'run'} to {verb}"
        raise UserError(f"--{verb}: no {what} in {output_dir}: claude-runs lists the runs") from None
    data, opened = journal.reopen(folder, warn, verb)
    history = read_history(journal.records(data))
    if not history.header:
        opened.close()
        raise UserError(
            f"--{verb}: {folder.path / journal.NAME}: its first line is damaged: this run cannot be resumed"
        )
    opened.continue_after(history.last_number)
    return EarlierRun(RunDirectory(folder, warn), history, opened)


def _whole(runs: Folder, beginning: str) -> str:
    """The only run that begins like this, as for claude-runs; else the text itself."""
    found = [name for name in runs.names() if name.startswith(beginning)] if beginning else []
    return found[0] if len(found) == 1 else beginning


def _last_run(runs: Folder, warn: Callable[[str], None], *, rehearsal: bool, verb: str) -> str:
    """The name of the latest run. Raises FileNotFoundError if there is none."""
    found, unreadable = [], []
    for name in runs.names():
        try:
            with runs.folder(name) as folder, os.fdopen(folder.file(journal.NAME, os.O_RDONLY), "rb") as file:
                header = journal.decode(file.readline(MAX_HEADER_BYTES).rstrip(b"\n"))
                written_ns = os.fstat(file.fileno()).st_mtime_ns
        except NotOursError as error:
            warn(f"--{verb} last: skipped: {error.strerror}")
        except OSError:  # no run, or one without a journal
            continue
        else:
            if header is None:
                unreadable.append((written_ns, name))
            elif header.get("rehearsal") is rehearsal:
                found.append((written_ns, name))
    if not found:
        raise FileNotFoundError
    last = max(found)
    for _, name in sorted(newer for newer in unreadable if newer > last):
        warn(f"--{verb} last: {name} is newer, but its journal is damaged: skipped")
    return last[1]
