"""Leases by values: whatever the network does, the driver never believes too early that a node's work has ended."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.launch.cluster.leases import DRIFT, END_S, DriverLease, NodeLease

LEASE_S = 10.0


def test_a_renewal_extends_the_lease_from_its_token_on() -> None:
    node = NodeLease(LEASE_S, 100.0)
    assert node.ends_at_s == 110.0
    assert node.renew(104.0) == 114.0
    assert node.renew(102.0) == 114.0  # it was late on its way, and shortens nothing


def test_the_driver_counts_from_the_token_that_it_has_returned() -> None:
    lease = DriverLease(LEASE_S, 100.0, 7.0)
    assert lease.every_s == 2.0
    assert lease.surely_ended_at_s == 7.0 + LEASE_S * (1 + DRIFT) + END_S
    lease.answered(102.0, 9.0)
    assert lease.surely_ended_at_s == 7.0 + LEASE_S * (1 + DRIFT) + END_S  # the node has not got it back
    assert lease.renewal() == 102.0
    assert lease.surely_ended_at_s == 9.0 + LEASE_S * (1 + DRIFT) + END_S


def test_an_old_answer_changes_nothing() -> None:
    lease = DriverLease(LEASE_S, 100.0, 7.0)
    lease.answered(104.0, 11.0)
    lease.answered(102.0, 12.0)
    assert lease.renewal() == 104.0


@pytest.mark.parametrize(("now_s", "ended"), [(16.9, False), (17.0, True), (30.0, True)])
def test_without_an_answer_the_lease_has_ended(now_s: float, ended: bool) -> None:
    assert DriverLease(LEASE_S, 100.0, 7.0).has_ended(now_s) is ended


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30), st.booleans(), st.booleans()), max_size=30))
def test_the_driver_never_believes_too_early_that_a_lease_has_ended(
    trips: list[tuple[float, float, bool, bool]],
) -> None:
    """Renewals and answers take any time, overtake each other, and are lost. Both clocks run alike; they differ by
    1,000 s. All messages are delivered in the order of their times."""
    offset_s = 1000.0
    node, driver = NodeLease(LEASE_S, offset_s), DriverLease(LEASE_S, offset_s, 0.5)
    number = itertools.count()
    todo: list[tuple[float, int, str, float, tuple[float, bool]]] = []
    for index, (there_s, back_s, arrives, returns) in enumerate(trips):
        sent_s = 0.5 + 2.0 * (index + 1)
        todo.append((sent_s, next(number), "send", there_s if arrives else -1.0, (back_s, returns)))
    while todo:
        todo.sort()
        now_s, _, what, value, (back_s, returns) = todo.pop(0)
        if what == "send":
            token_s = driver.renewal()
            if value >= 0:
                todo.append((now_s + value, next(number), "arrive", token_s, (back_s, returns)))
        elif what == "arrive":
            if now_s + offset_s < node.ends_at_s:  # otherwise the agent has ended
                node.renew(value)
                if returns:
                    todo.append((now_s + back_s, next(number), "answer", now_s + offset_s, (0.0, False)))
        else:
            driver.answered(value, now_s)
        assert node.ends_at_s - offset_s <= driver.surely_ended_at_s - END_S
