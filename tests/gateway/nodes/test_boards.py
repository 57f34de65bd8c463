"""What the nodes of a run tell each other by its driver. Time is a number where no server runs."""

from __future__ import annotations

import asyncio

import pytest

from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.nodes import boards
from claude_orchestrator.gateway.nodes.boards import MOST_TOPICS, DriverBoard, NodeBoard
from claude_orchestrator.gateway.nodes.messages import MeterBegin, Post, Posted
from tests.gateway.nodes.wires import sites
from tests.gateway.pacing.test_gate import ask
from tests.gateway.test_server import until
from tests.limited_api import LimitedApi
from tests.limits import HUNG_S
from tests.metered import Metered
from tests.posts import Clock, Wall
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

LIFETIME_S = 60.0


class Driver:
    """A driver whose clock is a number, and what its nodes post."""

    def __init__(self, wider: Board | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.board = DriverBoard(wider, self.clock)

    def post(self, node: int, text: str, seen: int | None, topic: str = "t") -> tuple[int, list[tuple[float, str]]]:
        posted = asyncio.run(self.board.enter(node, Post(7, topic, text, LIFETIME_S, seen)))
        assert posted.request == 7
        return posted.seen, posted.others


def test_a_nodes_post_is_entered_unless_another_was_first() -> None:
    driver = Driver()
    assert driver.post(1, "a", 0) == (1, [])
    driver.clock.now = 2.0
    assert driver.post(2, "b", 0) == (1, [(2.0, "a")])
    assert driver.post(2, "b", 1) == (2, [])
    assert driver.post(1, "c", 1) == (2, [(0.0, "b")])
    assert driver.post(1, "c", None) == (3, [])  # always
    assert driver.post(1, "d", 2) == (4, [])  # its own are no others'
    assert driver.post(2, "elsewhere", 0, "other") == (5, [])
    driver.clock.now = LIFETIME_S + 2.0
    assert driver.post(2, "e", 0) == (6, [])


def test_other_runs_hear_of_it_and_are_heard() -> None:
    wall = Wall(Clock())
    driver, other = Driver(wall.of("run"), wall.clock), wall.of("other")
    assert driver.post(1, "a", 0) == (1, [])
    assert asyncio.run(other.post("t", "x", LIFETIME_S, 0)) == (1, [(0.0, "a")])
    assert asyncio.run(other.post("t", "x", LIFETIME_S, 1)) == (2, [])
    wall.clock.now = 3.0
    assert driver.post(1, "b", 1) == (2, [(3.0, "x")])
    assert driver.post(2, "c", 1) == (2, [(3.0, "x")])
    assert driver.post(2, "c", 2) == (3, [])
    assert driver.post(1, "d", None) == (4, [])
    assert [text for *_, text, _ in wall.posts] == ["a", "x", "c", "d"]


def test_without_a_ledger_that_answers_the_nodes_still_share() -> None:
    class Locked:
        async def post(self, topic: str, text: str, lifetime_s: float, seen: int | None) -> None:
            return None

    driver = Driver(Locked())
    assert driver.post(1, "a", 0) == (1, [])
    assert driver.post(2, "b", 0) == (1, [(0.0, "a")])


def test_what_is_kept_has_a_bound() -> None:
    driver = Driver()
    for number in range(MOST_TOPICS + 1):
        asyncio.run(driver.board.enter(1, Post(7, str(number), "a", LIFETIME_S, None)))
    assert driver.post(2, "b", 0, "0") == (MOST_TOPICS + 2, [])  # the oldest one is forgotten
    assert driver.post(2, "b", 0, str(MOST_TOPICS)) == (MOST_TOPICS + 1, [(0.0, "a")])


def test_a_driver_that_does_not_answer_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "ANSWER_S", 0.01)
    said: list[object] = []

    async def main() -> None:
        board = NodeBoard(said.append)
        assert await board.post("t", "a", LIFETIME_S, 0) is None
        board.answered(Posted(1, 1, []))  # too late

    asyncio.run(main())
    assert said == [Post(1, "t", "a", LIFETIME_S, 0)]


@pytest.mark.processes
def test_a_second_node_sends_nothing_that_the_first_has_left_no_room_for() -> None:
    async def main() -> None:
        async with LimitedApi(requests_a_minute=3, tokens_a_minute=10**9) as api:
            environ = {"ANTHROPIC_BASE_URL": api.url}
            manager = TokenBudgetManager()
            async with sites(2, manager, MeterBegin(enforces=False, weights=Weights()), environ) as found:
                first, second = (found.driver.open(Metered(), f"{node}/i") for node in range(2))
                await asyncio.sleep(0.1)  # until the gateways know them
                assert await ask(first.client.url) == 200 and await ask(first.client.url) == 200
                waiting = asyncio.ensure_future(ask(second.client.url))
                await until(lambda: found.nodes[1].waiting > 0)
                await asyncio.sleep(0.3)
                assert not waiting.done() and (api.requests, api.refused) == (2, 0)
                waiting.cancel()

    asyncio.run(asyncio.wait_for(main(), HUNG_S))
