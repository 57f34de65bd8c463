"""The typed events of a run: all that observers see of it. Pure.

They are named tuples, which cost a third of what dataclasses cost at start-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from claude_orchestrator.engine.activity import Activity
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.usage_delta import UsageDelta
from token_budget.models import Action, Budget, Hold
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

if TYPE_CHECKING:
    from claude_orchestrator.claude.permission_rules import Rule
    from claude_orchestrator.engine.in_flight import SentRequest
    from claude_orchestrator.engine.verification import CheckVerdict
    from claude_orchestrator.engine.worktrees.changes import Changes


class Level(StrEnum):
    """How much a message matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Message(NamedTuple):
    """A line for the user that no other event carries."""

    level: Level
    text: str


class RunStarted(NamedTuple):
    """An orchestrator begins a run, or the rest of one. `header` says how it was started; without prompts."""

    header: Mapping[str, Any]


class StartsIn(NamedTuple):
    """The run waits for its start time."""

    seconds: float


class Member(NamedTuple):
    """An instance of a group that has grown; `turns` is the digest of its prompts."""

    name: str
    base_command: str | None
    turns: str
    group: str


class Expanded(NamedTuple):
    """A group has its instances now, because the instance that gives its items has ended."""

    group: str
    members: tuple[Member, ...]


class Launched(NamedTuple):
    """An attempt at an instance begins."""

    status: InstanceStatus
    hold: Hold


class SessionNamed(NamedTuple):
    """The session of an instance, or the folder that it works in, is known or has changed."""

    instance: str
    session_id: str | None
    folder: str | None = None


class TurnEnded(NamedTuple):
    """A turn has ended; `done` turns of the instance are complete."""

    instance: str
    done: int


class Answered(NamedTuple):
    """A turn of an instance, the `turn`th of its `turns`, has an answer; a later one for the same turn replaces it."""

    instance: str
    turn: int
    turns: int
    text: str
    structured_output: object = None


class Checked(NamedTuple):
    """A round of an instance's check has ended. `simulated`: nothing was run."""

    instance: str
    round: int
    verdict: CheckVerdict
    simulated: bool = False


class ChangesKept(NamedTuple):
    """An attempt at an instance has ended, and what it changed in its worktree is kept; None if that is nothing."""

    instance: str
    changes: Changes | None


class WorkEnded(NamedTuple):
    """The work of an instance is complete; its process still has to exit."""

    instance: str


class UsageRecorded(NamedTuple):
    """More was counted, and is on the budgets. `sent` is the API request that used it, if that is known."""

    status: InstanceStatus
    delta: UsageDelta
    sent: SentRequest | None = None


class Recounted(NamedTuple):
    """An attempt that was interrupted by a kill has another count now than its journal had."""

    instance: str
    attempt: int
    totals: AttemptTotals


class RequestSent(NamedTuple):
    """The gateway is about to send an API request of an attempt."""

    status: InstanceStatus
    sent: SentRequest


class RequestSettled(NamedTuple):
    """An API request has ended, and what it used is counted."""

    status: InstanceStatus
    sent: SentRequest


class RequestTimed(NamedTuple):
    """An API request of an instance has ended. `first_byte_s` is None without a body, `status` without an answer."""

    instance: str
    model: str
    status: int | None
    first_byte_s: float | None
    seconds: float


class Decided(NamedTuple):
    """A decision about the launch of an instance, other than a plain yes."""

    instance: str
    action: Action
    reason: str
    budget: Budget | None = None


class ModelChosen(NamedTuple):
    """An instance that has not started yet gets another model, because little of this budget is left."""

    instance: str
    model: str
    budget: Budget


class HoldChanged(NamedTuple):
    """The hold of an instance was changed, with the reason; `more_tokens` if its own hold grew."""

    instance: str
    text: str
    more_tokens: int = 0


class Crossed(NamedTuple):
    """A budget's limit was passed."""

    budget: Budget


class Foreseen(NamedTuple):
    """A budget's limit, less the margin, is passed once the hidden responses in progress are counted.

    `tokens` is what they use at least.
    """

    budget: Budget
    tokens: int


