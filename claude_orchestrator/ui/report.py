"""What a run looks like from outside: status text, result table, JSON, JUnit XML, exit code. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.gateway.choice import STREAM, Meter
from claude_orchestrator.run.resume import Past
from claude_orchestrator.run.state import InstanceStatus, State, rate_limit_rows
from token_budget.budget_manager import TokenBudgetManager
from token_budget.holds import Adjustment
from token_budget.models import Budget, Scope, Unit, Usage
from token_budget.text import RenderOptions, decimal_usd, display_width, fit, format_tokens, printable
from token_budget.visualization import GREEN, RED, RESET, YELLOW, budget_color, render_budget_panel

SCHEMA_VERSION = 1
ADJUSTMENTS_SHOWN = 10
STATE_COLORS = {
    State.COMPLETED: GREEN,
    State.RUNNING: "\033[36m",
    State.WAITING: YELLOW,
    State.PENDING: "",
}


@dataclass(frozen=True, slots=True)
class Run:
    """All that reports are made from. `clock_at_start` is the supervisor's clock when `started_at` was; `removed` are
    instances of an earlier start that are not in the plan any more."""

    run_id: str
    plan: Plan
    instances: Sequence[InstanceStatus]
    manager: TokenBudgetManager
    started_at: datetime
    clock_at_start: float
    rehearsal: bool = False
    folder: str | None = None
    meter: Meter = STREAM
    removed: Sequence[Past] = ()
    adjustments: Sequence[Adjustment] = ()
    rate_limits: Mapping[str, Any] = field(default_factory=dict)


def exit_code(instances: Iterable[InstanceStatus]) -> int:
    """0 when every instance completed, else 1."""
    return 0 if all(status.state is State.COMPLETED for status in instances) else 1


def _parts(run: Run) -> tuple[InstanceStatus | Past, ...]:
    return (*run.instances, *run.removed)


def total_usage(run: Run) -> tuple[Usage, bool]:
    """The sum of all that the run has used, and whether every part of it is exact."""
    usage, exact = Usage(), True
    for part in _parts(run):
        usage, exact = usage + part.usage, exact and part.exact
    return usage, exact


# -- text --


def status_report(run: Run, now: float, options: RenderOptions, *, max_rows: int | None = None) -> list[str]:
    """A status report as lines no wider than `options.width`; `now` is of the supervisor's clock."""
    usage, exact = total_usage(run)
    states = Counter(status.state for status in run.instances)
    counts = ", ".join(f"{states[state]} {state}" for state in State if states[state])
    title = "REHEARSAL" if run.rehearsal else "STATUS"
    head = (
        f"{title} after {_duration(now - run.clock_at_start)}: {counts} of {len(run.instances)}; "
        f"{_at_least(exact)}{format_tokens(usage.total_tokens)} tokens"
    )
    lines = [
        fit(head, options.width, ellipsis=_dots(options)).rstrip(),
        *instance_table(run, now, options, max_rows=max_rows),
    ]
    waiting = [status for status in run.instances if status.state is State.WAITING and status.failed_before]
    lines += [fit(f"{status.name}: {status.reason}", options.width, ellipsis=_dots(options)) for status in waiting[:5]]
    if options.visuals:
        width = min(options.width, 77)
        lines += render_budget_panel(run.manager, width=width, color=options.color, ascii_only=options.ascii_only)
    return lines


