"""Reads and writes the files that profiles are in, with their comments."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from token_budget.fields import expected, is_comment, show_json
from token_budget.files import locked, write_atomically
from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes
from token_budget.usage.nearest import nearest

MAX_FILE_BYTES = 1024 * 1024
LOCKED_S = 10.0  # how long a writer waits for others


class _Comment(str):
    """A comment's key. It equals only itself, so that comments with the same key all stay."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {show_json(key)} appears twice in one object")
        result[_Comment(key) if key.startswith("//") else key] = value
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number that can be used")
    return number


def read_document(file: Path) -> dict[str, object]:
    """The JSON object of a file; {} if there is no file. Raises ValueError if it is something else."""
    try:
        document = parse_json(read_bytes(file, MAX_FILE_BYTES), file.name, _unique_keys, _finite)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{file}: cannot read the profiles: {error.strerror or error}") from None
    except JsonFileError as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file}: {expected('an object', document)}")
    return document


def profiles_in(file: Path, document: Mapping[str, object]) -> dict[str, object]:
    """The profiles of a file's document, unchecked. Raises ValueError if it holds something else."""
    faults = [
        f"{file}: {plain(key)}: unknown key{did_you_mean(key, ['profiles'])}"
        for key in document
        if key != "profiles" and not is_comment(key)
    ]
    profiles = document.get("profiles")
    if profiles is not None and not isinstance(profiles, dict):
        faults.append(f"{file}: profiles: {expected('an object of name: profile', profiles)}")
    if faults:
        raise ValueError("\n".join(faults))
    return {k: data for k, data in profiles.items() if not is_comment(k)} if isinstance(profiles, dict) else {}


def without_comments(data: object) -> object:
    """The data without the keys that are comments."""
    if not isinstance(data, dict):
        return data
    return {key: without_comments(value) for key, value in data.items() if not is_comment(key)}


def _merged(old: object, new: Mapping[str, object]) -> dict[str, object]:
    """The new object with the old one's comments, in the old one's order."""
    kept = old if isinstance(old, dict) else {}
    merged = {
        key: value if is_comment(key) else new[key] for key, value in kept.items() if is_comment(key) or key in new
    }
    for key, value in new.items():
        merged[key] = _merged(kept.get(key), value) if isinstance(value, Mapping) else value
    return merged


def put_profiles(document: dict[str, object], profiles: Mapping[str, Mapping[str, object]]) -> None:
    """Put profiles into a file's document, which `profiles_in` has read. They replace those with the same names."""
    there = document["profiles"] = document.get("profiles") or {}
    assert isinstance(there, dict)
    for name, values in profiles.items():
        there[name] = _merged(there.get(name), values)


@contextlib.contextmanager
def alone_in_folder(file: Path, *, make_folder: bool = True) -> Iterator[None]:
    """Lock the folder of a file against other programs. Raises ValueError if that takes longer than LOCKED_S."""
    folder = Path(os.path.realpath(file)).parent
    if make_folder:
        with contextlib.suppress(OSError):  # reading the file gives the reason
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder, LOCKED_S):
            yield
    except TimeoutError:
        raise ValueError(f"{file}: cannot write the profiles: another program locks the folder") from None


def write_document(file: Path, document: Mapping[str, object]) -> None:
    """Replace a file in one step, or create it for its owner only. A symbolic link stays a link."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    raw = text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes its JSON escape
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{file}: the file would be larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        write_atomically(file, [raw], mode=0o600)
    except OSError as error:
        raise ValueError(f"{file}: cannot write the profiles: {error.strerror or error}") from None


# -- words --


def place_in(file: Path, name: str) -> str:
    """Where a profile is, as messages name it."""
    return f"{file}: profiles.{plain(name)}"


def plain(text: str) -> str:
    """The text on one line, with what could drive a terminal escaped."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at near names, or else at the known ones."""
    known = sorted(known)
    near = nearest(name, known)
    if near:
        return f"; did you mean {' or '.join(show_json(one) for one in near)}?"
    return (
        f"; known: {', '.join(map(plain, known[:20]))}{', ...' if len(known) > 20 else ''}" if known else "; none known"
    )
