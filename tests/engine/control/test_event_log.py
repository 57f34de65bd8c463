"""Numbered events: history, gaps, and readers of different speeds."""

from __future__ import annotations

import asyncio

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.control.event_json import kind_of
from claude_orchestrator.engine.control.event_log import MAX_EVENTS, Entry, EventLog, Gap
from claude_orchestrator.engine.run_events import Changed, Level, Message, RunEnded


def numbers(found: list[Entry] | Gap) -> list[int] | Gap:
    return found if isinstance(found, Gap) else [entry.number for entry in found]


def message(text: str) -> Message:
    return Message(Level.INFO, text)


def test_a_reader_starts_with_a_gap_and_then_misses_nothing() -> None:
    async def main() -> None:
        bus = Bus()
        log = EventLog(bus, "run/1")
        bus.publish(message("nobody reads"))
        reader = log.follow(-1)
        assert await anext(reader) == Gap(0)
        bus.publish(message("a"))
        bus.publish(Changed())
        bus.publish(message("b"))
        assert numbers(await anext(reader)) == [1, 2]
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        bus.publish(RunEnded(0))
        assert numbers(await waiting) == [3]
        await reader.aclose()
        assert not log._waiting

    asyncio.run(main())


def test_a_reader_that_returns_continues_where_it_was() -> None:
    bus = Bus()
    log = EventLog(bus, "run/1")
    log.attach()
    for number in range(5):
        bus.publish(message(str(number)))
    assert numbers(log.after(3)) == [4, 5]
    assert numbers(log.after(5)) == []
    assert log.after(6) == log.after(-1) == Gap(5)

    async def main() -> None:
        same, other = log.follow(3, "run/1"), log.follow(3, "run/2")
        assert numbers(await anext(same)) == [4, 5]
        assert await anext(other) == Gap(5)
        await same.aclose()
        await other.aclose()

    asyncio.run(main())


def test_history_is_bounded_and_a_reader_behind_it_gets_a_gap() -> None:
    bus = Bus()
    log = EventLog(bus, "run/1")
    log.attach()
    for number in range(MAX_EVENTS + 10):
        bus.publish(message(str(number)))
    assert log.after(9) == Gap(MAX_EVENTS + 10)
    assert numbers(log.after(10)) == list(range(11, MAX_EVENTS + 11))


def test_the_text_of_an_event_is_made_once() -> None:
    made: list[str] = []
    entry = Entry(7, 1.23456, message("a"))

    def describe(event: object) -> dict[str, object]:
        made.append("x")
        return {"kind": "message", "text": "a"}

    assert entry.text(describe) == entry.text(describe) == '{"number":7,"at":1.235,"kind":"message","text":"a"}'
    assert made == ["x"]


def test_kinds_are_the_names_of_the_types() -> None:
    assert kind_of(RunEnded(0)) == "run_ended"
    assert kind_of(message("a")) == "message"
