"""The budgets of one run: decide, reserve, record, release. Synchronous: on one event loop each step is atomic."""

from __future__ import annotations

from token_budget.models import Action, Amount, Budget, Decision, Hold, Scope, Unit

MODES = ("warn", "block")
WINDOW_SCOPES = (Scope.DAILY, Scope.WEEKLY, Scope.MONTHLY)
_SCOPES = (Scope.OVERALL, *WINDOW_SCOPES, Scope.COMMAND, Scope.GROUP, Scope.INSTANCE)
_PLACES = [(unit, scope) for unit in Unit for scope in _SCOPES]
_ORDER = {place: number for number, place in enumerate(_PLACES)}


class TokenBudgetManager:
    """Manages the budgets of a run: the only code that changes one.

    `overall_budget` is a limit in tokens (None: unlimited); `enforcement_mode` is "warn" or "block".
    The budgets of days, weeks and months have the name of the `account` as their key, if there is one. Raises
    ValueError for a limit that is not a positive integer or an unknown mode.
    """

    def __init__(self, overall_budget: int | None = None, enforcement_mode: str = "warn", *, account: str = "") -> None:
        if enforcement_mode not in MODES:
            raise ValueError(f"enforcement_mode must be one of {', '.join(MODES)}, got {enforcement_mode!r}")
        self.enforcement_mode = enforcement_mode
        self.account = account
        self.total = Amount()
        self._budgets: dict[tuple[Unit, Scope, str], Budget] = {}
        self._places: list[tuple[Unit, Scope]] = []  # that have a budget
        self._group_of: dict[str, str] = {}
        self._window_keys = dict.fromkeys(WINDOW_SCOPES, account)
        self._subagents: dict[str, Budget] = {}
        if overall_budget is not None:
            self.set_budget(Scope.OVERALL, overall_budget)

    # -- limits --

    def set_budget(self, scope: Scope, limit: int, key: str = "", unit: Unit = Unit.TOKENS) -> Budget:
        """Set a limit in tokens or nano-dollars; what the budget has used stays on the new limit.

        `key` is the command, the group or the instance that the budget is for. Raises ValueError.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0:
            raise ValueError(f"a token budget is a positive integer, got {limit!r}")
        place = unit, scope, key
        if place in self._budgets:
            self._budgets[place].limit = limit
        else:
            self._budgets[place] = Budget(limit, scope=scope, key=key, unit=unit)
            self._places = [one for one in _PLACES if one in {(unit, scope), *self._places}]
        return self._budgets[place]

    def set_command_budget(self, command_name: str, limit: int) -> None:
        """Limit a base command (e.g. "/test") to `limit` tokens; what it has used stays on the new limit."""
        self.set_budget(Scope.COMMAND, limit, command_name)

    def subagent_budget(self, key: str, limit: int) -> Budget:
        """The budget of one subagent in tokens, made with this limit if there is none. Only `record` charges it."""
        if key not in self._subagents:
            self._subagents[key] = Budget(limit, scope=Scope.SUBAGENT, key=key)
        return self._subagents[key]

    @property
    def subagent_budgets(self) -> dict[str, Budget]:
        """The budgets of subagents by their keys, in the order in which they were made."""
        return dict(self._subagents)

    def join(self, instance: str, group: str) -> None:
        """From now on the instance draws on the budgets of this group, too."""
        self._group_of[instance] = group

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every budget: those in tokens first; of each unit overall, windows, commands, groups, instances."""
        return tuple(sorted(self._budgets.values(), key=lambda budget: _ORDER[budget.unit, budget.scope]))

    def budgets_of(self, scope: Scope, unit: Unit = Unit.TOKENS) -> dict[str, Budget]:
        """The budgets of a scope and unit by their keys, in the order in which they were set."""
        return {key: budget for (in_unit, of, key), budget in self._budgets.items() if (in_unit, of) == (unit, scope)}

    @property
    def windows(self) -> tuple[Budget, ...]:
        """The budgets of a day, a week or a month, which all runs share."""
        return tuple(budget for budget in self.budgets if budget.scope in WINDOW_SCOPES)

    @property
    def overall(self) -> Budget | None:
        """The budget for the whole run in tokens, or None."""
        return self._budgets.get((Unit.TOKENS, Scope.OVERALL, ""))

    @property
    def overall_budget(self) -> int | None:
        """The limit for the whole run in tokens, or None."""
        return self.overall.limit if self.overall else None

    @property
    def command_budgets(self) -> dict[str, Budget]:
        """The budgets in tokens by base command."""
        return self.budgets_of(Scope.COMMAND)

    @property
    def total_usage(self) -> int:
        """All tokens that were recorded, weighted."""
        return self.total.tokens

    def budgets_for(self, command_name: str | None, instance: str | None = None) -> tuple[Budget, ...]:
        """The budgets that an instance of this command draws on, in both units; of each unit the narrowest last."""
        group = None if instance is None else self._group_of.get(instance)
        keys = {Scope.COMMAND: command_name, Scope.GROUP: group, Scope.INSTANCE: instance, **self._window_keys}
        found = [self._budgets.get((unit, scope, keys.get(scope, "") or "")) for unit, scope in self._places]
        return tuple(budget for budget in found if budget is not None)

    # -- decisions --

    def check_budget(self, command_name: str, estimated_tokens: int) -> bool:
        """Whether the command can use `estimated_tokens` more within every token budget, holds included."""
        return all(
            estimated_tokens <= budget.limit - budget.used - budget.held
            for budget in self.budgets_for(command_name)
            if budget.unit is Unit.TOKENS
        )

    def decide(self, command_name: str | None, estimate: Amount, instance: str | None = None) -> Decision:
        """Decide on a launch that may use `estimate`; changes nothing.

        Block mode refuses what can never fit (`used + estimate > limit`), and answers WAIT if only the holds of
        others prevent the launch. Warn mode allows everything, and warns of what does not fit.
        """
        # without an estimated cost, a launch still needs something of a budget in money
        wanted = [
            (budget, max(budget.unit is Unit.USD, estimate.of(budget.unit)))
            for budget in self.budgets_for(command_name, instance)
        ]
        over = [(budget, quantity) for budget, quantity in wanted if quantity > budget.free]
        if not over:
            return Decision(Action.ALLOW)
        tightest, quantity = min(over, key=_tightness)
        if tightest.used + quantity > tightest.limit:
            action = Action.BLOCK if self.enforcement_mode == "block" else Action.WARN
            return Decision(action, would_exceed(tightest, quantity), tightest)
        if self.enforcement_mode == "warn":
            return Decision(Action.ALLOW)
        held = tightest.held + tightest.held_elsewhere
        return Decision(Action.WAIT, would_exceed(tightest, quantity, held), tightest)

    def reserve(self, command_name: str | None, estimate: Amount, instance: str | None = None) -> Decision:
        """Decide, and if the launch may start hold the estimate on every budget that applies.

        The decision carries the hold: pass it to `record`, and at the end to `release`.
        """
        decision = self.decide(command_name, estimate, instance)
        if decision.action not in (Action.ALLOW, Action.WARN):
            return decision
        hold = self.hold(self.budgets_for(command_name, instance), estimate)
        return Decision(decision.action, decision.reason, decision.budget, hold)

    # -- holds --

    def hold(self, budgets: tuple[Budget, ...], amount: Amount) -> Hold:
        """Reserve an amount on each of these budgets, whether or not it fits."""
        hold = Hold(budgets, Amount())
        self._change(hold, amount)
        return hold

    def release(self, hold: Hold) -> None:
        """Give back what is left of a hold; a second call does nothing."""
        self._change(hold, Amount() - hold.remaining)

    def shrink(self, hold: Hold, tokens: int) -> int:
        """Reduce a hold to at most `tokens`; returns how many tokens were given back."""
        less = max(0, hold.remaining.tokens - tokens)
        self._change(hold, Amount(-less))
        return less

    def grow(self, hold: Hold, tokens: int) -> int:
        """Reserve up to `tokens` more, as far as every token budget has them free; returns how many."""
        free = [budget.free for budget in hold.budgets if budget.unit is Unit.TOKENS]
        more = max(0, min(tokens, *free)) if free else 0
        self._change(hold, Amount(more))
        return more

    @staticmethod
    def _change(hold: Hold, amount: Amount) -> None:
        hold.remaining += amount
        for budget in hold.budgets:
            budget.held += amount.of(budget.unit)

    # -- use --

    def record(
        self,
        command_name: str | None,
        amount: Amount,
        instance: str | None = None,
        hold: Hold | None = None,
        subagent: Budget | None = None,
    ) -> tuple[Budget, ...]:
        """Record an amount (a delta, never negative) and return the budgets whose limits this passed.

        What was held for it becomes used. Recording is never refused: the amount is already spent. `subagent` is the
        budget of the subagent that has used it.
        """
        if amount.tokens < 0 or amount.nano_usd < 0:
            raise ValueError(f"usage is recorded as a delta of zero or more, got {amount}")
        self.total += amount
        if hold is not None:
            self._change(hold, Amount() - amount.at_most(hold.remaining))
        crossed = []
        own = () if subagent is None else (subagent,)
        for budget in (*self.budgets_for(command_name, instance), *own):
            was_exceeded = budget.exceeded
            budget.used += amount.of(budget.unit)
            if budget.exceeded and not was_exceeded:
                crossed.append(budget)
        return tuple(crossed)

    def record_usage(
        self, command_name: str | None, tokens: int, instance: str | None = None, hold: Hold | None = None
    ) -> tuple[Budget, ...]:
        """Record `tokens` (a delta, never negative); returns the budgets whose limits this passed."""
        return self.record(command_name, Amount(tokens), instance, hold)

    def update_shared(self, budget: Budget, used: int, held_elsewhere: int) -> bool:
        """Set what all runs have used of a window's budget, and what others hold; whether its limit is newly passed."""
        was_exceeded = budget.exceeded
        budget.used, budget.held_elsewhere = used, held_elsewhere
        return budget.exceeded and not was_exceeded


def would_exceed(budget: Budget, estimate: int, held: int | None = None) -> str:
    """Why an estimate does not fit, with the figures. `held` is what others hold, if only that prevents it."""
    show = budget.unit.show
    others = "" if held is None else f" + held by others {show(held)}"
    figures = f"used {show(budget.used)}{others} + estimate {show(estimate)} > limit {show(budget.limit)}"
    return f"{budget.label} budget: {figures}{'' if budget.unit is Unit.USD else ' tokens'}"


def _tightness(item: tuple[Budget, int]) -> tuple[bool, float, float]:
    """Budgets that can never fit come first; between units, the budget with the smaller share left decides."""
    budget, estimate = item
    return budget.used + estimate <= budget.limit, budget.remaining / budget.limit, budget.free / budget.limit
