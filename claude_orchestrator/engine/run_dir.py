"""A run directory: the run's journal, and a raw stream log for each attempt, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.file_names import log_name
from claude_orchestrator.errors import UserError
from token_budget.folders import Folder
from token_budget.owned import NEW, NotOursError


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
