"""The kinds of values that only instances have. Pure."""

from __future__ import annotations

import re

from claude_orchestrator.claude.argv import OWN_OPTIONS, is_json
from claude_orchestrator.config.compound_kinds import collect, list_of, read_object
from claude_orchestrator.config.kinds import LINE, PERCENT, TEXT, TOOL, read_line
from token_budget.fields import BadValue, Kind, expected, forbidden_character, is_comment, show_json
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable


def _read_tools(value: object) -> tuple[str, ...]:
    """A list of tools, or tools typed in a row; a comma inside brackets belongs to a pattern."""
    if isinstance(value, str):
        value = [part.strip() for part in re.findall(r"(?:\([^)]*\)|[^,(])+", value) if part.strip()]
    tools: tuple[str, ...] = list_of(TOOL).read(value)
    return tools


TOOLS = Kind(_read_tools, {"anyOf": [{"type": "array", "items": TOOL.schema}, TOOL.schema]})


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
    amounts = {name: amount for name, amount in value.items() if not is_comment(name)}
    faults = [
        (f".{printable(name)}", f"expected a positive number, got {show_json(amount)}")
        for name, amount in amounts.items()
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1e9
    ]
    if faults:
        raise BadValue(*faults)
    return tuple((name, float(amount)) for name, amount in amounts.items())


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
    return (read_line(value),)


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
        return read_line(value)
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
    return read_line(value)


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
