"""Which API requests may go, with how many output tokens: so that what is billed cannot pass a budget. Pure.

A request is held against every budget with an upper bound of its cost: its input, and the `max_tokens` that it is
forwarded with. What is free is never less than what all requests in flight can still cost, so no budget is overspent.

Holding the 64,000 tokens that clients ask for would let one request run at a time. So the output that is held, and
asked for, is what answers have been seen to need, or a fair share of what is free where that is more; an answer that
is cut short by it is continued by the client itself with another request, which then gets four times as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from token_budget.api_usage import NO_TERMS, PriceTerms
from token_budget.budget_manager import TokenBudgetManager
from token_budget.model_weights import TokenWeights, weights_for
from token_budget.models import Amount, Budget, Hold, Unit, Weights

FIRST_OUTPUT_TOKENS = 2_048  # until answers have been seen
LEAST_OUTPUT_TOKENS = 256  # less is of no use to anybody
LEAST_THINKING_TOKENS = 1_024  # the API's own least thinking budget
ENOUGH_ANSWERS = 8
SEEN_ANSWERS = 256
QUANTILE = 0.95
MARGIN = 1.25
MORE_AFTER_A_CUT = 4  # times: Claude continues three times by itself, and an answer may have 64,000 tokens
ANY_NUMBER = 2**53


@dataclass(frozen=True, slots=True)
class Cost:
    """The most that a request can cost, in nano-dollars: for its input, and for 1,000 tokens of output."""

    input_nano: int
    output_nano: int

    def bound(self, output_tokens: int) -> int:
        """The most that it costs with so many output tokens, rounded up."""
        return self.input_nano - (-output_tokens * self.output_nano // 1000)

    def output_for(self, nano: int) -> int:
        """The output tokens that so much pays for beside the input; any number where output is free."""
        left = nano - self.input_nano
        return -1 if left < 0 else left * 1000 // self.output_nano if self.output_nano else ANY_NUMBER


class Verdict(Enum):
    """What becomes of a request now."""

    GO = auto()
    WAIT = auto()
    REFUSE = auto()


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that asks to be sent. `input_tokens` is an upper bound; `cost` is the most that the request can cost,
    or None if its `model` has no price: then budgets in money do not apply. `terms` are the dearest that it allows.
    `growth_tokens` of the input may come while it is answered."""

    budgets: tuple[Budget, ...]
    input_tokens: int
    max_tokens: int
    cost: Cost | None = None
    model: str = ""
    terms: PriceTerms = NO_TERMS
    growth_tokens: int = 0
    least_tokens: int = LEAST_OUTPUT_TOKENS
    wanted_tokens: int = 0
    answer: Callable[[Verdict], None] = lambda verdict: None
    output_tokens: int = 0
    hold: Hold | None = None
    spent: Budget | None = None

    @property
    def limits(self) -> tuple[Budget, ...]:
        """All budgets that it is held against."""
        if self.cost is not None:
            return self.budgets
        return tuple(budget for budget in self.budgets if budget.unit is Unit.TOKENS)


