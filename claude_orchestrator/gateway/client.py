"""One attempt at an instance as the gateway knows it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.admission import Cost, Ticket
from claude_orchestrator.gateway.attempt import MeteredAttempt
from claude_orchestrator.gateway.bounds import InputBound
from claude_orchestrator.gateway.requests import TEXT_KEYS, RequestedOutput
from claude_orchestrator.gateway.sharing.kept import KeptRequest
from token_budget.models import Unit, Usage
from token_budget.pricing import of_tools, with_terms

MAX_BOUNDS = 4
REMEMBERED_BYTES = 3 * 1024 * 1024
MAX_IDS = 4_096
AS_FIRST_PARTY = (("_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL", "1"),)


@dataclass(slots=True, eq=False)
class Client:
    """An attempt, the address that it has at the gateway, and what its requests have shown so far."""

    url: str
    address: ApiAddress
    attempt: MeteredAttempt
    bounds: dict[str, InputBound] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)
    wanted_tokens: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    handlers: set[asyncio.Task[object]] = field(default_factory=set)
    digest: bytes = b""
    kept: KeptRequest | None = None  # what keeps its first prefix in the prompt cache, if that is asked for

    @classmethod
    def with_secret(cls, port: int, address: ApiAddress, attempt: MeteredAttempt) -> Client:
        """Return an address at the gateway on this port of loopback. Its URL has its own secret."""
        secret = secrets.token_urlsafe(24)
        digest = hashlib.sha256(secret.encode()).digest()
        return cls(f"http://127.0.0.1:{port}/{secret}", address, attempt, digest=digest)

    def bound(self, asked: RequestedOutput, betas: Iterable[str]) -> InputBound:
        """What earlier requests tell about this one: those with the same model and all else but the text."""
        rest = {key: value for key, value in asked.data.items() if key not in TEXT_KEYS}
        key = json.dumps([rest, list(betas)], sort_keys=True)
        found = self.bounds.pop(key, None) or InputBound()
        self.bounds[key] = found
        if len(self.bounds) > MAX_BOUNDS:
            del self.bounds[next(iter(self.bounds))]
        return found

    def learn(self, known: InputBound, body: bytes, input_tokens: int) -> None:
        """One of the bounds learns from a request. Together they remember a few megabytes, and always the latest."""
        known.learn(body, input_tokens)
        while sum(bound.size_bytes for bound in self.bounds.values()) > REMEMBERED_BYTES:
            oldest = next((bound for bound in self.bounds.values() if bound.known and bound is not known), known)
            if oldest is known and len(known.known) == 1:
                break
            oldest.forget()

    def cost_of(self, ticket: Ticket) -> Cost | None:
        """The most that a request can cost; None without a price.

        That is with all its input written to the cache for an hour, in fast mode and in the US unless the request
        rules these out, and with all uses of its web searches: the ticket's terms are the dearest that it allows.
        """
        price, model, terms = self.attempt.price, ticket.model, ticket.terms
        in_money = any(budget.unit is Unit.USD for budget in self.attempt.budgets)
        if not in_money or price is None or not model:
            return None
        most = Usage(cache_creation_input_tokens=ticket.input_tokens)
        nano = price(model, most, ticket.input_tokens)
        more = price(model, most + Usage(output_tokens=1000), ticket.input_tokens)
        if nano is None or more is None:
            return None
        return Cost(with_terms(nano, model, terms) + of_tools(terms), with_terms(more - nano, model, terms))

    def name_of(self, response_id: str, name: str) -> str:
        """A name for the response with this id that no other response has, as none has `name`."""
        name = f"{response_id}#{name}" if response_id in self.ids else response_id
        self.ids[response_id] = None
        if len(self.ids) > MAX_IDS:
            del self.ids[next(iter(self.ids))]
        return name

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables that make an instance use the gateway, and no proxy on the way to it.

        Behind a base URL of its own, claude leaves parts of its requests out. Where the API is Anthropic's, it is asked
        not to: seen in 2.1.197 and 2.1.332.
        """
        none = ",".join(filter(None, (self.address.no_proxy, "127.0.0.1")))
        own = AS_FIRST_PARTY if self.address.is_first_party else ()
        kept = tuple(pair for pair in own if pair[0] not in self.attempt.environ)
        return (*self.address.variables(self.url), ("NO_PROXY", none), ("no_proxy", none), *kept)
