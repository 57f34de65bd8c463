"""Responses of subagents, which no stream shows piece by piece: when to ask Claude for its count, when to stop. Pure.

The stream shows the input of such a response at its end, and its output is in Claude's count once somebody asks. A
subagent sends the whole conversation again with each request. So a request that has begun takes at least as much input
as the one before it. If tokens have weights, the least is what it draws if all of it comes from the cache.
"""

from __future__ import annotations

from collections.abc import Callable

from claude_orchestrator.claude.events import Assistant, Event, Retry, Task, User
from token_budget.model_weights import TokenWeights, weights_for
from token_budget.models import Amount, Budget, Unit, Usage

SAFETY = 2  # for a question: a response can be larger than those before it


class HiddenResponses:
    """The hidden responses of one attempt.

    `ask` sends a question to its Claude, unless one is still open.
    """

    def __init__(self, budgets: tuple[Budget, ...], ask: Callable[[], None], weights: TokenWeights) -> None:
        self.budgets = budgets
        self.ask = ask
        self._weights = weights
        self._inputs: dict[str, int] = {}  # by agent: what the input of its last response took
        self._calls: dict[str, int] = {}  # by agent: the tools whose results its next request waits for
        self._in_progress: set[str] = set()  # the agents whose response has begun
        self._ended: set[str] = set()  # responses that ended since the last question
        self._asked: set[str] = set()
        self._each_nano_usd = 0  # by the last count

    @property
    def waiting(self) -> bool:
        """Whether a response has ended that no question asks for."""
        return bool(self._ended)

    def expected(self, unit: Unit) -> int:
        """What the responses that have ended since the last count may have used."""
        each = self._each_nano_usd if unit is Unit.USD else max(self._inputs.values(), default=0)
        return each * (len(self._ended) + len(self._asked))

    @property
    def least_in_progress(self) -> int:
        """The tokens that the responses in progress take at least."""
        return sum(self._inputs.get(agent, 0) for agent in self._in_progress)

    def observe(self, event: Event) -> bool:
        """Note what an event says about hidden responses; returns whether it says anything."""
        match event:
            case Assistant(id=response, parent=str(agent), tools=tools):
                self._in_progress.discard(agent)
                self._ended.add(response)
                self._inputs[agent] = self._least(event)
                self._calls[agent] = self._calls.get(agent, 0) + len(tools)
            case User(parent=str(agent), interrupted=False):
                self._calls[agent] = max(0, self._calls.get(agent, 0) - 1)
                if not self._calls[agent]:
                    self._in_progress.add(agent)
            case Task(tool_use_id=agent, status=str()) if agent in self._calls:
                if agent in self._in_progress:  # 2.1.197 shows no other end of an agent's last response
                    self._ended.add(f"{agent}/last")
                self._in_progress.discard(agent)
                del self._calls[agent]
                self._inputs.pop(agent, None)
            case Retry():
                self._in_progress.clear()  # nothing is billed for a request that the API refused
            case _:
                return False
        return True

    def _least(self, response: Assistant) -> int:
        """The least that the same input draws from a token budget."""
        tokens = response.usage.total_tokens - response.usage.output_tokens
        draw = weights_for(self._weights, response.model).draw
        return min(map(draw, (Usage(tokens), Usage(0, 0, tokens), Usage(0, 0, 0, tokens))))

    def asked(self) -> None:
        """Claude was asked: its answer has every response that has ended."""
        self._asked |= self._ended
        self._ended.clear()

    def counted(self, new: Amount) -> None:
        """Claude has answered; `new` is what its count added."""
        if self._asked and new.nano_usd > 0:
            self._each_nano_usd = new.nano_usd // len(self._asked)
        self._asked.clear()


class HiddenUse:
    """The hidden responses of all running instances. `margin_percent` is how far before a limit they are stopped."""

    def __init__(self, margin_percent: float, weights: TokenWeights) -> None:
        self.margin_percent = margin_percent
        self._weights = weights
        self._running: set[HiddenResponses] = set()

    @property
    def watches(self) -> bool:
        """Whether a limit may be foreseen at all."""
        return bool(self._running) or self.margin_percent > 0

    def of(self, budgets: tuple[Budget, ...], ask: Callable[[], None]) -> HiddenResponses:
        """The hidden responses of an attempt that draws on these budgets."""
        return HiddenResponses(budgets, ask, self._weights)

    def add(self, own: HiddenResponses) -> None:
        """An attempt has hidden responses."""
        self._running.add(own)

    def remove(self, own: HiddenResponses) -> None:
        """The attempt has ended."""
        self._running.discard(own)

    def ask_near_limits(self, own: HiddenResponses) -> None:
        """If hidden responses may have used up a budget of this attempt, ask every instance with hidden responses."""
        for budget in own.budgets:
            drawing = [other for other in self._running if budget in other.budgets]
            expected = sum(other.expected(budget.unit) for other in drawing)
            if expected and budget.used + SAFETY * expected > budget.limit:
                for other in drawing:
                    if other.waiting:
                        other.ask()

    def foreseen(self, budgets: tuple[Budget, ...]) -> tuple[Budget, int] | None:
        """The first budget that its use and the responses in progress pass together, less the margin; None if there is
        none.

        It comes with the least tokens that those responses use. Costs are known too late for this.
        """
        for budget in budgets:
            tokens = 0
            if budget.unit is Unit.TOKENS:
                tokens = sum(other.least_in_progress for other in self._running if budget in other.budgets)
            if budget.used + tokens > budget.limit * (1 - self.margin_percent / 100):
                return budget, tokens
        return None
