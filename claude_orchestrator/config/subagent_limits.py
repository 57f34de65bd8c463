"""Limits on what each subagent of an instance may use: one for all, or by type, or by depth. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from token_budget.fields import TOKENS, BadValue, Kind, expected

if TYPE_CHECKING:
    from token_budget.portions import Subagent  # only for the types: no start of the program needs it

ANY = "*"
_DEPTH = r"depth:([1-9][0-9]?)"

SubagentLimits = tuple[tuple[str, int], ...]  # by `*`, a type, or `depth:N`


def limit_for(limits: SubagentLimits, subagent: Subagent) -> int | None:
    """The tokens that a subagent may use: the lowest limit of its type and depth, else that of all; None: any."""
    own = [limit for key, limit in limits if key in (subagent.type, f"depth:{subagent.depth}")]
    return min(own, default=dict(limits).get(ANY))


def needs_type(limits: SubagentLimits) -> bool:
    """Whether the type of a subagent decides on its limit."""
    return any(key != ANY and re.fullmatch(_DEPTH, key) is None for key, _ in limits)


def _read(value: object) -> SubagentLimits:
    if isinstance(value, dict):
        return tuple((_key(key), TOKENS.read(limit)) for key, limit in value.items())
    if not isinstance(value, str) or "=" not in value:
        return ((ANY, TOKENS.read(value)),)
    parts = [part.rpartition("=") for part in value.split(",")]
    if not all(mark for _, mark, _ in parts):  # it may be a number with a comma
        raise expected("KEY=TOKENS,… with numbers such as 20000 or 20k, and *=TOKENS for all others", value)
    found = {_key(key): TOKENS.read(limit) for key, _, limit in parts}
    if len(found) < len(parts):
        raise expected("one limit for each type or depth", value)
    return tuple(found.items())


def _key(text: object) -> str:
    key = text.strip() if isinstance(text, str) else ""
    if not key or not key.isprintable() or len(key) > 200:
        raise expected("the type of a subagent, depth:1, depth:2, … or *", text)
    if key.startswith("depth:") and re.fullmatch(_DEPTH, key) is None:
        raise BadValue(("", f"expected depth:1 to depth:99, got {key!r}"))
    return key


def _show(limits: SubagentLimits) -> str:
    return f"{limits[0][1]}" if dict(limits).keys() == {ANY} else ",".join(f"{key}={limit}" for key, limit in limits)


SUBAGENT_LIMITS = Kind(
    _read,
    {
        "anyOf": [
            TOKENS.schema,
            {"type": "string", "pattern": r"^[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*$"},
            {"type": "object", "additionalProperties": TOKENS.schema},
        ]
    },
    _show,
)
