"""The values that budgets are made of: usage, weights, amounts, a budget, a hold, a decision. Pure."""

from __future__ import annotations

from math import gcd
from operator import add

from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum
from token_budget.text import format_usd


class Usage(NamedTuple):
    """The API's four token counts; field names are those of the Messages API's `usage` object."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum of the four counts."""
        return sum(self)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The four counts in field order."""
        return (*self,)

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]  # it is more than a tuple
        return Usage(*map(add, self, other))

    def __sub__(self, other: Usage) -> Usage:
        """The difference of each count, never below zero."""
        return Usage(*[a - b if a > b else 0 for a, b in zip(self, other, strict=True)])

    def __or__(self, other: Usage) -> Usage:
        """The larger of each count."""
        return Usage(*map(max, self, other))

    def covers(self, other: Usage) -> bool:
        """Whether each of the three input counts is at least the other's (output is known last, so it is left out)."""
        return (
            self.input_tokens >= other.input_tokens
            and self.cache_creation_input_tokens >= other.cache_creation_input_tokens
            and self.cache_read_input_tokens >= other.cache_read_input_tokens
        )


NO_USAGE = Usage()
MAX_LIMIT = 10**15  # tokens: a larger limit is a typing error, and larger sums would not fit the ledger
MAX_USD = 1_000_000  # in one budget: more is a slip
PRICE_LISTS = "genai_prices"  # the library with the prices of models, an extra
_MILLIONTHS = 1_000_000
WEIGHT_KEYS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
}


