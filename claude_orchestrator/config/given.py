"""Values as they were typed, by option or environment, and how they are read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from claude_orchestrator.config.fields import Setting
from claude_orchestrator.config.kinds import collect
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue, Kind, show_json

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was typed, and where: `option`, `environment`, or an earlier run."""

    value: Any
    origin: str


def read_given(setting: Setting, given: Given) -> Any:
    """The value that was typed. Raises UserError with every fault, after the option or variable that it came by."""
    label = setting.variable if given.origin == ENVIRONMENT else f"--{setting.option}"
    try:
        element = setting.kind.element
        if element is None:
            return setting.kind.read(given.value)
        pair = Kind(lambda text: parse_limit(str(text), element), {})
        return dict(collect(("", text, pair) for text in given.value))
    except BadValue as error:
        raise UserError(
            *(f"{label}: {place.lstrip('.') + ': ' if place else ''}{why}" for place, why in error.faults)
        ) from None


def parse_limit(text: str, kind: Kind) -> tuple[str, Any]:
    """`/cmd=LIMIT` as key and limit; the last `=` splits. Raises BadValue."""
    key, separator, limit = text.rpartition("=")
    if not separator:
        raise BadValue(("", f"expected KEY=N such as /test=50k, got {show_json(text)}"))
    if not key.strip():
        raise BadValue(("", f"the command before '=' is empty in {show_json(text)}"))
    try:
        return key.strip(), kind.read(limit.strip())
    except BadValue as error:
        raise BadValue(*((place, f"{why} in {show_json(text)}") for place, why in error.faults)) from None
