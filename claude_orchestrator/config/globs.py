"""Patterns of files, as shells have them: `src/**/*.py`, `docs/[ab]?.md`, `web/*.{ts,tsx}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

MAX_ALTERNATIVES = 1_000


def matcher(patterns: Iterable[str], *, hidden: bool = False) -> Callable[[str], bool]:
    """Whether a path, with `/` between its parts, matches one of the patterns as a whole.

    `**` stands for any folders. Names that begin with a dot match only where the pattern has the dot, or with `hidden`.
    """
    regexes = [_regex(one, hidden) for pattern in patterns for one in alternatives(pattern)]
    if not regexes:
        return lambda path: False
    compiled = re.compile("|".join(regexes), re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def alternatives(pattern: str) -> list[str]:
    """The patterns that one with `{a,b}` stands for."""
    waiting, found = [pattern], list[str]()
    while waiting and len(found) + len(waiting) <= MAX_ALTERNATIVES:
        one = waiting.pop()
        braces = re.search(r"\{([^{}]*,[^{}]*)\}", one)
        if braces is None:
            found.append(one)
        else:
            waiting += [one[: braces.start()] + part + one[braces.end() :] for part in reversed(braces[1].split(","))]
    return found


def _regex(pattern: str, hidden: bool) -> str:
    no_dot = "" if hidden else r"(?!\.)"
    parts = pattern.split("/")
    regex = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            regex += rf"(?:{no_dot}[^/]+/)*" + (rf"{no_dot}[^/]+" if is_last else "")
        else:
            regex += (no_dot if part[:1] in ("*", "?", "[") else "") + _segment(part) + ("" if is_last else "/")
    return regex


def _segment(part: str) -> str:
    pieces = []
    for piece in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", part):
        if piece.startswith("*"):
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif len(piece) > 2 and piece.startswith("["):
            negated = piece.startswith("[!")
            inside = piece[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
            pieces.append(f"[{'^/' if negated else ''}{_literal_caret(inside)}]")
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


def _literal_caret(inside: str) -> str:
    return f"\\{inside}" if inside.startswith("^") else inside
