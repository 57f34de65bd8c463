"""Reads JSON files that people write. Its errors tell what to change."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

Pairs = Callable[[list[tuple[str, object]]], object]
_YAML = (".yaml", ".yml", ".toml", ".json5", ".jsonc")


class JsonFileError(ValueError):
    """Why a file is not valid JSON. The text does not name the file."""


def read_bytes(file: Path, limit_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError, and JsonFileError if it is too large or no regular file.

    It refuses a pipe or a device at once, so that nobody waits for a writer.
    """
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as stream:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory")
        if not stat.S_ISREG(mode):
            raise JsonFileError("is not a regular file")
        raw = stream.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise JsonFileError(f"is larger than {limit_bytes // 2**20} MiB")
    return raw


def parse_json(raw: bytes, name: str, pairs: Pairs, number: Callable[[str], float] = float) -> object:
    """The JSON of a file with that name. `pairs` makes objects, `number` reads numbers that are no integers.

    Raises JsonFileError with the place at which the text is not JSON, and the likely cause.
    """
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=pairs, parse_float=number, parse_constant=number)
    except UnicodeDecodeError as error:
        raise JsonFileError(f"not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        cause = _cause(error, name) or error.msg
        raise JsonFileError(f"line {error.lineno} column {error.colno}: invalid JSON: {cause}") from None
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise JsonFileError(f"invalid JSON: {reason}") from None


def _cause(error: json.JSONDecodeError, name: str) -> str | None:
    """The likely cause; None if none is known."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if after.startswith(("}", "]")) and before.endswith(","):
        return f"an extra comma before {after[0]!r}"
    if after.startswith(",") and after[1:].lstrip().startswith(("}", "]")):  # where Python 3.13 points
        return f"an extra comma before {after[1:].lstrip()[0]!r}"
    if after.startswith(("//", "/*", "#")) and before:
        return "JSON has no comments: use a key that begins with //"
    if name.lower().endswith(_YAML) or (after and not error.doc.lstrip().startswith(("{", "["))):
        return 'this file has to be JSON, such as {"instances": [...]}; keys that begin with // are comments'
    return None
