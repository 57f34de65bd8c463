"""What the history page shows, read from a ledger as JSON data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from token_budget.forecast import Forecast, forecast
from token_budget.ledger.accounts import zone_named
from token_budget.ledger.records import FOREVER_MS, AccountLimit, Limit
from token_budget.ledger.run_budgets import read_budgets
from token_budget.ledger.samples import SampleReader, subject_of
from token_budget.ledger.store import LedgerStore
from token_budget.model_weights import TokenWeights
from token_budget.models import Unit, Weights
from token_budget.named_tuples import NamedTuple
from token_budget.text import NANO
from token_budget.usage.history import By, LocalTime, ended, history, local_time
from token_budget.usage.history_text import as_json
from token_budget.usage.page.projection import pace_since, project
from token_budget.usage.plot_data import PlotData, PlotRequest, WindowLimit, plot_data, read_sums
from token_budget.windows import Window, name_of, start_of, to_ms

GROUPS: tuple[By, ...] = ("day", "command", "model", "instance", "workspace", "run")
ChartBy = Literal["command", "model"]
CHARTS: tuple[ChartBy, ...] = ("command", "model")
BY_TIME = frozenset({"day", "run"})  # of these the latest rows stay
MOST_ROWS = 500  # of a group
MOST_FORECASTS = 200
MOST_ACCOUNTS = 100
SPANS_DAYS = (7, 30, 90, 365, 0)  # 0: all


class PageRequest(NamedTuple):
    """What a page asks for: the use since a moment, with these limits beside it."""

    since_ms: int
    now: datetime
    limits: Mapping[Unit, Sequence[WindowLimit]]
    local: LocalTime = local_time

    @property
    def until_ms(self) -> int:
        """A span ends now, so it has a row for today. All use has no end."""
        return to_ms(self.now) if self.since_ms else FOREVER_MS


def page_data(ledger: LedgerStore, request: PageRequest) -> dict[str, Any]:
    """Everything that the page shows. Costs are USD, null where unknown, moments seconds since 1970.

    Raises LedgerError.
    """
    weights = _weights(ledger)
    span = (request.since_ms, request.until_ms)
    found = ended(ledger, *span)
    tables = {by: as_json(history(ledger, (by,), *span, request.local, found)) for by in GROUPS}
    return {
        "at": request.now.timestamp(),
        "since": request.since_ms / 1000,
        "ledger": ledger.name,
        "totals": _totals(tables["model"], tables["command"]),
        "limits": [_limit(ledger, weights, *one) for one in _limits(ledger, request)],
        "charts": {name: chart for by in CHARTS for name, chart in _charts(ledger, request, by)},
        "tables": {by: _bounded(by, rows) for by, rows in tables.items()},
        "forecasts": _forecasts(ledger, request.now),
    }


def _word(unit: Unit) -> Literal["tokens", "usd"]:
    return "usd" if unit is Unit.USD else "tokens"


def _shown(value: int, unit: Unit) -> float:
    return value / NANO if unit is Unit.USD else value


def _totals(models: Sequence[Mapping[str, Any]], commands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    costs = [row["cost_usd"] for row in models if row["cost_usd"] is not None]
    verified = sum(row["verified"] for row in commands)
    checked = sum(row["verified"] * row["cost_per_verified_usd"] for row in commands if row["cost_per_verified_usd"])
    return {
        "total_tokens": sum(row["total_tokens"] for row in models),
        "unpriced_tokens": sum(row["unpriced_tokens"] for row in models),
        "cost_usd": sum(costs) if costs else None,
        "instances": sum(row["instances"] for row in commands),
        "completed": sum(row["completed"] for row in commands),
        "verified": verified,
        "cost_per_verified_usd": checked / verified if verified else None,
    }


def _bounded(by: By, rows: list[dict[str, object]]) -> dict[str, Any]:
    kept = rows[-MOST_ROWS:] if by in BY_TIME else rows[:MOST_ROWS]
    return {"rows": kept, "left_out": len(rows) - len(kept)}


def _limits(ledger: LedgerStore, request: PageRequest) -> Iterator[tuple[AccountLimit, datetime, str]]:
    """The limits of all runs together, and then those of accounts: each with the time in its zone, and the account."""
    for unit in Unit:
        for _, window, limit in request.limits.get(unit, ()):
            yield AccountLimit(Window(window), unit, limit), request.now, ""
    for account in islice(ledger.accounts(), MOST_ACCOUNTS):
        now = request.now.astimezone(zone_named(account.zone))
        yield from ((limit, now, account.account) for limit in account.limits)


def _limit(
    ledger: LedgerStore, weights: TokenWeights, one: AccountLimit, now: datetime, account: str
) -> dict[str, Any]:
    window, unit, limit = one
    now_ms = to_ms(now)
    begins = (to_ms(start_of(window, now)), pace_since(window, now_ms))
    (used, latest), held = ledger.shared([Limit(ms, limit, unit) for ms in begins], weights, now_ms, account)
    found = project(window, limit, used, latest, now)
    name = name_of(window, now)
    return {
        "window": str(window),
        "name": f"{account}: {name}" if account else name,
        "unit": str(unit),
        "limit": _shown(limit, unit),
        "used": _shown(used, unit),
        "held": _shown(held.of(unit), unit),
        "projected": _shown(found.projected, unit),
        "ends_at": found.end_ms / 1000,
        "reached_at": None if found.reached_ms is None else found.reached_ms / 1000,
    }


def _weights(ledger: LedgerStore) -> TokenWeights:
    """Those by which the last run drew tokens from its limits."""
    runs = ledger.runs()
    return read_budgets(runs[-1].budgets).weights if runs else Weights()


def _charts(ledger: LedgerStore, request: PageRequest, by: ChartBy) -> Iterator[tuple[str, dict[str, Any]]]:
    """The use of each day by its most used commands or models, in each unit; the name of all others is null."""
    wanted = PlotRequest(request.since_ms, request.until_ms, by=by, local=request.local)
    sums = read_sums(ledger, wanted)
    for unit in Unit:
        yield f"{_word(unit)}/{by}", _chart(plot_data(sums, replace(wanted, unit=unit)), unit)


def _chart(data: PlotData | None, unit: Unit) -> dict[str, Any]:
    if data is None:
        return {"at": [], "names": [], "values": []}
    return {
        "at": [ms / 1000 for ms in data.days[:-1]],
        "names": [name or None for name in data.totals],
        "values": [[_shown(day[name], unit) for day in data.by_day] for name in data.totals],
    }


def _forecasts(ledger: LedgerStore, now: datetime) -> list[dict[str, Any]]:
    """What each command, and each instance with a plain prompt, will use."""
    reader = SampleReader(ledger)
    rows = []
    for base_command, instance in islice(reader.subjects(), MOST_FORECASTS):
        subject = subject_of(base_command, instance)
        tokens, cost = (
            forecast(reader.of(base_command, instance, unit), subject, "", now.timestamp()) for unit in Unit
        )
        rows.append({"subject": subject, **_forecast_row(tokens, cost)})
    return rows


def _forecast_row(tokens: Forecast, cost: Forecast) -> dict[str, Any]:
    def usd(value: int | None) -> float | None:
        return None if value is None else value / NANO

    return {
        "instances": tokens.n,
        "stopped_early": tokens.n_censored,
        "p50_tokens": tokens.p50,
        "p90_tokens": tokens.p90,
        "p50_usd": usd(cost.p50),
        "p90_usd": usd(cost.p90),
    }
