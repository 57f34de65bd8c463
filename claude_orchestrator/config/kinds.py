"""The kinds of values that are no budgets: switches, durations, lines of text, lists, objects. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from claude_orchestrator.claude.argv import OWN_OPTIONS, is_json
from token_budget.fields import BadValue, Kind, expected, forbidden_character, is_comment, nearest_name, show_json
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable

MAX_SECONDS = 30 * 24 * 3600
_SPAN = re.compile(
    r"(?=[\d.])(?:([\d.]+)\s*d)?\s*(?:([\d.]+)\s*h)?\s*(?:([\d.]+)\s*m(?:in)?)?\s*(?:([\d.]+)\s*s)?", re.ASCII
)
_UNIT_S = (86_400, 3_600, 60, 1)
# one line of text that is not empty: no control characters, no line ends
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_LINE_PATTERN = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")
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
        found = _SPAN.fullmatch(text)
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
    if _UNSENDABLE.search(value):
        raise BadValue(("", f"a NUL or half a surrogate pair cannot be passed to claude, got {show_json(value)}"))
    return value


def _read_line(value: object) -> str:
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
    text = _read_line(value)
    name, bracket, pattern = text.strip().partition("(")
    if not name.strip(" ,") or (bracket and not pattern.rpartition(")")[0].strip()):
        raise expected("a tool such as Read, or a pattern of its calls such as Bash(git log:*)", value)
    return text


TEXT = Kind(_read_text, {"type": "string"})
LINE = Kind(_read_line, {"type": "string", "pattern": _LINE_PATTERN})
WORDS = Kind(_read_words, {"type": "string", "pattern": r"\S"})
COMMAND_LINE = Kind(_read_command_line, {"type": "string", "pattern": r"\S"})


def _read_file(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise BadValue(("", "is empty: expected a path"))
    return Path(value)


RAW = Kind(lambda value: value, {"type": "string"})  # a later step reads and checks it
FILE = Kind(_read_file, {"type": "string", "minLength": 1})
TOOL = Kind(_read_tool, {"type": "string", "pattern": r"^\s*[^\s(,][^(]*(\(.*[^\s()].*\).*)?$"})
SESSION = Kind(lambda value: _read_line(value).strip(), {"type": "string", "pattern": _LINE_PATTERN})

# -- lists and objects --


def list_of(element: Kind) -> Kind:
    """A list whose items are of one kind."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise expected("a list of strings", value)
        return collect((f"[{index}]", item, element) for index, item in enumerate(value))

    return Kind(read, {"type": "array", "items": element.schema})


def collect(parts: Iterable[tuple[str, object, Kind]]) -> tuple[Any, ...]:
    """The values of several parts, each with its place; raises BadValue with the faults of all of them."""
    values, faults = [], []
    for place, value, kind in parts:
        try:
            values.append(kind.read(value))
        except BadValue as error:
            faults += [(place + inner, why) for inner, why in error.faults]
    if faults:
        raise BadValue(*faults)
    return tuple(values)


def names_of(known: Mapping[str, object]) -> Kind:
    """Some of these names, in any order, separated by commas."""

    def read(value: object) -> tuple[str, ...]:
        names = [name.strip().lower() for name in value.split(",")] if isinstance(value, str) else []
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            why = f"{show_json(unknown)} is unknown{_hint(unknown, known)}: expected some of {', '.join(known)}"
            raise BadValue(("", why))
        if not names:
            raise expected(f"some of {', '.join(known)}", value)
        return tuple(dict.fromkeys(names))

    return Kind(read, {"type": "string"}, ",".join)


