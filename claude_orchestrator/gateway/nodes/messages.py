"""What the driver's meter and a node's gateway send each other. Pure.

A `digest` stands for an attempt at an instance: it is that of the secret in the attempt's API address. A `request` is a
number that the node gives to each request that it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import Cost
from claude_orchestrator.gateway.attempt import RequestTiming
from claude_orchestrator.gateway.board import Posts
from claude_orchestrator.gateway.pacing.waiting import WaitingRequests
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import ChargeUnanswered, Most
from token_budget.api_usage import PriceTerms
from token_budget.model_weights import TokenWeights
from token_budget.named_tuples import NamedTuple

# -- from the driver --


class MeterBegin(NamedTuple):
    """How the node's gateway treats requests. `limits_subagents`: some subagents have budgets of their own.

    `rehearses`: the node has a simulated API, and no request leaves it.
    """

    enforces: bool
    weights: TokenWeights
    limits_subagents: bool = False
    share_cache_wait_s: float = 0.0
    unanswered: ChargeUnanswered | None = None
    rehearses: bool = False


class Open(NamedTuple):
    """An attempt is about to be launched. `has_budgets`: something limits its requests."""

    digest: bytes
    environ: Mapping[str, str]
    has_budgets: bool


class Close(NamedTuple):
    """The attempt has ended: its requests are broken off."""

    digest: bytes


class Go(NamedTuple):
    """A request may be sent, with so many output tokens. Without a hold, nothing limits it."""

    request: int
    output_tokens: int
    cost: Cost | None
    has_hold: bool


class CountFirst(NamedTuple):
    """The bound of a request has no room: ask again with the API's own count."""

    request: int


class Refuse(NamedTuple):
    """A budget is spent."""

    request: int
    why: str


class Posted(NamedTuple):
    """A post has been entered as number `seen`; or it has not, and these are `others`, up to that number."""

    request: int
    seen: int
    others: Posts


# -- from the node --


class AdmissionRequest(NamedTuple):
    """May this request be sent? The fields are those of a Ticket. `final`: there is no smaller bound."""

    request: int
    digest: bytes
    sender: Sender
    input_tokens: int
    max_tokens: int
    least_tokens: int
    wanted_tokens: int
    growth_tokens: int
    model: str
    terms: PriceTerms
    final: bool


class Reserve(NamedTuple):
    """A request that no budget can refuse is about to be sent. It waits for Go."""

    request: int
    digest: bytes
    most: Most


class Requested(NamedTuple):
    """A request that will be billed has come."""

    digest: bytes


class Used(NamedTuple):
    """A response has used so much in all. `request` is None for one that was not asked for."""

    digest: bytes
    request: int | None
    usage: ApiUsage


class Settled(NamedTuple):
    """A request has ended, or was given up while it waited."""

    request: int


class Timed(NamedTuple):
    """How long a request took."""

    digest: bytes
    model: str
    timing: RequestTiming


class Closed(NamedTuple):
    """The requests of an attempt have ended."""

    digest: bytes


class Post(NamedTuple):
    """What the node tells the others of the run on a topic, unless they have posted on it since number `seen`."""

    request: int
    topic: str
    text: str
    lifetime_s: float
    seen: int | None


class NodePace(NamedTuple):
    """Which requests wait for the API's rate limits on this node, and whether more instances would only wait."""

    is_slow: bool
    waiting: WaitingRequests | None
