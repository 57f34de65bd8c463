"""What the gateway needs of an attempt at an instance whose requests pass through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from claude_orchestrator.claude.events import ApiUsage, Price
from token_budget.models import Budget, Hold
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:  # a run without a gateway needs none of these
    from claude_orchestrator.gateway.refusals import BudgetRefusal
    from claude_orchestrator.gateway.sender import Sender
    from claude_orchestrator.gateway.unanswered import Most


class RequestTiming(NamedTuple):
    """How long a request took on its way to the API and back: until the first byte of the answer, and until its end.

    `status` is the answer's, and None where there was none. `first_byte_s` is None for an answer without a body.
    """

    status: int | None
    first_byte_s: float | None
    seconds: float


class MeteredAttempt(Protocol):
    """An attempt at an instance whose API requests pass the gateway.

    `environ` is the instance's own, which may name the API's address. Budgets in money apply to requests whose model
    `price` knows.
    """

    budgets: tuple[Budget, ...]
    environ: Mapping[str, str]
    price: Price | None

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        """The budgets that a request draws on: `budgets`, and the one of the subagent that sends it."""

    def requested(self) -> None:
        """A request that will be billed has come."""

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        """A response has used so much, in all, of what was held for it."""

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        """A request was refused, since a budget has too little left for it."""

    def admitted(self, sender: Sender) -> None:
        """A request is sent, because the budgets can pay for it."""

    async def reserve(self, hold: Hold, most: Most) -> bool:
        """Record a request before it is sent, with the most that it can use, and reserve its hold on the limits that
        all runs share; False if they have no room."""

    def settled(self, hold: Hold) -> None:
        """A request's hold has ended."""

    def timed(self, model: str, timing: RequestTiming) -> None:
        """A request for a model has ended, after so long."""
