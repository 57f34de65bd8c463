"""Reads what the page shows of the files in a run's directory: logs, answers and patches, in bounded parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from claude_orchestrator.engine.control.conversation_json import Item, items_of
from claude_orchestrator.engine.results.answer_files import FOLDER
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple
from token_budget.serving.site import RequestError

MAX_LOG_BYTES = 256 * 1024  # read at once; whole lines may be longer
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_PATCH_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 256 * 1024
CHUNK_BYTES = 64 * 1024  # of a raw log on the page


class FilePart(NamedTuple):
    """A part of a file; `next` is where the part after it begins, `size` that of the whole file."""

    data: bytes
    next: int
    size: int


class NoFileError(RequestError):
    """There is no such file of the run."""

    def __init__(self, text: str) -> None:
        super().__init__(404, text)


class RunFiles:
    """The files of one run. Names come from the run itself, never from a browser. Raises NoFileError."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def attempts(self, row: Mapping[str, Any]) -> list[str]:
        """The logs of an instance, one for each attempt, the earliest first."""
        latest, number = row.get("log"), int(row.get("attempts") or 1)
        if not latest:
            return []
        stem = PurePath(latest).name.removesuffix(".jsonl").removesuffix(f".{number}" if number > 1 else "")
        return [f"{stem}.jsonl", *(f"{stem}.{attempt}.jsonl" for attempt in range(2, number + 1))]

    def conversation(self, log: str, offset: int) -> dict[str, Any]:
        """The items of a log from a byte on that begins a line, and where to continue."""
        part = self.lines(log, offset)
        items: list[Item] = items_of(part.data.split(b"\n"))
        return {"items": items, "next": part.next, "size": part.size}

    def raw(self, log: str, offset: int) -> FilePart:
        """Bytes of a log; a negative offset counts from its end."""
        return self._part(self._folder, log, offset, CHUNK_BYTES)

    def answer(self, row: Mapping[str, Any]) -> FilePart:
        """What an instance answered."""
        name = row.get("result_file")
        if not name:
            raise NoFileError("no answer yet")
        return self._inside(FOLDER, PurePath(name).name, MAX_ANSWER_BYTES)

    def patch(self, row: Mapping[str, Any]) -> FilePart:
        """What an instance changed."""
        path = (row.get("changes") or {}).get("patch")
        if not path:
            raise NoFileError("no changes")
        return self._inside(PurePath(path).parent.name, PurePath(path).name, MAX_PATCH_BYTES)

    def _inside(self, folder: str, name: str, most_bytes: int) -> FilePart:
        try:
            with self._folder.folder(folder) as inner:
                return self._part(inner, name, 0, most_bytes)
        except OSError as error:
            raise NoFileError(f"{folder}/{name}: {error.strerror or error}") from None

    def lines(self, log: str, offset: int) -> FilePart:
        """Whole lines; the last one of a log that has ended may lack its end."""
        most = MAX_LOG_BYTES
        while True:
            part = self._part(self._folder, log, offset, most)
            end = part.data.rfind(b"\n") + 1
            if end or part.next >= part.size:
                return FilePart(part.data[:end], offset + end, part.size)
            if most >= MAX_LINE_BYTES:  # no line of ours: show its beginning, and look for the next one
                return FilePart(part.data, part.next, part.size)
            most = min(MAX_LINE_BYTES, most * 8)

    @staticmethod
    def _part(folder: Folder, name: str, offset: int, most_bytes: int) -> FilePart:
        try:
            with os.fdopen(folder.file(name, os.O_RDONLY), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = min(size, max(0, size + offset if offset < 0 else offset))
                file.seek(start)
                data = file.read(most_bytes)
        except OSError as error:
            raise NoFileError(f"{name}: {error.strerror or error}") from None
        return FilePart(data, start + len(data), size)
