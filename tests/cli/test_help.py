"""What the three programs say about themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from claude_orchestrator.cli.main import command as main
from claude_orchestrator.cli.runs.main import group as runs
from token_budget.usage.cli import group as usage


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all those below it."""
    yield name, command
    for below, one in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(f"{name} {below}", one)


ALL = [
    *commands("claude-orchestrator", main),
    *commands("claude-runs", runs),
    *commands("token-budget", usage),
]


@pytest.mark.parametrize(("name", "command"), ALL, ids=[name for name, _ in ALL])
def test_help_has_no_formulas_and_a_text_for_each_option(name: str, command: click.Command) -> None:
    with click.Context(command, info_name=name) as context:
        assert "<=" not in command.get_help(context)
        params = command.get_params(context)
    for param in params:
        assert not isinstance(param, click.Option) or param.hidden or (param.help or "").strip(), param.name
