"""What happens in a run, as typed events: the only thing that observers see. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from claude_orchestrator.run.state import InstanceStatus, State, UsageDelta
from token_budget.models import Action, Budget, Hold


class Level(StrEnum):
    """How much a message matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user that no other event carries."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """An orchestrator begins a run, or the rest of one. `header` says how it was started; without prompts."""

    header: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StartsIn:
    """The run waits for its start time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Launched:
    """An attempt at an instance begins."""

    status: InstanceStatus
    hold: Hold


@dataclass(frozen=True, slots=True)
class SessionNamed:
    """The session of an instance is known, or has changed."""

    instance: str
    session_id: str | None


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn has ended; `done` turns of the instance are complete."""

    instance: str
    done: int


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """The work of an instance is complete; its process still has to leave."""

    instance: str


@dataclass(frozen=True, slots=True)
class UsageRecorded:
    """More was counted, and is on the budgets."""

    status: InstanceStatus
    delta: UsageDelta


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision about the launch of an instance, other than a plain yes."""

    instance: str
    action: Action
    reason: str
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class HoldChanged:
    """The hold of an instance was changed, with the reason; `more_tokens` if its own hold grew."""

    instance: str
    text: str
    more_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Crossed:
    """A budget's limit was passed."""

    budget: Budget


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """Other runs use or hold more or less of the shared budgets than before."""


@dataclass(frozen=True, slots=True)
class RateLimitsRead:
    """The CLI has reported how much of a subscription's limits is used."""

    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stopping:
    """An instance is being ended; `budget` if one of its budgets is why."""

    instance: str
    state: State
    reason: str
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class RunStopping:
    """Everything is being ended, for a reason that came from none of the instances."""

    reason: str


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt at an instance has ended."""

    status: InstanceStatus


@dataclass(frozen=True, slots=True)
class RetryPlanned:
    """An attempt failed, and another will follow."""

    status: InstanceStatus
    attempt: int
    cause: str | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class InstanceEnded:
    """Nothing more will happen to an instance. `launched`: it ended with an attempt, not without one."""

    status: InstanceStatus
    launched: bool


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """A threshold of a budget was reached, or a forecast passes its limit."""

    text: str
    payload: Mapping[str, object]
    already_reported: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """Something that a display may want to show has changed."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Every instance has ended."""

    exit_code: int


RunEvent = (
    Message
    | RunStarted
    | StartsIn
    | Launched
    | SessionNamed
    | TurnEnded
    | WorkEnded
    | UsageRecorded
    | Decided
    | HoldChanged
    | Crossed
    | RoomChanged
    | RateLimitsRead
    | Stopping
    | RunStopping
    | AttemptEnded
    | RetryPlanned
    | InstanceEnded
    | AlertRaised
    | Changed
    | RunEnded
)
Events = Sequence[RunEvent]
