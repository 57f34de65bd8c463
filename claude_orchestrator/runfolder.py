"""A run's folder: one raw stream log for each instance, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from claude_orchestrator.errors import UserError
from claude_orchestrator.plan import LaunchSpec


def new_run_id(now: datetime) -> str:
    """A run's name, in the order of time: `20261123-164205-3f9a1c`."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class RunFolder:
    """Makes `output_dir/run_id` (mode 0700) and the logs in it. Raises UserError where that is not possible."""

    def __init__(self, output_dir: Path, run_id: str, complain: Callable[[str], None]) -> None:
        self.path = output_dir / run_id
        self._complain = complain
        self._complained = False
        try:
            output_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(f"--output-dir: {output_dir}: cannot be written: {error.strerror or error}") from None

    def open_log(self, spec: LaunchSpec) -> LogFile | None:
        """A new log for an instance; None, said once, where the folder cannot be written any more."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.name).strip("-.")[:60] or "instance"
        path = self.path / f"{spec.index + 1:03}-{name}.jsonl"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            self.failed(error)
            return None
        return LogFile(self, path, fd)

    def failed(self, error: OSError) -> None:
        """Say once that logs are no longer written; the run goes on."""
        if not self._complained:
            self._complained = True
            self._complain(f"logs cannot be written ({error.strerror or error}): the run goes on without them")


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
