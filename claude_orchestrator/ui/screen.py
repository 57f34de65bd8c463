"""A run on the screen, for any size of it: header, groups, table, budgets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from claude_orchestrator.engine.groups import GroupStatus, about_time, state_words
from claude_orchestrator.engine.snapshot import Row, Snapshot
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.table import NAME_WIDTH, TableStyle, at_least, dots, duration, instance_table
from token_budget.named_tuples import NamedTuple
from token_budget.text import RenderOptions, about_tokens, display_width, fit, format_usd, printable, uncolored
from token_budget.visualization import PANEL_WIDTH, PanelStyle, render_budgets

PANEL_SHARE = 3  # the panel has at most a third of the height, and groups as much
MEMBERS_SHOWN = 10  # of a larger group, a report has only those that did not complete
ROWS_SHOWN = 50  # in a report, if there are large groups
IN_LINE = (State.PENDING, State.COMPLETED, State.BLOCKED, State.SKIPPED)  # the line of a group says enough
SEPARATOR = " · "


class ScreenStyle(NamedTuple):
    """How to draw a run: the table's columns, and how many lines it may take (None: as many as it needs).

    `at` is the time that the first line begins with.
    """

    columns: tuple[str, ...]
    height: int | None = None
    at: datetime | None = None


def screen(snapshot: Snapshot, options: RenderOptions, style: ScreenStyle) -> list[str]:
    """The run in lines no wider than `options.width`, and in no more lines than `style.height`."""
    height = style.height
    at = "" if style.at is None else f"{style.at.isoformat(timespec='seconds')} "
    lines = [fit(at + header(snapshot, options), options.width, ellipsis=dots(options)).rstrip()]
    if snapshot.held_back is not None and not snapshot.over:
        lines.append(fit(printable(snapshot.held_back), options.width, ellipsis=dots(options)))
    lines += _group_lines(snapshot.groups, options, height)
    widest = min(PANEL_WIDTH, options.width)
    panel = [] if height is None else _panel(snapshot, options, widest, height)
    room = None if height is None else height - len(lines) - len(panel)
    rows = _rows(snapshot, height)
    if height is None and len(snapshot.rows) > len(rows) and len(rows) > ROWS_SHOWN:
        room = ROWS_SHOWN + 1
    names = max((display_width(printable(row.name)) for row in snapshot.rows), default=0)
    table = instance_table(rows, options, TableStyle(style.columns, room, min(NAME_WIDTH, names)))
    width = max([widest, *(display_width(uncolored(line)) for line in table)])
    panel = _panel(snapshot, options, min(width, options.width), height)
    lines += [*table, *panel]
    return lines if height is None else lines[:height]


def header(snapshot: Snapshot, options: RenderOptions) -> str:
    """`21/60 done · 3 failed · 487K · $1.32 · 38K/min · ~6 min left`."""
    states = snapshot.states
    parts = ["REHEARSAL"] if snapshot.rehearsal else []
    parts.append(f"{states[State.COMPLETED]:,}/{len(snapshot.rows):,} done")
    parts += state_words(states, (State.COMPLETED, State.RUNNING))
    parts.append(at_least(snapshot.exact) + about_tokens(snapshot.usage.total_tokens))
    if snapshot.nano_usd is not None:
        parts.append(format_usd(snapshot.nano_usd))
    if snapshot.over:
        parts.append(f"in {duration(snapshot.seconds)}")
    else:
        parts += [] if not snapshot.tokens_per_min else [f"{about_tokens(snapshot.tokens_per_min)}/min"]
        parts += [] if snapshot.left_s is None else [f"~{about_time(snapshot.left_s)} left"]
    return (" - " if options.ascii_only else SEPARATOR).join(parts)


def _group_lines(groups: Sequence[GroupStatus], options: RenderOptions, height: int | None) -> list[str]:
    """A line for each group, with aligned figures. Where they are too many, those at work come first."""
    shown, most = list(groups), None if height is None else max(1, height // PANEL_SHARE)
    if most is not None and len(shown) > most:
        shown.sort(key=lambda group: (not group.states[State.RUNNING], group.states[State.COMPLETED] == group.total))
        shown = shown[: most - 1]
    width = min(NAME_WIDTH, max((display_width(printable(group.name)) for group in shown), default=0))
    ellipsis = dots(options)
    lines = [f"{fit(group.name, width, ellipsis=ellipsis, middle=True)}  {group.figures()}" for group in shown]
    if len(shown) < len(groups):
        lines.append(f"{ellipsis} and {len(groups) - len(shown):,} more groups")
    return [fit(line, options.width, ellipsis=ellipsis).rstrip() for line in lines]


def _rows(snapshot: Snapshot, height: int | None) -> list[Row]:
    """The instances that have a row: of a group, those that its line does not tell enough of."""
    members = MEMBERS_SHOWN if height is None else 0
    large = {group.name for group in snapshot.groups if group.total > members}
    return [row for row in snapshot.rows if row.group not in large or row.state not in IN_LINE]


def _panel(snapshot: Snapshot, options: RenderOptions, width: int, height: int | None) -> list[str]:
    if not options.visuals:
        return []
    most = None if height is None else height // PANEL_SHARE
    return render_budgets(snapshot.budgets, PanelStyle(width, options.color, options.ascii_only, most))
