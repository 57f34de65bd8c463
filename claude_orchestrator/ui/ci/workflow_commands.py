"""Lines of a log in GitHub Actions: annotations, groups, and text that is no command. Pure.

A runner takes a line for a command if it begins with `::`, or if it contains `##[` anywhere. In the message of a
command `%`, CR and LF are escaped, and in a property also `:` and `,`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from token_budget.text import printable

TITLE = "claude-orchestrator"
KINDS = {"WARNING": "warning", "ERROR": "error"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def annotation(level: str, text: str) -> str:
    """The line that annotates a workflow with a message, if it is a warning or an error; else a line of the log."""
    kind = KINDS.get(level)
    if kind is None:
        return plain(f"{level}: {printable(text)}")
    message = _no_old_command(printable(text)).translate(_DATA)
    return f"::{kind} title={TITLE.translate(_PROPERTY)}::{message}"


def group(lines: Iterable[str]) -> Iterator[str]:
    """Lines that a log shows folded, under the first of them."""
    first, *rest = lines
    yield f"::group::{_no_old_command(first).translate(_DATA)}"
    yield from map(plain, rest)
    yield "::endgroup::"


def plain(line: str) -> str:
    """A line that is no command, whatever it contains."""
    text = line.lstrip()
    if text.startswith("::"):
        line = f": :{text[2:]}"
    return _no_old_command(line)


def _no_old_command(text: str) -> str:
    return text.replace("##[", "## [")
