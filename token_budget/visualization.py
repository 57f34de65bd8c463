"""Progress bars and the budget panel, as text. Pure: the same values always give the same lines."""

from __future__ import annotations

from collections.abc import Iterable

from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Budget, Scope, Unit
from token_budget.text import ELLIPSIS, fit, format_tokens, format_usd

GREEN, YELLOW, RED, RESET = "\033[32m", "\033[33m", "\033[31m", "\033[0m"
PANEL_WIDTH = 77
BAR_WIDTH = 20
MAX_ROWS = 20  # of one kind of budget: then those with the most use are shown


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
    inner = max(12, width - 4)
    rows: list[str] = []
    for title, budgets in (
        ("Budgets of All Runs:", [budget for budget in manager.windows if budget.unit is Unit.TOKENS]),
        ("Command Budgets:", list(manager.budgets_of(Scope.COMMAND).values())),
        ("Group Budgets:", list(manager.budgets_of(Scope.GROUP).values())),
        ("Instance Budgets:", list(manager.budgets_of(Scope.INSTANCE).values())),
        ("Cost Budgets (estimates):", [budget for budget in manager.budgets if budget.unit is Unit.USD]),
    ):
        if budgets:
            shown = budgets if len(budgets) <= MAX_ROWS else sorted(budgets, key=lambda one: -one.percentage)[:MAX_ROWS]
            rows.append(fit(title, inner))
            rows.extend(_rows(shown, 28, inner, color=color, ascii_only=ascii_only))
            if len(shown) < len(budgets):
                rows.append(fit(f"  ... and {len(budgets) - len(shown):,} with less use", inner))
    if manager.overall:
        rows[:0] = _rows([manager.overall], 8, inner, color=color, ascii_only=ascii_only)
    return boxed([fit("BUDGET STATUS", inner), *rows], inner=inner, ascii_only=ascii_only) if rows else []


def boxed(lines: list[str], *, inner: int, ascii_only: bool = False) -> list[str]:
    """Lines of exactly `inner` cells inside a double-line box."""
    if ascii_only:
        rule = "+" + "=" * (inner + 2) + "+"
        return [rule, *(f"| {line} |" for line in lines), rule]
    rule = "═" * (inner + 2)
    return [f"╔{rule}╗", *(f"║ {line} ║" for line in lines), f"╚{rule}╝"]


def _rows(budgets: Iterable[Budget], label_width: int, inner: int, *, color: bool, ascii_only: bool) -> list[str]:
    """One line for each budget, `inner` cells wide, with aligned bars."""
    budgets = list(budgets)
    ellipsis = "..." if ascii_only else ELLIPSIS
    tails = [_figures(budget) for budget in budgets]
    bar_width, room = BAR_WIDTH, inner - 4 - max(map(len, tails))
    if label_width + bar_width > room:
        label_width = max(8, min(label_width, room - bar_width))
        bar_width = room - label_width
    lines = []
    for budget, tail in zip(budgets, tails, strict=True):
        is_overall = budget.scope is Scope.OVERALL and budget.unit is Unit.TOKENS
        label = "Overall:" if is_overall else f"  {budget.key or budget.scope}"
        bar = ""
        if bar_width >= 4:
            bar = render_progress_bar(budget.used, budget.limit, bar_width, color=False, ascii_only=ascii_only)
            bar = bar.partition("]")[0] + "]"
        parts = (fit(label, label_width, ellipsis=ellipsis), *([bar] if bar else []), tail)
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