class RoomChanged(NamedTuple):
    """Other runs use or hold more or less of the shared budgets than before."""


class RateLimitsRead(NamedTuple):
    """The CLI has reported how much of a subscription's limits is used."""

    limits: Mapping[str, Any]


class RateLimited(NamedTuple):
    """The API has refused a request of an instance by a rate limit; claude tries again."""

    instance: str


class Paced(NamedTuple):
    """The pace at which requests and launches go, with its reason, has changed; None: nothing is held back."""

    text: str | None


class Stopping(NamedTuple):
    """An instance is being stopped. `budget` is the reason, if that is one of its budgets.

    `enough` is a limit with room for its next request, and `next_request` the most that this request may draw. Both are
    0 if unknown.
    """

    instance: str
    state: State
    reason: str
    budget: Budget | None = None
    enough: int = 0
    next_request: int = 0


class By(NamedTuple):
    """Who changes a run: `via` is the way (`socket`, `web`, `timeout`, `rules`, `run`), `user` a person's name."""

    via: str
    user: str = ""
    why: str = ""

    def __str__(self) -> str:
        who = f"{self.user} by {self.via}" if self.user else self.via
        return f"{who}: {self.why}" if self.why else who


class Steered(NamedTuple):
    """Somebody changes the run. `text` says what changes, and `target` is an instance, a group, a budget or `run`."""

    action: str
    target: str
    text: str
    by: By


class Reopened(NamedTuple):
    """An instance that a budget had blocked, or that was skipped because of one, may start after all."""

    status: InstanceStatus


class ApprovalAsked(NamedTuple):
    """A tool waits until a person approves it. `text` says what it does."""

    id: str
    instance: str
    tool: str
    text: str


class ApprovalEnded(NamedTuple):
    """A tool that waited has an answer (`allowed`, `denied`), or none is needed any more (`withdrawn`)."""

    id: str
    instance: str
    text: str
    outcome: str
    by: By


class RuleMade(NamedTuple):
    """A person allows all calls that a rule matches, for the rest of the run and when it is resumed."""

    rule: Rule
    by: By


class RunStopping(NamedTuple):
    """Everything is being ended, for a reason that came from none of the instances."""

    reason: str


class AttemptEnded(NamedTuple):
    """An attempt at an instance has ended."""

    status: InstanceStatus


class RetryPlanned(NamedTuple):
    """An attempt failed, and another will follow."""

    status: InstanceStatus
    attempt: int
    cause: str | None
    wait_s: float


class InstanceEnded(NamedTuple):
    """Nothing more will happen to an instance. `launched`: it ended with an attempt, not without one."""

    status: InstanceStatus
    launched: bool


class AlertRaised(NamedTuple):
    """A threshold of a budget was reached, or a forecast passes its limit."""

    text: str
    payload: Mapping[str, object]
    already_reported: bool = False


class CacheReported(NamedTuple):
    """What all instances together made of the prompt cache, as lines of text. Every instance has ended."""

    lines: tuple[str, ...]


class Changed(NamedTuple):
    """Something that a display may want to show has changed."""


class RunEnded(NamedTuple):
    """Every instance has ended. `budgets` are those of the run, with what was used.

    `raised` has the options that raise the limits which ended instances.
    """

    exit_code: int
    budgets: tuple[Budget, ...] = ()
    raised: tuple[str, ...] = ()


RunEvent = (
    Message
    | RunStarted
    | StartsIn
    | Expanded
    | Launched
    | SessionNamed
    | Activity
    | TurnEnded
    | Answered
    | Checked
    | ChangesKept
    | WorkEnded
    | UsageRecorded
    | Recounted
    | RequestSent
    | RequestSettled
    | RequestTimed
    | Decided
    | ModelChosen
    | HoldChanged
    | Crossed
    | Foreseen
    | RoomChanged
    | RateLimitsRead
    | RateLimited
    | Paced
    | Stopping
    | Steered
    | Reopened
    | ApprovalAsked
    | ApprovalEnded
    | RuleMade
    | RunStopping
    | AttemptEnded
    | RetryPlanned
    | InstanceEnded
    | AlertRaised
    | CacheReported
    | Changed
    | RunEnded
)
