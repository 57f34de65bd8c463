"""When calls keep the shared prompt cache warm, and when no more are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.journal_history import read_history
from claude_orchestrator.engine.journal_records import record_of
from claude_orchestrator.engine.metering import Metering
from claude_orchestrator.engine.ports import CacheKeeper
from claude_orchestrator.engine.refused_request import RefusedRequest
from claude_orchestrator.engine.run_context import Clock, RunContext, Services
from claude_orchestrator.engine.run_events import Launched, Message, RunEvent, RunStarted, UsageRecorded
from claude_orchestrator.engine.sharing.cache_keeping import CacheKeeping
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.gateway.attempt import MeteredAttempt, RequestTiming
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.sharing.kept import KeptRequest
from claude_orchestrator.gateway.sharing.prefixes import Prefix
from tests.engine.test_state import an_instance
from tests.limits import HUNG_S
from tests.scripted import Script
from token_budget import TokenBudgetManager
from token_budget.models import Amount, Budget, Hold, Scope, Unit, Usage
from token_budget.portions import CACHE_KEEPING

READ, MODEL = Usage(7, 1, 0, 9_700), "claude-opus-4-8"
KEPT = KeptRequest("/v1/messages", (), b"{}", Prefix(b"tools and system", common=True))
FIRST = Usage(10, 50, 12_000, 0)


@dataclass(eq=False)
class Place:
    attempt: MeteredAttempt
    waiting: int = 0
    kept: KeptRequest | None = None
    env: tuple[tuple[str, str], ...] = ()


@dataclass
class Api:
    """A meter that can repeat requests, and an API that answers at once, or when `answers` is set."""

    now: float = 0.0
    until: float = 0.0  # when the entry of the cache expires
    status: int = 200
    usage: Usage = READ
    refusal: BudgetRefusal | None = None
    calls: list[float] = field(default_factory=list)
    closed: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    answers_at_once: bool = True
    held_back: bool = False
    is_slow: bool = False

    @property
    def keeper(self) -> CacheKeeper:
        return self

    def pace(self) -> str | None:
        return None

    def open(self, attempt: MeteredAttempt, name: str = "") -> Place:
        return Place(attempt)

    async def close(self, place: Place) -> None:
        self.closed += 1

    def recheck(self) -> None:
        pass

    def kept_of(self, place: Place) -> KeptRequest | None:
        return place.kept

    def readable_s(self, kept: KeptRequest) -> float:
        return self.until - self.now

    async def keep(self, place: Place, kept: KeptRequest) -> int:
        attempt = place.attempt
        attempt.requested()
        if self.refusal is not None:
            attempt.refused(self.refusal, Sender())
            return 400
        place.waiting += self.held_back
        self.asked.set()
        if not self.answers_at_once:
            await self.answers.wait()
        self.calls.append(self.now)
        if self.status == 200:
            attempt.admitted(Sender())
            assert await attempt.budgets_of(Sender()) == attempt.budgets
            attempt.used(ApiUsage(f"keep-{len(self.calls)}", self.usage, whole=True, model=MODEL, agent="forged"), None)
            attempt.timed(MODEL, RequestTiming(200, 0.1, 0.1))
            self.until = self.now + KEPT.prefix.lifetime_s
        return self.status


class Run:
    """One instance that has had a response, or has ended, and one that waits for it."""

    def __init__(self, *, budget: Budget | None = None, price: Any = None, starts_in_s: float = 0.0) -> None:
        self.api, self.bus, self.events = Api(until=300.0), Bus(), []
        self.bus.attach(self)
        self.manager = TokenBudgetManager(10_000_000)
        clock = Clock(monotonic=lambda: self.api.now)
        services = Services(meter=self.api, price=price)
        self.context = RunContext(Settings(), Script(), self.manager, self.bus, services, clock)
        spec = an_instance("/a").spec
        self.first, self.second = (InstanceStatus(spec._replace(name=name)) for name in "ab")
        self.keeping = CacheKeeping(self.context, self.api, [self.first, self.second], lambda status: starts_in_s)
        self.metering = self._begin(self.first)
        self.place: Place = self.metering.place  # type: ignore[assignment]

    events: list[RunEvent]

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    @property
    def said(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message)]

    def _begin(self, status: InstanceStatus) -> Metering:
        hold = Hold((), Amount())
        status.begin(0.0)

        def record(hold: Hold | None, subagent: Budget | None, sent: object) -> None:
            delta = status.attempt.costs.take_delta(self.context.settings.token_weights)
            if delta is not None:
                self.manager.record(status.spec.base_command, delta.amount, status.name, hold, subagent)
                self.bus.publish(UsageRecorded(status, delta))

        metering = Metering(self.context, self.api, status, hold, record, RefusedRequest(lambda refused: None))
        self.keeping.began(metering, status)
        self.bus.publish(Launched(status, hold))
        return metering

    def respond(self, *, ends: bool = True) -> None:
        self.place.kept = KEPT
        self.metering.used(ApiUsage("first", FIRST, whole=True, model=MODEL), None)
        if ends:
            self.first.finish(1.0, 0, "")

    async def check_at(self, now: float) -> float:
        self.api.now = now
        pause_s = self.keeping.check()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return pause_s


def running(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), HUNG_S))


def test_a_call_is_made_shortly_before_the_api_drops_the_entry() -> None:
    async def test() -> None:
        run = Run()
        assert await run.check_at(10.0) == 1.0 and not run.api.calls  # no response yet
        run.respond()
        assert await run.check_at(269.5) == 0.5
        await run.check_at(270.0)
        assert run.api.calls == [270.0] and run.api.until == 570.0
        await run.check_at(539.0)
        await run.check_at(540.5)
        assert run.api.calls == [270.0, 540.5]
        assert run.said == [
            "the shared prompt cache is kept warm for 1 instance that waits: each call reads about 10,000 tokens"
        ]

    running(test)


def test_a_call_is_charged_to_the_attempt_that_it_repeats_as_its_own_source() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        await run.check_at(270.0)
        by_source = {portion.source: spent.usage for portion, spent in run.first.tally.by_portion.items()}
        assert by_source == {"main": FIRST, CACHE_KEEPING: READ}
        assert run.first.usage == FIRST + READ and run.first.exact
        assert run.manager.overall is not None and run.manager.overall.used == run.first.total_tokens
        header = RunStarted({"number": 1, "instances": [{"name": "a", "base_command": "/a", "turns": ""}]})
        found = [record for event in (header, *run.events) if (record := record_of(event)) is not None]
        records = [{"n": n, "at": 0.0, "kind": kind, **fields} for n, (kind, fields) in enumerate(found, 1)]
        history = read_history(records)
        assert history.instances["a"].usage == run.first.usage and history.instances["a"].exact
        assert history.damaged_lines == 0 and run.api.closed == 1

    running(test)


def test_calls_end_when_they_would_cost_more_than_writing_again() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        for _ in range(20):
            await run.check_at(max(run.api.now, run.api.until - 30.0))
        assert len(run.api.calls) == 11
        cost = 11 * READ.cache_read_input_tokens
        assert cost < 11.5 * READ.cache_read_input_tokens <= cost + READ.cache_read_input_tokens
        assert run.said[-1].endswith("not kept warm: another call would cost more than writing it again")
        run.api.until = run.api.now + 300.0  # an instance has read it
        await run.check_at(run.api.now + 270.0)
        assert len(run.api.calls) == 12

    running(test)


def test_a_call_that_had_to_write_is_the_last_one() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        run.api.usage = Usage(7, 1, 9_700, 0)
        for _ in range(3):
            await run.check_at(max(run.api.now, run.api.until - 30.0))
        assert len(run.api.calls) == 1

    running(test)


@pytest.mark.parametrize(("starts_in_s", "calls"), [(0.0, 1), (20.0, 0), (600.0, 1), (3_600.0, 0)])
def test_a_wait_that_is_known(starts_in_s: float, calls: int) -> None:
    """An instance that starts in time needs no call, and for a long wait writing again costs less."""

    async def test() -> None:
        run = Run(starts_in_s=starts_in_s)
        run.respond()
        await run.check_at(270.0)
        assert len(run.api.calls) == calls

    running(test)


def test_no_call_is_made_when_nobody_waits_or_the_entry_is_gone() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        await run.check_at(300.0)
        assert not run.api.calls  # it would write
        run.api.until = 600.0
        run.second.skip(State.BLOCKED, "no room")
        await run.check_at(590.0)
        assert not run.api.calls

    running(test)


def test_one_that_has_started_waits_until_its_response_begins() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        second = run._begin(run.second)
        await run.check_at(270.0)
        assert run.api.calls == [270.0]
        second.used(ApiUsage("second", FIRST, whole=True, model=MODEL), None)
        await run.check_at(540.0)
        assert run.api.calls == [270.0]

    running(test)


def test_an_instance_that_runs_can_be_repeated_but_no_attempt_before_a_retry() -> None:
    async def test() -> None:
        run = Run()
        run.respond(ends=False)
        await run.check_at(270.0)
        assert run.api.calls == [270.0] and run.first.tally.exact
        run.first.prepare_retry()
        run.first.state = State.WAITING
        await run.check_at(540.0)
        assert run.api.calls == [270.0]

    running(test)


def test_an_attempt_that_ends_waits_for_a_call_that_was_sent() -> None:
    async def test() -> None:
        run = Run()
        run.respond(ends=False)
        run.api.answers_at_once = False
        await run.check_at(270.0)
        ending = asyncio.ensure_future(run.metering.close())
        await asyncio.sleep(0)
        assert not ending.done()
        run.api.answers.set()
        await ending
        assert run.first.usage == FIRST + READ and run.api.closed == 3  # the call's place twice, and the attempt's

    running(test)


def test_another_instance_is_kept_apart() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        spec: LaunchSpec = run.second.planned
        run.second.planned = run.second.attempt.spec = spec._replace(argv=(*spec.argv, "--model=haiku"))
        await run.check_at(270.0)
        assert not run.api.calls

    running(test)


def test_a_budget_that_refuses_ends_the_calls() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        spent = Budget(10, scope=Scope.OVERALL, used=9)
        run.api.refusal = BudgetRefusal(spent, 5_000)
        await run.check_at(270.0)
        run.api.refusal = None
        await run.check_at(280.0)
        assert not run.api.calls and run.first.usage == FIRST
        assert run.said[-1].startswith("the shared prompt cache is not kept warm any longer: ")

    running(test)


@pytest.mark.parametrize(("status", "calls"), [(401, 1), (429, 2), (500, 2), (0, 2)])
def test_an_api_that_fails(status: int, calls: int) -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        run.api.status = status
        await run.check_at(270.0)
        await run.check_at(275.0)  # too early to try again
        assert len(run.api.calls) == 1
        await run.check_at(278.0)
        assert len(run.api.calls) == calls
        assert (f"the API answers with status {status}" in run.said[-1]) is (calls == 1)

    running(test)


def test_without_a_price_nothing_is_spent_of_a_budget_in_money() -> None:
    async def test() -> None:
        run = Run(price=lambda model, usage, written: None)
        run.respond()
        run.manager.budgets[0].unit = Unit.USD
        await run.check_at(270.0)
        assert not run.api.calls and "no known price" in run.said[-1]

    running(test)


def test_a_stop_drops_what_waits_and_lets_end_what_was_sent() -> None:
    async def test() -> None:
        for held_back in (True, False):
            run = Run()
            run.respond()
            run.api.now, run.api.answers_at_once, run.api.held_back = 270.0, False, held_back
            async with run.keeping:
                await run.api.asked.wait()
                run.keeping.stop()
                run.api.answers.set()
            assert len(run.api.calls) == (not held_back)
            assert run.api.closed == 1
            await run.check_at(280.0)
            assert len(run.api.calls) == (not held_back)

    running(test)


def test_an_error_of_the_program_itself_is_not_lost() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        run.api.now = 270.0

        def broken(kept: KeptRequest) -> float:
            run.api.asked.set()
            raise RuntimeError("a bug")

        run.api.readable_s = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="a bug"):
            async with run.keeping:
                await run.api.asked.wait()

    running(test)


def test_instances_are_looked_at_once_for_all_groups_that_are_due() -> None:
    async def test() -> None:
        run = Run()
        run.respond()
        looks: list[int] = []

        class Counted(list[InstanceStatus]):
            def __iter__(self) -> Iterator[InstanceStatus]:
                looks.append(1)
                return super().__iter__()

        run.keeping._instances = Counted([run.first, run.second])
        await run.check_at(200.0)
        assert not looks
        await run.check_at(270.0)
        assert len(looks) == 1 and run.api.calls == [270.0]

    running(test)
