"""The budgets of one run: check, reserve, record, release. Synchronous: one event loop makes each step atomic."""

from __future__ import annotations

from token_budget.models import Action, CommandBudgetInfo, Decision, Hold, Scope

MODES = ("warn", "block")


class TokenBudgetManager:
    """Manages token budgets for the overall run, for individual commands and for instances.

    `overall_budget` is a limit in tokens (None: unlimited); `enforcement_mode` is "warn" or "block".
    Raises ValueError for a limit that is not a positive integer or an unknown mode.
    """

    def __init__(self, overall_budget: int | None = None, enforcement_mode: str = "warn") -> None:
        if enforcement_mode not in MODES:
            raise ValueError(f"enforcement_mode must be one of {', '.join(MODES)}, got {enforcement_mode!r}")
        self.enforcement_mode = enforcement_mode
        self.total_usage = 0
        self.overall: CommandBudgetInfo | None = None
        if overall_budget is not None:
            self.overall = CommandBudgetInfo(_limit(overall_budget), scope=Scope.OVERALL)
        self.command_budgets: dict[str, CommandBudgetInfo] = {}
        self.instance_budgets: dict[str, CommandBudgetInfo] = {}

    @property
    def overall_budget(self) -> int | None:
        """The limit for the whole run in tokens, or None."""
        return self.overall.limit if self.overall else None

    @property
    def budgets(self) -> tuple[CommandBudgetInfo, ...]:
        """Every budget: overall first, then commands, then instances, each in the order they were set."""
        overall = (self.overall,) if self.overall else ()
        return (*overall, *self.command_budgets.values(), *self.instance_budgets.values())

    def set_command_budget(self, command_name: str, limit: int) -> None:
        """Limit a base command (e.g. "/test") to `limit` tokens; what it has used stays on the new limit."""
        self._set(self.command_budgets, Scope.COMMAND, command_name, limit)

    def set_instance_budget(self, instance_name: str, limit: int) -> None:
        """Limit one instance to `limit` tokens; what it has used stays on the new limit."""
        self._set(self.instance_budgets, Scope.INSTANCE, instance_name, limit)

    @staticmethod
    def _set(budgets: dict[str, CommandBudgetInfo], scope: Scope, key: str, limit: int) -> None:
        if key in budgets:
            budgets[key].limit = _limit(limit)
        else:
            budgets[key] = CommandBudgetInfo(_limit(limit), scope=scope, key=key)

    def budgets_for(self, command_name: str | None, instance: str | None = None) -> tuple[CommandBudgetInfo, ...]:
        """The budgets that an instance of this command draws on, the narrowest last."""
        found = (
            self.overall,
            self.command_budgets.get(command_name) if command_name is not None else None,
            self.instance_budgets.get(instance) if instance is not None else None,
        )
        return tuple(budget for budget in found if budget is not None)

    def check_budget(self, command_name: str, estimated_tokens: int) -> bool:
        """Whether the command can use `estimated_tokens` more within every budget that applies, holds included."""
        return all(
            budget.used + budget.held + estimated_tokens <= budget.limit for budget in self.budgets_for(command_name)
        )

    def decide(self, command_name: str | None, estimated_tokens: int, instance: str | None = None) -> Decision:
        """What would become of a launch that may use `estimated_tokens`; changes nothing.

        Block mode refuses what can never fit (`used + estimate > limit`) and lets wait what only others' holds
        keep out. Warn mode lets everything go and says what does not fit.
        """
        over = [
            budget
            for budget in self.budgets_for(command_name, instance)
            if budget.used + budget.held + estimated_tokens > budget.limit
        ]
        if not over:
            return Decision(Action.ALLOW)
        tightest = min(over, key=lambda budget: (budget.limit - budget.used, budget.limit - budget.held))
        if tightest.used + estimated_tokens > tightest.limit:
            action = Action.BLOCK if self.enforcement_mode == "block" else Action.WARN
            figures = f"used {tightest.used:,} + estimate {estimated_tokens:,} > limit {tightest.limit:,}"
            return Decision(action, f"{tightest.label} budget: {figures} tokens", tightest)
        if self.enforcement_mode == "warn":
            return Decision(Action.ALLOW)
        figures = (
            f"used {tightest.used:,} + held by others {tightest.held:,} "
            f"+ estimate {estimated_tokens:,} > limit {tightest.limit:,}"
        )
        return Decision(Action.WAIT, f"{tightest.label} budget: {figures} tokens", tightest)

    def reserve(self, command_name: str | None, estimated_tokens: int, instance: str | None = None) -> Decision:
        """Decide, and when the launch may go set `estimated_tokens` aside on every budget that applies.

        The decision carries the hold, to be passed to `record_usage` and at last to `release`.
        """
        decision = self.decide(command_name, estimated_tokens, instance)
        if decision.action not in (Action.ALLOW, Action.WARN):
            return decision
        hold = Hold(self.budgets_for(command_name, instance), estimated_tokens)
        return Decision(decision.action, decision.reason, decision.budget, hold)

    def record_usage(
        self, command_name: str | None, tokens: int, instance: str | None = None, hold: Hold | None = None
    ) -> tuple[CommandBudgetInfo, ...]:
        """Record `tokens` (a delta, never negative) and return the budgets whose limit this passed.

        What was held for it becomes used. Recording is never refused: the tokens are already spent.
        """
        if tokens < 0:
            raise ValueError(f"usage is recorded as a delta of zero or more tokens, got {tokens}")
        self.total_usage += tokens
        if hold is not None:
            hold.spend(tokens)
        crossed = []
        for budget in self.budgets_for(command_name, instance):
            was_exceeded = budget.exceeded
            budget.used += tokens
            if budget.exceeded and not was_exceeded:
                crossed.append(budget)
        return tuple(crossed)

    def release(self, hold: Hold) -> None:
        """Give back what is left of a hold; a second call does nothing."""
        hold.release()


def _limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0:
        raise ValueError(f"a token budget is a positive integer, got {limit!r}")
    return limit
