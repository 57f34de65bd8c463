"""The settings that a budget profile may hold, and the kinds of values that people type for them. Pure.

A kind reads typed text (`50k`, `$2.50`) and JSON values (`50000`, `2.5`) by the same rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from token_budget.budget_manager import MODES
from token_budget.models import MAX_LIMIT, MAX_USD, WEIGHT_KEYS, Weights
from token_budget.named_tuples import NamedTuple
from token_budget.text import format_usd, printable

if TYPE_CHECKING:
    from token_budget.model_weights import ModelWeights, TokenWeights

MAX_PERCENT = 1000
_GROUPED = r"\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*"
_WHOLE = rf"({_GROUPED})(?:\.(\d+))?\s*([kKmMbB])?"
_ZEROS = {"": 0, "k": 3, "m": 6, "b": 9}


class BadValue(ValueError):
    """Why a value was refused: a reason for each fault, with its place in the value (`.key`, `[0]` or ``)."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{place.lstrip('.')}: {why}" if place else why for place, why in faults))
        self.faults = faults

    @property
    def brief(self) -> str:
        """The first three of them, in one line."""
        return str(BadValue(*self.faults[:3]))


class Kind(NamedTuple):
    """What a value may be: `read` returns the checked value or raises BadValue; `schema` is its JSON Schema.

    `element` is the kind of each limit, if the value is limits by command.
    """

    read: Callable[[object], Any]
    schema: Mapping[str, object]
    show: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()
    element: Kind | None = None


class Field(NamedTuple):
    """A setting of a budget: its key in JSON, its kind, its help, and its default."""

    key: str
    kind: Kind
    help: str
    default: Any = None


# -- words --


def show_json(value: object) -> str:
    """A value as JSON, short enough for an error line."""
    import json  # only for a slip

    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one may mean; None if none is near."""
    import difflib  # only for a slip

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def expected(what: str, value: object) -> BadValue:
    """The fault of a value that is not what was expected."""
    return BadValue(("", f"expected {what}, got {show_json(value)}"))


def is_comment(key: str) -> bool:
    """Whether a key of a JSON object is a comment."""
    return key.startswith("//") or key == "$schema"


def forbidden_character(text: str) -> str | None:
    """The first control character or line end of a text, by its name; spaces and joiners of any script are allowed."""
    for char in text:
        category = unicodedata.category(char)
        if "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069":
            return f"a character that turns the direction of text around (U+{ord(char):04X})"
        if category in ("Zl", "Zp") or char in "\n\r\x85":
            return f"a line end (U+{ord(char):04X})"
        if category == "Cc":
            return f"a control character (U+{ord(char):04X})"
        if category == "Cs":
            return f"half of a surrogate pair (U+{ord(char):04X})"
    return None


# -- whole numbers --


def whole_number(minimum: int, maximum: int) -> Kind:
    """Whole numbers in a range; as text also `50_000`, `50,000`, `50k`, `1.5M`."""
    what = "a positive whole number" if minimum == 1 else f"a whole number from {minimum:,} to {maximum:,}"

    def read(value: object) -> int:
        number = _whole(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or number < minimum:
            is_text = isinstance(value, str) and maximum == MAX_LIMIT
            raise expected(f"{what} such as 50000, 50k or 1.5M" if is_text else what, value)
        if number > maximum:
            raise expected(f"{what} up to {maximum:,}" if minimum == 1 else what, value)
        return number

    number: dict[str, object] = {"type": "integer", "minimum": minimum, "maximum": maximum}
    text: dict[str, object] = {"type": "string", "pattern": rf"^\s*({_WHOLE})\s*$"}
    return Kind(read, {"anyOf": [number, text]})


def _whole(text: str) -> int | None:
    found = re.fullmatch(_WHOLE, text.strip(), re.ASCII)
    if found is None or len(found[0]) > 40:
        return None
    places, zeros = found[2] or "", _ZEROS[(found[3] or "").lower()]
    if (places and not zeros) or places[zeros:].strip("0"):
        return None  # a fraction of a token
    return int(re.sub("[_,]", "", found[1]) + places[:zeros].ljust(zeros, "0"))


TOKENS = whole_number(1, MAX_LIMIT)

# -- money --


def _read_usd(value: object) -> int:
    """US dollars as nano-dollars: text exactly, numbers of JSON to the nearest."""
    from token_budget.usd import parse_usd, usd_to_nano  # with decimals, which --help does not need

    if isinstance(value, str):
        try:
            return parse_usd(value)
        except ValueError as error:
            raise BadValue(("", str(error))) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1e-9:
        raise expected("a positive number of US dollars", value)
    if value > MAX_USD:
        raise expected(f"a positive number of US dollars up to {MAX_USD:,}", value)
    return usd_to_nano(value)


USD = Kind(
    _read_usd,
    {
        "anyOf": [
            {"type": "number", "minimum": 1e-9, "maximum": MAX_USD},
            {"type": "string", "pattern": r"^\s*(\$\s*[0-9.]|[0-9])[0-9.,]*([eE][+-]?[0-9]+)?\s*$"},
        ]
    },
    format_usd,
)

# -- choices, weights, percentages --


def choice(*choices: str) -> Kind:
    """One of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise expected(f"one of {', '.join(choices)}", value)
        return value

    return Kind(read, {"enum": list(choices)}, choices=choices)


