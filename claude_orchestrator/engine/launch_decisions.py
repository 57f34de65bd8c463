"""Whether an instance may be launched: by this run's budgets, by the limits that all runs share, by the launch rate."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from claude_orchestrator.engine.hold_policy import HoldPolicy
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.budget_manager import WINDOW_SCOPES
from token_budget.models import Action, Budget, Decision, Hold


class LaunchDecisions:
    """Decides about launches. An allowed one has a hold, on the budgets of the run and on the shared limits."""

    def __init__(self, context: RunContext, holds: HoldPolicy) -> None:
        self._context = context
        self._holds = holds
        self._foreseen: dict[Budget, str] = {}

    def foresee(self, budget: Budget, why: str) -> None:
        """Responses in progress will spend this budget: launch nothing that draws on it."""
        self._foreseen[budget] = why

    def is_foreseen(self, budget: Budget) -> bool:
        """Whether responses in progress will spend this budget."""
        return budget in self._foreseen

    def forget(self, budgets: Collection[Budget]) -> None:
        """These budgets have more room: forget what was foreseen for them."""
        for budget in budgets:
            self._foreseen.pop(budget, None)

    def forget_windows(self) -> None:
        """A limit of a day, a week or a month may have more room."""
        self.forget([budget for budget in self._foreseen if budget.scope in WINDOW_SCOPES])

    async def decide(self, status: InstanceStatus, holders: Iterable[tuple[str, Hold]]) -> Decision:
        """What the budgets say. `holders` has the names and holds of the running instances."""
        spec = status.spec
        for budget in self._context.budgets_of(spec):
            if budget in self._foreseen:
                return Decision(Action.BLOCK, self._foreseen[budget], budget)
        manager = self._context.manager
        decision = manager.reserve(spec.base_command, spec.estimate, spec.name)
        if decision.action is Action.WAIT and decision.budget is not None:
            tokens = self._holds.share(spec, decision.budget, holders)
            if tokens is not None:
                decision = manager.reserve(spec.base_command, spec.estimate._replace(tokens=tokens), spec.name)
        if decision.hold is None:
            return decision
        shared = await self._context.services.shared.admit(status.name, decision.hold)
        if shared.action in (Action.BLOCK, Action.WAIT):
            self._context.release(decision.hold)
            return shared._replace(hold=None)
        return shared if shared.action is Action.WARN else decision

    async def within_launch_rate(self, decision: Decision) -> tuple[Decision, float]:
        """The decision, and the seconds to wait. It becomes to wait if all launches of the hour are taken."""
        most = self._context.settings.max_launches_per_hour
        if most is None or decision.hold is None:
            return decision, 0.0
        wait_s = await self._context.services.shared.claim_launch(most)
        if not wait_s:
            return decision, 0.0
        self._context.release(decision.hold)
        why = self._context.services.shared.unusable or f"launch rate: all {most:,} launches of an hour are taken"
        return Decision(Action.WAIT, why), wait_s
