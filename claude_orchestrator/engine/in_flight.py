"""API requests whose answers have not ended. A crash does not lose what they can still cost. Pure.

The journal has a line before a request is sent, one for each count, and one at its end. The requests that a killed
orchestrator had sent count as used when the run is resumed, because the API bills them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_orchestrator.engine.attempt import AttemptTotals
from token_budget.api_usage import read_count
from token_budget.models import NO_USAGE, Hold, Usage
from token_budget.named_tuples import NamedTuple


@dataclass(slots=True, eq=False)
class SentRequest:
    """A request of an attempt, by its number in the attempt, and the `rest` that the API can still bill for it."""

    number: int
    hold: Hold
    rest: Usage
    model: str = ""

    @property
    def left(self) -> LeftOver:
        """What it can still use and cost."""
        return LeftOver(self.rest, self.hold.remaining.nano_usd, self.model)


class LeftOver(NamedTuple):
    """What a request can still use, and cost in nano-dollars."""

    usage: Usage
    nano_usd: int
    model: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """What the journal keeps: five numbers, and the model."""
        return {"left": [*self.usage.counts, self.nano_usd], **({"left_model": self.model} if self.model else {})}


@dataclass(slots=True)
class InFlight:
    """The requests of an instance whose end is not in the journal."""

    _requests: dict[tuple[int, int], LeftOver] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._requests)

    def note(self, record: Mapping[str, Any]) -> None:
        """Read a record that names a request. Raises KeyError, TypeError or ValueError where it is damaged."""
        key = record["attempt"], record["request"]
        if "left" not in record:
            self._requests.pop(key, None)
            return
        counts = [read_count(count) for count in record["left"]]
        if len(counts) != len(NO_USAGE) + 1 or not all(is_count for _, is_count in counts):
            raise ValueError("not what a request can use")
        *usage, nano_usd = (count for count, _ in counts)
        self._requests[key] = LeftOver(Usage(*usage), nano_usd, str(record.get("left_model", "")))

    def charge(self, attempts: list[AttemptTotals], how: str) -> Usage:
        """Add to the attempts what their requests can still use, as `charge_unanswered` says; returns the sum."""
        charged = NO_USAGE
        for (number, _), left in self._requests.items():
            if not 1 <= number <= len(attempts):
                continue
            usage, nano_usd = _charged(left, how)
            attempt = attempts[number - 1]
            cost = attempt.cost_nano_usd
            attempts[number - 1] = attempt._replace(
                usage=attempt.usage + usage,
                exact=False,
                by_model=_with(attempt.by_model, left.model, usage),
                cost_nano_usd=(cost or 0) + nano_usd if nano_usd else cost,
            )
            charged += usage
        self._requests.clear()
        return charged


def _charged(left: LeftOver, how: str) -> tuple[Usage, int]:
    if how == "none":
        return NO_USAGE, 0
    # the price of the input alone is not recorded, so money is charged as a whole
    return (left.usage._replace(output_tokens=0) if how == "input" else left.usage), left.nano_usd


def _with(by_model: tuple[tuple[str, Usage], ...], model: str, more: Usage) -> tuple[tuple[str, Usage], ...]:
    known = dict(by_model)
    if not model:
        return by_model
    return tuple({**known, model: known.get(model, NO_USAGE) + more}.items())


def in_flight_message(count: int, charged: Usage) -> str:
    """What a resumed run reports of the requests that were in flight."""
    which = "1 API request was" if count == 1 else f"{count:,} API requests were"
    return f"{which} in flight when the run was killed: counted with {charged.total_tokens:,} tokens, marked inexact"
