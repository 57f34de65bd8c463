"""What runs with the same key tell each other of their draws on its limits. Time is a number here."""

from __future__ import annotations

import asyncio

import pytest

from claude_orchestrator.gateway.pacing.elsewhere import ASK_EVERY_S, KNOWN_AFTER_S, MOST_OWED, Elsewhere, PaceReport
from claude_orchestrator.gateway.pacing.estimate import Draw
from claude_orchestrator.gateway.pacing.limits import Reading, Resource
from claude_orchestrator.gateway.pacing.pacer import EVENLY, LONGEST_BLOCK_S, Pacer
from tests.gateway.pacing.test_pacer import ONE, known, requests
from tests.posts import Clock, Wall

NONE: Draw = dict.fromkeys(Resource, 0.0)


class Run:
    """A run with a pacer and its view of the others."""

    def __init__(self, wall: Wall, name: str, pacer: Pacer) -> None:
        self.pacer = pacer
        self.clock = wall.clock
        self.elsewhere = Elsewhere(wall.of(name), "topic", wall.clock)

    def claims(self, draw: Draw = ONE) -> bool:
        return asyncio.run(self.elsewhere.claim(self.pacer, draw))

    def sends(self) -> bool:
        done = self.claims()
        if done:
            self.pacer.send(ONE, self.clock())
        return done

    def told_left(self, drawn: float) -> dict[Resource, tuple[int, float, float]]:
        """What it tells that its limits have left."""
        now, speed = self.clock(), self.pacer.speed
        return {
            resource: (bucket.limit, bucket.level_at(now, speed) + drawn, bucket.rate)
            for resource, bucket in self.pacer.buckets.items()
        }

    def left(self, resource: Resource = Resource.REQUESTS) -> float:
        return self.pacer.buckets[resource].level_at(self.clock.now, self.pacer.speed)


@pytest.fixture
def wall() -> Wall:
    return Wall(Clock())


def test_a_draw_elsewhere_is_known_before_the_next_one_here(wall: Wall) -> None:
    one, two = Run(wall, "one", known(5)), Run(wall, "two", known(5))
    wall.clock.now = 0.5
    assert one.claims()
    wall.clock.now = 0.6
    assert not two.claims()  # it has to decide again
    assert two.left() == pytest.approx(5 + 0.6 - 1)
    assert two.claims()
    wall.clock.now = 0.5 + ASK_EVERY_S
    assert not one.claims() and one.claims()
    assert not two.claims() and two.claims()  # from now on the run reports each request before it sends it


def test_a_run_that_has_met_no_other_asks_only_now_and_then(wall: Wall) -> None:
    one = Run(wall, "one", known(5))
    assert [one.claims() for _ in range(3)] == [True] * 3 and len(wall.posts) == 1
    wall.clock.now = ASK_EVERY_S
    assert one.claims() and len(wall.posts) == 2 and not one.elsewhere.is_behind
    drawn = {**NONE, Resource.REQUESTS: 1.0}
    told = PaceReport([(ASK_EVERY_S, {**NONE, Resource.REQUESTS: 2.0}), (0.0, drawn)], left=one.told_left(-1))
    assert PaceReport.read(wall.posts[-1][3]) == told


def test_whoever_begins_beside_it_waits_until_it_is_known_and_has_heard_all(wall: Wall) -> None:
    one, two = Run(wall, "one", known(5)), Run(wall, "two", Pacer())
    assert one.sends() and one.sends()  # it has not reported the second one yet
    assert not two.claims()
    assert two.left() == 4 and two.pacer.wait_s(ONE, 0.0) == KNOWN_AFTER_S > ASK_EVERY_S
    wall.clock.now = ASK_EVERY_S
    asyncio.run(one.elsewhere.catch_up(one.pacer))
    assert one.pacer.wait_s(ONE, ASK_EVERY_S) == 0  # the others have known it for long
    wall.clock.now = KNOWN_AFTER_S
    assert not two.claims() and two.left() == pytest.approx(3 + KNOWN_AFTER_S)
    assert two.claims() and not one.claims()


def test_what_a_run_has_drawn_alone_is_told_soon_and_once(wall: Wall) -> None:
    one = Run(wall, "one", known(5))
    assert one.sends() and one.sends() and one.elsewhere.is_behind
    asyncio.run(one.elsewhere.catch_up(one.pacer))
    assert len(wall.posts) == 2 and not one.elsewhere.is_behind
    asyncio.run(one.elsewhere.catch_up(one.pacer))
    assert len(wall.posts) == 2


def test_what_cannot_be_told_stays_owed() -> None:
    class Locked:
        async def post(self, topic: str, text: str, lifetime_s: float, seen: int | None) -> None:
            return None

    elsewhere = Elsewhere(Locked(), "topic", Clock())
    elsewhere.correct(3.0, {}, ONE)
    assert asyncio.run(elsewhere.claim(known(5), ONE))
    asyncio.run(elsewhere.refused(known(5), 5.0))
    assert elsewhere.owed == {3.0: {**NONE, **ONE}}


def test_what_is_owed_has_a_bound() -> None:
    elsewhere = Elsewhere(Wall(Clock()).of("one"), "topic", Clock())
    for at in range(2 * MOST_OWED):
        elsewhere.correct(float(at), {}, ONE)
    assert len(elsewhere.owed) == MOST_OWED
    assert sum(draw[Resource.REQUESTS] for draw in elsewhere.owed.values()) == 2 * MOST_OWED


