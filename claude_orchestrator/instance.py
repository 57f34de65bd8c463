"""One instance's state, and how an event or the process's end changes it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum

from claude_orchestrator.events import Assistant, BadLine, Event, Init, MessageDelta, NoBackgroundTasks, Result, Retry
from claude_orchestrator.plan import LaunchSpec
from claude_orchestrator.tally import UsageTally
from token_budget.models import Usage, Weights

MAX_TOOL_IDS = 100_000
_COMMAND = re.compile(r"/[A-Za-z0-9][\w:-]*")  # a path is none


class State(StrEnum):
    """What an instance is doing, or how it ended; the `status` of reports."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


NOT_ENDED = frozenset({State.PENDING, State.WAITING, State.RUNNING})


class InstanceStatus:
    """An instance's state, use and results. Times are seconds of the supervisor's clock."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.state = State.PENDING
        self.reason = ""
        self.tally = UsageTally(resumed=spec.session_id is not None)
        self.session_id = spec.session_id
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.turns_sent = 0
        self.turns_done = 0
        self.model_turns = 0
        self.tool_calls = 0
        self.tools: Counter[str] = Counter()
        self.permission_denials: list[str] = []
        self.last_result: Result | None = None
        self.exit_code: int | None = None
        self.log: str | None = None
        self.bad_lines = 0
        self.retry = ""
        self.unknown_command: str | None = None
        self._answers = 0
        self._tool_ids: set[str] = set()
        self._last_known_total_tokens = 0
        self._ending: tuple[State, str] | None = None

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.spec.name

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        return self.tally.usage

    @property
    def total_tokens(self) -> int:
        """The sum of the four counts so far."""
        return self.tally.usage.total_tokens

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in NOT_ENDED

    @property
    def ending(self) -> bool:
        """Whether its end is decided: it ended, or is being stopped."""
        return self.ended or self._ending is not None

    @property
    def turn_running(self) -> bool:
        """Whether a turn was sent whose result has not come."""
        return self.turns_done < self.turns_sent

    @property
    def idle(self) -> bool:
        """Whether every turn has had its result (or no further one will be sent) and no subagent is at work."""
        return not self.turn_running and not self.tally.agents and (self.all_sent or self.turn_failed is not None)

    @property
    def all_sent(self) -> bool:
        """Whether no turn is left to be sent."""
        return self.turns_sent == len(self.spec.turns)

    @property
    def turn_failed(self) -> str | None:
        """Why the last turn that ended is a failure, or None."""
        return failure(self.last_result) if self.last_result is not None else None

    def next_turn(self) -> str:
        """The text of the next turn, which is now sent."""
        text = self.spec.turns[self.turns_sent]
        self.turns_sent += 1
        self._answers = 0
        return text

    def begin(self, now: float) -> None:
        """The process was launched."""
        self.state, self.started_at = State.RUNNING, now

    def apply(self, event: Event) -> None:
        """Take one event into account."""
        self.tally.feed(event)
        match event:
            case Init():
                self.session_id = event.session_id or self.session_id
                self.unknown_command = self._unknown_command(event)
            case NoBackgroundTasks():
                if not self.turn_running:
                    self.tally.agents.clear()
            case Assistant():
                self._count_tools(event)
            case Result():
                self.last_result = event
                self.session_id = event.session_id or self.session_id
                self.model_turns += event.num_turns
                self.permission_denials.extend(event.permission_denials)
                if self.turn_running and self._ends_turn(event):
                    self.turns_done += 1
            case MessageDelta(parent=None) if event.stop_reason not in (None, "tool_use", "pause_turn"):
                self._answers += 1
            case Retry():
                self.retry = f"retry {event.attempt}: {event.error}"
            case BadLine():
                self.bad_lines += 1
            case _:
                return
        if not isinstance(event, Retry):
            self.retry = ""

    def _ends_turn(self, result: Result) -> bool:
        """Whether it is the result of the turn that we sent, not of one that the CLI began when a subagent ended.

        2.1.174 gives one result for both: then the main thread has answered twice since our turn was sent.
        """
        return not result.follows_task or self._answers > 1

    def _unknown_command(self, init: Init) -> str | None:
        """The slash command of the turn in progress, where the session does not list it (it may be an alias).

        2.1.197 answers such a turn itself with "Unknown command"; 2.1.330 sends it to the model as a prompt.
        """
        words = self.spec.turns[max(0, self.turns_sent - 1)].split(None, 1)
        if not self.turn_running or not init.slash_commands or not _COMMAND.fullmatch(words[0]):
            return None
        return words[0] if words[0].removeprefix("/") not in init.slash_commands else None

    def _count_tools(self, event: Assistant) -> None:
        for name, tool_id in zip(event.tools, event.tool_ids, strict=True):
            if tool_id in self._tool_ids:
                continue
            if len(self._tool_ids) < MAX_TOOL_IDS:
                self._tool_ids.add(tool_id)
            self.tool_calls += 1
            self.tools[name] += 1

    def take_delta(self, weights: Weights) -> int:
        """The tokens, weighted, that this instance has drawn since the last call."""
        total = weights.draw(self.tally.usage)
        delta = total - self._last_known_total_tokens
        self._last_known_total_tokens = total
        return delta

    def decide_end(self, state: State, reason: str) -> bool:
        """Decide how this instance ends; the first decision stands. Returns whether this is it."""
        if self.ending:
            return False
        self._ending = (state, reason)
        return True

    def skip(self, state: State, reason: str) -> None:
        """It ends without having been launched."""
        self.state, self.reason = state, reason

    def finish(self, now: float, exit_code: int | None, stderr: str) -> None:
        """The process has ended and its stream was read to the end: judge it."""
        self.tally.close()
        self.ended_at, self.exit_code = now, exit_code
        self.state, self.reason = self._ending or self._judge(exit_code, stderr)

    def _judge(self, exit_code: int | None, stderr: str) -> tuple[State, str]:
        """By its results, never by the exit code alone."""
        if self.last_result is None or self.turn_running:
            which = f" for turn {self.turns_done + 1} of {len(self.spec.turns)}" if len(self.spec.turns) > 1 else ""
            tail = f": {stderr}" if stderr else ""
            return State.FAILED, f"exited with code {exit_code} and without a result{which}{tail}"
        failed = failure(self.last_result)
        if failed is not None:
            return State.FAILED, failed
        if self.last_result.terminal_reason == "hook_stopped":
            return State.COMPLETED, "a hook stopped it"
        return State.COMPLETED, ""


def failure(result: Result) -> str | None:
    """Why a result is a failure, in one line; None when it is none."""
    said = result.text or "; ".join(result.errors)
    not_run = result.text.startswith("Unknown command") or result.text.endswith("isn't available in this environment.")
    if result.num_turns == 0 and not_run:
        return result.text
    if result.subtype != "success" or result.is_error:
        parts = [
            part for part in (result.subtype, result.terminal_reason) if part not in ("success", "completed", None)
        ]
        return ": ".join(part for part in (", ".join(parts), said) if part) or "the result is an error"
    return None
