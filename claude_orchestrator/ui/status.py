"""The run as text: the status report, the table of instances, the final report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from claude_orchestrator.engine.groups import GroupStatus, groups_of
from claude_orchestrator.engine.rate_limits import rate_limit_rows
from claude_orchestrator.engine.run_events import HoldChanged
from claude_orchestrator.engine.run_view import RunView, resume_hint
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Budget
from token_budget.text import RenderOptions, counted, display_width, fit, format_tokens, printable
from token_budget.visualization import GREEN, RED, RESET, YELLOW, budget_color, render_budget_panel

HOLD_CHANGES_SHOWN = 10
PROBLEMS_SHOWN = 50
ALIKE = 3  # more instances of a group that ended alike share a line
MEMBERS_SHOWN = 10  # of a larger group, the final table has only those that did not complete
ROWS_SHOWN = 50  # if there are large groups
STATE_COLORS = {
    State.COMPLETED: GREEN,
    State.RUNNING: "\033[36m",
    State.WAITING: YELLOW,
    State.PENDING: "",
    State.SKIPPED: YELLOW,
}


def status_report(view: RunView, now: float, options: RenderOptions, *, max_rows: int | None = None) -> list[str]:
    """A status report, in lines no wider than `options.width`. `now` is on the supervisor's clock."""
    usage, exact = view.total_usage()
    states = Counter(status.state for status in view.instances)
    counts = ", ".join(f"{states[state]} {state}" for state in State if states[state])
    title = "REHEARSAL" if view.rehearsal else "STATUS"
    head = (
        f"{title} after {_duration(now - view.clock_at_start)}: {counts} of {len(view.instances)}; "
        f"{_at_least(exact)}{format_tokens(usage.total_tokens)} tokens"
    )
    groups = groups_of(view.instances, now)
    lines = [
        *(
            fit(line, options.width, ellipsis=_dots(options)).rstrip()
            for line in (head, *_group_lines(groups, options))
        ),
        *instance_table(view, now, options, max_rows=None if max_rows is None else max_rows - len(groups)),
    ]
    waiting = [status for status in view.instances if status.state is State.WAITING and status.failed_before]
    lines += [fit(f"{status.name}: {status.reason}", options.width, ellipsis=_dots(options)) for status in waiting[:5]]
    if options.visuals:
        width = min(options.width, 77)
        lines += render_budget_panel(view.manager, width=width, color=options.color, ascii_only=options.ascii_only)
    return lines


def _group_lines(groups: Sequence[GroupStatus], options: RenderOptions) -> list[str]:
    """A line for each group, with aligned figures."""
    width = min(_NAME_WIDTH, max((display_width(printable(group.name)) for group in groups), default=0))
    return [f"{fit(group.name, width, ellipsis=_dots(options), middle=True)}  {group.figures()}" for group in groups]


def final_report(view: RunView, now: float, options: RenderOptions) -> list[str]:
    """The final summary: the table, what went wrong and how to continue, the totals, and the place of the logs."""
    usage, exact = view.total_usage()
    lines = status_report(view, now, options)
    alike = Counter(map(_cause, view.instances))
    common = {cause: count for cause, count in alike.items() if cause is not None and count > ALIKE}
    lines += [
        f"{printable(group)}: {counted(count, 'instance')} {state}: {printable(reason)}"
        for (group, state, reason), count in common.items()
    ]
    single = [status for status in view.instances if _cause(status) not in common]
    problems = [found for status in single if (found := _problems(status, rehearsal=view.rehearsal))]
    lines += [line for found in problems[:PROBLEMS_SHOWN] for line in found]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(
            f"... and {counted(len(problems) - PROBLEMS_SHOWN, 'more instance')} with problems (in the JSON report)"
        )
    lines += [
        f"{printable(past.name)}: no longer in the config; "
        f"{_at_least(past.exact)}{counted(past.usage.total_tokens, 'token')}"
        for past in view.removed
    ]
    lines += _hold_changes(view.changes.holds)
    lines += [
        f"Subscription: {printable(name)} {used:g} % used" + (f", resets at {printable(resets)}" if resets else "")
        for name, used, resets in rate_limit_rows(view.changes.rate_limits)
    ]
    cost = view.total_cost_usd()
    lines.append(
        f"Total: {_at_least(exact)}{counted(usage.total_tokens, 'token')} (input {usage.input_tokens:,}, "
        f"output {usage.output_tokens:,}, cache write {usage.cache_creation_input_tokens:,}, "
        f"cache read {usage.cache_read_input_tokens:,})" + (f", ${cost:.4f} by claude's own count" if cost else "")
    )
    if view.directory:
        lines.append(f"Logs: {printable(view.directory)}")
    return lines


