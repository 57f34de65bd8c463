"""What an instance needs from its run, as small protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.results.answers import Answer
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Decision, Hold

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
