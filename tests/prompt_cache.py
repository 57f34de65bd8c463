"""A stand-in API that caches prompts as the documentation says, and keeps a ledger of what it wrote and read.

https://docs.claude.com/en/docs/build-with-claude/prompt-caching: the order is tools, system, messages. A prefix up to
a block with `cache_control` is an entry, from the moment on in which the response begins whose request wrote it. It
lives for five minutes or an hour after its last use, and a prefix below a least size is not cached. Before each of its
breakpoints a request finds entries up to 20 blocks back. The billing block of Claude Code is taken out first.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.stand_in import Entry, Script, StandIn
from token_budget import Usage

LIFETIMES_S = {"5m": 300.0, "1h": 3600.0}
LEAST_TOKENS = 1024
LOOKBACK_BLOCKS = 20
BYTES_PER_TOKEN = 4
BILLING_BLOCK = "x-anthropic-billing-header"
# of a token of input, with Opus's price of input and output in nano-dollars
INPUT_NANO, OUTPUT_NANO = 5_000, 25_000
WRITE_5M, WRITE_1H, READ = 1.25, 2.0, 0.1


@dataclass(frozen=True)
class Block:
    """The end of a prefix: its hash, its tokens from the beginning on, and its lifetime if it is a breakpoint."""

    digest: bytes
    tokens: int
    lifetime: str | None = None


@dataclass
class Cached:
    """An entry of the cache."""

    tokens: int
    lifetime_s: float
    expires_at: float


@dataclass
class Asked:
    """A request as the cache sees it: what it reads, and what its response writes when it begins."""

    read_tokens: int = 0
    written: tuple[Block, ...] = ()
    tokens_by_lifetime: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0

    @property
    def written_tokens(self) -> int:
        return self.tokens_by_lifetime.total()


def blocks_of(body: Mapping[str, Any]) -> Iterator[Block]:
    """The prefixes of a request, from the shortest on."""
    digest = hashlib.sha256(str(body.get("model")).encode()).digest()
    tokens = 0
    for level, block in _parts(body):
        marker = block.get("cache_control")
        plain = json.dumps({key: value for key, value in block.items() if key != "cache_control"}, sort_keys=True)
        digest = hashlib.sha256(digest + level.encode() + plain.encode()).digest()
        tokens += max(1, len(plain) // BYTES_PER_TOKEN)
        yield Block(digest, tokens, marker.get("ttl", "5m") if marker else None)


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in body.get("tools") or ():
        yield "tools", tool
    for block in _listed(body.get("system") or []):
        if not block.get("text", "").startswith(BILLING_BLOCK):
            yield "system", block
    settings = json.dumps([body.get("thinking"), body.get("tool_choice")])
    for message in body.get("messages") or ():
        for block in _listed(message["content"]):
            yield f"{message['role']} {settings}", block


def _listed(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class PromptCache:
    """The cache of one workspace. Times are seconds."""

    def __init__(
        self, least_tokens: int = LEAST_TOKENS, lifetimes_s: Mapping[str, float] = MappingProxyType(LIFETIMES_S)
    ) -> None:
        self.least_tokens = least_tokens
        self.lifetimes_s = lifetimes_s
        self.writes: Counter[bytes] = Counter()
        self.reads: Counter[bytes] = Counter()
        self.tokens: dict[bytes, int] = {}
        self._entries: dict[bytes, Cached] = {}

    def ask(self, body: Mapping[str, Any], now: float) -> Asked:
        """A request has come: what it reads is decided now."""
        blocks = list(blocks_of(body))
        ends = [place for place, block in enumerate(blocks) if block.lifetime and block.tokens >= self.least_tokens]
        total = blocks[-1].tokens if blocks else 0
        if not ends:
            return Asked(input_tokens=total)
        found = self._find(blocks, ends, now)
        read = 0 if found is None else blocks[found].tokens
        asked = Asked(read, input_tokens=total - blocks[ends[-1]].tokens)
        before = read
        for place in ends:
            if found is None or place > found:
                block = blocks[place]
                asked.tokens_by_lifetime[block.lifetime or ""] += block.tokens - before
                before = block.tokens
                asked.written += (block,)
        return asked

    def begin(self, asked: Asked, now: float) -> None:
        """The response begins: what it writes can be read from now on."""
        for block in asked.written:
            assert block.lifetime is not None
            lifetime_s = self.lifetimes_s[block.lifetime]
            self._entries[block.digest] = Cached(block.tokens, lifetime_s, now + lifetime_s)
            self.writes[block.digest] += 1
            self.tokens[block.digest] = block.tokens

    def wasted_writes(self) -> int:
        """How many entries were written and never read."""
        return sum(not self.reads[digest] for digest in self.writes)

    def _find(self, blocks: list[Block], ends: list[int], now: float) -> int | None:
        for end in reversed(ends):
            for place in range(end, max(-1, end - LOOKBACK_BLOCKS - 1), -1):
                digest = blocks[place].digest
                entry = self._entries.get(digest)
                if entry is not None and entry.expires_at > now:
                    entry.expires_at = now + entry.lifetime_s
                    self.reads[digest] += 1
                    return place
        return None


class CachingApi(StandIn):
    """The stand-in, which bills by its prompt cache; a response begins `first_byte_s` after its request."""

    def __init__(
        self, script: Script | None = None, *, first_byte_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(script)
        self.cache = PromptCache()
        self.first_byte_s = first_byte_s
        self.begun_at: dict[int, float] = {}  # by the number of the call
        self.asked: dict[int, Asked] = {}
        self.bodies: list[dict[str, Any]] = []
        self._clock = clock

    def __enter__(self) -> CachingApi:
        super().__enter__()
        return self

    def bill(self, entry: Entry, body: dict[str, Any]) -> Usage:
        with self.lock:
            self.bodies.append(body)
            asked = self.asked[entry.index] = self.cache.ask(body, self._clock())
        self.before_first_byte()
        with self.lock:
            self.begun_at[entry.index] = now = self._clock()
            self.cache.begin(asked, now)
        one_hour = asked.tokens_by_lifetime["1h"]
        entry.details = {
            "cache_creation": {
                "ephemeral_5m_input_tokens": asked.written_tokens - one_hour,
                "ephemeral_1h_input_tokens": one_hour,
            }
        }
        return Usage(asked.input_tokens, 1, asked.written_tokens, asked.read_tokens)

    def before_first_byte(self) -> None:
        """Wait as long as the API takes."""
        self.closing.wait(self.first_byte_s)

    def billed_nano(self) -> int:
        """What all calls cost."""
        with self.lock:
            return sum(self._nano(entry) for entry in self.entries)

    def _nano(self, entry: Entry) -> int:
        if entry.status != 200 or entry.index not in self.asked:
            return 0
        usage, one_hour = entry.billed, self.asked[entry.index].tokens_by_lifetime["1h"]
        weighed = (
            usage.input_tokens
            + (usage.cache_creation_input_tokens - one_hour) * WRITE_5M
            + one_hour * WRITE_1H
            + usage.cache_read_input_tokens * READ
        )
        return round(weighed * INPUT_NANO) + usage.output_tokens * OUTPUT_NANO