def final_report(run: Run, now: float, options: RenderOptions) -> list[str]:
    """The final summary: table, totals, what went wrong and how to go on, where the logs are."""
    usage, exact = total_usage(run)
    lines = status_report(run, now, options)
    for status in run.instances:
        if status.state is not State.COMPLETED:
            lines.append(f"{printable(status.name)}: {status.state}: {printable(status.reason)}")
            how = resume_hint(status)
            if how and not run.rehearsal:
                lines.append(f"  go on with its session: {printable(how)}")
        if status.permission_denials:
            denied = ", ".join(f"{name} x{n}" for name, n in Counter(status.permission_denials).items())
            lines.append(f"{printable(status.name)}: permission denied for {printable(denied)}")
        if status.bad_lines:
            lines.append(f"{printable(status.name)}: {status.bad_lines} broken lines in its stream were skipped")
    lines += [
        f"{printable(past.name)}: not in the config any more; {_at_least(past.exact)}{past.usage.total_tokens:,} tokens"
        for past in run.removed
    ]
    lines += _adjusted(run.adjustments)
    lines += [
        f"Subscription: {printable(name)} {used:g} % used" + (f", resets at {printable(resets)}" if resets else "")
        for name, used, resets in rate_limit_rows(run.rate_limits)
    ]
    cost = total_cost(run)
    lines.append(
        f"Total: {_at_least(exact)}{usage.total_tokens:,} tokens (input {usage.input_tokens:,}, "
        f"output {usage.output_tokens:,}, cache write {usage.cache_creation_input_tokens:,}, "
        f"cache read {usage.cache_read_input_tokens:,})" + (f", ${cost:.4f} as claude reckons" if cost else "")
    )
    if run.folder:
        lines.append(f"Logs: {printable(run.folder)}")
    return lines


def _adjusted(adjustments: Sequence[Adjustment]) -> list[str]:
    """The changes of holds; those that grew several times in a line each."""
    grown: dict[str, list[int]] = {}
    texts = []
    for adjustment in adjustments:
        if adjustment.more_tokens:
            grown.setdefault(adjustment.instance, []).append(adjustment.more_tokens)
        else:
            texts.append(adjustment.text)
    texts += [
        f"hold of {name} up {'once' if len(more) == 1 else f'{len(more)} times'}, by {sum(more):,} tokens in all"
        for name, more in grown.items()
    ]
    lines = [f"Adjusted: {printable(text)}" for text in texts[:ADJUSTMENTS_SHOWN]]
    left = len(texts) - len(lines)
    return [*lines, f"... and {left} more adjustments (in the JSON report)"] if left else lines


def total_cost(run: Run) -> float | None:
    """The sum of what the CLI itself states, in USD; None where it states nothing."""
    costs = [cost for part in _parts(run) if (cost := part.cost_usd) is not None]
    return sum(costs) if costs else None


def resume_hint(status: InstanceStatus) -> str | None:
    """How to go on with the session of an instance that was launched and did not complete."""
    ended_early = status.state in (State.STOPPED, State.TIMED_OUT, State.CANCELLED, State.FAILED)
    if not ended_early or status.session_id is None or not status.launched:
        return None
    return f"claude --resume {shlex.quote(status.session_id)}"


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    keep: int  # the higher, the longer it stays when the terminal is narrow
    left: bool = False


_COLUMNS = (
    _Column("INSTANCE", 12, 9, left=True),
    _Column("STATE", 9, 8, left=True),
    _Column("MODEL", 12, 1, left=True),
    _Column("TIME", 6, 5),
    _Column("INPUT", 7, 3),
    _Column("OUTPUT", 7, 4),
    _Column("C.WRITE", 7, 2),
    _Column("C.READ", 7, 2),
    _Column("TOTAL", 8, 7),
    _Column("TOOLS", 5, 3),
    _Column("BUDGET", 6, 6),
)
_NAME_WIDTH = 32


def instance_table(run: Run, now: float, options: RenderOptions, *, max_rows: int | None = None) -> list[str]:
    """A row for each instance; with `max_rows`, those at work first and the rest as a count."""
    columns = list(_COLUMNS)
    while sum(column.width + 1 for column in columns) - 1 > options.width and len(columns) > 2:
        columns.remove(min(columns, key=lambda column: column.keep))
    names = max((display_width(printable(status.name)) for status in run.instances), default=0)
    spare = options.width - sum(column.width + 1 for column in columns) + 1
    name_width = max(4, columns[0].width + min(spare, max(0, min(names, _NAME_WIDTH) - columns[0].width)))
    shown = list(run.instances)
    if max_rows is not None and len(shown) > max_rows:
        order = {State.RUNNING: 0, State.WAITING: 1, State.FAILED: 2, State.STOPPED: 2, State.BLOCKED: 2}
        shown = sorted(shown, key=lambda status: order.get(status.state, 3))[: max(1, max_rows - 1)]
    lines = [_cells([column.title for column in columns], columns, name_width, options)]
    lines += [_row(run.manager, status, now, columns, name_width, options) for status in shown]
    if len(shown) < len(run.instances):
        lines.append(f"... and {len(run.instances) - len(shown)} more")
    return lines