@dataclass(slots=True)
class Admission:
    """Admits requests in the order in which they come, as far as they share a budget."""

    manager: TokenBudgetManager = field(default_factory=TokenBudgetManager)
    weights: TokenWeights = field(default_factory=Weights)
    waiting: dict[Ticket, None] = field(default_factory=dict)
    in_flight: int = 0
    seen: deque[int] = field(default_factory=lambda: deque(maxlen=SEEN_ANSWERS))
    places: int = 1  # instances that may ask
    quantile: float = QUANTILE
    expected: int = FIRST_OUTPUT_TOKENS  # output tokens that nearly all answers get along with

    def expect(self, instances: int) -> None:
        """From now on so many instances may ask."""
        self.places = max(1, instances)

    def ask(self, ticket: Ticket) -> Verdict:
        """Decide on a request; one that must wait gets its answer later, through `ticket.answer`."""
        if any(not set(ticket.limits).isdisjoint(other.limits) for other in self.waiting):
            verdict = Verdict.REFUSE if self._is_spent(ticket) else Verdict.WAIT
        else:
            verdict = self.decide(ticket)
        if verdict is Verdict.WAIT:
            self.waiting[ticket] = None
        return verdict

    def has_room(self, ticket: Ticket) -> bool:
        """Whether the request could go now."""
        if any(not set(ticket.limits).isdisjoint(other.limits) for other in self.waiting):
            return False
        return self._free_output(ticket) >= self._wanted(ticket)

    def settle(self, ticket: Ticket) -> None:
        """The request has ended: give back what is left of its hold, and let those go who waited for it."""
        if ticket.hold is not None:
            self.in_flight -= 1
            self.manager.release(ticket.hold)
            ticket.hold = None
        self.recheck()

    def leave(self, ticket: Ticket) -> None:
        """A request that waited has gone away."""
        self.waiting.pop(ticket, None)
        self.recheck()

    def learn(self, output_tokens: int) -> None:
        """An answer has ended by itself after so many output tokens."""
        self.seen.append(output_tokens)
        if len(self.seen) >= ENOUGH_ANSWERS:
            ordered = sorted(self.seen)
            seen = ordered[int((len(ordered) - 1) * self.quantile)]
            self.expected = max(LEAST_OUTPUT_TOKENS, int(seen * MARGIN))

    def recheck(self) -> None:
        """Budgets have changed: answer those who wait, first come first served for each budget."""
        taken: set[Budget] = set()
        for ticket in list(self.waiting):
            if not taken.isdisjoint(ticket.limits):
                verdict = Verdict.REFUSE if self._is_spent(ticket) else Verdict.WAIT
            else:
                verdict = self.decide(ticket)
            if verdict is Verdict.WAIT:
                taken.update(ticket.limits)
            else:
                del self.waiting[ticket]
                ticket.answer(verdict)

    def decide(self, ticket: Ticket) -> Verdict:
        """Take the hold if there is room for what the request will likely need, or nobody else can make room."""
        if not ticket.limits:
            ticket.output_tokens = ticket.max_tokens
            return Verdict.GO
        if self._is_spent(ticket):
            return Verdict.REFUSE
        room, wanted = self._free_output(ticket), self._wanted(ticket)
        if room >= wanted:
            self._go(ticket, min(ticket.max_tokens, max(wanted, self._share(room))))
            return Verdict.GO
        if any(budget.held or budget.held_elsewhere for budget in ticket.limits):
            return Verdict.WAIT
        self._go(ticket, room)
        return Verdict.GO

    def _share(self, room: int) -> int:
        return room // max(self.places, 1 + self.in_flight + len(self.waiting))

    def _free_output(self, ticket: Ticket) -> int:
        return min((self._room(ticket, budget, budget.free) for budget in ticket.limits), default=ANY_NUMBER)

    def _wanted(self, ticket: Ticket) -> int:
        return min(ticket.max_tokens, max(self.expected, ticket.wanted_tokens, ticket.least_tokens))

    def _is_spent(self, ticket: Ticket) -> bool:
        """Whether a budget has not enough left, even when all others give back what they hold."""
        for budget in ticket.limits:
            if self._room(ticket, budget, budget.limit - budget.used) < ticket.least_tokens:
                ticket.spent = budget
                return True
        return False

    def needed(self, ticket: Ticket, budget: Budget) -> int:
        """The most that the request draws on a budget with the shortest answer that is of use."""
        if budget.unit is Unit.USD:
            return ticket.cost.bound(ticket.least_tokens) if ticket.cost is not None else 0
        return bound(ticket.input_tokens, ticket.least_tokens, self.weights_of(ticket))

    def _room(self, ticket: Ticket, budget: Budget, left: int) -> int:
        """Output tokens that what is left of a budget pays for, beside the input."""
        if budget.unit is Unit.USD:
            return ticket.cost.output_for(left) if ticket.cost is not None else ANY_NUMBER
        weights = self.weights_of(ticket)
        return output_for(left - input_draw(ticket.input_tokens, weights), weights)

    def weights_of(self, ticket: Ticket) -> Weights:
        """What the request's tokens draw from budgets, by its model."""
        return weights_for(self.weights, ticket.model)

    def _go(self, ticket: Ticket, output_tokens: int) -> None:
        ticket.output_tokens = output_tokens
        nano_usd = ticket.cost.bound(output_tokens) if ticket.cost is not None else 0
        most = Amount(bound(ticket.input_tokens, output_tokens, self.weights_of(ticket)), nano_usd)
        ticket.hold = self.manager.hold(ticket.limits, most)
        self.in_flight += 1


def input_draw(input_tokens: int, weights: Weights) -> int:
    """The most that so many input tokens can draw, whether they are read, written to the cache or read from it."""
    return -(-input_tokens * max(weights.input, weights.cache_write, weights.cache_read) // weights.scale)


def output_for(draw: int, weights: Weights) -> int:
    """The output tokens that a draw pays for; any number where output draws nothing."""
    if draw < 0:
        return -1
    return draw * weights.scale // weights.output if weights.output else ANY_NUMBER


def bound(input_tokens: int, output_tokens: int, weights: Weights) -> int:
    """The most that a request can draw, rounded up for each of its parts (a total is rounded up once)."""
    output = -(-output_tokens * weights.output // weights.scale)
    return input_draw(input_tokens, weights) + output
