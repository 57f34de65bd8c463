"""How many input tokens a request can have at most. Pure.

A token is at least one byte of the body. Images, tools that the API describes itself, and tools that the API runs add
tokens that the body does not show.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from token_budget.api_usage import PriceTerms

IMAGE_TOKENS = 5_000  # an image is scaled down to at most about 1.6 to 4.8 thousand tokens, however few its bytes
SERVER_TOOL_TOKENS = 20_000  # what a search or a fetch by the API itself may add, for each use
OVERHEAD_TOKENS = 700  # the API's own system prompt for tools (346 to 700 tokens, by model)
SEAM_TOKENS = 16  # where old and new text meet, tokens may be cut otherwise
CLOSE_BYTES = 1_024  # of new text: no other earlier body need be looked at
REMEMBERED_BODIES = 16
LARGEST_BYTES = 8 * 1024 * 1024  # a context of a million tokens has about half as many
CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")  # of the API's own, run by the client
WEB_TOOLS = ("web_search_", "web_fetch_")  # the API keeps to their `max_uses`
CLIENT_TOOL_TOKENS = 1_500  # what the API writes for one of them
SERVER_TOOL_USES = 8  # as Claude Code limits them
NOT_ADDITIVE = re.compile(rb'"type"\s*:\s*"(?:thinking|redacted_thinking|tool_reference)"')
UNBOUNDED = re.compile(rb'"type"\s*:\s*"(?:document|url|file|container_upload)"')


@dataclass(slots=True)
class InputBound:
    """Bounds the input of one instance's requests by their bytes, and by what earlier ones exactly had.

    A token is at least one byte of the body. Of an earlier body with a known count only what is new needs a bound:
    a conversation grows by its last answer and tool results.
    """

    known: deque[tuple[bytes, int]] = field(default_factory=deque)

    @property
    def size_bytes(self) -> int:
        """How much it remembers."""
        return sum(len(body) for body, _ in self.known)

    def of(self, body: bytes) -> int:
        """An upper bound in tokens; documents and what is only referred to are not bounded by it (`is_bounded`)."""
        least = _of_bytes(body)
        for old, tokens in self.known:  # the latest first
            if tokens < least:
                new = _beyond(old, body)
                # two images may begin and end alike: what differs then does not show that it is one
                images = 2 * IMAGE_TOKENS if b'"image"' in body else 0
                least = min(least, tokens + SEAM_TOKENS + _of_new(new) + images)
                if len(new) < CLOSE_BYTES:
                    break
        return least

    def learn(self, body: bytes, input_tokens: int) -> None:
        """A request with this body had exactly so many input tokens, cached ones included.

        An earlier body that this one continues is not needed any more.
        """
        if len(body) > LARGEST_BYTES:
            return
        earlier = next((one for one in self.known if len(_beyond(body, one[0])) < CLOSE_BYTES), None)
        if earlier is not None:
            self.known.remove(earlier)
        self.known.appendleft((body, input_tokens))
        if len(self.known) > REMEMBERED_BODIES:
            self.forget()

    def forget(self) -> None:
        """Forget the oldest body."""
        self.known.pop()


def adds_up(body: bytes) -> bool:
    """Whether a longer conversation costs at most what is new in it beside an earlier one.

    The API leaves out earlier thinking in some requests and counts it in others, and it counts a deferred tool once
    something refers to it.
    """
    return NOT_ADDITIVE.search(body) is None


def is_bounded(body: bytes) -> bool:
    """Whether the body's bytes bound its tokens: not with documents (compressed) or things named by reference."""
    return UNBOUNDED.search(body) is None


def by_server_tools(data: dict[str, object]) -> int:
    """What tools that the API itself runs or describes may add to a request's input, beyond what its bytes tell."""
    own = _own_tools(data)
    described = sum(kind.startswith(CLIENT_TOOLS) for kind, _ in own)
    counted = [uses for kind, uses in own if kind.startswith(WEB_TOOLS) and uses is not None]
    served = len(own) > described + len(counted) or bool(data.get("mcp_servers")) or bool(data.get("container"))
    uses = sum(counted) + SERVER_TOOL_USES * served
    return CLIENT_TOOL_TOKENS * described + SERVER_TOOL_TOKENS * uses


def dearest_terms(data: dict[str, object]) -> PriceTerms:
    """The dearest terms that a request allows. The place of inference is the workspace's where it names none."""
    uses = sum(uses or SERVER_TOOL_USES for kind, uses in _own_tools(data) if kind.startswith("web_search_"))
    return PriceTerms(
        speed="" if data.get("speed") in (None, "standard") else "fast",
        inference_geo="" if data.get("inference_geo") == "global" else "us",
        server_tools=(("web_search_requests", uses),) if uses else (),
    )


def _own_tools(data: dict[str, object]) -> list[tuple[str, int | None]]:
    """The types of the tools that are the API's own, with the most uses for one request that each one states."""
    tools = data.get("tools")
    given = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [(str(tool["type"]), _max_uses(tool)) for tool in given if tool.get("type") not in (None, "custom")]


def _max_uses(tool: dict[str, object]) -> int | None:
    uses = tool.get("max_uses")
    return uses if isinstance(uses, int) and not isinstance(uses, bool) and uses > 0 else None


def _of_bytes(body: bytes) -> int:
    return OVERHEAD_TOKENS + _of_new(body)


def _beyond(old: bytes, body: bytes) -> bytes:
    """What stands in the body between the beginning and the end that it has in common with an older one."""
    same = common(old, body)
    return body[same : len(body) - common_end(old[same:], body[same:])]


def _of_new(part: bytes) -> int:
    return len(part) + IMAGE_TOKENS * part.count(b'"image"')


def common(a: bytes, b: bytes) -> int:
    """The length of the common beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_end(a: bytes, b: bytes) -> int:
    """The length of the common end."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle - 1
    return low
