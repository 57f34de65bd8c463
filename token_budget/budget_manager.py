"""The budgets of one run: check, reserve, record, release. Synchronous: one event loop makes each step atomic."""

from __future__ import annotations

from token_budget.models import Action, CommandBudgetInfo, Decision, Hold, Scope
from token_budget.text import format_usd

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
        self.total_cost_nano = 0
        self.overall: CommandBudgetInfo | None = None
        if overall_budget is not None:
            self.overall = CommandBudgetInfo(_limit(overall_budget), scope=Scope.OVERALL)
        self.window_budgets: dict[str, CommandBudgetInfo] = {}
        self.command_budgets: dict[str, CommandBudgetInfo] = {}
        self.instance_budgets: dict[str, CommandBudgetInfo] = {}
        self.cost_budgets: dict[tuple[Scope, str], CommandBudgetInfo] = {}

    @property
    def overall_budget(self) -> int | None:
        """The limit for the whole run in tokens, or None."""
        return self.overall.limit if self.overall else None

    @property
    def budgets(self) -> tuple[CommandBudgetInfo, ...]:
        """Every budget: overall first, then windows, commands, instances, and those in money, as they were set."""
        overall = (self.overall,) if self.overall else ()
        rest = (self.window_budgets, self.command_budgets, self.instance_budgets, self.cost_budgets)
        return (*overall, *(budget for budgets in rest for budget in budgets.values()))

    def set_command_budget(self, command_name: str, limit: int) -> None:
        """Limit a base command (e.g. "/test") to `limit` tokens; what it has used stays on the new limit."""
        self._set(self.command_budgets, Scope.COMMAND, command_name, limit)

    def set_instance_budget(self, instance_name: str, limit: int) -> None:
        """Limit one instance to `limit` tokens; what it has used stays on the new limit."""
        self._set(self.instance_budgets, Scope.INSTANCE, instance_name, limit)

    def set_window_budget(self, window: Scope, limit: int) -> None:
        """Limit all runs together to `limit` tokens a day, a week or a month."""
        self._set(self.window_budgets, window, str(window), limit)

    def set_cost_budget(self, scope: Scope, limit_nano: int, key: str = "") -> None:
        """Limit what is spent to so many nano-dollars: overall, in a window, or by the command or instance `key`."""
        self.cost_budgets[scope, key] = CommandBudgetInfo(_limit(limit_nano), scope=scope, key=key, money=True)

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
            *self.window_budgets.values(),
            self.command_budgets.get(command_name) if command_name is not None else None,
            self.instance_budgets.get(instance) if instance is not None else None,
        )
        return tuple(budget for budget in found if budget is not None)

    def cost_budgets_for(self, command_name: str | None, instance: str | None = None) -> tuple[CommandBudgetInfo, ...]:
        """The budgets in money that an instance of this command draws on."""
        keys = {Scope.COMMAND: command_name, Scope.INSTANCE: instance}
        return tuple(
            budget for (scope, key), budget in self.cost_budgets.items() if scope not in keys or keys[scope] == key
        )

    def check_budget(self, command_name: str, estimated_tokens: int) -> bool:
        """Whether the command can use `estimated_tokens` more within every budget that applies, holds included."""
        return all(
            budget.used + budget.held + estimated_tokens <= budget.limit for budget in self.budgets_for(command_name)
        )

    def decide(
        self,
        command_name: str | None,
        estimated_tokens: int,
        instance: str | None = None,
        *,
        estimated_nano: int = 0,
    ) -> Decision:
        """What would become of a launch that may use `estimated_tokens` and cost `estimated_nano`; changes nothing.

        Block mode refuses what can never fit (`used + estimate > limit`) and lets wait what only others' holds
        keep out. Warn mode lets everything go and says what does not fit.
        """
        # what costs nothing by the estimate costs something all the same
        wanted = [(budget, estimated_tokens) for budget in self.budgets_for(command_name, instance)]
        wanted += [(budget, max(1, estimated_nano)) for budget in self.cost_budgets_for(command_name, instance)]
        over = [(budget, estimate) for budget, estimate in wanted if estimate > budget.free]
        if not over:
            return Decision(Action.ALLOW)
        tightest, estimate = min(over, key=_tightness)
        if tightest.used + estimate > tightest.limit:
            action = Action.BLOCK if self.enforcement_mode == "block" else Action.WARN
            return Decision(action, would_exceed(tightest, estimate), tightest)
        if self.enforcement_mode == "warn":
            return Decision(Action.ALLOW)
        return Decision(
            Action.WAIT, would_exceed(tightest, estimate, tightest.held + tightest.held_elsewhere), tightest
        )

    def reserve(
        self,
        command_name: str | None,
        estimated_tokens: int,
        instance: str | None = None,
        *,
        estimated_nano: int = 0,
    ) -> Decision:
        """Decide, and when the launch may go set the estimate aside on every budget that applies.

        The decision carries the hold, to be passed to `record_usage` and `record_cost`, and at last to `release`.
        """
        decision = self.decide(command_name, estimated_tokens, instance, estimated_nano=estimated_nano)
        if decision.action not in (Action.ALLOW, Action.WARN):
            return decision
        costs = self.cost_budgets_for(command_name, instance)
        money = Hold(costs, estimated_nano) if costs else None
        hold = Hold(self.budgets_for(command_name, instance), estimated_tokens, money)
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
        return _add(tokens, self.budgets_for(command_name, instance))

    def record_cost(
        self, command_name: str | None, nano: int, instance: str | None = None, hold: Hold | None = None
    ) -> tuple[CommandBudgetInfo, ...]:
        """Record a cost in nano-dollars (a delta, never negative); returns the budgets whose limit this passed."""
        self.total_cost_nano += nano
        if hold is not None and hold.money is not None:
            hold.money.spend(nano)
        return _add(nano, self.cost_budgets_for(command_name, instance))

    def release(self, hold: Hold) -> None:
        """Give back what is left of a hold; a second call does nothing."""
        hold.release()


def would_exceed(budget: CommandBudgetInfo, estimate: int, held: int | None = None) -> str:
    """Why an estimate does not fit, with the figures; `held`: it would, but for what others hold."""
    said = format_usd if budget.money else "{:,}".format
    others = "" if held is None else f" + held by others {said(held)}"
    figures = f"used {said(budget.used)}{others} + estimate {said(estimate)} > limit {said(budget.limit)}"
    return f"{budget.label} budget: {figures}{'' if budget.money else ' tokens'}"


def _tightness(item: tuple[CommandBudgetInfo, int]) -> tuple[bool, float, float]:
    """What can never fit first; of budgets in tokens and money, the one with the smaller part left."""
    budget, estimate = item
    return budget.used + estimate <= budget.limit, budget.remaining / budget.limit, budget.free / budget.limit


def _add(amount: int, budgets: tuple[CommandBudgetInfo, ...]) -> tuple[CommandBudgetInfo, ...]:
    crossed = []
    for budget in budgets:
        was_exceeded = budget.exceeded
        budget.used += amount
        if budget.exceeded and not was_exceeded:
            crossed.append(budget)
    return tuple(crossed)


def _limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0:
        raise ValueError(f"a token budget is a positive integer, got {limit!r}")
    return limit
