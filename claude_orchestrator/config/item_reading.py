"""Reads the items of a `for_each`: files of the workspace that match a pattern, and lines of a file or of standard
input."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from claude_orchestrator.config.globs import matcher
from claude_orchestrator.config.item_sources import ForEach, Glob, InlineItems, ItemFile, ResultOf, check_count
from claude_orchestrator.config.items import MAX_ITEM_CHARS, Item, read_item
from token_budget.fields import BadValue, show_json
from token_budget.text import counted

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_FILES = 2_000_000
GIT_TIMEOUT_S = 60
STANDARD_INPUT = "-"


class ItemReader:
    """Reads items for one config. Standard input can be read once."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._files: list[str] | None = None
        self._input_used = False

    def read(self, source: ForEach) -> tuple[Item, ...]:
        """The items, at least one. Raises BadValue with their places."""
        match source:
            case InlineItems(items):
                return items
            case Glob():
                return self._matching(source)
            case ItemFile():
                return self._from_file(source)
            case ResultOf():
                raise ValueError("the items exist only when the upstream has ended")

    # -- patterns --

    def _matching(self, source: Glob) -> tuple[Item, ...]:
        if self._files is None:
            self._files = _files_of(self._workspace)
        fits, excluded = matcher(source.patterns), matcher(source.exclude, hidden=True)
        chosen = [path for path in self._files if fits(path) and not excluded(path)]
        chosen = [path for path in chosen if (self._workspace / path).is_file()]
        if not chosen:
            patterns = " or ".join(source.patterns)
            why = f"no file of {self._workspace} matches {patterns} (files that git ignores do not count)"
            raise BadValue((".glob", why))
        check_count(len(chosen))
        for path in chosen:
            if not path.isprintable() and any("\ud800" <= char <= "\udfff" for char in path):
                raise BadValue((".glob", f"the name of the file {path!a} is not UTF-8 text: rename the file"))
        return tuple(chosen)

    # -- files --

    def _from_file(self, source: ItemFile) -> tuple[Item, ...]:
        place = f".{source.format}"
        name = "standard input" if source.path == STANDARD_INPUT else source.path
        try:
            text = self._input() if source.path == STANDARD_INPUT else _text_of(self._workspace / source.path)
            rows = list({"lines": _lines, "jsonl": _json_lines, "csv": _csv_rows}[source.format](text))
            check_count(len(rows))
        except OSError as error:
            raise BadValue((place, f"{name}: cannot be read: {error.strerror or error}")) from None
        except UnicodeDecodeError as error:
            raise BadValue((place, f"{name}: is not UTF-8 text (byte {error.start})")) from None
        except ValueError as error:
            raise BadValue((place, f"{name}: {error}")) from None
        if not rows:
            raise BadValue((place, f"{name}: has no items"))
        faults, items = [], []
        for line, row in rows:
            try:
                items.append(read_item(row))
            except BadValue as error:
                faults += [(place, f"{name}: line {line}: {why}") for _, why in error.faults]
        if faults:
            more = [(place, f"{name}: {len(faults) - 10:,} more lines have faults")] if len(faults) > 10 else []
            raise BadValue(*faults[:10], *more)
        return tuple(items)

    def _input(self) -> str:
        if self._input_used:
            raise ValueError("only one for_each can read it")
        self._input_used = True
        raw = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError(f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
        return raw.decode("utf-8-sig")


def _text_of(path: Path) -> str:
    from token_budget.usage.json_file import read_bytes

    return read_bytes(path, MAX_FILE_BYTES).decode("utf-8-sig")


def _lines(text: str) -> Iterator[tuple[int, object]]:
    """The lines that are not blank, with their numbers."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _json_lines(text: str) -> Iterator[tuple[int, object]]:
    for number, line in _lines(text):
        try:
            yield number, json.loads(str(line), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
        except ValueError as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"line {number}: invalid JSON: {why}") from None
        except RecursionError:
            raise ValueError(f"line {number}: invalid JSON: too deeply nested") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {show_json(next(key for key in keys if keys.count(key) > 1))} appears twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no number that JSON knows")
    return float(text)


def _csv_rows(text: str) -> Iterator[tuple[int, object]]:
    import csv

    csv.field_size_limit(MAX_ITEM_CHARS + 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(header)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"line {reader.line_num}: {counted(len(row), 'value')} for {counted(len(header), 'column')}"
                )
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: no CSV: {error}") from None


def _check_header(header: list[str]) -> None:
    """Refuse a first line that can name no columns."""
    if not header:
        raise ValueError("has no items")
    for name in header:
        try:
            float(name)
        except ValueError:
            if not name.strip() or header.count(name) > 1:
                why = "appears twice" if name.strip() else "is empty"
                raise ValueError(f"the first line must name the columns, but {show_json(name)} {why}") from None
        else:
            raise ValueError(f"the first line must name the columns, but {show_json(name)} is a number")


# -- the files of a workspace --


def _files_of(workspace: Path) -> list[str]:
    """The files of a workspace, sorted, without those that git ignores. Raises BadValue."""
    in_git = any((folder / ".git").exists() for folder in (workspace, *workspace.parents))
    found = _listed_by_git(workspace) if in_git else None
    return sorted(set(_walked(workspace) if found is None else found))


def _listed_by_git(workspace: Path) -> list[str] | None:
    """What git lists, tracked or not; None without a git program. No configured program is run by this."""
    words = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "ls-files", "-z"]
    try:
        done = subprocess.run(
            [*words, "--cached", "--others", "--exclude-standard"],
            cwd=workspace,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        raise BadValue((".glob", f"git did not list the files of {workspace} within {GIT_TIMEOUT_S} s")) from None
    if done.returncode != 0:
        why = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise BadValue((".glob", f"git cannot list the files of {workspace}: {why}"))
    return [os.fsdecode(path) for path in done.stdout.split(b"\0") if path]


def _walked(workspace: Path) -> Iterator[str]:
    number = 0
    for folder, folders, files in os.walk(workspace):
        folders[:] = [name for name in folders if name != ".git"]
        within = os.path.relpath(folder, workspace)
        for name in files:
            number += 1
            if number > MAX_FILES:
                raise BadValue((".glob", f"{workspace} has more than {MAX_FILES:,} files"))
            yield name if within == "." else f"{within}/{name}".replace(os.sep, "/")
