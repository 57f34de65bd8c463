"""The driver's side of the gateways on nodes: one manager decides on the requests of all of them. An ApiMeter."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.admission import Admission, Ticket
from claude_orchestrator.gateway.attempt import MeteredAttempt
from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.deciding import LocalDecider
from claude_orchestrator.gateway.nodes.boards import DriverBoard
from claude_orchestrator.gateway.nodes.messages import (
    AdmissionRequest,
    Close,
    Closed,
    CountFirst,
    Go,
    MeterBegin,
    NodePace,
    Open,
    Post,
    Refuse,
    Requested,
    Reserve,
    Settled,
    Timed,
    Used,
)
from claude_orchestrator.gateway.pacing.waiting import together
from claude_orchestrator.gateway.unanswered import (
    ChargeUnanswered,
    Most,
    charged_unanswered,
    completed,
    how_charged,
    most_of,
)
from claude_orchestrator.launch.background import Tasks
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import NO_USAGE, Amount, Hold

CLOSE_S = 5.0
ON_NODE = "http://127.0.0.1"  # the simulated API of each node: only the node knows its port
Tell = Callable[[object], None]


@dataclass(slots=True, eq=False)
class NodeRequest:
    """A request of a node. Once it may be sent, `most` is what it can use. `seen` is what its response stated last."""

    place: NodeAttempt
    ticket: Ticket
    most: Most | None = None
    seen: ApiUsage | None = None
    deciding: asyncio.Task[None] | None = None
    is_watched: bool = False  # no budget limits it


@dataclass(slots=True, eq=False)
class NodeAttempt:
    """An attempt at the gateway of its node."""

    client: Client
    node: object
    tell: Tell
    requests: dict[int, NodeRequest] = field(default_factory=dict)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """How many of its requests wait for a budget."""
        return self.client.waiting

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables that lead the instance through the gateway of its node."""
        return self.client.env


