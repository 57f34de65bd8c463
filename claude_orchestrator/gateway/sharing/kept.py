"""The smallest request that reads what other conversations share with an earlier one, so that the API keeps it. Pure.

The API reads and so refreshes the prefix of tools and system prompt if these, the model, `thinking` and the effort are
the same: see https://docs.claude.com/en/docs/build-with-claude/prompt-caching. What the messages are does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from claude_orchestrator.gateway.sharing.prefixes import Prefix
from token_budget.named_tuples import NamedTuple

LEAST_OUTPUT_TOKENS = 1  # 0 is refused for streams and for some settings, and costs nearly as much
MESSAGES = [{"role": "user", "content": "."}]


class KeptRequest(NamedTuple):
    """A request to the API that reads a prefix. `headers` hold the credentials of its instance, in memory only."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    prefix: Prefix


def kept_request(
    path: str, headers: Mapping[str, str], body: bytes, prefixes: tuple[Prefix, ...]
) -> KeptRequest | None:
    """The request that reads the longest prefix of this one that others share; None where there is none.

    A request with a fixed thinking budget cannot be short, because its answer has to be longer than that budget. If it
    thought in another way, it could miss the tools and the system prompt, too, depending on the model:
    see https://platform.claude.com/docs/en/build-with-claude/thinking.
    """
    common = [prefix for prefix in prefixes if prefix.common]
    if not common:
        return None
    data = json.loads(body)  # it was read before
    thinking = data.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        return None
    data.update(messages=MESSAGES, max_tokens=LEAST_OUTPUT_TOKENS)
    data.pop("cache_control", None)  # it would write the messages, too
    return KeptRequest(path, tuple(headers.items()), json.dumps(data, separators=(",", ":")).encode(), common[-1])