def test_a_correction_of_what_the_api_has_counted_already_is_left_out(wall: Wall) -> None:
    one, two = Run(wall, "one", known(5)), Run(wall, "two", known(5))
    assert one.claims()
    wall.clock.now = 2.0
    two.pacer.answered(two.pacer.send(ONE, 2.0), requests(2), 2.0)  # it includes the request of the other run
    one.elsewhere.correct(0.0, ONE, {Resource.REQUESTS: 0.0})
    wall.clock.now = 3.0
    assert one.claims()
    before = two.left()
    assert not two.claims() and two.left() == before - 1


def test_what_a_request_has_drawn_more_is_told_with_the_next(wall: Wall) -> None:
    tokens = Resource.INPUT
    one, two = (Run(wall, name, Pacer()) for name in ("one", "two"))
    for run in (one, two):
        run.pacer.answered(run.pacer.send({}, 0.0), [Reading(tokens, 60_000, 50_000)], 0.0)
    wall.clock.now = 1.0
    assert one.claims({tokens: 1_000.0})
    one.elsewhere.correct(1.0, {tokens: 1_000.0}, {tokens: 5_000.0})
    one.elsewhere.correct(1.0, ONE, ONE)
    wall.clock.now = 2.0
    assert one.claims({tokens: 10.0})
    two.claims({tokens: 10.0})
    assert two.left(tokens) == pytest.approx(50_000 + 2_000 - 5_010)
    assert not one.elsewhere.is_behind


def test_a_refusal_elsewhere_blocks_here_but_not_for_a_quota(wall: Wall) -> None:
    one, two = Run(wall, "one", known(50)), Run(wall, "two", known(50))
    asyncio.run(one.elsewhere.refused(one.pacer, 7.0))
    assert not two.claims() and two.pacer.wait_s(ONE, 0.0) == pytest.approx(7.0, abs=0.1)
    asyncio.run(one.elsewhere.refused(one.pacer, 86_400.0))
    assert not two.claims() and two.pacer.wait_s(ONE, 0.0) == LONGEST_BLOCK_S


def test_what_the_api_has_counted_already_is_not_drawn_twice(wall: Wall) -> None:
    one, two = Run(wall, "one", known(5)), Run(wall, "two", known(5))
    wall.clock.now = 1.0
    assert one.claims()
    wall.clock.now = 2.0
    two.pacer.answered(two.pacer.send(ONE, 2.0), requests(2), 2.0)
    assert two.left() == pytest.approx(3.0)  # the figure is rounded
    two.claims()
    assert two.left() == pytest.approx(3.0)


def test_a_figure_raises_nothing_while_others_may_be_on_their_way() -> None:
    pacer = known(5)
    pacer.drawn_elsewhere(ONE, 1.0, 1.0)
    pacer.answered(pacer.send(ONE, 1.1), requests(50), 1.2)
    assert pacer.buckets[Resource.REQUESTS].level < 5
    pacer.answered(pacer.send(ONE, 20.0), requests(50), 20.1)
    assert pacer.buckets[Resource.REQUESTS].level >= 50


ODD = (
    "",
    "nothing",
    "[]",
    "{}",
    '["a"]',
    "[null]",
    "[" * 9_999,
    "7",
    '[[[0, [1, 0, 0, "x"]]], 0, [], false]',
    "[[[0, [1e999, 0, 0, 0]]], 0, [], false]",
    "[[[0, [1, 0, 0, 0]]], 0, [null, null, null, null]]",
    "[[[1, 0]], 0, [null, null, null, null], false]",
)
NEGATIVE = "[[[0, [0, 0, 0, 0]]], 0, [[-5, 1, 1], [1, 1, 0], null, null], 1]"


@pytest.mark.parametrize("text", [*ODD, NEGATIVE])
def test_what_cannot_be_read_is_left_out(wall: Wall, text: str) -> None:
    one = Run(wall, "one", known(5))
    wall.posts.append(("topic", "two", 0.0, text, 120.0))
    assert not one.claims()
    assert one.left() == 5 and one.claims()


def test_without_a_board_every_claim_holds() -> None:
    elsewhere = Elsewhere(None, "topic", Clock())
    assert asyncio.run(elsewhere.claim(known(5), ONE))
    asyncio.run(elsewhere.refused(known(5), 5.0))


def test_a_run_that_begins_knows_the_limits_from_the_others_and_sends_no_probe(wall: Wall) -> None:
    one, two, new = Run(wall, "one", known(5)), Run(wall, "two", known(5)), Run(wall, "new", Pacer())
    wall.clock.now = 0.5
    for run in (one, two):
        while not run.claims():
            pass
        run.pacer.send(ONE, 0.5)
    wall.clock.now = 1.0
    assert not new.claims()
    assert new.pacer.known and new.left() == pytest.approx(5 + 1 - 2)
    asyncio.run(one.elsewhere.refused(one.pacer, 3.0))
    assert not new.claims() and new.pacer.wait_s(ONE, 1.0) == pytest.approx(3.0, abs=0.1)


def test_all_send_evenly_if_one_has_to(wall: Wall) -> None:
    one, two = Run(wall, "one", known(50)), Run(wall, "two", known(50))
    one.pacer.is_even = True
    assert one.sends()
    wall.clock.now = 0.3
    assert not two.claims() and two.pacer.is_even
    two.pacer.blocked_until = 0.0
    assert two.pacer.wait_s(ONE, 0.3) == pytest.approx(EVENLY - 0.3)


def test_a_refusal_alone_shows_no_limits(wall: Wall) -> None:
    one, new = Run(wall, "one", known(5)), Run(wall, "new", Pacer())
    asyncio.run(one.elsewhere.refused(one.pacer, 3.0))
    assert not new.claims() and not new.pacer.known and new.pacer.wait_s(ONE, 0.0) == pytest.approx(3.0, abs=0.1)
