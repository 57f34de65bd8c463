"""Events of a run, put together for pages: of several that say the same of an instance, the last one counts. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from token_budget.named_tuples import NamedTuple

ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)
LATEST = frozenset({"usage_recorded", "activity"})  # of an instance, each replaces the one before
# the figures of the run have it, or no page shows it
DROPPED = frozenset({"request_sent", "request_settled", "request_timed", "room_changed", "starts_in"})
MOST_EVENTS = 400  # of a message: about 100 KB
Key = int | tuple[str, str]


class Numbered(NamedTuple):
    """An event with its number. Of events with the same key the last one counts. `describe` makes its JSON data."""

    number: int
    at: float
    key: Key
    describe: Callable[[], Mapping[str, Any]]


class Frame(NamedTuple):
    """What one message to all pages holds: `data` is JSON. It leads from one number to another."""

    since: int
    number: int
    data: str


class Pending:
    """Events that no page has yet: of each instance the latest, and those that change a state or tell a decision."""

    def __init__(self) -> None:
        self._events: dict[Key, Numbered] = {}
        self._number = -1

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, events: Iterable[Numbered]) -> None:
        """Take more events."""
        for event in events:
            self._events.pop(event.key, None)
            self._events[event.key] = event
            self._number = event.number

    def clear(self) -> None:
        """Forget them."""
        self._events.clear()

    def take(self, since: int, brief: Mapping[str, Any]) -> Frame:
        """One message with the oldest of them, at most `MOST_EVENTS`, and with the run's figures."""
        taken = [self._events.pop(key) for key in list(islice(self._events, MOST_EVENTS))]
        number = taken[-1].number if self._events else self._number
        events = [_shown(event) for event in taken]
        data = {"number": number, "brief": brief, "events": [event for event in events if event is not None]}
        return Frame(since, number, ENCODER.encode(data))


def _shown(event: Numbered) -> dict[str, Any] | None:
    data = event.describe()
    if data["kind"] in DROPPED:
        return None
    return {"n": event.number, "at": round(event.at, 3), **{key: data[key] for key in data if key != "budgets"}}


def sse(event: str, data: str, id: str = "") -> bytes:
    """A server-sent event. `data` is JSON, so it has no line breaks, and nothing in it can pose as another field."""
    assert "\n" not in data and "\r" not in data and not {"\n", "\r", "\0"} & set(id)
    field = f"id: {id}\n" if id else ""
    return f"event: {event}\n{field}data: {data}\n\n".encode()