def _row(
    manager: TokenBudgetManager,
    status: InstanceStatus,
    now: float,
    columns: list[_Column],
    name_width: int,
    options: RenderOptions,
) -> str:
    usage = status.usage
    command, name = status.spec.base_command, status.name
    tightest = _tightest(manager.budgets_for(command, name))
    values = {
        "INSTANCE": status.name,
        "STATE": "retrying" if status.retry and status.state is State.RUNNING else str(status.state),
        "MODEL": _short_model(status.models[0]) if status.models else "-",
        "TIME": _duration(status.seconds(now)) if status.launched else "-",
        "INPUT": format_tokens(usage.input_tokens),
        "OUTPUT": format_tokens(usage.output_tokens),
        "C.WRITE": format_tokens(usage.cache_creation_input_tokens),
        "C.READ": format_tokens(usage.cache_read_input_tokens),
        "TOTAL": _at_least(status.exact) + format_tokens(usage.total_tokens),
        "TOOLS": str(status.tool_calls),
        "BUDGET": f"{int(tightest.percentage)}%" if tightest else "-",
    }
    colors = {"STATE": STATE_COLORS.get(status.state, RED)}
    if tightest:
        colors["BUDGET"] = budget_color(tightest.percentage)
    return _cells([values[column.title] for column in columns], columns, name_width, options, colors)


def _cells(
    values: list[str],
    columns: list[_Column],
    name_width: int,
    options: RenderOptions,
    colors: Mapping[str, str] | None = None,
) -> str:
    cells = []
    for value, column in zip(values, columns, strict=True):
        width = name_width if column.title == "INSTANCE" else column.width
        cell = fit(value, width, ellipsis=_dots(options))
        if not column.left:
            cell = cell.strip().rjust(width)
        color = (colors or {}).get(column.title) if options.color else None
        cells.append(f"{color}{cell}{RESET}" if color else cell)
    return " ".join(cells).rstrip()


def _tightest(budgets: Iterable[Budget]) -> Budget | None:
    return max(budgets, key=lambda budget: budget.percentage, default=None)


def _dots(options: RenderOptions) -> str:
    return "..." if options.ascii_only else "…"


def _at_least(exact: bool) -> str:
    return "" if exact else ">="


def _short_model(model: str) -> str:
    return model.removeprefix("claude-").partition("[")[0]


