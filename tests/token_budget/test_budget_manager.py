"""Budgets: limits, holds, decisions, weights, and the documented API."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget import (
    Action,
    Amount,
    CommandBudgetInfo,
    Scope,
    TokenBudgetManager,
    Usage,
    Weights,
    render_budget_panel,
    render_progress_bar,
)
from token_budget.text import display_width, fit, format_tokens, printable


def test_the_documented_api() -> None:
    manager = TokenBudgetManager(overall_budget=5000, enforcement_mode="block")
    manager.set_command_budget("/test", 1000)
    assert manager.check_budget("/test", 1000) and not manager.check_budget("/test", 1001)
    assert manager.check_budget("/other", 5000) and not manager.check_budget("/other", 5001)
    manager.record_usage("/test", 600)
    info = manager.command_budgets["/test"]
    assert isinstance(info, CommandBudgetInfo)
    assert (info.limit, info.used, info.remaining, info.percentage) == (1000, 600, 400, 60.0)
    assert manager.overall_budget == 5000 and manager.total_usage == 600
    assert TokenBudgetManager().check_budget("/any", 10**12)


def test_a_bar_as_in_the_document() -> None:
    assert render_progress_bar(3000, 5000, 20, color=False) == "[████████████░░░░░░░░] 60%"
    assert render_progress_bar(1, 0, 5, color=False) == "[░░░░░] 0%"
    assert render_progress_bar(12, 10, 4, color=False, ascii_only=True) == "[####] 120%"
    assert render_progress_bar(999, 1000, 10, color=False) == "[█████████░] 99%"
    for used, color in ((69, "\033[32m"), (70, "\033[33m"), (90, "\033[33m"), (91, "\033[31m")):
        assert render_progress_bar(used, 100).startswith(color)


def test_holds_make_concurrent_launches_safe() -> None:
    manager = TokenBudgetManager(1000, "block")
    decisions = [manager.reserve("/test", Amount(800)) for _ in range(5)]
    assert [decision.action for decision in decisions] == [Action.ALLOW] + [Action.WAIT] * 4
    assert "held by others 800" in decisions[1].reason
    hold = decisions[0].hold
    assert hold is not None
    manager.record_usage("/test", 300, hold=hold)
    assert manager.overall is not None and (manager.overall.used, manager.overall.held) == (300, 500)
    manager.release(hold)
    manager.release(hold)
    assert manager.overall.held == 0
    assert manager.reserve("/test", Amount(700)).action is Action.ALLOW
    assert manager.reserve("/test", Amount(701)).action is Action.BLOCK


def test_warn_mode_lets_everything_go() -> None:
    manager = TokenBudgetManager(1000, "warn")
    assert manager.reserve("/a", Amount(800)).action is Action.ALLOW
    assert manager.reserve("/a", Amount(800)).action is Action.ALLOW  # only a hold is in the way
    decision = manager.reserve("/a", Amount(1001))
    assert decision.action is Action.WARN and decision.hold is not None


def test_the_tightest_budget_decides_and_is_named() -> None:
    manager = TokenBudgetManager(1000, "block")
    manager.set_command_budget("/test", 500)
    manager.set_budget(Scope.INSTANCE, 100, "one")
    assert (
        manager.decide("/test", Amount(200), "one").reason
        == "instance one budget: used 0 + estimate 200 > limit 100 tokens"
    )
    assert "/test command budget" in manager.decide("/test", Amount(600)).reason
    assert manager.decide("/test", Amount(100), "one").action is Action.ALLOW


def test_each_crossing_is_told_once() -> None:
    manager = TokenBudgetManager(100)
    manager.set_command_budget("/test", 50)
    assert manager.record_usage("/test", 50) == ()
    assert [budget.label for budget in manager.record_usage("/test", 1)] == ["/test command"]
    assert [budget.label for budget in manager.record_usage("/test", 50)] == ["overall"]
    assert manager.record_usage("/test", 50) == ()


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "5", None])
def test_limits_are_positive_integers(bad: object) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        TokenBudgetManager().set_command_budget("/x", bad)  # type: ignore[arg-type]


def test_bad_mode_and_negative_usage() -> None:
    with pytest.raises(ValueError, match="warn, block"):
        TokenBudgetManager(enforcement_mode="stop")
    with pytest.raises(ValueError, match="zero or more"):
        TokenBudgetManager().record_usage("/x", -1)


def test_a_group_shares_a_budget() -> None:
    manager = TokenBudgetManager(enforcement_mode="block")
    manager.set_budget(Scope.GROUP, 100, "fix")
    manager.join("fix[a]", "fix")
    manager.join("fix[b]", "fix")
    assert manager.reserve("/x", Amount(60), "fix[a]").action is Action.ALLOW
    decision = manager.reserve("/x", Amount(60), "fix[b]")
    assert decision.action is Action.WAIT
    assert decision.reason == "group fix budget: used 0 + held by others 60 + estimate 60 > limit 100 tokens"
    assert manager.reserve("/x", Amount(60), "fix").action is Action.ALLOW  # an instance of another group
    assert [budget.label for budget in manager.record_usage("/x", 101, "fix[a]")] == ["group fix"]
    assert "Group Budgets:" in render_budget_panel(manager)[2]


def test_the_panel_shows_the_fullest_of_many_budgets() -> None:
    manager = TokenBudgetManager()
    for number in range(1_000):
        manager.set_budget(Scope.INSTANCE, 100, f"i{number}")
    manager.record_usage("/x", 50, "i777")
    panel = render_budget_panel(manager)
    assert len(panel) == 25 and "i777" in panel[3] and "... and 980 with less use" in panel[-2]


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.integers(1, 60), st.integers(0, 60), st.booleans())))
def test_admission_never_passes_a_limit_and_deltas_sum_up(steps: list[tuple[str, int, int, bool]]) -> None:
    manager = TokenBudgetManager(100, "block")
    manager.set_command_budget("/a", 70)
    manager.set_budget(Scope.GROUP, 50, "b")
    manager.join("b[x]", "b")
    instances = {"/a": "a", "/b": "b[x]"}
    holds, spent = [], 0
    for command, estimate, tokens, ends in steps:
        decision = manager.reserve(command, Amount(estimate), instances[command])
        if decision.action is Action.ALLOW:
            assert decision.hold is not None
            holds.append((command, decision.hold))
            # what is admitted fits, with all that is used and held
            drawn_on = manager.budgets_for(command, instances[command])
            assert all(budget.used + budget.held <= budget.limit for budget in drawn_on)
        if holds:
            first_command, hold = holds[0]
            manager.record_usage(first_command, tokens, instances[first_command], hold)
            spent += tokens
            if ends:
                manager.release(holds.pop(0)[1])
        for budget in manager.budgets:
            assert budget.held == sum(hold.remaining.tokens for _, hold in holds if budget in hold.budgets)
    assert manager.total_usage == spent == (manager.overall.used if manager.overall else 0)


def test_weights() -> None:
    usage = Usage(input_tokens=100, output_tokens=50, cache_creation_input_tokens=1000, cache_read_input_tokens=2000)
    assert Weights.parse("flat").draw(usage) == 3150
    assert Weights.parse("billing").draw(usage) == 100 + 250 + 1250 + 200
    assert Weights.parse("output=5, cache_read=0").draw(usage) == 100 + 250 + 1000
    assert Weights.parse("billing").describe() == "input=1,output=5,cache_write=1.25,cache_read=0.1"
    for bad in (
        "",
        "heavy",
        "output",
        "output=",
        "output=-1",
        "output=1e3",
        "colour=1",
        "output=0.0000001",
        "input=0,output=0,cache_write=0,cache_read=0",
    ):
        with pytest.raises(ValueError, match=r"\w"):
            Weights.parse(bad)


@given(st.lists(st.integers(0, 3), min_size=1))
def test_weighted_deltas_do_not_drift(steps: list[int]) -> None:
    weights, usage, drawn = Weights.parse("output=0.333,input=0"), Usage(), 0
    for step in steps:
        usage += Usage(output_tokens=step)
        drawn += weights.draw(usage) - drawn
    assert drawn == -(-sum(steps) * 333 // 1000)


@given(st.text(max_size=30), st.integers(0, 30))
def test_fitted_text_has_exactly_its_width(text: str, width: int) -> None:
    assert display_width(fit(text, width)) == width


@given(st.text())
def test_nothing_printable_drives_a_terminal(text: str) -> None:
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2066\u200f" for char in printable(text))


def test_tokens_in_short() -> None:
    cases = {0: "0", 999: "999", 1000: "1.0K", 3000: "3.0K", 999_949: "999.9K", 999_950: "1.0M", 1_234_567: "1.2M"}
    assert {tokens: format_tokens(tokens) for tokens in cases} == cases


@given(
    st.integers(16, 140),
    st.lists(st.tuples(st.text(min_size=1, max_size=40), st.integers(1, 10**7), st.integers(0, 2 * 10**7)), max_size=5),
    st.booleans(),
)
def test_nothing_breaks_the_box(width: int, budgets: list[tuple[str, int, int]], ascii_only: bool) -> None:
    manager = TokenBudgetManager(10**6, "block")
    for key, limit, used in budgets:
        manager.set_command_budget(key, limit)
        manager.record_usage(key, used)
        manager.reserve(key, Amount(10))
    lines = render_budget_panel(manager, width=width, ascii_only=ascii_only)
    assert {display_width(line) for line in lines} == {width}


def test_the_panel_of_the_document() -> None:
    manager = TokenBudgetManager(5000)
    for key, limit, used in (("/test", 1000, 900), ("/analyze", 2000, 800), ("/deploy", 13000, 1300)):
        manager.set_command_budget(key, limit)
        manager.record_usage(key, used)
    lines = render_budget_panel(manager)
    assert lines[0] == "╔" + "═" * 75 + "╗" and lines[-1] == "╚" + "═" * 75 + "╝"
    assert lines[1].startswith("║ BUDGET STATUS ")
    assert lines[2].startswith("║ Overall: [████████████░░░░░░░░] 60% 3.0K/5.0K ")
    assert lines[3].startswith("║ Command Budgets: ")
    assert "  /test " in lines[4] and "[██████████████████░░] 90% (Warning!)" in lines[4]
    assert "[████████░░░░░░░░░░░░] 40%" in lines[5] and "[██░░░░░░░░░░░░░░░░░░] 10%" in lines[6]
    assert render_budget_panel(TokenBudgetManager()) == []


def test_the_panel_names_the_windows_of_an_account() -> None:
    manager = TokenBudgetManager(account="team")
    manager.set_budget(Scope.DAILY, 1000, "team")
    manager.set_budget(Scope.WEEKLY, 5000, "team")
    text = "\n".join(render_budget_panel(manager))
    assert "  daily (team) " in text and "  weekly (team) " in text
