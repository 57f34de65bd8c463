"""The names of files that belong to instances. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from token_budget.text import short_digest

MAX_STEM_CHARS = 80
_UNSAFE = r"[^A-Za-z0-9._-]+"
_MARKED = r".*-[0-9a-f]{8}"
_NUMBERED = (f"{port}{number}" for port in ("com", "lpt") for number in range(10))
_RESERVED = frozenset({"con", "prn", "aux", "nul", *_NUMBERED})  # names of devices on Windows


def file_stems(names: Iterable[str]) -> Mapping[str, str]:
    """A file name without extension for each instance, the same for the same name in every start of a run.

    A name gets a hash at its end if it is no safe file name, or if it differs from another one only in capital letters.
    """
    names = tuple(names)
    folded = Counter(name.casefold() for name in names)
    return {name: _stem(name, is_alone=folded[name.casefold()] == 1) for name in names}


def clean_name(name: str, most_chars: int = MAX_STEM_CHARS) -> str:
    """A name as a part of a file name; several names can become the same."""
    return re.sub(_UNSAFE, "-", name).strip("-.")[:most_chars] or "instance"


def log_name(position: int, name: str, attempt: int) -> str:
    """The name of the file with an attempt's raw stream; `position` is the instance's place in the plan, from 0."""
    number = f".{attempt}" if attempt > 1 else ""
    return f"{position + 1:03}-{clean_name(name, 60)}{number}.jsonl"


def _stem(name: str, *, is_alone: bool) -> str:
    clean = clean_name(name)
    if clean != name or not is_alone or _is_ambiguous(name):
        return f"{clean}-{short_digest(name)}"
    return name


def _is_ambiguous(name: str) -> bool:
    """Whether it ends like a name with a hash, or names a device on Windows."""
    return name.casefold().partition(".")[0] in _RESERVED or re.fullmatch(_MARKED, name) is not None
