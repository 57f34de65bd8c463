"""The ledger beside the reports of the Admin API: by day in UTC and model, token for token. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from token_budget.ledger.records import UsageSum
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple
from token_budget.text import RenderOptions, decimal_usd, format_usd, printable, wrap
from token_budget.usage.reconciling.admin_api import Counted, ModelCost
from token_budget.usage.tables import TableColumn, table

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NO_MODEL = "(no model)"
_DATED = re.compile(r"[-@]20\d{6}$")
KINDS = ("input", "output", "cache write", "cache read")
CANNOT = (
    "A difference need not be a fault. The ledger has only what this program ran, and what you imported. The API "
    "counts all use of the organization: by other people, other tools and other keys. --api-key-id and --workspace-id "
    "leave these out.",
    "The API does not count what a subscription, Bedrock, Vertex or Foundry has served. Its figures arrive some "
    "minutes late, so the current hour is left out. The ledger dates a use by when it was recorded, which can be a "
    "moment after the API's hour.",
    "Costs are those of whole days. Anthropic's are what it bills, without priority service. The ledger's follow the "
    "price list.",
)


class Pair(NamedTuple):
    """One model on one day, in the ledger and in the reports. A cost is None where it is not known."""

    day_ms: int
    model: str
    ours: Usage = Usage()
    theirs: Usage = Usage()
    our_nano: int | None = None
    their_nano: int | None = None

    @property
    def difference(self) -> Usage:
        """What the ledger has more than the reports, of each kind; negative where it has less."""
        return Usage(*(a - b for a, b in zip(self.ours, self.theirs, strict=True)))

    @property
    def day(self) -> str:
        """The day as text."""
        return f"{datetime.fromtimestamp(self.day_ms / 1000, UTC):%Y-%m-%d}"


def plain_model(model: str) -> str:
    """A model's name without its context mark and its date, so that aliases and snapshots meet."""
    return _DATED.sub("", model.partition("[")[0].strip().rpartition("/")[2]) or NO_MODEL


def compare(
    ours: Iterable[UsageSum], theirs: Iterable[Counted], costs: Iterable[ModelCost], costs_until_ms: int
) -> list[Pair]:
    """A pair for each day and model. The ledger's costs count up to `costs_until_ms`, as those of the reports do."""
    pairs: dict[tuple[int, str], Pair] = {}
    exact: dict[tuple[int, str], Decimal] = {}

    def pair(start_ms: int, model: str) -> Pair:
        key = start_ms // DAY_MS * DAY_MS, plain_model(model)
        return pairs.setdefault(key, Pair(*key))

    for use in ours:
        one = pair(use.start_ms or 0, use.group or "")
        nano = one.our_nano
        if one.day_ms < costs_until_ms and use.cost_nano_usd is not None:
            nano = (nano or 0) + use.cost_nano_usd
        pairs[one[:2]] = one._replace(ours=_sum(one.ours, use.usage), our_nano=nano)
    for counted in theirs:
        one = pair(counted.start_ms, counted.model)
        pairs[one[:2]] = one._replace(theirs=_sum(one.theirs, counted.usage))
    for cost in costs:
        one = pair(cost.start_ms, cost.model)
        exact[one[:2]] = exact.get(one[:2], Decimal()) + cost.nano_usd
        pairs[one[:2]] = one._replace(their_nano=round(exact[one[:2]]))
    return [pairs[key] for key in sorted(pairs)]


def render(pairs: list[Pair], options: RenderOptions) -> list[str]:
    """The comparison as a table with a total, and what it cannot compare."""
    if not pairs:
        return wrap("neither the ledger nor the API has any use in this span", options.width)
    rows = [*pairs, _total(pairs)]
    cells = [(one.day if number < len(pairs) else "total") for number, one in enumerate(rows)]
    columns = (
        TableColumn("day (UTC)", cells, left=True),
        TableColumn("model", [printable(one.model) for one in rows], 0, left=True),
        TableColumn("ledger", [f"{one.ours.total_tokens:,}" for one in rows], 2),
        TableColumn("API", [f"{one.theirs.total_tokens:,}" for one in rows], 2),
        TableColumn("difference", [_signed(sum(one.difference)) for one in rows]),
        *(TableColumn(kind, [_signed(one.difference[n]) for one in rows], 4) for n, kind in enumerate(KINDS)),
        TableColumn("ledger cost", [_usd(one.our_nano) for one in rows], 3),
        TableColumn("API cost", [_usd(one.their_nano) for one in rows], 3),
    )
    notes = [line for text in CANNOT for line in wrap(text, options.width)]
    return [*table(columns, options), "", *notes]


def as_json(pairs: list[Pair], since_ms: int, until_ms: int) -> dict[str, Any]:
    """The comparison as data. Costs are decimal strings in USD, differences what the ledger has more."""
    return {
        "since": f"{datetime.fromtimestamp(since_ms / 1000, UTC).isoformat()}",
        "until": f"{datetime.fromtimestamp(until_ms / 1000, UTC).isoformat()}",
        "rows": [
            {
                "day": one.day,
                "model": one.model,
                "ledger": one.ours._asdict(),
                "api": one.theirs._asdict(),
                "difference": one.difference._asdict(),
                "ledger_cost_usd": None if one.our_nano is None else decimal_usd(one.our_nano),
                "api_cost_usd": None if one.their_nano is None else decimal_usd(one.their_nano),
            }
            for one in pairs
        ],
    }


def _total(pairs: list[Pair]) -> Pair:
    ours = [one.our_nano for one in pairs if one.our_nano is not None]
    theirs = [one.their_nano for one in pairs if one.their_nano is not None]
    total = Pair(0, "", our_nano=sum(ours) if ours else None, their_nano=sum(theirs) if theirs else None)
    for one in pairs:
        total = total._replace(ours=_sum(total.ours, one.ours), theirs=_sum(total.theirs, one.theirs))
    return total


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(one, other, strict=True)))


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _usd(nano_usd: int | None) -> str:
    return "-" if nano_usd is None else format_usd(nano_usd)
