"""Whatever a client sends, the API bills and a crash interrupts: no limit is passed, and each refusal has its reason.

A longer run by hand: FUZZ_EXAMPLES=2000 python -m pytest tests/gateway/test_hostile_api.py
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.in_flight import InFlight, SentRequest
from claude_orchestrator.engine.usage_delta import AttemptCosts
from claude_orchestrator.gateway.server import Gateway
from claude_orchestrator.gateway.unanswered import Most
from tests.gateway.hostile_api import HostileApi, price
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.model_weights import ModelWeights, TokenWeights, draw, parse_weights
from token_budget.models import Amount, Hold, Scope, Unit, Weights

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
PATHS = (*["/v1/messages"] * 12, "/v1/messages?beta=true", "//v1/messages", "/v1/messages/batches", "/V1/Messages")
PATHS = (*PATHS, "/v1/messages/", "/v1/x/../messages", "/v1/chat/completions", "/v1/files/../messages")
FEATURES: tuple[dict[str, Any], ...] = (
    *[{}] * 6,
    {"speed": "fast"},
    {"inference_geo": "us"},
    {"inference_geo": "global"},
    {"thinking": {"type": "enabled", "budget_tokens": 2_000}},
    {"tools": [{"name": "t", "input_schema": {"type": "object"}, "description": "d" * 900}]},
    {"tools": [{"name": "t", "defer_loading": True, "input_schema": {}, "description": "d" * 3_000}]},
    {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "m"}]},
    {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
    {"output_config": {"format": {"type": "json_schema", "schema": {"description": "s" * 2_000}}}},
    {"fallbacks": ["n"]},
    {"mcp_servers": [{"url": "https://mcp.example"}]},
    {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
)
CONTENTS: tuple[Any, ...] = (
    "plain",
    "long " * 800,
    "ü" * 300,
    [{"type": "thinking", "thinking": "t" * 3_000, "signature": "s"}],
    [{"type": "tool_reference", "tool_name": "t"}],
    [{"type": "image", "source": {"data": "iVBORw0KGgo"}}],
    [{"type": "document", "source": {"data": "JVBERi0"}}],
)


class Conversation:
    """Requests of one client: its messages grow, are cut, and change."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.messages: list[dict[str, Any]] = []

    def request(self) -> tuple[bytes, dict[str, str]]:
        """A body and its headers, in one of many spellings."""
        dice = self.dice
        if dice.random() < 0.2:
            del self.messages[: dice.randrange(len(self.messages) + 1)]
        for role in ("assistant", "user")[dice.randrange(2) :]:
            self.messages.append({"role": role, "content": dice.choice(CONTENTS)})
        data = {
            "model": dice.choice(("m", "m", "dear", "odd")),
            "max_tokens": dice.choice((300, 5_000, 64_000)),
            "messages": self.messages,
        }
        data |= dice.choice(FEATURES)
        return self._spelt(data)

    def _spelt(self, data: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        text = json.dumps(data, ensure_ascii=self.dice.random() < 0.5)
        spellings = {
            "twice": text[:-1] + ', "max_tokens": 60000}',
            "escaped": text[:-1] + ', "max\\u005ftokens": 60000}',
            "capitals": text[:-1] + ', "MAX_TOKENS": 60000}',
            "in a text": json.dumps({"system": '"max_tokens": 7', **data}),
            "a float": text.replace('"max_tokens": ', '"max_tokens": 1e9, "x": ', 1),
            "nothing": "",
        }
        spelling = self.dice.choice((*["as ever"] * 14, *spellings, "utf-16", "mark", "gzip"))
        body = spellings.get(spelling, text).encode("utf-16" if spelling == "utf-16" else "utf-8")
        headers = {"content-encoding": "gzip"} if spelling == "gzip" else {}
        return (b"\xef\xbb\xbf" + body if spelling == "mark" else body), headers


def by_model() -> ModelWeights:
    """Weights of models that differ in each kind of token."""
    known = {"dear": Weights(1, 9, 2, 1), "odd": Weights(4, 1, 1, 8, 4)}
    return ModelWeights(known.get)


@dataclass
class Charged(Metered):
    """An attempt that charges as a run does, and keeps what a journal keeps of its requests."""

    manager: TokenBudgetManager = field(default_factory=TokenBudgetManager)
    weights: TokenWeights = field(default_factory=Weights)
    journal: list[dict[str, Any]] = field(default_factory=list)
    sent: dict[Hold, tuple[SentRequest, Most]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tally = UsageTally(metered=True)
        self.costs = AttemptCosts(self.tally)
        self.price = price
        self.is_dead = False

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        self.tally.feed(usage)
        self.costs.price(price, usage)
        delta = self.costs.take_delta(self.weights)
        if delta is not None and not self.is_dead:
            self.manager.record(None, delta.amount, None, hold)
        if hold in self.sent:
            request, most = self.sent[hold]
            request.rest = most.rest(usage)
            self.journal.append({"attempt": 1, "request": request.number, **request.left.record})

    async def reserve(self, hold: Hold, most: Most) -> bool:
        if self.is_dead:
            raise asyncio.CancelledError  # it sends nothing any more
        request = SentRequest(len(self.journal) + 1, hold, most.usage.usage, most.usage.model)
        self.sent[hold] = request, most
        self.journal.append({"attempt": 1, "request": request.number, **request.left.record})
        return True

    def settled(self, hold: Hold) -> None:
        self.journal.append({"attempt": 1, "request": self.sent[hold][0].number})

    def killed(self) -> Amount:
        """What a resumed run charges for what was in flight."""
        self.is_dead, found = True, InFlight()
        for record in self.journal:
            found.note(record)
        attempts = [AttemptTotals()]
        usage = found.charge(attempts, "bound")
        return Amount(draw(self.weights, usage, dict(attempts[0].by_model)), attempts[0].cost_nano_usd or 0)


async def client_of(url: str, dice: random.Random, requests: int, answers: list[tuple[int, bytes]]) -> None:
    """Some requests, one after the other. A client may hang up at any moment."""
    conversation = Conversation(dice)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for _ in range(requests):
            body, headers = conversation.request()
            sending = session.post(url + dice.choice(PATHS), data=body, headers=headers, allow_redirects=False)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(dice.choice((10, 10, 10, 0.005, 0.02))), sending as answer:
                    answers.append((answer.status, await answer.read()))


async def run_once(seed: int) -> None:
    dice = random.Random(seed)
    limits = {Unit.TOKENS: dice.choice((8_000, 60_000, 400_000)), Unit.USD: dice.choice((10**8, 10**9, 10**10))}
    weights = parse_weights(dice.choice(("flat", "flat", "billing", "billing", "output=0.2", "cache_read=0")), by_model)
    answers: list[tuple[int, bytes]] = []
    charged = Amount()
    async with HostileApi(random.Random(seed + 1), weights) as api:
        for _ in range(dice.choice((1, 1, 2, 3))):  # starts of one run
            api.is_gone = False
            manager = TokenBudgetManager(None, "block")
            for unit, limit in limits.items():
                manager.set_budget(Scope.OVERALL, limit, unit=unit)
            manager.record(None, charged)
            attempt = Charged(manager.budgets, {"ANTHROPIC_BASE_URL": api.url}, manager=manager, weights=weights)
            async with Gateway(manager, weights) as gateway:
                place = gateway.open(attempt)
                clients = [
                    asyncio.ensure_future(client_of(place.url, random.Random(seed + n), 6, answers)) for n in range(3)
                ]
                await asyncio.wait(clients, timeout=dice.choice((20, 20, 0.05)))
                charged, api.is_gone = manager.total + attempt.killed(), True  # as it stood at the kill
                for task in clients:
                    task.cancel()
                await asyncio.wait(clients)
                await gateway.close(place)
    assert api.tokens <= limits[Unit.TOKENS], (seed, api.tokens, limits, charged)
    assert api.nano_usd <= limits[Unit.USD] + 10 * api.number, (seed, api.nano_usd, limits, charged)
    assert api.tokens <= charged.tokens, (seed, "more billed than counted", api.tokens, charged)
    for status, body in answers:
        assert status < 300 or status >= 400, (seed, status)
        if status >= 400:
            assert json.loads(body)["error"]["message"].startswith("claude-orchestrator: "), (seed, body)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_limit_is_passed_whatever_is_sent_billed_or_killed(part: int) -> None:
    for seed in range(part * EXAMPLES, (part + 1) * EXAMPLES):
        asyncio.run(run_once(seed * 1_000))