def _billing() -> ModelWeights:
    from token_budget.pricing import billing_weights  # with decimals, which --help does not need

    return billing_weights()


def _show_weights(weights: TokenWeights) -> str:
    if isinstance(weights, Weights):
        return weights.describe()
    which = "fixed, since each model's own need the extra cost" if weights.ratios is None else "each model's own ratios"
    return f"billing, {which}"


def _read_weights(value: object) -> TokenWeights:
    if isinstance(value, dict):
        for key, weight in value.items():
            if key not in WEIGHT_KEYS or isinstance(weight, bool) or not isinstance(weight, int | float):
                raise expected(f"numbers for {', '.join(WEIGHT_KEYS)}", value)
        value = ",".join(f"{key}={weight}" for key, weight in value.items())
    if not isinstance(value, str):
        raise expected("flat, billing or weights such as output=5", value)
    from token_budget.model_weights import parse_weights  # a start without weights needs none

    try:
        return parse_weights(value, _billing)
    except ValueError as error:
        raise BadValue(("", str(error))) from None


_WEIGHT = {"type": "number", "minimum": 0, "maximum": 1000}
WEIGHTS = Kind(
    _read_weights,
    {
        "anyOf": [
            {
                "type": "string",
                "pattern": rf"^\s*(flat|billing|(({'|'.join(WEIGHT_KEYS)})\s*=\s*[0-9.]+\s*,?\s*)+)\s*$",
            },
            {"type": "object", "properties": dict.fromkeys(WEIGHT_KEYS, _WEIGHT), "additionalProperties": False},
        ]
    },
    _show_weights,
)


def _read_percentages(value: object) -> tuple[int, ...]:
    """Percentages, sorted, without repetition. `off`, empty text or an empty list gives ()."""
    numbers = value if isinstance(value, list) else [value]
    text = ",".join(map(str, numbers)) if all(type(number) is int for number in numbers) else value
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else []
    if parts in ([""], ["off"]):
        return ()
    if not parts or not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
        raise expected('percentages such as 80, [50, 80] or "50,80,95", or "off"', value)
    if not all(1 <= int(part) <= MAX_PERCENT for part in parts):
        raise expected(f"percentages from 1 to {MAX_PERCENT}", value)
    return tuple(sorted(set(map(int, parts))))


_PERCENT = {"type": "integer", "minimum": 1, "maximum": MAX_PERCENT}
PERCENTAGES = Kind(
    _read_percentages,
    {
        "anyOf": [
            _PERCENT,
            {"type": "array", "items": _PERCENT},
            {"type": "string", "pattern": r"^\s*(off|[0-9]{1,4}(\s*,\s*[0-9]{1,4})*)?\s*$"},
        ]
    },
    lambda percentages: ",".join(map(str, percentages)) or "off",
)

# -- limits by command --


def by_command(element: Kind) -> Kind:
    """An object of limits, by base command or by an instance's name."""

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise expected("an object of command: limit", value)
        limits, faults = {}, []
        for key, limit in value.items():
            if is_comment(key):
                continue
            if not key.strip():
                faults.append(("", "a command's name is empty"))
            try:
                limits[key.strip()] = element.read(limit)
            except BadValue as error:
                faults += [(f".{printable(key)}{place}", why) for place, why in error.faults]
        if faults:
            raise BadValue(*faults)
        return limits

    schema: dict[str, object] = {
        "type": "object",
        "propertyNames": {"pattern": r"\S"},
        "patternProperties": {"^//": {}},
        "additionalProperties": element.schema,
    }
    return Kind(read, schema, element=element)


MODE = choice(*MODES)

# -- accounts --

_ACCOUNT = r"[\w][\w.@+-]{0,99}"


def _read_account(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_ACCOUNT, value.strip()):
        raise expected("the name of an account: letters, digits and any of . @ + - _, at most 100", value)
    return value.strip()


ACCOUNT = Kind(_read_account, {"type": "string", "pattern": rf"^\s*{_ACCOUNT}\s*$"})

PROFILE_FIELDS = (
    Field("overall_budget", TOKENS, "Token limit for the whole run."),
    Field(
        "command_budgets",
        by_command(TOKENS),
        "Token limit for a base command, or for an instance by its name.",
    ),
    Field("daily_token_budget", TOKENS, "Token limit for all runs of a day together."),
    Field("weekly_token_budget", TOKENS, "Token limit for all runs of a week together. Weeks begin on Monday."),
    Field("monthly_token_budget", TOKENS, "Token limit for all runs of a month together."),
    Field("overall_cost_budget", USD, "Limit in USD for the whole run."),
    Field("command_cost_budgets", by_command(USD), "Limit in USD for a base command or an instance."),
    Field("daily_cost_budget", USD, "Limit in USD for all runs of a day together."),
    Field("weekly_cost_budget", USD, "Limit in USD for all runs of a week together. Weeks begin on Monday."),
    Field("monthly_cost_budget", USD, "Limit in USD for all runs of a month together."),
    Field("enforcement_mode", MODE, "Whether to warn or to stop instances when a budget is exceeded.", "warn"),
    Field(
        "token_weights",
        WEIGHTS,
        "How much a token of each kind draws from budgets: flat, billing, or KEY=W for input, output, cache_write and "
        "cache_read.",
        Weights(),
    ),
    Field("alert_at", PERCENTAGES, "Percentages of a budget to report when its use reaches them, each once.", (80,)),
)
