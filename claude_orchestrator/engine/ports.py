"""What an instance needs from its run, as small protocols, and the context that carries them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from claude_orchestrator.claude.events import Price
from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.approvals import Approvals
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.results.answers import Answer
from claude_orchestrator.engine.sharing.first_turns import FirstTurns
from claude_orchestrator.engine.starts import Starts
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.launch.base import Launcher
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, Budget, Decision, Hold
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.engine.metering import Metering
    from claude_orchestrator.engine.worktrees.changes import Changes, Worktree
    from claude_orchestrator.gateway.attempt import MeteredAttempt
    from claude_orchestrator.gateway.sharing.kept import KeptRequest


class Log(Protocol):
    """Where an instance's raw lines are kept."""

    path: str

    def write(self, data: bytes) -> None:
        """Append what the instance has written."""

    def close(self) -> None:
        """Close the log."""


class SharedLimits(Protocol):
    """The limits that all runs share."""

    async def admit(self, instance: str, hold: Hold, *, sent: bool = False) -> Decision:
        """Reserve a hold on the shared limits too. `sent`: it is for an API request, which is billed whatever happens
        to this run."""

    async def claim_launch(self, most: int) -> float:
        """Claim one of `most` launches in an hour; returns 0, or the seconds until one is free."""

    @property
    def unusable(self) -> str:
        """Why nothing that needs the shared limits may start; empty if it may."""

    def released(self, hold: Hold) -> None:
        """A hold has ended."""


class NoSharedLimits:
    """Nothing is shared with other runs."""

    unusable = ""

    async def admit(self, instance: str, hold: Hold, *, sent: bool = False) -> Decision:
        """Allow it."""
        return Decision(Action.ALLOW, hold=hold)

    async def claim_launch(self, most: int) -> float:
        """Nobody counts launches."""
        return 0.0

    def released(self, hold: Hold) -> None:
        """Do nothing."""


class MeterPlace(Protocol):
    """One attempt's place at the API meter; `waiting` is how many of its requests wait for a budget."""

    waiting: int

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables that lead the instance through the meter."""


class CacheKeeper(Protocol):
    """What can repeat the beginning of a request, so that the API keeps it in its prompt cache."""

    def kept_of(self, place: Any) -> KeptRequest | None:
        """What repeats the first request of an attempt; None before its response, or where it cannot be repeated."""

    def readable_s(self, kept: KeptRequest) -> float:
        """For how long the API can still read what the request would read."""

    async def keep(self, place: Any, kept: KeptRequest) -> int:
        """Send the request; returns the status of the answer, and 0 without one."""


class ApiMeter(Protocol):
    """Counts an instance's API calls as they pass, and refuses what its budgets cannot pay for.

    It keeps them within the API's rate limits. `is_slow`: requests wait for these, so that more instances would too.
    """

    @property
    def is_slow(self) -> bool:
        """Whether launches should wait."""

    @property
    def keeper(self) -> CacheKeeper | None:
        """What keeps the prompt cache warm, if the meter does that."""

    def pace(self) -> str | None:
        """Why requests wait for the API's rate limits; None if they do not, or not for long."""

    def open(self, attempt: MeteredAttempt, name: str = "") -> Any:
        """A MeterPlace for one attempt at the instance with this name; its `environ` may name the API's address."""

    async def close(self, place: Any) -> None:
        """The attempt has ended."""

    def recheck(self) -> None:
        """Budgets have more room: let waiting requests proceed."""


class Keeping(Protocol):
    """Decides when the prompt cache is kept warm."""

    def began(self, metering: Metering, status: InstanceStatus) -> None:
        """An attempt is about to send requests."""


class Answers(Protocol):
    """What instances have answered."""

    def answer(self, name: str) -> Answer:
        """The answer of an instance."""

    def keep_list(self, group: str, text: str) -> str:
        """Keep the results of a group in a file; returns its path. Raises OSError."""


class Enter(Protocol):
    """Enters the instances of a group into a run. Raises BadValue."""

    def __call__(self, group: LaunchSpec, instances: Sequence[InstanceConfig], bus: Bus, /) -> list[InstanceStatus]:
        """The instances as the run has them."""


class NoAnswers:
    """Nothing is kept."""

    def answer(self, name: str) -> Answer:
        """There is none."""
        return Answer()

    def keep_list(self, group: str, text: str) -> str:
        """There is no place for a file."""
        raise OSError("no answers are kept")


