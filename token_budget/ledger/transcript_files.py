"""The files and lines of a folder of JSON Lines that other programs write, also where lines are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 64 * 1024 * 1024
_RECORD_START = re.compile(r'\{\s*"')
_DECODER = json.JSONDecoder()
_TOO_DEEP_CHARS = 10_000  # what an attempt at too deeply nested text costs at most
_FOLLOWS_A_RECORD = ("", "{", "\0", " ", "\t", "\r", "\n")


def find_files(top: Path, suffix: str) -> list[Path]:
    """All files below `top` whose names end in `suffix`, each once, in an order that only their paths decide.

    Follows symbolic links. A file or folder that several paths lead to is read by the first one, and by one without
    a link if there is one. Raises OSError where a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    files: list[Path] = []
    folders, links = [top], list[Path]()
    while folders or links:
        path = folders.pop() if folders else links.pop(0)
        if not _is_new(path, seen):
            continue
        if path.is_file():
            files += [path] if path.name.endswith(suffix) else []
            continue
        found, below, linked = _entries(path, suffix)
        files += [file for file in found if _is_new(file, seen)]
        folders += below
        links = sorted([*links, *linked])
    return sorted(files)


def _entries(folder: Path, suffix: str) -> tuple[list[Path], list[Path], list[Path]]:
    """A folder's files, its folders, and its links."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    real = [entry for entry in ordered if not entry.is_symlink()]
    return (
        [Path(entry.path) for entry in real if entry.is_file() and entry.name.endswith(suffix)],
        [Path(entry.path) for entry in real if entry.is_dir()],
        [Path(entry.path) for entry in ordered if entry.is_symlink()],
    )


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether there is a file or folder that no other path has led to yet."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        if path.is_symlink():  # a loop, or a target that this user may not see
            return False
        raise
    identity = (status.st_dev, status.st_ino)
    if identity in seen or not (path.is_dir() or path.is_file()):
        return False
    seen.add(identity)
    return True


def read_objects(file: BinaryIO) -> Iterator[dict[str, object] | None]:
    """Each JSON object in a file of JSON Lines, and None for each damaged or foreign piece of text.

    A whole object counts even if a cut one or NUL bytes precede it on the line, or if several share a line. Bytes that
    are not UTF-8 become replacement characters.
    """
    for line in _lines(file):
        if line is None:
            yield None
            continue
        text = line.decode("utf-8", "replace").strip("\0 \t\r\n")
        if not text:
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            yield from _salvage(text)
        else:
            yield data if isinstance(data, dict) else None


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The file's lines; None for one that is too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield None
        else:
            yield line


def _salvage(text: str) -> Iterator[dict[str, object] | None]:
    """The whole objects of a damaged line, in order, after None if anything else was on it.

    A part of a cut object is no object: what is whole ends where the line ends or another object begins.
    """
    found: list[dict[str, object]] = []
    rest, taken_to = "", 0
    position, work_left = 0, 8 * len(text) + 65_536
    while work_left > 0 and (start := _RECORD_START.search(text, position)):
        begin = start.start()
        position = begin + 1
        try:
            data, end = _DECODER.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            work_left -= error.pos - begin + 1
        except RecursionError:
            work_left -= _TOO_DEEP_CHARS
        else:
            work_left -= end - begin
            if text[end : end + 1] in _FOLLOWS_A_RECORD and isinstance(data.get("type"), str):
                found.append(data)
                rest += text[taken_to:begin]
                position = taken_to = end
    if (rest + text[taken_to:]).strip("\0 \t\r\n"):
        yield None
    yield from found


def open_if_there(path: Path) -> contextlib.AbstractContextManager[BinaryIO | None]:
    """The file open for reading; None where it has been deleted meanwhile. Raises OSError."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return contextlib.nullcontext()
