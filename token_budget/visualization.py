"""Progress bars and the budget panel, as text. Pure: the same values always give the same lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from token_budget.budget_manager import WINDOW_SCOPES, TokenBudgetManager
from token_budget.models import Budget, Scope, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import ELLIPSIS, fit, format_tokens, format_usd

GREEN, YELLOW, RED, RESET = "\033[32m", "\033[33m", "\033[31m", "\033[0m"
PANEL_WIDTH = 77
BAR_WIDTH = 20
MAX_ROWS = 20  # of one kind of budget: then those with the most use are shown
LEAST_FOR_TITLES = 6  # lines: with fewer, budgets are worth more than their titles
_OF_ALL_RUNS, _IN_MONEY = "Budgets of All Runs:", "Cost Budgets (estimates):"
_TITLES = {
    Scope.DAILY: _OF_ALL_RUNS,
    Scope.COMMAND: "Command Budgets:",
    Scope.GROUP: "Group Budgets:",
    Scope.INSTANCE: "Instance Budgets:",
}


def budget_color(percentage: float) -> str:
    """The escape sequence for a use of `percentage`: green below 70, yellow to 90, red above."""
    if percentage < 70:
        return GREEN
    return YELLOW if percentage <= 90 else RED


def render_progress_bar(
    used: int, total: int, width: int = BAR_WIDTH, *, color: bool = True, ascii_only: bool = False
) -> str:
    """A bar of `width` cells with its percentage, e.g. `[████████████░░░░░░░░] 60%`.

    The percentage is rounded down, so 100% is never shown too early. If more than `total` is used, the percentage
    exceeds 100 and the bar is full. A `total` that is not positive gives an empty bar and 0%.
    """
    percentage = used / total * 100 if total > 0 else 0.0
    filled = min(width, max(0, used * width // total)) if total > 0 else 0
    full, empty = ("#", "-") if ascii_only else ("█", "░")
    bar = f"[{full * filled}{empty * (width - filled)}]"
    if color:
        bar = f"{budget_color(percentage)}{bar}{RESET}"
    return f"{bar} {int(percentage)}%"


def render_budget_panel(
    manager: TokenBudgetManager, *, width: int = PANEL_WIDTH, color: bool = False, ascii_only: bool = False
) -> list[str]:
    """The budget panel as lines of exactly `width` cells (at least 16): a bar for each budget; [] without budgets."""
    return render_budgets(manager.budgets, PanelStyle(width, color, ascii_only))


class PanelStyle(NamedTuple):
    """How to draw the panel: its cells and, if it has to be short, how many lines it may take."""

    width: int = PANEL_WIDTH
    color: bool = False
    ascii_only: bool = False
    max_lines: int | None = None


def render_budgets(budgets: Iterable[Budget], style: PanelStyle) -> list[str]:
    """The panel of these budgets. Where lines are few, the fullest budgets are shown; [] without room or budgets."""
    inner = max(12, style.width - 4)
    every = list(budgets)
    rows = _panel_rows(every, inner, style)
    room = None if style.max_lines is None else style.max_lines - 3  # the borders and the title
    if rows and room is not None and len(rows) > room:
        rows = _fullest_rows(every, room, inner, style)
    if not rows:
        return []
    return boxed([fit("BUDGET STATUS", inner), *rows], inner=inner, ascii_only=style.ascii_only)


def _panel_rows(budgets: Sequence[Budget], inner: int, style: PanelStyle) -> list[str]:
    overall, sections = _sections(budgets)
    rows = _rows(overall, 8, inner, style) if overall else []
    for title, found in sections:
        shown = found if len(found) <= MAX_ROWS else sorted(found, key=lambda one: -one.percentage)[:MAX_ROWS]
        rows += [fit(title, inner), *_rows(shown, 28, inner, style)]
        if len(shown) < len(found):
            rows.append(fit(f"  ... and {len(found) - len(shown):,} with less use", inner))
    return rows


def _fullest_rows(budgets: Sequence[Budget], room: int, inner: int, style: PanelStyle) -> list[str]:
    """The fullest budgets in so many lines, with the number of the others; [] where not one of them fits in."""
    fullest = sorted(budgets, key=lambda budget: (not _is_overall(budget), -budget.percentage))
    for count in range(min(room, len(fullest)), 0, -1):
        overall, sections = _sections(fullest[:count])
        titles = [] if room < LEAST_FOR_TITLES else sections
        if count + len(titles) + (count < len(fullest)) > room and (count, room) != (1, 1):
            continue
        rows = _rows(overall, 8, inner, style) if overall else []
        for title, found in sections:
            rows += [*([fit(title, inner)] if titles else []), *_rows(found, 28, inner, style)]
        others = [fit(_others(fullest[count:], style), inner)] if count < len(fullest) else []
        return [*rows, *others][:room]
    return []


def _others(hidden: Sequence[Budget], style: PanelStyle) -> str:
    most = max((budget.percentage for budget in hidden), default=0.0)
    below = next((limit for limit in (70, 90, 100) if most < limit), None)
    dots = "..." if style.ascii_only else ELLIPSIS
    return f"{dots} and {len(hidden):,} more" + ("" if below is None else f" below {below} %")


def _is_overall(budget: Budget) -> bool:
    return budget.scope is Scope.OVERALL and budget.unit is Unit.TOKENS


def _sections(budgets: Iterable[Budget]) -> tuple[list[Budget], list[tuple[str, list[Budget]]]]:
    """The overall budget in tokens, and the others under their titles."""
    overall: list[Budget] = []
    sections: dict[str, list[Budget]] = {title: [] for title in (*_TITLES.values(), _IN_MONEY)}
    for budget in budgets:
        if _is_overall(budget):
            overall.append(budget)
        else:
            sections[_IN_MONEY if budget.unit is Unit.USD else _TITLES.get(budget.scope, _OF_ALL_RUNS)].append(budget)
    return overall, [(title, found) for title, found in sections.items() if found]


def boxed(lines: list[str], *, inner: int, ascii_only: bool = False) -> list[str]:
    """Lines of exactly `inner` cells inside a double-line box."""
    if ascii_only:
        rule = "+" + "=" * (inner + 2) + "+"
        return [rule, *(f"| {line} |" for line in lines), rule]
    rule = "═" * (inner + 2)
    return [f"╔{rule}╗", *(f"║ {line} ║" for line in lines), f"╚{rule}╝"]


def _rows(budgets: Sequence[Budget], label_width: int, inner: int, style: PanelStyle) -> list[str]:
    """One line for each budget, `inner` cells wide, with aligned bars."""
    color, ascii_only = style.color, style.ascii_only
    ellipsis = "..." if ascii_only else ELLIPSIS
    tails = [_figures(budget) for budget in budgets]
    bar_width, room = BAR_WIDTH, inner - 4 - max(map(len, tails))
    if label_width + bar_width > room:
        label_width = max(8, min(label_width, room - bar_width))
        bar_width = room - label_width
    lines = []
    for budget, tail in zip(budgets, tails, strict=True):
        label = "Overall:" if _is_overall(budget) else f"  {_short_name(budget)}"
        bar = ""
        if bar_width >= 4:
            bar = render_progress_bar(budget.used, budget.limit, bar_width, color=False, ascii_only=ascii_only)
            bar = bar.partition("]")[0] + "]"
        parts = (fit(label, label_width, ellipsis=ellipsis, middle=True), *([bar] if bar else []), tail)
        line = fit(" ".join(parts), inner, ellipsis=ellipsis)
        if color and bar:
            line = line.replace(bar, f"{budget_color(budget.percentage)}{bar}{RESET}", 1)
        lines.append(line)
    return lines


def _figures(budget: Budget) -> str:
    """The text behind a bar, e.g. `90% 900/1.0K (Warning!)`; for a command the warning follows the percentage."""
    warning = " (Warning!)" if budget.percentage >= 90 else ""
    show = format_usd if budget.unit is Unit.USD else format_tokens
    figures = f" {show(budget.used)}/{show(budget.limit)}"
    if budget.held + budget.held_elsewhere:
        figures += f" +{show(budget.held + budget.held_elsewhere)} held"
    both = figures + warning if budget.scope is Scope.OVERALL else warning + figures
    return f"{int(budget.percentage)}%{both}"


def _short_name(budget: Budget) -> str:
    """What tells a budget from others under the same heading."""
    is_account = budget.scope in WINDOW_SCOPES and budget.key
    return f"{budget.scope} ({budget.key})" if is_account else budget.key or str(budget.scope)
