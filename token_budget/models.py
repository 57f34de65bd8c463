"""The values that budgets are made of: usage, weights, a budget, a hold, a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import gcd


@dataclass(frozen=True, slots=True)
class Usage:
    """The API's four token counts; field names are those of the Messages API's `usage` object."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum of the four counts."""
        return self.input_tokens + self.output_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The four counts in field order."""
        return (
            self.input_tokens,
            self.output_tokens,
            self.cache_creation_input_tokens,
            self.cache_read_input_tokens,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        """The difference of each count, never below zero."""
        return Usage(*(max(0, a - b) for a, b in zip(self.counts, other.counts, strict=True)))

    def __or__(self, other: Usage) -> Usage:
        """The larger of each count."""
        return Usage(*(max(a, b) for a, b in zip(self.counts, other.counts, strict=True)))

    def covers(self, other: Usage) -> bool:
        """Whether the three input counts are each at least the other's (output is known last, so not asked)."""
        return (
            self.input_tokens >= other.input_tokens
            and self.cache_creation_input_tokens >= other.cache_creation_input_tokens
            and self.cache_read_input_tokens >= other.cache_read_input_tokens
        )


MAX_LIMIT = 10**15  # tokens: more is a slip, and sums of more would not fit the ledger
_MILLIONTHS = 1_000_000
WEIGHT_KEYS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
}


@dataclass(frozen=True, slots=True)
class Weights:
    """What one token of each kind draws from a budget, as integers over a common `scale`."""

    input: int = 1
    output: int = 1
    cache_write: int = 1
    cache_read: int = 1
    scale: int = 1

    @classmethod
    def parse(cls, text: str) -> Weights:
        """Read `flat`, `billing` or `KEY=W,…` (keys input, output, cache_write, cache_read; others stay 1).

        `billing` is input 1, output 5, cache write 1.25, cache read 0.1: the ratios of Anthropic's price
        list for its current models (5-minute cache writes). Raises ValueError with a reason.
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

    def draw(self, usage: Usage) -> int:
        """The tokens that `usage` draws, rounded up to a whole token."""
        units = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_creation_input_tokens * self.cache_write
            + usage.cache_read_input_tokens * self.cache_read
        )
        return -(-units // self.scale)

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
    """What a budget is a limit for."""

    OVERALL = "overall"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    COMMAND = "command"
    INSTANCE = "instance"


class CommandBudgetInfo:
    """Tracks one budget: its `limit`, what is `used` and what is `held`, in tokens, or with `money` in nano-dollars.

    Of a window's budget, `used` is what all runs have used in it, and `held_elsewhere` what other runs hold.
    """

    def __init__(self, limit: int, *, scope: Scope = Scope.COMMAND, key: str = "", money: bool = False) -> None:
        self.limit = limit
        self.scope = scope
        self.key = key
        self.money = money
        self.used = 0
        self.held = 0
        self.held_elsewhere = 0

    @property
    def remaining(self) -> int:
        """Tokens left: the limit less what is used, never below zero."""
        return max(0, self.limit - self.used)

    @property
    def percentage(self) -> float:
        """Used tokens as a percentage of the limit; above 100 once the limit is passed."""
        return self.used / self.limit * 100 if self.limit > 0 else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether more than the limit is used."""
        return self.used > self.limit

    @property
    def label(self) -> str:
        """The budget's name in messages: `overall`, `daily`, `/test command`, `instance runner`, `overall cost`."""
        names = {Scope.COMMAND: f"{self.key} command", Scope.INSTANCE: f"instance {self.key}"}
        return names.get(self.scope, str(self.scope)) + (" cost" if self.money else "")

    @property
    def free(self) -> int:
        """What is neither used nor held by anybody; below zero once more than the limit is."""
        return self.limit - self.used - self.held - self.held_elsewhere

    def __repr__(self) -> str:
        return f"CommandBudgetInfo({self.label}: used={self.used} held={self.held} limit={self.limit})"


class Hold:
    """Tokens that it sets aside on each of `budgets`; `remaining` falls as they are spent or released.

    `money` is the hold that goes with it on the budgets in money.
    """

    __slots__ = ("budgets", "money", "remaining")

    def __init__(self, budgets: tuple[CommandBudgetInfo, ...], tokens: int, money: Hold | None = None) -> None:
        self.budgets = budgets
        self.money = money
        self.remaining = 0
        self._change(tokens)

    def spend(self, tokens: int) -> None:
        """So many tokens of it have become used, all of it at most."""
        self._change(-min(tokens, self.remaining))

    def release(self) -> None:
        """Give back what is left; a second call does nothing."""
        self._change(-self.remaining)
        if self.money is not None:
            self.money.release()

    def shrink_to(self, tokens: int) -> int:
        """Give back all but so many; returns how many were given back."""
        less = max(0, self.remaining - tokens)
        self._change(-less)
        return less

    def grow(self, tokens: int) -> int:
        """Set aside up to so many more, as far as every budget has them free; returns how many."""
        more = max(0, min(tokens, *(budget.free for budget in self.budgets))) if self.budgets else 0
        self._change(more)
        return more

    def _change(self, tokens: int) -> None:
        self.remaining += tokens
        for budget in self.budgets:
            budget.held += tokens


class Action(StrEnum):
    """What becomes of a launch."""

    ALLOW = "allow"
    WAIT = "wait"
    WARN = "warn"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Decision:
    """An action with its reason in words, the budget that decided, and the hold where one was made."""

    action: Action
    reason: str = ""
    budget: CommandBudgetInfo | None = None
    hold: Hold | None = None
