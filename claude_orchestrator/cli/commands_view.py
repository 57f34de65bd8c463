"""`--list-commands` and `--inspect-command`, and warnings of commands that nobody has."""

from __future__ import annotations

from pathlib import Path

from claude_orchestrator.claude import commands
from claude_orchestrator.errors import UserError
from token_budget.budget_manager import TokenBudgetManager
from token_budget.text import RenderOptions
from token_budget.visualization import render_budget_panel


def render_commands(
    workspace: Path, name: str | None, manager: TokenBudgetManager, options: RenderOptions
) -> list[str]:
    """All commands of the workspace, or the one of that name; then the budget panel, where there are budgets."""
    known = commands.discover_here(workspace)
    if name:
        info = commands.find(known, name)
        if info is None:
            near = commands.nearest(name, [info.name for info in known])
            raise UserError(f"--inspect-command: no command {name}" + (f"; nearest: {', '.join(near)}" if near else ""))
        lines = commands.render_inspect(info, options.width)
    else:
        lines = commands.render_list(known, options.width)
    if options.visuals:
        width = min(options.width, 77)
        lines += render_budget_panel(manager, width=width, color=options.color, ascii_only=options.ascii_only)
    return lines


def warn_of_unknown(command: str, instance: str, folder: Path) -> list[str]:
    """A warning of a slash command that neither the folder nor the user has; built-in ones differ by version."""
    warning = commands.warning_for(command, commands.discover_here(folder))
    return [f"{instance}: {warning}"] if warning else []
