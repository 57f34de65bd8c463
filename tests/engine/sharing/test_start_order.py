"""Who waits for whom to write the shared prompt cache."""

from __future__ import annotations

from claude_orchestrator.claude.prompt_cache import LIFETIME_S
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.sharing.start_order import WITH_START, StartOrder
from tests.engine.test_state import an_instance

SPEC = an_instance("/a").spec
WAIT_S = 10.0


def spec(name: str, *, cwd: str = "/w", model: str = "opus") -> LaunchSpec:
    return SPEC._replace(name=name, cwd=cwd, argv=(*SPEC.argv, f"--model={model}"))


A, B, C = spec("a"), spec("b"), spec("c")


def order_after_launch(first: LaunchSpec = A, at: float = 0.0) -> StartOrder:
    """The claude of the first one starts at once."""
    order = StartOrder(WAIT_S)
    order.launched(first, at)
    order.started(first.name, at)
    return order


def test_nobody_waits_before_the_first_launch() -> None:
    assert StartOrder(WAIT_S).wait_s(A, 0.0) == 0


def test_the_others_wait_until_the_response_of_the_first_begins() -> None:
    order = order_after_launch()
    assert order.wait_s(B, 1.0) == 9.0
    assert order.responded("a", 2.0)
    assert order.wait_s(B, 2.0) == 0
    order.launched(B, 2.0)
    assert order.wait_s(C, 2.0) == 0
    assert not order.responded("b", 3.0), "nobody can wait for it"


def test_the_first_does_not_wait_for_itself() -> None:
    assert order_after_launch().wait_s(A, 1.0) == 0


def test_the_wait_has_a_bound() -> None:
    order = order_after_launch()
    assert order.wait_s(B, WAIT_S) == 0


def test_the_bound_counts_from_the_start_of_the_first_ones_claude() -> None:
    order = StartOrder(WAIT_S)
    order.launched(A, 0.0)
    order.waits(B, 1.0)
    other = spec("d", model="haiku")
    order.launched(other, 1.0)
    assert order.wait_s(B, 20.0) == WITH_START * WAIT_S - 20 and order.wait_s(B, WITH_START * WAIT_S) == 0
    assert order.started("a", 25.0)
    assert order.wait_s(B, 25.0) == WAIT_S
    assert order.wait_s(spec("e", model="haiku"), 25.0) > WAIT_S, "the one it waits for has not started"
    assert not order.started("a", 30.0)  # its next turn
    assert not order.started("b", 30.0)
    assert order.wait_s(B, 30.0) == WAIT_S - 5


def test_one_that_ends_without_a_response_makes_room_for_the_next() -> None:
    order = order_after_launch()
    order.waits(B, 0.0)
    order.waits(C, 0.0)
    order.ended("a")
    assert order.wait_s(B, 3.0) == 0
    order.launched(B, 3.0)
    order.started("b", 3.0)
    assert order.wait_s(C, 3.0) == 7.0, "it has waited for 3 seconds already"
    order.ended("b")
    order.launched(A, 9.0)
    assert order.wait_s(C, 9.0) == 1.0 and order.wait_s(C, 10.0) <= 0


def test_one_that_follows_and_ends_leaves_the_writer_alone() -> None:
    order = order_after_launch()
    order.launched(B, 1.0)
    order.ended("b")
    assert order.wait_s(C, 2.0) == 8.0


def test_another_model_does_not_wait() -> None:
    assert order_after_launch().wait_s(spec("b", model="haiku"), 1.0) == 0


def test_another_folder_waits_for_the_tools_then_writes_its_own_prompt() -> None:
    order = order_after_launch()
    elsewhere, again = spec("b", cwd="/v"), spec("c", cwd="/v")
    assert order.wait_s(elsewhere, 1.0) == 9.0
    order.responded("a", 2.0)
    assert order.wait_s(elsewhere, 2.0) == 0
    order.launched(elsewhere, 2.0)
    order.started("b", 2.0)
    assert order.wait_s(again, 3.0) == 9.0
    assert order.wait_s(B, 3.0) == 0


def test_what_was_written_can_be_read_for_five_minutes_after_its_last_use() -> None:
    order = order_after_launch()
    order.responded("a", 1.0)
    order.launched(B, LIFETIME_S)
    assert order.wait_s(C, LIFETIME_S) == 0
    order.responded("b", LIFETIME_S)
    order.ended("a")
    order.launched(A, 2 * LIFETIME_S)
    order.started("a", 2 * LIFETIME_S)
    assert order.wait_s(C, 2 * LIFETIME_S) == WAIT_S, "nobody has used it for five minutes"


def test_worktrees_share_what_does_not_name_them() -> None:
    free, named = (A._replace(worktree=True, folder_free=folder_free) for folder_free in (True, False))
    order = order_after_launch(free)
    assert order.wait_s(free._replace(name="b"), 0.0) == WAIT_S
    order = order_after_launch(named)
    order.responded("a", 1.0)
    order.launched(named._replace(name="b"), 1.0)
    assert order.wait_s(named._replace(name="c"), 1.0) == 0, "each writes its own"
