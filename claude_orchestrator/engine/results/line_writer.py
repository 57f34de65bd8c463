"""Hands results on as lines of JSON, to a file or to standard output, without holding up the run."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from claude_orchestrator.engine.results.answers import Answer, result_row
from claude_orchestrator.engine.run_events import InstanceEnded, RunEvent
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.files import append_whole
from token_budget.owned import open_to_write

STANDARD_OUTPUT = Path("-")


class ResultLines:
    """An observer that writes a line for each instance that ends, in that order."""

    def __init__(self, run_id: str, answer_of: Callable[[str], Answer], writer: LineWriter) -> None:
        self._run_id = run_id
        self._answer_of = answer_of
        self._writer = writer

    def observe(self, event: RunEvent) -> None:
        """Have the line written, if an instance has ended."""
        if isinstance(event, InstanceEnded):
            self._writer.put(partial(self._line, event.status))

    def _line(self, status: InstanceStatus) -> bytes:
        row = result_row(self._run_id, status, self._answer_of(status.name))
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"


class LineWriter:
    """Writes lines in a thread of its own, each one whole; a line is made only when it is written.

    After the first error nothing more is written. A file then ends with its last whole line.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self._path = path
        self._append = append
        self._error: OSError | None = None
        self._queue: queue.SimpleQueue[Callable[[], bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def put(self, make: Callable[[], bytes]) -> None:
        """Write the line that `make` returns, soon."""
        self._queue.put(make)

    def close(self) -> OSError | None:
        """Wait until all is written; returns the error that kept lines from being written."""
        self._queue.put(None)
        self._thread.join()
        return self._error

    def _write_all(self) -> None:
        try:
            fd = self._open()
        except OSError as error:
            self._error = error
        while (make := self._queue.get()) is not None:
            if self._error is None:
                try:
                    append_whole(fd, make())
                except OSError as error:
                    self._error = error
        if self._error is None and self._path != STANDARD_OUTPUT:
            os.close(fd)

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return sys.stdout.fileno()
        return open_to_write(self._path, os.O_APPEND if self._append else os.O_TRUNC)