class InstanceWorktrees(Protocol):
    """Where instances that ask for it work in a worktree of their own."""

    async def open(self, spec: LaunchSpec) -> Worktree:
        """The worktree of an instance, made if there is none yet. Raises OSError where that is not possible."""

    async def find(self, spec: LaunchSpec) -> Worktree | None:
        """The worktree that an earlier start of the run has made for an instance, if it did."""

    async def close(self, spec: LaunchSpec, worktree: Worktree) -> Changes | None:
        """Keep what the instance has changed; None if that is nothing."""


class Places(Protocol):
    """The places for instances on the nodes of a cluster."""

    @property
    def free(self) -> int:
        """How many more instances may start."""

    def has_room(self, spec: LaunchSpec) -> bool:
        """Whether there is a place for this instance."""

    def take(self, spec: LaunchSpec) -> None:
        """The instance is about to be launched: it takes a place."""

    def give_back(self, name: str) -> None:
        """The instance has ended."""


def _any_fraction() -> float:
    from random import random  # only for a retry

    return random()


class Clock(NamedTuple):
    """A run's clocks: monotonic and wall-clock seconds, and a random number from 0 to 1 for jitter."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    jitter: Callable[[], float] = _any_fraction


class Services(NamedTuple):
    """What instances use besides their budgets.

    - `open_log` opens the log of an attempt.
    - `knows_command` is whether a folder has a slash command that a session does not list (an alias).
    - `found_command` is the same, without another search for what was found once.
    - `redact` hides secrets in the last lines of an instance.
    - `price` computes costs that the CLI does not state.
    - `guessed` gets the names of models whose prices the CLI does not know.
    - `worktrees`, if there are some, are where instances work that ask for it.
    - `names_worktree` is whether claude's system prompt names its worktree, unless it is asked to leave that out.
    - `signed_in_until` gets the time (Unix) at which claude's login ends.
    - `meter`, if there is one, is the way to the API.
    - `keeping`, if the prompt cache is to be kept warm, decides when.
    - `answers` has what earlier instances answered.
    - `approvals`, if there are some, are where tools wait for a person.
    - `places`, if instances run on a cluster, are its places for them.
    - `starts`, if they are held back at all, wait for this machine's processors.
    - `first_turns`, if they are held back at all, wait for the shared prompt cache.
    - `enter` makes the instances of a group that has grown a part of the run.
    """

    open_log: Callable[[LaunchSpec, int], Log | None] = lambda spec, attempt: None
    knows_command: Callable[[str, str], bool] = lambda folder, command: True
    found_command: Callable[[str, str], bool] = lambda folder, command: True
    redact: Callable[[str], str] = str
    price: Price | None = None
    guessed: Callable[[Iterable[str]], None] = lambda models: None
    signed_in_until: Callable[[float], None] = lambda at: None
    meter: ApiMeter | None = None
    keeping: Keeping | None = None
    names_worktree: bool = True
    worktrees: InstanceWorktrees | None = None
    shared: SharedLimits = NoSharedLimits()
    answers: Answers = NoAnswers()
    approvals: Approvals | None = None
    places: Places | None = None
    enter: Enter = lambda group, instances, bus: []
    starts: Starts | None = None
    first_turns: FirstTurns | None = None


class RunContext(NamedTuple):
    """The run around an instance."""

    settings: Settings
    launcher: Launcher
    manager: TokenBudgetManager
    bus: Bus
    services: Services = Services()
    clock: Clock = Clock()

    @property
    def enforces(self) -> bool:
        """Whether budgets block (else they warn)."""
        return self.manager.enforcement_mode == "block"

    def budgets_of(self, spec: LaunchSpec) -> tuple[Budget, ...]:
        """The budgets that an instance draws on."""
        return self.manager.budgets_for(spec.base_command, spec.name)

    def over_budget(self, spec: LaunchSpec) -> Budget | None:
        """In block mode, the budget of this instance whose limit is passed, if there is one."""
        if not self.enforces:
            return None
        return next((budget for budget in self.budgets_of(spec) if budget.exceeded), None)

    def release(self, hold: Hold | None) -> None:
        """Give back what is left of a hold, here and on the shared limits."""
        if hold is not None:
            self.manager.release(hold)
            self.services.shared.released(hold)
