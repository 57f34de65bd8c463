"""The groups of a run, each summed up in one line. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.named_tuples import NamedTuple

# the words of a group's figures, in this order; pending ones are what is left to do
_WORDS = {
    State.COMPLETED: "done",
    State.FAILED: "failed",
    State.TIMED_OUT: "timed out",
    State.BLOCKED: "blocked",
    State.STOPPED: "stopped",
    State.CANCELLED: "cancelled",
    State.SKIPPED: "skipped",
    State.RUNNING: "running",
    State.WAITING: "waiting",
}
LEAST_ENDED = 3  # a forecast of the time that is left needs so many endings


def state_words(states: Counter[State], without: Collection[State]) -> list[str]:
    """`3 failed`, `8 running` …, without these states."""
    return [f"{states[state]:,} {word}" for state, word in _WORDS.items() if states[state] and state not in without]


class GroupStatus(NamedTuple):
    """The instances of a group together: how many are in each state, their tokens, the seconds left if known."""

    name: str
    states: Counter[State]
    total_tokens: int
    left_s: float | None = None

    @property
    def total(self) -> int:
        """How many instances the group has."""
        return self.states.total()

    def figures(self) -> str:
        """`312/10,000 done  3 failed  8 running  ~41 min left`."""
        parts = [f"{self.states[State.COMPLETED]:,}/{self.total:,} done"]
        parts += state_words(self.states, (State.COMPLETED,))
        left = [] if self.left_s is None else [f"~{about_time(self.left_s)} left"]
        return "  ".join([*parts, *left])

    def fields(self) -> dict[str, Any]:
        """The group in the JSON report."""
        counts = {str(state): number for state, number in self.states.items()}
        return {"name": self.name, "instances": self.total, "states": counts, "total_tokens": self.total_tokens}


def groups_of(instances: Iterable[InstanceStatus], now: float) -> list[GroupStatus]:
    """The groups in the order of their first instances. `now` is on the supervisor's clock."""
    members: dict[str, list[InstanceStatus]] = {}
    for status in instances:
        if (group := status.planned.group) is not None:
            members.setdefault(group, []).append(status)
    return [
        GroupStatus(
            name,
            Counter(status.state for status in group),
            sum(status.total_tokens for status in group if status.launched),
            _left_s(group, now),
        )
        for name, group in members.items()
    ]


def _left_s(group: list[InstanceStatus], now: float) -> float | None:
    """How long the rest of a group takes at its pace since this start of the run."""
    left = sum(not status.ended for status in group)
    ended = [status.attempt for status in group if status.ended and status.attempt.started_at is not None]
    begun = [attempt.started_at for attempt in ended if attempt.started_at is not None]
    if not left or len(begun) < LEAST_ENDED:
        return None
    return (now - min(begun)) / len(begun) * left


def about_time(seconds: float) -> str:
    """Seconds in words, as precisely as a forecast can be: `40 s`, `6 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
