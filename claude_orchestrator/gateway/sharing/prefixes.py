"""The prefixes of a request that the API caches: what ends with each of its breakpoints. Pure.

The order is tools, system prompt, messages; see https://docs.claude.com/en/docs/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from token_budget.named_tuples import NamedTuple

MAX_BODY_BYTES = 1024 * 1024  # a longer conversation has been cached before
LEAST_PREFIX_BYTES = 3 * 1024  # the API caches nothing below 1,024 tokens
LEVELS = TOOLS, SYSTEM = "tools", "system"  # before the messages
BILLING_BLOCK = "x-anthropic-billing-header"  # of Claude Code: the API takes it out


class Lifetimes(NamedTuple):
    """How long the API keeps a prefix after its last use: as a rule, and where a request asks for an hour."""

    short_s: float = 300.0
    long_s: float = 3600.0


LIFETIMES = Lifetimes()


class Prefix(NamedTuple):
    """A beginning of a request, up to a breakpoint, and how long the API keeps it after its last use.

    `common`: it ends before the messages, so other conversations have it too. `for_an_hour`: the request asks for that.
    """

    digest: bytes
    lifetime_s: float = LIFETIMES.short_s
    common: bool = False
    for_an_hour: bool = False


def prefixes_of(body: bytes, account: str, lifetimes: Lifetimes = LIFETIMES) -> tuple[Prefix, ...]:
    """The prefixes of a request by an account, from the shortest on; none where it cannot be read."""
    if len(body) > MAX_BODY_BYTES or b'"cache_control"' not in body:
        return ()
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    return tuple(_prefixes(data, account, lifetimes)) if isinstance(data, dict) else ()


def _prefixes(data: dict[str, object], account: str, lifetimes: Lifetimes) -> Iterator[Prefix]:
    digest, size_bytes = hashlib.sha256(f"{account} {data.get('model')}".encode()), 0
    for level, block in _blocks(data):
        marker = block.pop("cache_control", None)
        plain = f"{level}{json.dumps(block)}".encode()
        digest.update(plain)
        size_bytes += len(plain)
        if marker and size_bytes >= LEAST_PREFIX_BYTES:
            is_long = isinstance(marker, dict) and marker.get("ttl") == "1h"
            lifetime_s = lifetimes.long_s if is_long else lifetimes.short_s
            yield Prefix(digest.copy().digest(), lifetime_s, level in LEVELS, is_long)


def _blocks(data: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    for tool in _listed(data.get("tools")):
        yield TOOLS, tool
    for block in _listed(data.get("system")):
        if not str(block.get("text", "")).startswith(BILLING_BLOCK):
            yield SYSTEM, block
    # these change nothing before the messages
    settings = json.dumps([data.get("thinking"), data.get("tool_choice")])
    messages = data.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            for block in _listed(message.get("content")):
                yield f"{message.get('role')} {settings}", block


def _listed(content: object) -> Iterator[dict[str, object]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict))
