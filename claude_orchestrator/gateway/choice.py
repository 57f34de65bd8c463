"""Which meter a run counts with: the API's own connection where that can be had, else each instance's stream."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import STREAM, Meter
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.address import ApiAddress

EXTRA = "the extra gateway (pip install 'claude-orchestrator[gateway]')"
# providers that claude talks to without ANTHROPIC_BASE_URL
CLOUDS = {
    "CLAUDE_CODE_USE_BEDROCK": "Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Vertex",
    "CLAUDE_CODE_USE_FOUNDRY": "Foundry",
    "CLAUDE_CODE_USE_MANTLE": "Bedrock",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS": "Claude on AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD": "Claude on Google Cloud",
    "CLAUDE_CODE_USE_GATEWAY": "a gateway of its own",
    "ANTHROPIC_UNIX_SOCKET": "a Unix socket",
    "CLAUDE_CODE_ENABLE_PROXY_AUTH_HELPER": "a helper for its proxy's authentication",
}
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")  # claude sends these to whatever base URL it is given


def choose_meter(asked: str, plan: Plan, environ: Mapping[str, str], *, rehearse: bool) -> Meter:
    """The meter for a run. Raises UserError where `api` is asked for and cannot be had."""
    if asked == "stream":
        return STREAM
    if rehearse and asked == "auto":
        return Meter("stream", "a rehearsal, and --meter api rehearses the gateway too")
    if rehearse and importlib.util.find_spec("aiohttp") is not None:
        return Meter("api", "a simulated API")
    against = _against(plan, environ, certain=asked == "api")
    if against is None:
        return Meter("api")
    if asked == "api":
        raise UserError(f"--meter api: {against}")
    return Meter("stream", against)


def _against(plan: Plan, environ: Mapping[str, str], *, certain: bool) -> str | None:
    """What speaks against the API meter; `certain`: only what makes it impossible."""
    if importlib.util.find_spec("aiohttp") is None:
        return f"needs {EXTRA}"
    for spec in plan.specs:
        own = {**environ, **dict(spec.env)}
        cloud = next((name for variable, name in CLOUDS.items() if own.get(variable, "0") not in ("", "0")), None)
        if cloud is not None:
            return f"{spec.name} uses {cloud}, which the gateway does not route"
        fault = ApiAddress.of(own).fault()
        if fault is not None:
            return f"{spec.name}: {fault}"
        if not certain and not any(own.get(key) for key in KEYS):
            return "no API key in the environment, but --meter api can use claude's own login"
    return None
