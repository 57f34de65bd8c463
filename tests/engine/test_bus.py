"""The bus of a run: order, observers that fail, and readers that are slow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.run_events import Level, Message, RunEvent


def message(text: str) -> Message:
    return Message(Level.INFO, text)


@dataclass
class Seen:
    """An observer that keeps the texts, and publishes an answer to some."""

    bus: Bus
    answers: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def observe(self, event: RunEvent) -> None:
        assert isinstance(event, Message)
        self.texts.append(event.text)
        if event.text in self.answers:
            self.bus.publish(message(self.answers[event.text]))


@dataclass
class Broken:
    def observe(self, event: RunEvent) -> None:
        raise RuntimeError("no more room")


def test_every_observer_sees_every_event_in_one_order() -> None:
    bus = Bus()
    first, second = Seen(bus, {"a": "b", "b": "c"}), Seen(bus, {"a": "d"})
    bus.attach(first)
    bus.attach(second)
    bus.publish(message("a"))
    assert first.texts == second.texts == ["a", "b", "d", "c"]


def test_an_optional_observer_that_fails_is_detached_and_reported_once() -> None:
    bus = Bus()
    seen = Seen(bus)
    bus.attach(Broken(), optional=True)
    bus.attach(seen)
    bus.publish(message("a"))
    bus.publish(message("b"))
    assert seen.texts == ["a", "Broken receives no more events because it failed: RuntimeError: no more room", "b"]


def test_an_error_in_a_required_observer_is_an_error_of_the_run() -> None:
    bus = Bus()
    bus.attach(Broken())
    with pytest.raises(RuntimeError, match="no more room"):
        bus.publish(message("a"))
    other = Seen(bus)
    bus.attach(other)
    with pytest.raises(RuntimeError):
        bus.publish(message("b"))  # and the bus is usable afterwards


def test_sync_waits_for_all_who_promise_to_keep_events() -> None:
    kept: list[str] = []

    async def keep(name: str) -> None:
        await asyncio.sleep(0)
        kept.append(name)

    async def main() -> None:
        bus = Bus()
        for name in ("journal", "ledger"):
            bus.attach(Seen(bus), sync=lambda name=name: keep(name))  # type: ignore[misc]
        await bus.sync()

    asyncio.run(main())
    assert sorted(kept) == ["journal", "ledger"]
