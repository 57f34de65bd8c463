"""The run around an instance: its settings, budgets, launcher and services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from claude_orchestrator.engine.results.answers import Answer
from token_budget.models import Action, Decision, Hold
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.claude.events import Price
    from claude_orchestrator.config.launch_spec import LaunchSpec
    from claude_orchestrator.config.settings import Settings
    from claude_orchestrator.engine.approvals import Approvals
    from claude_orchestrator.engine.bus import Bus
    from claude_orchestrator.engine.ports import (
        Answers,
        ApiMeter,
        Enter,
        InstanceWorktrees,
        Keeping,
        Log,
        Places,
        SharedLimits,
    )
    from claude_orchestrator.engine.sharing.first_turns import FirstTurns
    from claude_orchestrator.engine.starts import Starts
    from claude_orchestrator.launch.base import Launcher
    from token_budget.budget_manager import TokenBudgetManager
    from token_budget.models import Budget


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


class NoAnswers:
    """Nothing is kept."""

    def answer(self, name: str) -> Answer:
        """There is none."""
        return Answer()

    def keep_list(self, group: str, text: str) -> str:
        """There is no place for a file."""
        raise OSError("no answers are kept")


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