class DriverMeter:
    """Decides on the requests of all nodes, and charges what their responses used.

    `where` finds the node that an instance is about to run on: what identifies it, the port of its gateway there, and
    how to send that a message. By `board` the nodes share their pace and the prompt cache with other runs, too.
    """

    def __init__(
        self,
        manager: TokenBudgetManager,
        begin: MeterBegin,
        where: Callable[[str], tuple[object, int, Tell]],
        environ: Mapping[str, str] = os.environ,
        board: Board | None = None,
    ) -> None:
        self._admission = Admission(manager, begin.weights)
        self._decider = LocalDecider(self._admission)
        self._unanswered = how_charged(begin.unanswered, enforces=begin.enforces)
        self._where = where
        self._environ = environ
        self._limits_subagents = begin.limits_subagents
        self._api_url = ON_NODE if begin.rehearses else None
        self._places: dict[bytes, NodeAttempt] = {}
        self._requests: dict[tuple[object, int], NodeRequest] = {}
        self._paces: dict[object, NodePace] = {}
        self._board = DriverBoard(board)
        self._tells: dict[object, Tell] = {}
        self._posting = Tasks()
        self._numbers = 0

    # -- ApiMeter --

    keeper = None  # the gateways of nodes repeat no requests

    @property
    def is_slow(self) -> bool:
        """Whether launches should wait: requests of a node wait for the API's rate limits."""
        return any(pace.is_slow for pace in self._paces.values())

    def pace(self) -> str | None:
        """Why requests wait for the API's rate limits; None if they do not, or not for long."""
        waiting = together(pace.waiting for pace in self._paces.values())
        return None if waiting is None else waiting.text

    def open(self, attempt: MeteredAttempt, name: str = "") -> NodeAttempt:
        """A place for one attempt, at the gateway of the node that it has a place on. Raises OSError without one."""
        node, port, tell = self._where(name)
        self._tells[node] = tell
        client = Client.with_secret(port, ApiAddress.of({**self._environ, **attempt.environ}, self._api_url), attempt)
        place = self._places[client.digest] = NodeAttempt(client, node, tell)
        self._admission.expect(len(self._places))
        tell(Open(client.digest, attempt.environ, bool(attempt.budgets) or self._limits_subagents))
        return place

    async def close(self, place: NodeAttempt) -> None:
        """The attempt has ended: its requests are broken off, and counted by what had passed."""
        place.tell(Close(place.client.digest))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await place.closed.wait()
        self._forget(place)
        self.recheck()

    def recheck(self) -> None:
        """Budgets have more room: let waiting requests proceed."""
        self._admission.recheck()

    # -- what nodes say --

    def lost(self, node: object) -> None:
        """Nothing of a node can run any more: what it had sent counts with all that it can cost.

        Where no budget limits its requests, it has sent more than it could report.
        """
        self._paces.pop(node, None)
        self._tells.pop(node, None)
        for place in [place for place in self._places.values() if place.node is node]:
            unseen = ApiUsage(self._lost_id(), NO_USAGE, whole=False, cut=True, exact=False)
            place.client.attempt.used(unseen, None)
            self._forget(place)

    def _forget(self, place: NodeAttempt) -> None:
        self._places.pop(place.client.digest, None)
        self._admission.expect(len(self._places))
        for number, request in list(place.requests.items()):
            if request.most is not None and not (request.seen is not None and request.seen.whole):
                self._charge_rest(request, request.most)
            self._settle(place.node, number)
        place.closed.set()

    def _charge_rest(self, request: NodeRequest, most: Most) -> None:
        """No more is known of a request that was sent."""
        usage = charged_unanswered(most, self._unanswered)
        if request.seen is not None:
            usage = request.seen if self._unanswered is not ChargeUnanswered.BOUND else completed(request.seen, most)
            usage = usage._replace(exact=False)
        elif not usage.id:
            usage = usage._replace(id=self._lost_id())
        request.place.client.attempt.used(usage, request.ticket.hold)

    def _lost_id(self) -> str:
        self._numbers += 1
        return f"lost-{self._numbers}"

    def take(self, node: object, message: object) -> None:
        """A message of a node's gateway."""
        match message:
            case AdmissionRequest(number, digest) if digest in self._places:
                self._decide(self._places[digest], number, message)
            case Reserve(number, digest, most) if digest in self._places:
                self._reserve(self._places[digest], number, most)
            case AdmissionRequest() | Reserve():
                return  # its attempt has ended: the node breaks the request off
            case Requested(digest) if digest in self._places:
                self._places[digest].client.attempt.requested()
            case Used(digest, number, usage) if digest in self._places:
                self._used(self._places[digest], number, usage)
            case Timed(digest, model, timing) if digest in self._places:
                self._places[digest].client.attempt.timed(model, timing)
            case Settled(number):
                self._settle(node, number)
            case Closed(digest) if digest in self._places:
                self._places[digest].closed.set()
            case NodePace():
                self._paces[node] = message
            case Post() if node in self._tells:
                self._posting.start(self._enter(node, self._tells[node], message))
            case _:
                return

    async def _enter(self, node: object, tell: Tell, post: Post) -> None:
        tell(await self._board.enter(node, post))

    def _decide(self, place: NodeAttempt, number: int, ask: AdmissionRequest) -> None:
        ticket = Ticket((), ask.input_tokens, ask.max_tokens, model=ask.model, terms=ask.terms)
        ticket.least_tokens, ticket.wanted_tokens = ask.least_tokens, ask.wanted_tokens
        ticket.growth_tokens = ask.growth_tokens
        request = NodeRequest(place, ticket)
        place.requests[number] = self._requests[place.node, number] = request
        request.deciding = asyncio.ensure_future(self._answer(place, number, request, ask))

    def _reserve(self, place: NodeAttempt, number: int, most: Most) -> None:
        """A request that no budget can refuse: it is recorded before it is sent."""
        ticket = Ticket((), 0, 0, hold=Hold((), Amount()))
        request = NodeRequest(place, ticket, most, is_watched=True)
        place.requests[number] = self._requests[place.node, number] = request
        request.deciding = asyncio.ensure_future(self._recorded(place, number, request, most))

    async def _recorded(self, place: NodeAttempt, number: int, request: NodeRequest, most: Most) -> None:
        assert request.ticket.hold is not None
        await place.client.attempt.reserve(request.ticket.hold, most)
        place.tell(Go(number, 0, None, has_hold=True))

    async def _answer(self, place: NodeAttempt, number: int, request: NodeRequest, ask: AdmissionRequest) -> None:
        client, ticket = place.client, request.ticket
        ticket.budgets = await client.attempt.budgets_of(ask.sender)
        ticket.cost = client.cost_of(ticket)
        if not ask.final and not self._admission.has_room(ticket):
            self._drop(place.node, number)
            place.tell(CountFirst(number))
            return
        why_not = await self._decider.admit(client, ticket, ask.sender)
        if why_not is not None:
            self._drop(place.node, number)
            place.tell(Refuse(number, why_not))
            return
        if ticket.hold is None:  # no budget limits it, and its node names it no more
            self._drop(place.node, number)
        request.most = most_of(ticket, self._admission.weights_of(ticket))
        place.tell(Go(number, ticket.output_tokens, ticket.cost, ticket.hold is not None))

    def _used(self, place: NodeAttempt, number: int | None, usage: ApiUsage) -> None:
        request = place.requests.get(number) if number is not None else None
        if request is not None:
            request.seen = usage
            if usage.whole and usage.exact and usage.stop_reason != "max_tokens":
                self._admission.learn(usage.usage.output_tokens)
        place.client.attempt.used(usage, None if request is None else request.ticket.hold)

    def _settle(self, node: object, number: int) -> None:
        request = self._drop(node, number)
        if request is None:
            return
        if request.deciding is not None and not request.deciding.done():
            request.deciding.cancel()  # it waited, and gives its place up
        if not request.is_watched:
            self._decider.settle(request.place.client, request.ticket)
        elif request.ticket.hold is not None:
            request.place.client.attempt.settled(request.ticket.hold)

    def _drop(self, node: object, number: int) -> NodeRequest | None:
        request = self._requests.pop((node, number), None)
        if request is not None:
            request.place.requests.pop(number, None)
        return request
