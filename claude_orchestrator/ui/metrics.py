"""The metrics of a run, whoever collects them. Pure.

Each name is documented in docs/metrics.md. Counters never fall while an orchestrator runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from claude_orchestrator.engine.run_view import RunChanges
from claude_orchestrator.engine.snapshot import Snapshot
from claude_orchestrator.engine.state import State
from token_budget.models import Budget, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import NANO

PREFIX = "claude_orchestrator"
Labels = Mapping[str, str]


class Metric(NamedTuple):
    """A metric: its name without the prefix, its type, what it means, and its values by their labels."""

    name: str
    kind: str
    help: str
    values: Iterable[tuple[Labels, float]]


def metrics_of(run: Snapshot, changes: RunChanges) -> Iterator[Metric]:
    """The gauges and counters of a run."""
    yield from _of_run(run, changes.decisions)
    yield from _of_budgets(run.budgets)


def _of_run(run: Snapshot, decisions: Mapping[str, int]) -> Iterator[Metric]:
    usage = run.usage
    tokens = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_write": usage.cache_creation_input_tokens,
        "cache_read": usage.cache_read_input_tokens,
    }
    states = run.states
    yield Metric("info", "gauge", "The run.", [({"run": run.run_id, "rehearsal": str(run.rehearsal).lower()}, 1)])
    yield Metric("run_seconds", "gauge", "How long the run has taken.", [({}, run.seconds)])
    yield Metric(
        "instances", "gauge", "Instances by state.", [({"state": state}, float(states[state])) for state in State]
    )
    yield Metric(
        "tokens_total", "counter", "Tokens by kind.", [({"type": kind}, float(count)) for kind, count in tokens.items()]
    )
    yield Metric("tokens_exact", "gauge", "1 if the tokens are all that was billed, else 0.", [({}, float(run.exact))])
    yield Metric("cost_usd_total", "counter", "The known cost in USD.", _known(run.nano_usd, NANO))
    yield Metric("tokens_per_minute", "gauge", "Tokens of the last minute.", _known(run.tokens_per_min))
    yield Metric("left_seconds", "gauge", "The forecast of the time that is left.", _known(run.left_s))
    yield Metric("tool_calls_total", "counter", "Tool calls.", [({}, float(sum(row.tools for row in run.rows)))])
    yield Metric(
        "attempts_total", "counter", "Launches of claude.", [({}, float(sum(row.attempts for row in run.rows)))]
    )
    yield Metric(
        "decisions_total",
        "counter",
        "Decisions about launches by action, other than a plain yes.",
        [({"action": action}, float(count)) for action, count in sorted(decisions.items())],
    )
    ended: dict[State, list[float]] = {}
    for row in run.rows:
        if row.ended and row.seconds is not None:
            ended.setdefault(row.state, []).append(row.seconds)
    yield Metric(
        "instance_seconds_total",
        "counter",
        "How long ended instances took in all, by state.",
        [({"state": state}, sum(seconds)) for state, seconds in ended.items()],
    )
    yield Metric(
        "instances_ended_total",
        "counter",
        "Instances that ran and ended, by state.",
        [({"state": state}, float(len(seconds))) for state, seconds in ended.items()],
    )


def _of_budgets(budgets: Iterable[Budget]) -> Iterator[Metric]:
    found = [(_budget_labels(budget), budget) for budget in budgets]

    def values(quantity: str) -> list[tuple[Labels, float]]:
        return [
            (labels, getattr(budget, quantity) / (NANO if budget.unit is Unit.USD else 1)) for labels, budget in found
        ]

    yield Metric("budget_limit", "gauge", "The limit, in tokens or USD.", values("limit"))
    yield Metric("budget_used", "gauge", "What is used, in tokens or USD.", values("used"))
    yield Metric("budget_held", "gauge", "What instances of this run hold.", values("held"))
    yield Metric("budget_held_elsewhere", "gauge", "What other runs hold.", values("held_elsewhere"))


def _budget_labels(budget: Budget) -> Labels:
    return {"scope": str(budget.scope), "key": budget.key, "unit": str(budget.unit)}


def _known(value: float | None, scale: int = 1) -> list[tuple[Labels, float]]:
    return [] if value is None else [({}, value / scale)]
