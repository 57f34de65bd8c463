"""`--list-commands` and `--inspect-command`, and warnings of commands that nobody has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from claude_orchestrator.claude import commands
from claude_orchestrator.claude.commands import CommandInfo, CommandScope
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.errors import UserError
from token_budget.budget_manager import TokenBudgetManager
from token_budget.text import RenderOptions, counted, display_width, fit, printable
from token_budget.visualization import render_budget_panel

MOST_FOLDERS = 200  # that are searched for commands


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
        lines = render_inspect(info, options.width)
    else:
        lines = render_list(known, options.width)
    if options.visuals:
        width = min(options.width, 77)
        lines += render_budget_panel(manager, width=width, color=options.color, ascii_only=options.ascii_only)
    return lines


def warn_of_unknown(specs: Iterable[LaunchSpec]) -> list[str]:
    """A warning of each slash command that neither its folder nor the user has; built-in ones differ by version.

    Each folder is searched once, and a command gets one warning for all instances of a group.
    """
    known: dict[str, tuple[CommandInfo, ...]] = {}
    found: dict[tuple[str, str], str | None] = {}
    warnings: dict[str, None] = {}
    unsearched = 0
    for spec in specs:
        if spec.base_command is None:
            continue
        if spec.cwd not in known:
            if len(known) == MOST_FOLDERS:
                unsearched += 1
                continue
            known[spec.cwd] = commands.discover_here(Path(spec.cwd))
        key = spec.cwd, spec.base_command
        if key not in found:
            found[key] = commands.warning_for(spec.base_command, known[spec.cwd])
        if found[key] is not None:
            warnings[f"{spec.group or spec.name}: {found[key]}"] = None
    if unsearched:
        warnings[f"commands not searched in the further folders of {counted(unsearched, 'instance')}"] = None
    return list(warnings)


def render_list(commands: Iterable[CommandInfo], width: int) -> list[str]:
    """All commands by scope in columns of `width` cells, each source below; control characters are escaped."""
    ordered = sorted(commands, key=lambda info: (info.name.casefold(), info.name))
    rows = [info for info in ordered if info.available or info.scope is not CommandScope.BUILT_IN]
    calls = {info.name: printable(f"{info.name} {info.argument_hint}".rstrip()) for info in rows}
    column = min(max(map(display_width, calls.values()), default=0), max(12, width // 3))
    lines: list[str] = []
    for scope in CommandScope:
        group = [info for info in rows if info.scope is scope]
        lines += ["", f"{scope.capitalize()} ({len(group)})"] if group else []
        for info in group:
            lines += _entry(info, fit(calls[info.name], column), width)
    hidden = ", ".join(info.name for info in ordered if not info.available and info.scope is CommandScope.BUILT_IN)
    lines += ["", *_wrap(f"Not available headless: {hidden}", width)] if hidden else []
    return lines[1:]


def _entry(info: CommandInfo, call: str, width: int) -> list[str]:
    kind = "" if info.scope is CommandScope.BUILT_IN else f"{info.kind:<7}  "
    parts = [info.description, f"({info.note})" if info.note else ""]
    text = " ".join(" ".join(parts if info.available else reversed(parts)).split())
    source = [printable(f"      {info.source}")] if info.source else []
    return [fit(f"  {call}  {kind}{text}", width).rstrip(), *source]


def render_inspect(info: CommandInfo, width: int) -> list[str]:
    """A command in full: fields wrapped to `width`, the body as it is; control characters are escaped."""
    fields = {
        "description": info.description,
        "scope": info.scope,
        "kind": info.kind,
        "source": str(info.source or ""),
        "aliases": ", ".join(info.aliases),
        "model": info.model or "",
        "tools": ", ".join(info.allowed_tools),
        "note": info.note,
    }
    lines = [printable(f"{info.name} {info.argument_hint}".rstrip())]
    for label, value in fields.items():
        for number, part in enumerate(_wrap(value, width - 16)):
            lines.append(f"  {'' if number else label + ':':<14}{part}")
    body = info.body.strip("\n")
    return lines + (["", *(printable(line.expandtabs(4)) for line in body.split("\n"))] if body else [])


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    text = printable(" ".join(text.split()))
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False, break_long_words=False)