class Weights(NamedTuple):
    """What one token of each kind draws from a budget, as integers over a common `scale`."""

    input: int = 1
    output: int = 1
    cache_write: int = 1
    cache_read: int = 1
    scale: int = 1

    @classmethod
    def parse(cls, text: str) -> Weights:
        """Read `flat`, `billing` or `KEY=W,…` (keys input, output, cache_write, cache_read; others stay 1).

        `billing` is input 1, output 5, cache write 1.25, cache read 0.1: the ratios of most models in Anthropic's
        price list (5-minute cache writes). `ModelWeights` has those of each model. Raises ValueError with a reason.
        """
        text = text.strip()
        if text == "flat":
            return cls()
        if text == "billing":
            text = "input=1,output=5,cache_write=1.25,cache_read=0.1"
        values = dict.fromkeys(WEIGHT_KEYS, _MILLIONTHS)
        for part in text.split(","):
            key, sep, number = part.partition("=")
            key = key.strip()
            if not sep or key not in WEIGHT_KEYS:
                raise ValueError(f"expected flat, billing or {'|'.join(WEIGHT_KEYS)}=NUMBER, got {part.strip()!r}")
            values[key] = _millionths(number.strip())
        if not any(values.values()):
            raise ValueError("at least one weight must be above zero")
        common = gcd(_MILLIONTHS, *values.values())
        return cls(**{key: value // common for key, value in values.items()}, scale=_MILLIONTHS // common)

    def units(self, usage: Usage) -> int:
        """What `usage` draws, in parts of a token: `scale` of them are one."""
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_creation_input_tokens * self.cache_write
            + usage.cache_read_input_tokens * self.cache_read
        )

    def draw(self, usage: Usage) -> int:
        """The tokens that `usage` draws, rounded up to a whole token."""
        return -(-self.units(usage) // self.scale)

    def describe(self) -> str:
        """The weights as text, e.g. `input=1,output=5,cache_write=1.25,cache_read=0.1`; `flat` when all are 1."""
        if self == Weights():
            return "flat"
        return ",".join(f"{key}={getattr(self, key) / self.scale:g}" for key in WEIGHT_KEYS)


def _millionths(text: str) -> int:
    """A plain decimal between 0 and 1,000 with at most six places, exactly."""
    whole, _, places = text.partition(".")
    if not (whole + places).isascii() or not (whole + places).isdigit() or len(places) > 6:
        raise ValueError(f"a weight is a number such as 1.25 with at most six places, got {text!r}")
    value = int(whole or "0") * _MILLIONTHS + int(places.ljust(6, "0"))
    if value > 1000 * _MILLIONTHS:
        raise ValueError(f"a weight is at most 1000, got {text}")
    return value


class Scope(StrEnum):
    """What a budget limits."""

    OVERALL = "overall"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    COMMAND = "command"
    GROUP = "group"
    INSTANCE = "instance"
    SUBAGENT = "subagent"


class Unit(StrEnum):
    """What a budget counts: weighted tokens, or US dollars as whole nano-dollars."""

    TOKENS = "tokens"
    USD = "USD"

    @property
    def word(self) -> str:
        """What options and keys of limits call it, as in `daily_cost_budget`."""
        return "cost" if self is Unit.USD else "token"

    def show(self, quantity: int) -> str:
        """A quantity in this unit as text: `1,234` or `$1.23`."""
        return format_usd(quantity) if self is Unit.USD else f"{quantity:,}"


class Amount(NamedTuple):
    """Weighted tokens and nano-dollars together: what a budget is charged."""

    tokens: int = 0
    nano_usd: int = 0

    def of(self, unit: Unit) -> int:
        """The part of the amount that a budget of this unit counts."""
        return self.nano_usd if unit is Unit.USD else self.tokens

    def __bool__(self) -> bool:
        return bool(self.tokens or self.nano_usd)

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]  # it is more than a tuple
        return Amount(self.tokens + other.tokens, self.nano_usd + other.nano_usd)

    def __sub__(self, other: Amount) -> Amount:
        """The difference of each part; it can be negative."""
        return Amount(self.tokens - other.tokens, self.nano_usd - other.nano_usd)

    def at_most(self, other: Amount) -> Amount:
        """The smaller of each part."""
        return Amount(min(self.tokens, other.tokens), min(self.nano_usd, other.nano_usd))


class Budget:
    """One budget: its `limit`, what is `used` and what is `held`, all in its `unit`.

    `key` is the command, group or instance that it limits, or the account whose window it is. For a window's budget,
    `used` counts all runs in that window, and `held_elsewhere` is what other runs hold. Only a TokenBudgetManager
    changes a budget.
    """

    __slots__ = ("held", "held_elsewhere", "key", "limit", "scope", "unit", "used")

    def __init__(
        self,
        limit: int,
        *,
        scope: Scope = Scope.COMMAND,
        key: str = "",
        unit: Unit = Unit.TOKENS,
        used: int = 0,
        held: int = 0,
    ) -> None:
        self.limit = limit
        self.scope = scope
        self.key = key
        self.unit = unit
        self.used = used
        self.held = held
        self.held_elsewhere = 0

    @property
    def remaining(self) -> int:
        """The limit less what is used, never below zero."""
        return max(0, self.limit - self.used)

    @property
    def percentage(self) -> float:
        """What is used as a percentage of the limit; above 100 once the limit is passed."""
        return self.used / self.limit * 100 if self.limit > 0 else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether more than the limit is used."""
        return self.used > self.limit

    @property
    def free(self) -> int:
        """What is neither used nor held; below zero if used and held together exceed the limit."""
        return self.limit - self.used - self.held - self.held_elsewhere

    @property
    def label(self) -> str:
        """The budget's name in messages: `overall`, `/test command`, `group fix`, `instance runner`, `overall cost`,
        `daily (team)`."""
        names = {
            Scope.COMMAND: f"{self.key} command",
            Scope.GROUP: f"group {self.key}",
            Scope.INSTANCE: f"instance {self.key}",
            Scope.SUBAGENT: f"subagent {self.key}",
        }
        name = names.get(self.scope, str(self.scope)) + (" cost" if self.unit is Unit.USD else "")
        return f"{name} ({self.key})" if self.key and self.scope not in names else name

    def figures(self, quantity: int | None = None) -> str:
        """`1,200/1,000 tokens` or `$1.20/$1.00`: a quantity (what is used, if None) beside the limit."""
        shown = self.unit.show(self.used if quantity is None else quantity)
        return f"{shown}/{self.unit.show(self.limit)}" + ("" if self.unit is Unit.USD else " tokens")

    def __repr__(self) -> str:
        return f"Budget({self.label}: used={self.used} held={self.held} limit={self.limit})"


CommandBudgetInfo = Budget  # the name in the reference document


class Hold:
    """An amount reserved on each of `budgets`; `remaining` falls as it is spent or released.

    A TokenBudgetManager makes and changes holds. Each hold equals only itself.
    """

    __slots__ = ("budgets", "remaining")

    def __init__(self, budgets: tuple[Budget, ...], remaining: Amount) -> None:
        self.budgets = budgets
        self.remaining = remaining


class Action(StrEnum):
    """What happens to a launch by a decision."""

    ALLOW = "allow"
    WAIT = "wait"
    WARN = "warn"
    BLOCK = "block"


class Decision(NamedTuple):
    """An action with its reason in words, the budget that decided, and the hold if one was made."""

    action: Action
    reason: str = ""
    budget: Budget | None = None
    hold: Hold | None = None
