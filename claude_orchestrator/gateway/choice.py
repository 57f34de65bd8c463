"""Which meter a run counts with: the API's own connection where that can be had, else each instance's stream."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import STREAM, MeterChoice
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.clouds import why_not_routed

EXTRA = "the extra gateway (pip install 'claude-orchestrator[gateway]')"
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")  # claude sends these to whatever base URL it is given


def not_as_it_is(leaves_out: str) -> str:
    """What the gateway costs where claude leaves this name out of its requests on the way to it."""
    return (
        f"through the gateway this claude leaves {leaves_out} out of its header anthropic-beta, and nothing else: "
        "--meter api takes the gateway, which makes budgets hard caps"
    )


def choose_meter(
    asked: str, plan: Plan, environ: Mapping[str, str], *, rehearse: bool, leaves_out: str = ""
) -> MeterChoice:
    """The meter for a run. Raises UserError where `api` is asked for and cannot be had.

    `leaves_out` is what claude leaves out of a request at any address but Anthropic's own.
    """
    if asked == "stream":
        return STREAM
    if rehearse and asked == "auto":
        return MeterChoice("stream", "a rehearsal, and --meter api rehearses the gateway too")
    if rehearse and importlib.util.find_spec("aiohttp") is not None:
        return MeterChoice("api", "a simulated API")
    against = _against(plan, environ, leaves_out, certain=asked == "api")
    if against is None:
        return MeterChoice("api")
    if asked == "api":
        raise UserError(f"--meter api: {against}")
    return MeterChoice("stream", against)


def _against(plan: Plan, environ: Mapping[str, str], leaves_out: str, *, certain: bool) -> str | None:
    """What speaks against the API meter; `certain`: only what makes it impossible."""
    if importlib.util.find_spec("aiohttp") is None:
        return f"needs {EXTRA}"
    can_sign = importlib.util.find_spec("botocore") is not None
    for spec in plan.specs:
        own = {**environ, **dict(spec.env)}
        why_not = why_not_routed(own, can_sign=can_sign)
        if why_not is not None:
            return f"{spec.name} {why_not}"
        address = ApiAddress.of(own)
        fault = address.fault()
        if fault is not None:
            return f"{spec.name}: {fault}"
        if not certain and address.cloud is None and not any(own.get(key) for key in KEYS):
            return "no API key in the environment, but --meter api can use claude's own login"
        if not certain and address.is_first_party and leaves_out:
            return not_as_it_is(leaves_out)
    return None
