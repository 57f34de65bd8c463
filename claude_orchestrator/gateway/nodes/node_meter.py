"""The gateway on a node. It asks the driver about each request that is billed, and reports what responses used."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping

from claude_orchestrator.claude.events import ApiUsage, Price
from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.admission import Ticket
from claude_orchestrator.gateway.attempt import RequestTiming
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.fake_api import FakeApi
from claude_orchestrator.gateway.nodes.boards import NodeBoard
from claude_orchestrator.gateway.nodes.messages import (
    AdmissionRequest,
    Close,
    Closed,
    CountFirst,
    Go,
    MeterBegin,
    NodePace,
    Open,
    Posted,
    Refuse,
    Requested,
    Reserve,
    Settled,
    Timed,
    Used,
)
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from claude_orchestrator.gateway.unanswered import Most
from claude_orchestrator.launch import simulated
from claude_orchestrator.launch.background import Tasks
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Amount, Budget, Hold, Scope

PACE_EVERY_S = 1.0
SOME = Budget(1, scope=Scope.OVERALL)  # stands for the budgets that the driver has
Say = Callable[[object], None]
Verdict = Go | CountFirst | Refuse


class Asking:
    """The requests of a node that the driver decides on. A Decider."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Verdict]] = {}
        self._request_of: dict[Hold, int] = {}

    async def has_room(self, client: Client, ticket: Ticket, sender: Sender) -> bool:
        """Ask for the hold with the bound that there is; False if the driver wants a smaller one first."""
        return isinstance(await self._ask(client, ticket, sender, final=False), Go)

    async def admit(self, client: Client, ticket: Ticket, sender: Sender) -> str | None:
        """Wait until the request may go, unless it may already."""
        if ticket.hold is not None or ticket.output_tokens:
            return None
        verdict = await self._ask(client, ticket, sender, final=True)
        return verdict.why if isinstance(verdict, Refuse) else None

    async def _ask(self, client: Client, ticket: Ticket, sender: Sender, *, final: bool) -> Verdict:
        request = next(self._numbers)
        figures = (ticket.input_tokens, ticket.max_tokens, ticket.least_tokens, ticket.wanted_tokens)
        known = (ticket.growth_tokens, ticket.model, ticket.terms)
        verdict = await self._answer(request, AdmissionRequest(request, client.digest, sender, *figures, *known, final))
        if isinstance(verdict, Go):
            ticket.output_tokens, ticket.cost = verdict.output_tokens, verdict.cost
            ticket.hold = self._hold(request) if verdict.has_hold else None
        return verdict

    def _hold(self, request: int) -> Hold:
        hold = Hold((), Amount())
        self._request_of[hold] = request
        return hold

    async def _answer(self, request: int, question: AdmissionRequest | Reserve) -> Verdict:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        self._say(question)
        try:
            return await answer
        except asyncio.CancelledError:
            self._say(Settled(request))
            raise
        finally:
            del self._answers[request]

    def answered(self, verdict: Verdict) -> None:
        """The driver has decided."""
        answer = self._answers.get(verdict.request)
        if answer is None:  # nobody waits for it any more, and Settled is on its way
            return
        if not answer.done():
            answer.set_result(verdict)

    async def reserve(self, digest: bytes, hold: Hold, most: Most) -> None:
        """Record a request that no budget can refuse."""
        request = next(self._numbers)
        self._request_of[hold] = request
        await self._answer(request, Reserve(request, digest, most))

    def settle(self, client: Client, ticket: Ticket) -> None:
        """The request has ended."""
        if ticket.hold is not None:
            self.settled(ticket.hold)
            ticket.hold = None

    def settled(self, hold: Hold) -> None:
        """A hold has ended."""
        request = self._request_of.pop(hold, None)
        if request is not None:
            self._say(Settled(request))

    def request_of(self, hold: Hold | None) -> int | None:
        """The request that has this hold."""
        return None if hold is None else self._request_of.get(hold)


class RemoteAttempt:
    """A MeteredAttempt whose budgets are the driver's. It has no prices: the driver computes costs."""

    price: Price | None = None

    def __init__(self, opened: Open, asking: Asking, say: Say) -> None:
        self.budgets: tuple[Budget, ...] = (SOME,) if opened.has_budgets else ()
        self.environ: Mapping[str, str] = opened.environ
        self._digest = opened.digest
        self._asking = asking
        self._say = say

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        """Whether there are budgets."""
        return self.budgets

    def requested(self) -> None:
        """A request that will be billed has come."""
        self._say(Requested(self._digest))

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        """A response has used so much."""
        self._say(Used(self._digest, self._asking.request_of(hold), usage))

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        """The driver knows: it has refused the request."""

    def admitted(self, sender: Sender) -> None:
        """The driver knows: it has admitted the request."""

    async def reserve(self, hold: Hold, most: Most) -> bool:
        """Record a request before it is sent."""
        await self._asking.reserve(self._digest, hold, most)
        return True

    def settled(self, hold: Hold) -> None:
        """A request's hold has ended."""
        self._asking.settled(hold)

    def timed(self, model: str, timing: RequestTiming) -> None:
        """A request has ended."""
        self._say(Timed(self._digest, model, timing))


class NodeMeter:
    """A context with the gateway of a node. `environ` is that of the instances; `say` sends a message to the driver."""

    def __init__(self, begin: MeterBegin, environ: Mapping[str, str], say: Say) -> None:
        self._say = say
        self._environ = environ
        self._asking = Asking(say)
        mode = "block" if begin.enforces else "warn"
        self._board = NodeBoard(say)
        options = GatewayOptions(begin.share_cache_wait_s, begin.unanswered, self._board, self._asking)
        manager = TokenBudgetManager(enforcement_mode=mode)
        self._api = FakeApi() if begin.rehearses else None
        self._open = contextlib.AsyncExitStack()
        self._gateway = Gateway(manager, begin.weights, environ=environ, options=options)
        self._clients: dict[bytes, Client] = {}
        self._closing = Tasks()

    async def __aenter__(self) -> NodeMeter:
        if self._api is not None:
            await self._open.enter_async_context(self._api)
        await self._open.enter_async_context(self._gateway)
        self._open.callback(asyncio.ensure_future(self._watch_pace()).cancel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    @property
    def ask(self) -> simulated.Ask | None:
        """How simulated instances ask for responses; None if instances are not simulated."""
        return None if self._api is None else self._api.ask

    @property
    def port(self) -> int:
        """Where instances of this node reach it, on loopback."""
        return self._gateway.port

    def obey(self, message: object) -> None:
        """Take a message of the driver."""
        match message:
            case Open(digest, environ):
                address = ApiAddress.of({**self._environ, **environ}, None if self._api is None else self._api.url)
                attempt = RemoteAttempt(message, self._asking, self._say)
                client = self._clients[digest] = Client("", address, attempt, digest=digest)
                self._gateway.add(client)
            case Close(digest):
                self._closing.start(self._close(digest))
            case Go() | CountFirst() | Refuse():
                self._asking.answered(message)
            case Posted():
                self._board.answered(message)

    async def _close(self, digest: bytes) -> None:
        client = self._clients.pop(digest, None)
        if client is not None:
            await self._gateway.close(client)
        self._say(Closed(digest))

    async def _watch_pace(self) -> None:
        """Report when requests begin to wait for rate limits, and when they do not any more."""
        before = NodePace(False, None)
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(PACE_EVERY_S)
                now = NodePace(self._gateway.is_slow, self._gateway.waiting())
                if now != before:
                    self._say(now)
                    before = now