def read_object(value: object, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of an object's keys, without those that are null. Raises BadValue with every fault.

    An unknown key is a fault that names the nearest known one.
    """
    if not isinstance(value, dict):
        raise expected("an object", value)
    known = {key: item for key, item in value.items() if key in kinds and item is not None}
    faults = [
        (f".{printable(key)}", f"unknown key{_hint(key, kinds)}")
        for key in value
        if key not in kinds and not is_comment(key)
    ]
    try:
        values = collect((f".{key}", item, kinds[key]) for key, item in known.items())
    except BadValue as error:
        raise BadValue(*error.faults, *faults) from None
    if faults:
        raise BadValue(*faults)
    return dict(zip(known, values, strict=True))


def _hint(key: str, known: Iterable[str]) -> str:
    near = nearest_name(key, known)
    return f"; did you mean {near!r}?" if near else f"; known keys: {', '.join(known)}"


def object_of(make: Callable[[dict[str, Any]], Any], kinds: Mapping[str, Kind], ref: str) -> Kind:
    """An object with certain keys; `ref` names its part of the schema."""
    return Kind(lambda value: make(read_object(value, kinds)), {"$ref": f"#/$defs/{ref}"})


def _read_tools(value: object) -> tuple[str, ...]:
    """A list of tools, or tools typed in a row; a comma inside brackets belongs to a pattern."""
    if isinstance(value, str):
        value = [part.strip() for part in re.findall(r"(?:\([^)]*\)|[^,(])+", value) if part.strip()]
    tools: tuple[str, ...] = list_of(TOOL).read(value)
    return tools


TOOLS = Kind(_read_tools, {"anyOf": [{"type": "array", "items": TOOL.schema}, TOOL.schema]})

# -- what only instances have --


def _read_env(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise expected("an object of strings", value)
    pairs = {key: item for key, item in value.items() if not is_comment(key)}
    faults = [
        (f".{printable(key)}", "no name of an environment variable: it is empty or has '=', ',' or a space")
        for key in pairs
        if re.fullmatch(_VARIABLE, key) is None or forbidden_character(key)
    ]
    if faults:
        raise BadValue(*faults)
    texts = collect((f".{key}", item, TEXT) for key, item in pairs.items())
    return tuple(zip(pairs, texts, strict=True))


_VARIABLE = r"[^=,\s\0]+"


def _read_wants(value: object) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        raise expected('an object of resources such as {"gpu": 1}', value)
    faults = [
        (f".{name}", f"expected a positive number, got {show_json(amount)}")
        for name, amount in value.items()
        if not is_comment(name)
        and (isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1e9)
    ]
    if faults:
        raise BadValue(*faults)
    return tuple((name, float(amount)) for name, amount in value.items() if not is_comment(name))


WANTS = Kind(
    _read_wants,
    {
        "type": "object",
        "patternProperties": {"^//": {}},
        "additionalProperties": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10**9},
        "properties": {"$schema": {}},
    },
)


def _read_per_node(value: object) -> int:
    """A number of instances; 0 for `auto`."""
    if value == "auto":
        return 0
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 10_000:
        raise expected("auto, or a whole number from 1 to 10000", value)
    return number


PER_NODE = Kind(
    _read_per_node,
    {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 10_000}]},
    lambda value: str(value or "auto"),
)
ENV = Kind(
    _read_env,
    {
        "type": "object",
        "propertyNames": {"pattern": r"^(//.*|\$schema|[^=,\s\x00]+)$"},
        "patternProperties": {"^//": {}},
        "properties": {"$schema": {}},
        "additionalProperties": {"type": "string"},
    },
)


def _read_mcp(value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        if not isinstance(value.get("mcpServers"), dict):
            raise BadValue(("", "expected an object with mcpServers, which is an object of servers by name"))
        import json  # only where a config has such an object

        return (json.dumps(value),)
    if isinstance(value, list):
        files: tuple[str, ...] = list_of(LINE).read(value)
        return files
    if not isinstance(value, str):
        raise expected("a file, a list of files or an object", value)
    return (_read_line(value),)


MCP = Kind(
    _read_mcp,
    {
        "anyOf": [
            LINE.schema,
            {"type": "array", "items": LINE.schema},
            {"type": "object", "required": ["mcpServers"], "properties": {"mcpServers": {"type": "object"}}},
        ]
    },
)


def _read_schema(value: object) -> str:
    """The schema as text, or the path of its file."""
    if isinstance(value, str) and not is_json(value):
        return _read_line(value)
    from claude_orchestrator.config.json_schema import as_argument  # only where a config has a schema

    if isinstance(value, str):
        from token_budget.usage.json_file import JsonFileError, parse_json

        try:
            value = parse_json(value.encode("utf-8", "replace"), "the schema", dict)
        except JsonFileError as error:
            raise BadValue(("", str(error))) from None
    return as_argument(value)


SCHEMA = Kind(_read_schema, {"anyOf": [LINE.schema, {"type": "object"}]})


def _read_worktree(value: object) -> str | bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise expected("true, false or a name", value)
    return _read_line(value)


class ModelWhenLow(NamedTuple):
    """The model of instances that start when less than `below` percent of a budget is left."""

    below: float
    model: str


def _read_model_when_low(value: object) -> ModelWhenLow:
    """`20%=haiku`, or an object with both."""
    if isinstance(value, str):
        below, equals, model = value.partition("=")
        if not equals:
            raise expected("a percentage and a model such as 20%=haiku", value)
        value = {"below": below, "model": model}
    values = read_object(value, {"below": PERCENT, "model": LINE})
    missing = [key for key in ModelWhenLow._fields if key not in values]
    if missing:
        raise BadValue(("", f"it has no {' and no '.join(missing)}: expected a percentage and a model"))
    return ModelWhenLow(values["below"], values["model"].strip())


MODEL_WHEN_LOW = Kind(
    _read_model_when_low,
    {
        "anyOf": [
            {"type": "string", "pattern": "="},
            {
                "type": "object",
                "required": ["below", "model"],
                "properties": {
                    "below": {"anyOf": [PERCENT.schema, {"type": "string", "pattern": r"^\s*[0-9.]+\s*%?\s*$"}]},
                    "model": LINE.schema,
                },
                "additionalProperties": False,
            },
        ]
    },
    lambda low: f"{low.below:g}%={low.model}",
)
WORKTREE = Kind(_read_worktree, {"anyOf": [{"type": "boolean"}, LINE.schema]})


def _read_extra_args(value: object) -> tuple[str, ...]:
    args: tuple[str, ...] = list_of(TEXT).read(value)
    faults = [
        (f"[{index}]", f"is set by the orchestrator itself, got {show_json(arg)}")
        for index, arg in enumerate(args)
        if arg.partition("=")[0] in OWN_OPTIONS
    ]
    if faults:
        raise BadValue(*faults)
    return args


EXTRA_ARGS = Kind(_read_extra_args, {"type": "array", "items": {"type": "string"}})
