"""The final report of a run, as text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from claude_orchestrator.engine.run_events import HoldChanged
from claude_orchestrator.engine.run_view import RunView, resume_hint
from claude_orchestrator.engine.sharing.cache_use import cache_lines
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.source_uses import source_line
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.ui.screen import ScreenStyle, screen
from claude_orchestrator.ui.table import at_least
from token_budget.text import NANO, RenderOptions, counted, printable, wrap

HOLD_CHANGES_SHOWN = 10
PROBLEMS_SHOWN = 50
SOURCES_SHOWN = 10
ALIKE = 3  # more instances of a group that ended alike share a line


def final_report(view: RunView, now: float, options: RenderOptions, columns: tuple[str, ...]) -> list[str]:
    """The final summary: the table, what went wrong and how to continue, the totals, and the place of the logs."""
    usage, exact = view.total_usage()
    columns = tuple(name for name in columns if name != "now")  # the reasons follow, in full
    lines = screen(Snapshots(view).take(now), options, ScreenStyle(columns))
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
        f"{at_least(past.exact)}{counted(past.usage.total_tokens, 'token')}"
        for past in view.removed
    ]
    lines += _source_lines(view.instances, options)
    lines += _hold_changes(view.changes.holds)
    if view.changes.rate_limits:
        from claude_orchestrator.engine.rate_limits import rate_limit_rows

        lines += [
            f"Subscription: {printable(name)} {used:g} % used" + (f", resets at {printable(resets)}" if resets else "")
            for name, used, resets in rate_limit_rows(view.changes.rate_limits)
        ]
    lines += [] if view.rehearsal else cache_lines(view.cache, view.instances)
    lines.append(
        f"Total: {at_least(exact)}{counted(usage.total_tokens, 'token')} (input {usage.input_tokens:,}, "
        f"output {usage.output_tokens:,}, cache write {usage.cache_creation_input_tokens:,}, "
        f"cache read {usage.cache_read_input_tokens:,}){_cost(view)}"
    )
    if view.directory:
        lines.append(f"Logs: {printable(view.directory)}")
    return lines


def _cost(view: RunView) -> str:
    """The cost that claude states; and what it is by prices too, if claude leaves a part out."""
    stated, charged = f"${view.total_cost_usd() or 0:.4f}", f"${view.charged_nano_usd() / NANO:.4f}"
    if float(charged[1:]) > float(stated[1:]):
        return f", {charged} by prices, {stated} by claude's own count"
    return f", {stated} by claude's own count" if view.total_cost_usd() else ""


def _source_lines(instances: Sequence[InstanceStatus], options: RenderOptions) -> list[str]:
    """Who used what, of the instances that did not do everything in their main threads; the largest come first."""
    ordered = sorted(instances, key=lambda status: -status.total_tokens)
    texts = [f"{status.name} used: {text}" for status in ordered if (text := source_line(status))]
    lines = [line for text in texts[:SOURCES_SHOWN] for line in wrap(printable(text), options.width)]
    left = len(texts) - SOURCES_SHOWN
    return (
        [*lines, f"... and {counted(left, 'more instance')} with subagents (in the JSON report)"] if left > 0 else lines
    )


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
