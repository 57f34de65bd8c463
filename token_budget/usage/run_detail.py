"""Shows one run of the ledger: its head, its budgets, its attempts and its notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from token_budget.cost_tree import by_kind, cost_tree
from token_budget.ledger.records import AttemptRecord, NoteRecord, RunRecord
from token_budget.ledger.run_budgets import read_budgets
from token_budget.ledger.store import LedgerStore
from token_budget.model_weights import ModelWeights, TokenWeights, draw
from token_budget.models import Budget, Scope, Unit, Usage
from token_budget.text import NANO, RenderOptions, format_tokens, format_usd, printable, wrap
from token_budget.usage.history import ESTIMATES, PLAIN_PROMPT, LocalTime, local_time
from token_budget.usage.lookup import find_run
from token_budget.usage.tables import BOLD, TableColumn, colored, cut, short_cell, table
from token_budget.windows import Window, end_of, start_of, to_ms

CENT = NANO // 100
COUNTS = ("input", "output", "cache write", "cache read")


def run_detail(ledger: LedgerStore, run_id: str, options: RenderOptions, local: LocalTime = local_time) -> list[str]:
    """A run in detail: its head, budgets, attempts, totals and notes; `last` is the run that started last.

    Raises ValueError with a line for the user if there is no such run.
    """
    run = find_run(ledger, run_id)
    attempts, notes = ledger.attempts(run=run.run), ledger.notes(run=run.run)
    lines = _head(run, options, local)
    budgets = _Reader(ledger, run, attempts, local).budgets()
    if budgets:
        lines += ["", *_budget_lines(budgets, options)]
    nothing = wrap("no attempt at an instance yet", options.width)
    lines += ["", *(_attempt_lines(attempts, run, options) if attempts else nothing)]
    lines += _source_lines(ledger, run, attempts, options)
    lines += ["", *wrap(ESTIMATES, options.width)]
    if any(not attempt.exact for attempt in attempts):
        lines += wrap(f"{_at_least(options)}: a lower bound: the attempt still runs, or was cut off", options.width)
    if notes:
        lines += ["", colored(cut("notes", options), BOLD, options)]
        lines += [line for note in notes for line in _note_lines(note, options, local)]
    return lines


def _head(run: RunRecord, options: RenderOptions, local: LocalTime) -> list[str]:
    facts = {
        "run": run.run,
        "started": f"{local(run.started_ms):%Y-%m-%d %H:%M:%S}",
        "duration": "not ended" if run.ended_ms is None else duration(run.ended_ms - run.started_ms),
        "machine": run.machine,
        "mode": run.mode,
        "exit code": "-" if run.exit_code is None else str(run.exit_code),
    }
    return [cut(f"{name:<9}  {printable(value)}", options) for name, value in facts.items()]


def duration(span_ms: int) -> str:
    """A span as text: `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = max(0, span_ms) // 1000
    if seconds < 60:
        return f"{max(0, span_ms) // 100 / 10:.1f} s"
    minutes, hours = seconds // 60, seconds // 3600
    return f"{minutes} min {seconds % 60:02d} s" if minutes < 60 else f"{hours} h {minutes % 60:02d} min"


# -- budgets --


def weights_of(run: RunRecord) -> TokenWeights:
    """What a token of each kind drew from the run's budgets."""
    return read_budgets(run.budgets).weights


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what was used of a run's budgets."""

    ledger: LedgerStore
    run: RunRecord
    attempts: Sequence[AttemptRecord]
    local: LocalTime

    def budgets(self) -> list[Budget]:
        """The run's budgets with what it used of them; of a window's, what all runs used in it up to the run's end."""
        recorded = read_budgets(self.run.budgets, {attempt.instance for attempt in self.attempts})
        return [self._with_use(budget, recorded.weights) for budget in recorded.budgets]

    def _with_use(self, budget: Budget, weights: TokenWeights) -> Budget:
        if str(budget.scope) in set(Window):
            parts = self._of_window(Window(budget.scope))
        else:
            parts = list(self._of_attempts(budget, by_model=isinstance(weights, ModelWeights)))
        if budget.unit is Unit.USD:
            used = sum(cost or 0 for _, _, cost in parts)
        else:
            by_model: dict[str, Usage] = {}
            for model, usage, _ in parts:
                by_model[model or ""] = by_model.get(model or "", Usage()) + usage
            used = draw(weights, sum(by_model.values(), Usage()), by_model)
        return Budget(budget.limit, scope=budget.scope, key=budget.key, unit=budget.unit, used=used)

    def _of_attempts(self, budget: Budget, *, by_model: bool) -> Iterator[tuple[str | None, Usage, int | None]]:
        drawing = {one.key: one for one in self.attempts if _draws(one, budget)}
        if not by_model:
            yield from ((one.model, one.usage, one.cost_nano_usd) for one in drawing.values())
            return
        for (instance, number, model), (usage, cost_nano_usd, _) in self.ledger.totals(self.run.run).items():
            if (self.run.run, instance, number) in drawing:
                yield model, usage, cost_nano_usd

    def _of_window(self, window: Window) -> list[tuple[str | None, Usage, int | None]]:
        begin_ms, end_ms = (to_ms(edge(window, self.local(self.run.started_ms))) for edge in (start_of, end_of))
        until_ms = end_ms if self.run.ended_ms is None else min(end_ms, self.run.ended_ms + 1)
        sums = self.ledger.sums("model", since_ms=begin_ms, until_ms=until_ms)
        return [(part.group, part.usage, part.cost_nano_usd) for part in sums]


def _draws(attempt: AttemptRecord, budget: Budget) -> bool:
    keys = {Scope.OVERALL: "", Scope.COMMAND: attempt.base_command, Scope.INSTANCE: attempt.instance}
    if budget.scope is Scope.GROUP:  # the ledger knows its instances by their names
        return attempt.instance.startswith(f"{budget.key}[")
    return budget.scope in keys and keys[budget.scope] == budget.key


def _budget_lines(budgets: Sequence[Budget], options: RenderOptions) -> list[str]:
    figures = [_figures(budget) for budget in budgets]
    columns = (
        TableColumn("budget", [printable(budget.label) for budget in budgets], left=True),
        TableColumn("used", [f"{budget.used / budget.limit:.0%}" for budget in budgets]),
        TableColumn("of", figures, 1),
    )
    return table(columns, options, [min(1.0, max(0.0, budget.used / budget.limit)) for budget in budgets])


def _figures(budget: Budget) -> str:
    show = format_usd if budget.unit is Unit.USD else format_tokens
    return f"{show(budget.used)}/{show(budget.limit)}"


# -- attempts --


def _attempt_lines(attempts: Sequence[AttemptRecord], run: RunRecord, options: RenderOptions) -> list[str]:
    """The attempts and a total line. Counts are exact, and the four kinds add up to the tokens of their line."""

    def column(title: str, text_of: Callable[[AttemptRecord], str], drop: int, *, left: bool = False) -> TableColumn:
        return TableColumn(title, [*(short_cell(text_of(one), options) for one in attempts), ""], drop, left)

    total = sum((one.usage for one in attempts), Usage())
    usages = [*(one.usage for one in attempts), total]
    kinds = zip(*(usage.counts for usage in usages), strict=True)
    return table(
        (
            TableColumn("instance", [*(printable(one.instance) for one in attempts), "total"], left=True),
            column("#", lambda one: str(one.attempt), 2),
            column("command", lambda one: one.command or one.base_command or PLAIN_PROMPT, 6, left=True),
            column("model", lambda one: one.model or "-", 7, left=True),
            column("outcome", lambda one: _outcome(one, run), 1, left=True),
            column("took", _took, 4),
            *(TableColumn(title, [f"{n:,}" for n in counts], 8) for title, counts in zip(COUNTS, kinds, strict=True)),
            TableColumn("tokens", _token_cells(attempts, total, options)),
            TableColumn("cost", _cost_cells(attempts), 3),
        ),
        options,
    )


def _source_lines(
    ledger: LedgerStore, run: RunRecord, attempts: Sequence[AttemptRecord], options: RenderOptions
) -> list[str]:
    """Who used what, of the attempts that did not do everything in their main threads."""
    agents = {attempt.key: {agent.id: agent for agent in attempt.subagents} for attempt in attempts}
    parts: dict[tuple[str, str, int], list[tuple[str, Usage, int | None]]] = {}
    for record in ledger.records(run=run.run):
        key = record.run, record.instance, record.attempt
        parts.setdefault(key, []).append((record.source, record.usage, record.cost_nano_usd))
    rows = [
        (f"{key[1]} #{key[2]}", line)
        for key in agents
        if len(lines := by_kind(cost_tree(parts.get(key, ()), agents[key]))) > 1
        for line in lines
    ]
    if not rows:
        return []
    columns = (
        TableColumn("attempt", [printable(name) for name, _ in rows], left=True),
        TableColumn("used by", [printable(line.name) for _, line in rows], left=True),
        TableColumn("depth", [str(line.depth or "-") for _, line in rows], 1),
        TableColumn("number", [f"{line.number:,}" for _, line in rows], 2),
        TableColumn("tokens", [f"{line.usage.total_tokens:,}" for _, line in rows]),
        TableColumn("cost", ["?" if line.nano_usd is None else format_usd(line.nano_usd) for _, line in rows], 3),
    )
    return ["", *table(columns, options)]


def _outcome(attempt: AttemptRecord, run: RunRecord) -> str:
    """What became of an attempt. One that began after its run's end belongs to the run's resumption."""
    has_ended = attempt.ended_ms is not None or (run.ended_ms is not None and run.ended_ms >= attempt.started_ms)
    return attempt.outcome or ("interrupted" if has_ended else "running")


def _took(attempt: AttemptRecord) -> str:
    return "-" if attempt.ended_ms is None else duration(attempt.ended_ms - attempt.started_ms)


def _at_least(options: RenderOptions) -> str:
    return ">=" if options.ascii_only else "≥"


def _token_cells(attempts: Sequence[AttemptRecord], total: Usage, options: RenderOptions) -> list[str]:
    rows = [(one.exact, one.usage) for one in attempts]
    rows.append((all(exact for exact, _ in rows), total))
    return [f"{'' if exact else _at_least(options)}{usage.total_tokens:,}" for exact, usage in rows]


def _cost_cells(attempts: Sequence[AttemptRecord]) -> list[str]:
    """Costs that add up to the total as shown: each is rounded by the sum up to it."""
    costs = [one.cost_nano_usd or 0 for one in attempts]
    digits = 2 if all(cost % CENT == 0 for cost in costs) else 4
    unit = NANO // 10**digits
    sums = [(2 * nano + unit) // (2 * unit) for nano in accumulate(costs, initial=0)]  # rounded, half up
    shown = [f"${units / 10**digits:,.{digits}f}" for units in (after - before for before, after in pairwise(sums))]
    cells = [
        text if one.cost_nano_usd is not None else "?" if one.usage.total_tokens else "-"
        for one, text in zip(attempts, shown, strict=True)
    ]
    unpriced = "+" if "?" in cells else ""
    if all(one.cost_nano_usd is None for one in attempts):
        return [*cells, "?" if unpriced else "-"]
    return [*cells, f"${sums[-1] / 10**digits:,.{digits}f}{unpriced}"]


def _note_lines(note: NoteRecord, options: RenderOptions, local: LocalTime) -> list[str]:
    where = f" {note.instance}" if note.instance else ""
    return wrap(f"{local(note.at_ms):%H:%M:%S} {note.kind}{where}: {note.text}", options.width, "  ")
