"""The kinds of values that are no budgets: switches, numbers, durations, text, paths. Pure."""

from __future__ import annotations

import math
import re
from pathlib import Path

from token_budget.fields import BadValue, Kind, expected, forbidden_character, show_json

MAX_SECONDS = 30 * 24 * 3600
# patterns are text here: few starts use them, and `re` compiles each at its first use
_SPAN = r"(?=[\d.])(?:([\d.]+)\s*d)?\s*(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?"
_UNIT_S = (86_400, 3_600, 60, 1)
# one line of text that is not empty: no control characters, no line ends
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_LINE_PATTERN = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
_UNSENDABLE = r"[\x00\ud800-\udfff]"
_UUID = r"^\s*[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\s*$"

# -- switches and numbers --


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def _read_integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise expected("a whole number", value)
    return value


def _read_seed(value: object) -> int:
    if not isinstance(value, str | int) or re.fullmatch(r"\d{1,18}", str(value), re.ASCII) is None:
        raise expected("a whole number such as 1", value)
    return int(value)


def _read_port(value: object) -> int | None:
    """A port; 0 for any free one, which `true` means too; None for `false`."""
    if isinstance(value, bool):
        return 0 if value else None
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,5}\s*", value) else value
    if not isinstance(number, int) or not 0 <= number <= 65_535:
        raise expected("a port from 1 to 65535, or 0 for any free one", value)
    return number


FLAG = Kind(_read_flag, {"type": "boolean"})
PORT = Kind(
    _read_port,
    {
        "anyOf": [
            {"type": "boolean"},
            {"type": "integer", "minimum": 0, "maximum": 65_535},
            {"type": "string", "pattern": r"^\s*[0-9]{1,5}\s*$"},
        ]
    },
)
INTEGER = Kind(_read_integer, {"type": "integer"})
SEED = Kind(_read_seed, {"type": "integer"})


def _seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h30m` or `2d` as seconds; nan for anything else."""
    text = text.strip().lower()
    try:
        if re.fullmatch(r"[\d.]+", text, re.ASCII):
            return float(text)
        found = re.fullmatch(_SPAN, text, re.ASCII)
        if found is None:
            return math.nan
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNIT_S, strict=True) if part)
    except ValueError:
        return math.nan


def _duration(minimum: str, *, zero: bool) -> Kind:
    def read(value: object) -> float:
        seconds = _seconds(value) if isinstance(value, str) else value
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not (seconds > 0 or (zero and seconds == 0))
        ):
            raise expected(f"{minimum} of seconds, or a duration such as 90s, 5m or 2h", value)
        if seconds > MAX_SECONDS:
            raise expected("a duration of at most 30 days", value)
        return float(seconds)

    number = {"type": "number", "minimum" if zero else "exclusiveMinimum": 0, "maximum": MAX_SECONDS}
    text = {"type": "string", "pattern": r"^\s*[0-9][0-9.dhmins ]*$"}
    return Kind(read, {"anyOf": [number, text]})


DURATION = _duration("a positive number", zero=False)
DELAY = _duration("a number", zero=True)


def _percent(value: object) -> float:
    """A number of percent; nan for anything else."""
    if isinstance(value, str):
        text = value.strip().removesuffix("%").strip()
        return float(text) if re.fullmatch(r"\d{1,3}(\.\d{1,9})?", text, re.ASCII) else math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _read_percent(value: object) -> float:
    number = _percent(value)
    if not 0 < number <= 100:
        raise expected("a percentage above 0 and up to 100, such as 90", value)
    return number


def _read_margin(value: object) -> float:
    number = _percent(value)
    if not 0 <= number <= MAX_MARGIN:
        raise expected(f"a percentage from 0 to {MAX_MARGIN}, such as 5%", value)
    return number


MAX_MARGIN = 50
MARGIN = Kind(
    _read_margin,
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": MAX_MARGIN},
            {"type": "string", "pattern": r"^\s*[0-9]{1,2}(\.[0-9]{1,9})?\s*%?\s*$"},
        ]
    },
    lambda value: f"{value:g}%",
)
PERCENT = Kind(_read_percent, {"type": "number", "exclusiveMinimum": 0, "maximum": 100}, lambda value: f"{value:g}")

# -- text --


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise expected("a string", value)
    if re.search(_UNSENDABLE, value):
        raise BadValue(("", f"a NUL or half a surrogate pair cannot be passed to claude, got {show_json(value)}"))
    return value


def read_line(value: object) -> str:
    """One line of text. Raises BadValue."""
    text = _read_text(value)
    if not text.strip():
        raise expected("one line of text, not empty", value)
    found = forbidden_character(text)
    if found is not None:
        raise BadValue(("", f"expected one line of text without {found}, got {show_json(value)}"))
    return text


def _read_words(value: object) -> str:
    text = _read_text(value).strip()
    if not text:
        raise BadValue(("", "is empty: expected a slash command or a prompt"))
    return text


def _read_command_line(value: object) -> str:
    """A shell command. Each placeholder in it must be a word, or a part of one."""
    text = _read_text(value).strip()
    if not text:
        raise BadValue(("", "is empty: expected a shell command"))
    if "{{" in text:
        from claude_orchestrator.config.shell_words import misplaced  # only where a command has placeholders

        found = misplaced(text)
        if found is not None:
            why = f"{found.text} has to stand outside of quotes, comments and here-documents"
            raise BadValue(("", f"{why}: remove the quotes, because the program quotes its value"))
    return text


def is_session_id(text: str) -> bool:
    """Whether it is the id of a session of Claude, and not a name for one."""
    return re.fullmatch(_UUID, text) is not None


def _read_tool(value: object) -> str:
    """A tool, or a pattern of its calls: `Read`, `Bash(git log:*)`."""
    text = read_line(value)
    name, bracket, pattern = text.strip().partition("(")
    if not name.strip(" ,") or (bracket and not pattern.rpartition(")")[0].strip()):
        raise expected("a tool such as Read, or a pattern of its calls such as Bash(git log:*)", value)
    return text


TEXT = Kind(_read_text, {"type": "string"})
LINE = Kind(read_line, {"type": "string", "pattern": _LINE_PATTERN})
WORDS = Kind(_read_words, {"type": "string", "pattern": r"\S"})
COMMAND_LINE = Kind(_read_command_line, {"type": "string", "pattern": r"\S"})


def _read_file(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise BadValue(("", "is empty: expected a path"))
    return Path(value)


RAW = Kind(lambda value: value, {"type": "string"})  # a later step reads and checks it
FILE = Kind(_read_file, {"type": "string", "minLength": 1})
TOOL = Kind(_read_tool, {"type": "string", "pattern": r"^\s*[^\s(,][^(]*(\(.*[^\s()].*\).*)?$"})
SESSION = Kind(lambda value: read_line(value).strip(), {"type": "string", "pattern": _LINE_PATTERN})