def _cause(status: InstanceStatus) -> tuple[str, State, str] | None:
    """How an instance of a group ended without completing, if that is all there is to say."""
    group, state = status.planned.group, status.state
    if group is None or state is State.COMPLETED or status.permission_denials or status.bad_lines:
        return None
    return group, state, status.reason


def _problems(status: InstanceStatus, *, rehearsal: bool) -> list[str]:
    """What went wrong with an instance, and how to continue it."""
    lines = []
    if status.state is not State.COMPLETED:
        lines.append(f"{printable(status.name)}: {status.state}: {printable(status.reason)}")
        how = resume_hint(status)
        if how and not rehearsal:
            lines.append(f"  continue its session: {printable(how)}")
    if status.permission_denials:
        denied = ", ".join(f"{name} x{n}" for name, n in Counter(status.permission_denials).items())
        lines.append(f"{printable(status.name)}: permission denied for {printable(denied)}")
    if status.bad_lines:
        lines.append(f"{printable(status.name)}: skipped {counted(status.bad_lines, 'broken line')} of its stream")
    return lines


def _hold_changes(changes: Sequence[HoldChanged]) -> list[str]:
    """The changes of holds. An instance whose hold grew several times gets one line."""
    grown: dict[str, list[int]] = {}
    texts = []
    for change in changes:
        if change.more_tokens:
            grown.setdefault(change.instance, []).append(change.more_tokens)
        else:
            texts.append(change.text)
    texts += [
        f"hold of {name} up {'once' if len(more) == 1 else f'{len(more)} times'}, by {sum(more):,} tokens in all"
        for name, more in grown.items()
    ]
    lines = [f"Adjusted: {printable(text)}" for text in texts[:HOLD_CHANGES_SHOWN]]
    left = len(texts) - len(lines)
    return [*lines, f"... and {left} more adjustments (in the JSON report)"] if left else lines


class _Column(NamedTuple):
    title: str
    width: int
    keep: int  # on a narrow terminal, columns with low numbers go first
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


def instance_table(view: RunView, now: float, options: RenderOptions, *, max_rows: int | None = None) -> list[str]:
    """A row for each instance. With `max_rows`, those at work come first, and the rest is a count.

    Those of a group that completed or did not run have no row, because the group has a line. Without `max_rows` that
    concerns large groups only.
    """
    shown, hidden = _rows(view.instances, max_rows)
    if not shown:
        return []
    columns = list(_COLUMNS)
    columns[1] = columns[1]._replace(width=max(columns[1].width, *(len(state_text(status)) for status in shown)))
    while sum(column.width + 1 for column in columns) - 1 > options.width and len(columns) > 2:
        columns.remove(min(columns, key=lambda column: column.keep))
    names = max((display_width(printable(status.name)) for status in shown), default=0)
    spare = options.width - sum(column.width + 1 for column in columns) + 1
    name_width = max(4, columns[0].width + min(spare, max(0, min(names, _NAME_WIDTH) - columns[0].width)))
    lines = [_cells([column.title for column in columns], columns, name_width, options)]
    lines += [_row(view.manager, status, now, columns, name_width, options) for status in shown]
    if hidden:
        lines.append(f"... and {hidden:,} more")
    return lines


def state_text(status: InstanceStatus) -> str:
    """What an instance is doing, or how it ended, with the tool calls that it was denied."""
    if status.state is State.COMPLETED and status.permission_denials:
        return f"completed ({len(status.permission_denials)} denied)"
    if status.state is State.RUNNING and status.verification is not None and status.verification.running:
        return "checking"
    return "retrying" if status.attempt.retrying and status.state is State.RUNNING else str(status.state)


def _rows(instances: Sequence[InstanceStatus], max_rows: int | None) -> tuple[list[InstanceStatus], int]:
    """The instances that have a row, and how many others would have one."""
    sizes = Counter(status.planned.group for status in instances)
    members = MEMBERS_SHOWN if max_rows is None else 0
    large = {group for group, size in sizes.items() if group is not None and size > members}
    shown = list(instances)
    if large:
        in_line = (State.PENDING, State.COMPLETED, State.BLOCKED, State.SKIPPED)
        shown = [status for status in shown if status.planned.group not in large or status.state not in in_line]
        max_rows = ROWS_SHOWN if max_rows is None else max_rows
    if max_rows is None or len(shown) <= max_rows:
        return shown, 0
    order = {State.RUNNING: 0, State.WAITING: 1, State.FAILED: 2, State.STOPPED: 2, State.BLOCKED: 2}
    most = max(1, max_rows - 1)
    return sorted(shown, key=lambda status: order.get(status.state, 3))[:most], len(shown) - most


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
        "STATE": state_text(status),
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
        cell = fit(value, width, ellipsis=_dots(options), middle=column.title == "INSTANCE")
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
