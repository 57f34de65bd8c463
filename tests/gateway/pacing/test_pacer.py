"""When requests may be sent: the limits are used, and none is sent that the API must refuse. Time is a number here."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from claude_orchestrator.gateway.pacing.estimate import Draw, Estimate, Size
from claude_orchestrator.gateway.pacing.limits import Reading, Resource
from claude_orchestrator.gateway.pacing.pacer import (
    EVENLY,
    FIRST_APART_S,
    FIRST_REQUESTS,
    LONGEST_BLOCK_S,
    NARROWER,
    PROBE_S,
    WIDER,
    WIDEST,
    Pacer,
    Sent,
)
from token_budget.models import Usage

ONE: Draw = {Resource.REQUESTS: 1}


def requests(remaining: int, limit: int = 60, reset_in_s: float | None = None) -> list[Reading]:
    return [Reading(Resource.REQUESTS, limit, remaining, reset_in_s)]


def known(remaining: int, limit: int = 60) -> Pacer:
    """A pacer after its first answer, at 0 seconds."""
    pacer = Pacer()
    pacer.answered(pacer.send(ONE, 0.0), requests(remaining, limit), 0.0)
    return pacer


def test_the_first_request_shows_the_limits_and_the_others_wait_for_it() -> None:
    pacer = Pacer()
    assert pacer.wait_s(ONE, 0.0) == 0
    first = pacer.send(ONE, 0.0)
    assert pacer.wait_s(ONE, 1.0) == PROBE_S - 1
    assert pacer.wait_s(ONE, PROBE_S) == 0  # an API that answers late, or at the end
    pacer.answered(first, [], 2.0)
    assert pacer.wait_s(ONE, 2.0) == 0  # an API without limits


def test_a_lost_first_request_leaves_its_place_to_the_next() -> None:
    pacer = Pacer()
    pacer.lost(pacer.send(ONE, 0.0))
    assert pacer.wait_s(ONE, 0.1) == 0
    pacer.send(ONE, 0.1)
    assert pacer.wait_s(ONE, 0.2) > 0


def test_a_connection_that_breaks_after_the_headers_is_no_lost_request() -> None:
    pacer = Pacer()
    sent = pacer.send(ONE, 0.0)
    pacer.answered(sent, requests(5), 0.5)
    pacer.lost(sent)
    assert pacer.on_way == 0 and pacer.known


def test_what_remains_is_sent_at_once_and_then_at_the_rate_of_the_limit() -> None:
    pacer = known(remaining=20)
    times = sent_at(pacer, 40)
    assert times[0] == FIRST_APART_S and times[19] == times[FIRST_REQUESTS - 2] < 2
    gaps = [after - before for before, after in itertools.pairwise(times[22:])]
    assert all(0.999 <= gap <= 1.1 for gap in gaps)  # 60 a minute


def sent_at(pacer: Pacer, count: int, now: float = 0.0) -> list[float]:
    """When so many requests are sent."""
    times = []
    for _ in range(count):
        now += pacer.wait_s(ONE, now)
        times.append(now)
        pacer.send(ONE, now)
    return times


def test_a_refusal_for_which_there_was_room_spreads_all_requests_evenly() -> None:
    pacer = known(remaining=50)
    pacer.refused(pacer.send(ONE, 1.0), requests(49), 1.0, 1.0)
    assert pacer.is_even and pacer.speed == 1.0
    times = sent_at(pacer, 5, now=1.0)
    assert times[0] >= 2.0
    assert [after - before for before, after in itertools.pairwise(times)] == [pytest.approx(EVENLY)] * 4
    late = pacer.send(ONE, 10.0)
    pacer.refused(pacer.send(ONE, 10.0), requests(49), 1.0, 10.1)
    wider = pacer.evenly
    assert wider == EVENLY + WIDER and pacer.speed == 1.0  # that was not far enough
    pacer.refused(late, requests(49), 1.0, 10.2)  # it was on its way before that was learned
    assert pacer.evenly == wider
    pacer.refused(pacer.send(ONE, 20.0), requests(0), 1.0, 20.1)  # its limit had no room
    assert pacer.evenly == wider and pacer.speed < 0.9


def test_requests_that_are_sent_evenly_come_closer_again_while_none_is_refused() -> None:
    pacer = known(remaining=50)
    for at in range(100, 200):
        pacer.refused(pacer.send(ONE, float(at)), requests(49), None, at + 0.1)
    assert pacer.evenly == WIDEST
    for at in range(200, 250):
        pacer.answered(pacer.send(ONE, float(at)), requests(49), at + 0.1)
    assert pacer.evenly == pytest.approx(WIDEST - 50 * NARROWER)
    pacer.evenly = EVENLY
    pacer.answered(pacer.send(ONE, 300.0), requests(49), 300.1)
    assert pacer.evenly == EVENLY


def test_the_distance_counts_from_the_moment_at_which_a_request_has_left() -> None:
    pacer = known(remaining=50)
    pacer.is_even = True
    pacer.send(ONE, 10.0)
    pacer.left(10.4)  # a new connection
    assert pacer.wait_s(ONE, 10.5) == pytest.approx(EVENLY - 0.1)
    pacer.left(10.3)  # an earlier request
    assert pacer.wait_s(ONE, 10.5) == pytest.approx(EVENLY - 0.1)


def test_an_api_with_a_large_limit_gets_the_first_requests_close_together() -> None:
    assert sent_at(known(remaining=5_000, limit=6_000), 3)[-1] == pytest.approx(0.03)


def test_a_refusal_blocks_all_for_as_long_as_the_api_says_and_slows_down() -> None:
    pacer = known(remaining=50)
    pacer.refused(pacer.send(ONE, 1.0), requests(1), 7.0, 1.0)
    assert pacer.wait_s(ONE, 1.0) == 7 and pacer.wait_s(ONE, 8.0) == 0
    assert pacer.refusals == 1 and pacer.speed < 0.9
    pacer.refused(pacer.send(ONE, 8.0), [], LONGEST_BLOCK_S + 1, 8.0)  # the quota of a subscription
    assert pacer.wait_s(ONE, 8.1) == 0


def test_others_with_the_same_key_leave_less() -> None:
    pacer = known(remaining=50)
    first, second = pacer.send(ONE, 0.0), pacer.send(ONE, 0.0)
    pacer.answered(first, requests(0), 0.5)
    assert pacer.wait_s(ONE, 0.5) > 0
    pacer.answered(second, requests(40), 0.6)  # nothing is on its way any more
    assert pacer.wait_s(ONE, 0.6) == 0


def test_a_figure_that_is_older_than_other_requests_is_corrected_by_them() -> None:
    pacer = known(remaining=10)
    early = pacer.send(ONE, 1.0)
    for _ in range(8):
        pacer.send(ONE, 1.1)
    pacer.answered(early, requests(9), 1.2)
    assert pacer.buckets[Resource.REQUESTS].level < 3


def test_a_request_larger_than_the_limit_goes_when_the_limit_is_whole() -> None:
    pacer = Pacer()
    pacer.answered(pacer.send({}, 0.0), [Reading(Resource.INPUT, 30_000, 0)], 0.0)
    assert 50 < pacer.wait_s({Resource.INPUT: 1_000_000.0}, 0.0) < 70


def test_a_wrong_estimate_is_given_back() -> None:
    pacer = Pacer()
    pacer.answered(pacer.send({}, 0.0), [Reading(Resource.INPUT, 30_000, 30_000)], 0.0)
    sent = pacer.send({Resource.INPUT: 29_000.0}, 1.0)
    assert pacer.wait_s({Resource.INPUT: 5_000.0}, 1.0) > 0
    pacer.correct(sent, {Resource.INPUT: 2_000.0}, 1.0)
    assert pacer.wait_s({Resource.INPUT: 5_000.0}, 1.0) == 0
    again = pacer.send({Resource.INPUT: 20_000.0}, 2.0)
    pacer.answered(again, [Reading(Resource.INPUT, 30_000, 1_000)], 2.0)  # the API has counted it by now
    pacer.correct(again, {Resource.INPUT: 2_000.0}, 2.0)
    assert pacer.wait_s({Resource.INPUT: 5_000.0}, 2.0) > 0


def test_a_limit_of_another_period_refills_as_its_reset_says() -> None:
    pacer = Pacer()
    pacer.answered(pacer.send({}, 0.0), requests(0, 60, reset_in_s=3600.0), 0.0)
    assert pacer.wait_s(ONE, 0.0) > 60


@pytest.mark.parametrize("reset_in_s", [None, 1.0, 60.0, 70.0])
def test_a_reset_that_is_soon_or_unknown_does_not_change_the_rate_of_a_minute(reset_in_s: float | None) -> None:
    pacer = Pacer()
    pacer.answered(pacer.send({}, 0.0), requests(0, 60, reset_in_s), 0.0)
    assert pacer.buckets[Resource.REQUESTS].rate == 1.0


def test_estimates_learn_apart_for_first_and_later_requests() -> None:
    estimate, first, later = Estimate(), Size(1_000), Size(9_000, 100)
    assert estimate.of(first)[Resource.INPUT] == 300 and estimate.of(later)[Resource.INPUT] == 30
    estimate.learn(first, Usage(input_tokens=250, output_tokens=900))
    for _ in range(30):
        estimate.learn(later, Usage(input_tokens=10, cache_read_input_tokens=2_240, output_tokens=10))
        estimate.learn(first, Usage(input_tokens=250, output_tokens=10))
    assert estimate.of(first)[Resource.INPUT] == pytest.approx(250, rel=0.01)
    assert estimate.of(later)[Resource.INPUT] == pytest.approx(10, rel=0.1)
    assert estimate.of(Size(9_000, 10))[Resource.INPUT] == 0
    estimate.learn(later, Usage(input_tokens=400))
    assert estimate.of(later)[Resource.INPUT] == 400  # more counts at once
    assert estimate.of(Size(9_000, 1_100))[Resource.INPUT] == 700  # and new text counts by its size


@dataclass
class Server:
    """Token buckets as the API has them, by the same clock."""

    limits: dict[Resource, int]
    levels: dict[Resource, float] = field(default_factory=dict)
    at: float = 0.0
    refused: int = 0

    def __post_init__(self) -> None:
        self.levels = {resource: float(limit) for resource, limit in self.limits.items()}

    def take(self, draw: Draw, now: float) -> bool:
        for resource, limit in self.limits.items():
            self.levels[resource] = min(limit, self.levels[resource] + (now - self.at) * limit / 60)
        self.at = now
        if any(self.levels[resource] < draw[resource] for resource in self.limits):
            self.refused += 1
            return False
        for resource in self.limits:
            self.levels[resource] -= draw[resource]
        return True

    def readings(self) -> list[Reading]:
        found = []
        for resource, limit in self.limits.items():
            unit = 1 if resource is Resource.REQUESTS else 1000
            found.append(Reading(resource, limit, int(self.levels[resource] // unit * unit)))
        return found


@pytest.mark.parametrize("latency_s", [0.1, 3.0])
@pytest.mark.parametrize("as_of_request", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_storm_uses_the_limits_and_is_never_refused(latency_s: float, as_of_request: bool, seed: int) -> None:
    """Answers tell the state of the limits when the request came, or when the answer began. Estimates are too high."""
    chance = random.Random(seed)
    server = Server({Resource.REQUESTS: 50, Resource.INPUT: 200_000})
    pacer, now, tokens, count = Pacer(), 0.0, 0.0, 400
    due: list[tuple[float, int, Sent, Draw, list[Reading]]] = []
    left = count
    while left or due:
        real = float(chance.randrange(500, 9_000))
        draw = {Resource.REQUESTS: 1.0, Resource.INPUT: float(real * chance.uniform(1.0, 1.5))}
        ready_at = now + pacer.wait_s(draw, now) if left else float("inf")
        if due and min(due)[0] <= ready_at:
            event = min(due)
            due.remove(event)
            now = max(now, event[0])
            pacer.answered(event[2], event[4] if as_of_request else server.readings(), now)
            pacer.correct(event[2], event[3], now)
            continue
        now = ready_at
        if pacer.wait_s(draw, now) > 1e-9:
            continue
        left -= 1
        tokens += real
        sent, drawn = pacer.send(draw, now), {Resource.REQUESTS: 1.0, Resource.INPUT: real}
        assert server.take(drawn, now), f"refused at {now:.1f} s"
        due.append((now + latency_s * chance.uniform(0.5, 1.5), left, sent, drawn, server.readings()))
    best_s = max((count - 50) / 50 * 60, (tokens - 200_000) / 200_000 * 60)
    assert server.refused == 0
    assert now < 1.02 * best_s + 2 * latency_s + 3
