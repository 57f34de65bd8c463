"""`--init`: a first config for a workspace, with its slash commands and limits that fit them. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from claude_orchestrator.claude.commands import CommandInfo, CommandScope

# A first request to Claude Code 2.1 takes 12,000 to 20,000 tokens before the user's own words. Ten requests are a
# usual piece of work, so this is a limit that seldom stops one.
USUAL_TOKENS = 200_000
MAX_COMMANDS = 8
SUMMARY = "Summarise this repository: what it is for, how it is built, where to start reading."


def first_config(commands: Sequence[CommandInfo], forecast: Callable[[str], int | None]) -> tuple[str, int]:
    """The text of a config, and its limit in tokens for a whole run.

    `commands` are those of the project. `forecast` has what nine of ten runs of a command stayed under, or None.
    """
    chosen = commands[:MAX_COMMANDS]
    instances = [_instance(info, forecast(info.name)) for info in chosen]
    if not instances:
        instances = [{"name": "summary", "prompt": SUMMARY, "max_tokens_per_command": USUAL_TOKENS}]
    total = sum(entry["max_tokens_per_command"] for entry in instances)
    data: dict[str, Any] = {
        "//": "claude-orchestrator --dry-run checks this file, claude-orchestrator runs it. Keys with // are comments.",
        "defaults": {
            "// permission_mode": "plan changes nothing. acceptEdits lets Claude change files.",
            "permission_mode": "plan",
        },
        "budget": {
            "// overall_budget": "Tokens for the whole run. block stops what would pass the limit, warn only warns.",
            "overall_budget": total,
            "enforcement_mode": "block",
        },
        "// instances": _about(commands, chosen),
        "instances": instances,
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n", total


def _instance(info: CommandInfo, usual_tokens: int | None) -> dict[str, Any]:
    limit = (
        f"nine of ten runs stayed under {usual_tokens:,}"
        if usual_tokens
        else "a usual limit, because there is no earlier run"
    )
    return {
        "name": info.name.removeprefix("/"),
        **({"description": info.description} if info.description else {}),
        **({"// arguments": info.argument_hint} if info.argument_hint else {}),
        "command": info.name,
        "// max_tokens_per_command": limit,
        "max_tokens_per_command": usual_tokens or USUAL_TOKENS,
    }


def _about(commands: Sequence[CommandInfo], chosen: Sequence[CommandInfo]) -> str:
    if not commands:
        return "This workspace has no slash commands, so there is one prompt. All instances run in parallel."
    left = [info.name for info in commands[len(chosen) :]]
    more = f" The workspace also has {', '.join(left[:20])}." if left else ""
    return f"One for each slash command of this workspace. All of them run in parallel.{more}"


def is_of_project(info: CommandInfo) -> bool:
    """Whether a first config should have it: an available command or skill of the project."""
    return info.available and info.scope is CommandScope.PROJECT
