"""The real claude through the gateway: every response is counted as it passes, and no budget is overspent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from tests.engine.test_accounting import EXACT, SUBAGENT, WORDS, assert_about, config, total
from tests.harness import run_real
from tests.limits import HUNG_S
from tests.stand_in import Call, Entry, Script, StandIn, Text, Tools
from token_budget.models import Usage
from token_budget.pricing import Prices
from token_budget.text import NANO

pytestmark = pytest.mark.real_cli
ECHO = Tools((Call.bash("echo hi"),))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_the_live_total_is_the_apis_own_after_every_response(name: str, claude: str, tmp_path: Path) -> None:
    script, setup = EXACT[name]
    seen: list[tuple[int, int]] = []
    live = {"total": 0}
    with StandIn(script) as api:

        def watch(supervisor: Supervisor) -> None:
            live["total"] = sum(status.total_tokens for status in supervisor.instances)

        def at_response(entry: Entry) -> None:
            deadline = time.monotonic() + 20.0
            while live["total"] < (billed := api.billed().total_tokens) and time.monotonic() < deadline:
                time.sleep(0.002)
            seen.append((live["total"], billed))

        api.before_text = at_response
        outcome = run_real(setup, api, claude, tmp_path, on_change=watch, meter="api")
        assert [status.state for status in outcome.instances] == [State.COMPLETED] * len(outcome.instances)
        assert total(outcome) == api.billed() and all(status.exact for status in outcome.instances)
        assert all(status.tally.metered for status in outcome.instances)
        assert outcome.manager.total_usage == api.billed().total_tokens
    # several at once: another may have been billed between the two looks
    assert all(counted == billed for counted, billed in seen) or len(outcome.instances) > 1
    assert all(counted >= billed for counted, billed in seen)


@pytest.mark.parametrize("drop", ["start", "text", "block"])
def test_a_dropped_response_is_counted_by_what_passed(drop: str, claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [Text("partial words here", drop=drop)]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path, meter="api")
        assert_about(outcome.only.usage, api.billed(), output_slack=10)
    assert not outcome.only.exact


@pytest.mark.slow
@pytest.mark.parametrize(("count", "limit"), [(1, 10_000), (4, 30_000), (16, 60_000)])
def test_not_one_token_beyond_the_budget(count: int, limit: int, claude: str, tmp_path: Path) -> None:
    script: Script = {"greet": [ECHO] * 8, **SUBAGENT}
    setup = config(*(["greet me", "greet me", "greet me", "please delegate"] * 4)[:count])
    options = {"overall_token_budget": limit, "budget_enforcement_mode": "block", "max_parallel": count}
    with StandIn(script) as api:
        outcome = run_real(setup, api, claude, tmp_path, meter="api", time_limit_s=HUNG_S, **options)
        billed = api.billed()
    assert billed.total_tokens <= limit and total(outcome) == billed
    assert billed.total_tokens > limit - 3600  # what is left pays for no further call
    assert all(budget.held == 0 for budget in outcome.manager.budgets)
    states = {status.state for status in outcome.instances}
    assert State.STOPPED in states and states <= {State.STOPPED, State.BLOCKED, State.COMPLETED}
    stopped = next(status for status in outcome.instances if status.state is State.STOPPED)
    assert " are left of the overall budget (" in stopped.reason and stopped.session_id


@pytest.mark.slow
def test_not_one_cent_beyond_the_budget(claude: str, tmp_path: Path) -> None:
    """Each request is held with what it can cost at most, by the price of its model."""
    prices, replies = Prices(), [Tools((Call.bash("echo hi"),), output=3000)] * 8

    def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        return prices.response(model, usage, written_for_1h_tokens=written_for_1h_tokens)

    options = {"overall_cost_budget": "0.6", "budget_enforcement_mode": "block", "max_parallel": 4}
    with StandIn({"greet": replies}) as api:
        setup = config(*["greet me"] * 4)
        outcome = run_real(setup, api, claude, tmp_path, meter="api", price=price, time_limit_s=HUNG_S, **options)
        costs = [prices.response(entry.model, entry.billed) or 0 for entry in api.entries]
    (budget,) = outcome.manager.budgets
    assert 0.4 * NANO < sum(costs) <= 0.6 * NANO and abs(budget.used - sum(costs)) <= len(costs) and budget.held == 0
    stopped = [status for status in outcome.instances if status.state is State.STOPPED]
    assert stopped and "left of the overall cost budget ($0.60). To continue: " in stopped[0].reason


@pytest.mark.slow
def test_errors_and_drops_do_not_make_it_pass_the_budget(claude: str, tmp_path: Path) -> None:
    script: Script = {
        "greet": [Tools((Call.bash("echo 1"),), fail_first=(529,)), Text(WORDS, drop="text"), *[ECHO] * 9],
    }
    options = {"overall_token_budget": 25_000, "budget_enforcement_mode": "block"}
    with StandIn(script) as api:
        outcome = run_real(config("greet 1", "greet 2"), api, claude, tmp_path, meter="api", **options)
        assert api.billed().total_tokens <= 25_000
    assert all(budget.held == 0 for budget in outcome.manager.budgets)


def test_a_long_answer_is_cut_to_what_is_left(claude: str, tmp_path: Path) -> None:
    """Nearly spent: `max_tokens` is lowered; what the CLI asks for to continue is refused."""
    options = {"overall_token_budget": 5000, "budget_enforcement_mode": "block"}
    with StandIn({"greet": [Text(output=50_000)]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path, meter="api", **options)
        assert 4000 < api.billed().total_tokens <= 5000
    assert outcome.only.state is State.STOPPED and outcome.only.usage == api.billed()


def test_a_smaller_request_after_a_refused_one_completes_the_work(claude: str, tmp_path: Path) -> None:
    """In plan mode, 2.1.332 leaves a field out after a refusal, and asks again: what is left pays for that."""
    options = {"overall_token_budget": 5000, "budget_enforcement_mode": "block"}
    with StandIn({"greet": [Text()]}) as api:
        outcome = run_real(config("greet me", permission_mode="plan"), api, claude, tmp_path, meter="api", **options)
        assert len(api.entries) == 1 and outcome.only.usage == api.billed()
    assert outcome.only.state is State.COMPLETED and not [text for text in outcome.messages if "BLOCK MODE" in text]


def test_a_nested_claude_is_counted_and_capped(claude: str, tmp_path: Path) -> None:
    """It inherits the address; the stream never shows it."""
    nested = Call.bash(f"{claude} -p 'INNER work' --output-format json > /dev/null")
    script: Script = {"greet": [Tools((nested,)), Text()], "INNER": [Text(output=700)]}
    with StandIn(script) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path, meter="api")
        assert len(api.entries) == 3 and outcome.only.usage == api.billed() and outcome.only.exact


def test_warn_mode_meters_and_refuses_nothing(claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [ECHO, Text()]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path, meter="api", overall_token_budget=4000)
        assert outcome.only.state is State.COMPLETED and outcome.only.usage == api.billed()
    assert any("Budget exceeded for overall session" in message for message in outcome.messages)


def test_settings_that_lead_past_the_meter_are_noticed(claude: str, tmp_path: Path) -> None:
    """Claude's own settings can name another address: then the stream is the count, and the report says so."""
    with StandIn({"greet": [ECHO, Text()]}) as api:
        home = tmp_path / "home" / ".claude"
        home.mkdir(parents=True)
        (home / "settings.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "%s"}}' % api.url)
        outcome = run_real(config("greet me"), api, claude, tmp_path, meter="api")
        assert outcome.only.state is State.COMPLETED and outcome.only.usage == api.billed()
    assert not outcome.only.tally.metered and "bypasses the API meter" in "".join(outcome.messages)


def test_an_instances_own_address_is_its_upstream(claude: str, tmp_path: Path) -> None:
    with StandIn() as wrong, StandIn({"greet": [Text()]}) as right:
        setup: dict[str, Any] = config("greet me", env={"ANTHROPIC_BASE_URL": right.url})
        outcome = run_real(setup, wrong, claude, tmp_path, meter="api")
        assert not wrong.entries and outcome.only.usage == right.billed() and outcome.only.tally.metered
