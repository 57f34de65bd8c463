"""Finds out which commands of an instance its session lacks, before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from claude_orchestrator.claude.events import COMMANDS_REQUEST
from claude_orchestrator.claude.failures import command_word, is_command_name
from claude_orchestrator.claude.input_messages import control_request
from claude_orchestrator.config.launch_spec import LaunchSpec

MAX_FOUND = 10_000
Knows = Callable[[str, str], bool]  # whether a folder has a slash command
ANSWER_S = 10.0  # for a claude that has to start first: seen 1 to 2 s in 2.1.197 and 2.1.332


def remembering(knows: Knows) -> Knows:
    """The same function, which remembers the commands that it has found in a folder."""
    found: set[tuple[str, str]] = set()

    def remembered(folder: str, command: str) -> bool:
        if (folder, command) in found:
            return True
        is_there = knows(folder, command)
        if is_there and len(found) < MAX_FOUND:
            found.add((folder, command))
        return is_there

    return remembered


class CommandCheck:
    """The slash commands of an instance that were found in no folder: a plugin or an MCP server may still have them.

    Claude lists its commands on request, which calls no model.
    """

    def __init__(self, spec: LaunchSpec, knows: Knows) -> None:
        words = dict.fromkeys(filter(None, map(command_word, spec.turns)))
        self._doubtful = [word for word in words if is_command_name(word) and not knows(spec.cwd, word)]
        self._as_text = spec.unknown_command == "prompt"
        self._unknown: frozenset[str] = frozenset()

    def request(self, **more: object) -> dict[str, Any] | None:
        """The request for the list, if a command is in doubt. `more` are further fields of the request."""
        return control_request(COMMANDS_REQUEST, "initialize", **more) if self._doubtful else None

    def failure(self, listed: Iterable[str]) -> str | None:
        """Why the instance fails, given what the session lists; None if it can begin. An empty list says nothing."""
        known = {f"/{name}" for name in listed}
        self._unknown = frozenset(word for word in self._doubtful if known and word not in known)
        if not self._unknown or self._as_text:
            return None
        return f"Unknown command: {', '.join(sorted(self._unknown))}: nothing was sent"

    def text_of(self, turn: str) -> str:
        """The turn as it is sent. Claude takes a text that begins with a space as a prompt."""
        return f" {turn}" if command_word(turn) in self._unknown else turn
