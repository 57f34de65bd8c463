"""What the messages of Claude Code and the statuses of the API say about a failure. Pure.

Seen in 2.1.197, 2.1.330 and 2.1.332.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claude_orchestrator.claude.events import Result

RATE_LIMIT = "rate_limit"
# kinds of an API error, as the CLI's own message names them, that may pass without a change
PASSING_ERRORS = frozenset({RATE_LIMIT, "overloaded", "server_error"})
# answers of the Messages API, and of proxies before it, that do not concern the request itself
PASSING_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
INTERRUPTED = "ended by SIGINT from outside"
_ABORTED = ("aborted_streaming", "aborted_tools")
_SIGINT_CODES = (-2, 130)
# commands that Claude Code carries out without a call of the model
_LOCAL_COMMANDS = frozenset({
    "autocompact", "clear", "reset", "new", "color", "compact", "config", "settings", "context", "effort", "goal",
    "heapdump", "list-agents", "peers", "mcp", "model", "output-style", "recap", "reload-plugins", "reload-skills",
    "rename", "name", "usage", "cost", "stats",
})  # fmt: skip
_COMMAND_NAME = re.compile(r"/[A-Za-z0-9:_-]+")


def command_word(prompt: str) -> str | None:
    """The word at the beginning of a prompt that Claude Code looks up among its commands; None for plain text.

    It takes the word as a command if it lists the word, and otherwise as text. A path is text.
    """
    word = prompt.split(None, 1)[0] if prompt.startswith("/") else ""
    return word if len(word) > 1 and "/" not in word[1:] else None


def is_command_name(word: str) -> bool:
    """Whether Claude Code 2.1.197 answers an unlisted word with "Unknown command"; others are always text."""
    return _COMMAND_NAME.fullmatch(word) is not None


def failure(result: Result, command: str | None = None) -> str | None:
    """Why a turn's result is a failure, in one line; None when it is none.

    `command` is the word of the turn's command, if it had one that the session lists. A command from a file and a
    skill call the model: without a call nothing was done.
    """
    said = result.text or "; ".join(result.errors)
    not_run = result.text.startswith("Unknown command") or result.text.endswith("isn't available in this environment.")
    if result.num_turns == 0 and not_run:
        return result.text
    if result.subtype != "success" or result.is_error:
        return _error(result, said)
    if command is not None and result.num_turns == 0 and command.removeprefix("/") not in _LOCAL_COMMANDS:
        why = said or "its inline shell was denied or failed, or a hook stopped it"
        return f"{command} did nothing: the model was not called ({why})"
    return None


def _error(result: Result, said: str) -> str:
    if result.startup_failure:
        return f"claude did not start ({result.startup_failure}): {' '.join(said.split()) or 'it names no reason'}"
    parts = [part for part in (result.subtype, result.terminal_reason) if part not in ("success", "completed", None)]
    return ": ".join(part for part in (", ".join(parts), said) if part) or "the result is an error"


def interruption(result: Result | None, exit_code: int | None) -> str | None:
    """Why an instance that the orchestrator did not stop ended early, if somebody interrupted its process."""
    if result is not None and result.terminal_reason in _ABORTED:
        return INTERRUPTED
    return INTERRUPTED if result is None and exit_code in _SIGINT_CODES else None


def session_not_found(result: Result) -> bool:
    """Whether the session to continue does not exist."""
    no_session = any("No conversation found" in text for text in (result.text, *result.errors))
    return result.num_turns == 0 and no_session
