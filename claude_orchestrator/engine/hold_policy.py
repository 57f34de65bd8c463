"""How holds change while instances run: they grow into free room, or shrink to fair shares. Limits never change."""

from __future__ import annotations

from collections.abc import Iterable

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import HoldChanged
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.holds import GROW_BELOW, LEAST_SHARE_TOKENS, floor_of, max_min_shares
from token_budget.models import Budget, Hold, Unit
from token_budget.text import counted


class HoldPolicy:
    """Changes holds as the setting `hold_policy` says, and publishes each change with its reason."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._policy = context.settings.hold_policy

    def share(self, spec: LaunchSpec, budget: Budget, holders: Iterable[tuple[str, Hold]]) -> int | None:
        """Make room for an instance that would wait: each holder's hold becomes its max-min fair share.

        `holders` has the names and holds of the running instances. Returns the tokens that the new instance may hold;
        None if the policy does not share, or if the share is too small to start with.
        """
        if self._policy != "fair" or budget.unit is Unit.USD:
            return None
        drawing = [(name, hold) for name, hold in holders if budget in hold.budgets]
        wanted = [*(hold.remaining.tokens for _, hold in drawing), spec.estimate.tokens]
        *shares, own = max_min_shares(budget.limit - budget.used - budget.held_elsewhere, wanted)
        if own < floor_of(spec.estimate.tokens):
            return None
        left = f"fair shares of what the {budget.label} budget has left"
        for (name, hold), share in zip(drawing, shares, strict=True):
            less = self._context.manager.shrink(hold, share)
            if less:
                self._changed(
                    name, f"hold of {name} down by {counted(less, 'token')}, so that {spec.name} can start: {left}"
                )
        if own < spec.estimate.tokens:
            what = f"{spec.name} starts with {own:,} of {counted(spec.estimate.tokens, 'token')}"
            self._changed(spec.name, f"{what}: its fair share of what the {budget.label} budget has left")
        return own

    def grow(self, status: InstanceStatus, hold: Hold) -> None:
        """Let an instance's hold grow once it is nearly used, as far as the budgets have room."""
        spec = status.spec
        if not self._context.enforces or self._policy == "off" or status.tally.metered:
            return
        if status.ending or status.attempt.work_done or hold.remaining.tokens >= GROW_BELOW * spec.estimate.tokens:
            return
        further, forecast = spec.estimate.tokens, spec.forecasts.get(Unit.TOKENS)
        if forecast is not None:
            drawn = status.drawn(self._context.settings.token_weights)
            expected = forecast.given(drawn).p50
            further = max(LEAST_SHARE_TOKENS, expected - drawn) if expected is not None else further
        room = min((budget.free for budget in hold.budgets if budget.unit is Unit.TOKENS), default=0)
        if room >= LEAST_SHARE_TOKENS:
            more = self._context.manager.grow(hold, further)
            text = f"hold of {spec.name} up by {counted(more, 'token')}: it has used {status.total_tokens:,}"
            self._changed(spec.name, text, more)

    def _changed(self, instance: str, text: str, more_tokens: int = 0) -> None:
        self._context.bus.publish(HoldChanged(instance, text, more_tokens))