def _duration(seconds: float) -> str:
    """`59s`, `3:25` or `1:02:25`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


# -- JSON and XML --


def json_report(run: Run, ended_at: datetime, code: int) -> dict[str, Any]:
    """The run as JSON data, `schema_version` 1. Times are ISO 8601 with the offset; costs are the CLI's own, in USD."""
    usage, exact = total_usage(run)
    manager = run.manager
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "rehearsal": run.rehearsal,
        "started_at": run.started_at.isoformat(),
        "ended_at": ended_at.isoformat(),
        "exit_code": code,
        "mode": manager.enforcement_mode,
        "meter": {"kind": run.meter.kind, "reason": run.meter.reason},
        "budgets": {
            "overall": _budget(manager.overall) if manager.overall else None,
            "windows": {str(budget.scope): _budget(budget) for budget in manager.windows if budget.unit is Unit.TOKENS},
            "commands": {key: _budget(budget) for key, budget in manager.budgets_of(Scope.COMMAND).items()},
            "instances": {key: _budget(budget) for key, budget in manager.budgets_of(Scope.INSTANCE).items()},
            "costs": [_cost_budget(budget) for budget in manager.budgets if budget.unit is Unit.USD],
        },
        "instances": [_instance(status, rehearsal=run.rehearsal) for status in run.instances],
        "removed_instances": [
            {
                "name": past.name,
                "status": str(past.state),
                "usage": _usage(past.usage, exact=past.exact),
                "cost_usd": past.cost_usd,
            }
            for past in run.removed
        ],
        "adjustments": [adjustment.text for adjustment in run.adjustments],
        "rate_limits": [
            {"name": name, "used_percent": used, "resets_at": resets or None}
            for name, used, resets in rate_limit_rows(run.rate_limits)
        ],
        "totals": {**_usage(usage, exact=exact), "cost_usd": total_cost(run)},
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "limit": budget.limit,
        "used": budget.used,
        "held": budget.held,
        "percentage": round(budget.percentage, 2),
    }


def _cost_budget(budget: Budget) -> dict[str, Any]:
    """A budget in money: each amount in USD as a decimal string, and as whole nano-dollars."""
    figures = {"limit": budget.limit, "used": budget.used, "held": budget.held}
    return {
        "scope": str(budget.scope),
        "key": budget.key or None,
        **{f"{name}_usd": decimal_usd(nano_usd) for name, nano_usd in figures.items()},
        **{f"{name}_nano_usd": nano_usd for name, nano_usd in figures.items()},
        "percentage": round(budget.percentage, 2),
    }


def _usage(usage: Usage, *, exact: bool) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "total_tokens": usage.total_tokens,
        "exact": exact,
    }


def _instance(status: InstanceStatus, *, rehearsal: bool) -> dict[str, Any]:
    return {
        "name": status.name,
        "description": status.spec.description,
        "command": status.spec.command,
        "base_command": status.spec.base_command,
        "status": str(status.state),
        "reason": status.reason,
        "session_id": status.session_id,
        "resume": None if rehearsal else resume_hint(status),
        "models": list(status.models),
        "usage": _usage(status.usage, exact=status.exact),
        "usage_source": "api" if status.tally.metered else "stream",
        "cost_usd": status.cost_usd,
        "attempts": status.attempts,
        "duration_s": round(status.seconds(0.0), 3) if status.launched else None,
        "turns": status.model_turns,
        "tool_calls": status.tool_calls,
        "tools": dict(status.tools.most_common()),
        "permission_denials": list(status.permission_denials),
        "broken_lines": status.bad_lines,
        "exit_code": status.exit_code,
        "log": status.log,
    }


def junit_report(run: Run, took_s: float) -> bytes:
    """The run as JUnit XML, a test case for each instance: failures failed, errors did not get to the end."""
    states = Counter(status.state for status in run.instances)
    errors = sum(states[state] for state in (State.STOPPED, State.TIMED_OUT, State.CANCELLED))
    suite = ElementTree.Element(
        "testsuite",
        name="claude-orchestrator",
        tests=str(len(run.instances)),
        failures=str(states[State.FAILED]),
        errors=str(errors),
        skipped=str(states[State.BLOCKED]),
        timestamp=run.started_at.isoformat(),
        time=f"{took_s:.3f}",
    )
    for status in run.instances:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(status.spec.base_command or "prompt"), name=_xml(status.name)
        )
        case.set("time", f"{status.seconds(0.0):.3f}")
        tag = {State.FAILED: "failure", State.BLOCKED: "skipped"}.get(status.state, "error")
        if status.state is not State.COMPLETED:
            ElementTree.SubElement(case, tag, message=_xml(f"{status.state}: {status.reason}"))
        text = f"{status.total_tokens} tokens{'' if status.exact else ' or more'}"
        ElementTree.SubElement(case, "system-out").text = text
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _xml(text: str) -> str:
    """Text without what XML 1.0 cannot hold."""
    return printable(text)
