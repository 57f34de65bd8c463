"""Budgets with a memory, from the command line: ledger, windows, money, forecasts, profiles, alerts, adjustment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.run_events import RateLimitsRead
from claude_orchestrator.engine.state import State
from tests.engine.test_accounting import config as real_config
from tests.faults.test_journal import kill_in_the_middle
from tests.harness import Workplace, run_config, run_real
from tests.limits import HUNG_S
from tests.scripted import Script, ScriptedRunning
from tests.stand_in import Call, Reply, StandIn, Text, Tools
from token_budget.budget_manager import TokenBudgetManager
from token_budget.holds import floor_of, max_min_shares
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Action, Amount, Scope, Unit, Usage, Weights
from token_budget.pricing import Prices
from token_budget.text import NANO, RenderOptions
from token_budget.usage.run_detail import run_detail


def ledger_of(place: Workplace) -> SqliteLedger:
    return SqliteLedger(place.root / "ledger.db", create=False)


def ledger_path(place: Workplace) -> str:
    return str(place.root / "ledger.db")


def run(place: Workplace, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return place.run("--ledger", str(place.root / "ledger.db"), "--report", "report.json", *args, **env)


def entries(*tokens: int, command: str = "/test", seconds: float = 0.2, **more: Any) -> list[dict[str, Any]]:
    return [
        {"name": f"i{n}", "command": command, "rehearsal": {"tokens": count, "seconds": seconds}, **more}
        for n, count in enumerate(tokens)
    ]


def rehearse(place: Workplace, setup: dict[str, Any], *args: str) -> subprocess.CompletedProcess[str]:
    return run(place, "--config", place.config(setup), "--rehearse", *args)


# -- the ledger --


def test_a_run_is_in_the_ledger_as_it_is_in_the_report(place: Workplace) -> None:
    setup = {"instances": entries(9000, 4000)}
    assert rehearse(place, setup).returncode == 0
    report = place.report()
    ledger = ledger_of(place)
    (entered,) = ledger.runs()
    assert entered.run == report["run_id"] and entered.exit_code == 0 and entered.ended_ms is not None
    assert {a.instance: a.usage.total_tokens for a in ledger.attempts()} == {"i0": 9000, "i1": 4000}
    first = ledger.attempts()[0]
    assert (first.base_command, first.model, first.outcome) == ("/test", "rehearsal", "completed")
    assert sum(record.usage.total_tokens for record in ledger.records()) == report["totals"]["total_tokens"]


def test_a_rehearsal_is_in_no_ledger_unless_one_is_named(place: Workplace) -> None:
    assert place.run("--config", place.config({"instances": entries(100)}), "--rehearse").returncode == 0
    assert not list(place.root.rglob("ledger.db"))
    assert place.run("/test").returncode == 0
    (path,) = place.root.rglob("ledger.db")
    assert path.stat().st_mode & 0o777 == 0o600
    assert place.run("/test", "--ledger", "off").returncode == 0
    assert len(SqliteLedger(path).runs()) == 1


@pytest.mark.slow
def test_retries_are_attempts_of_their_own(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "retries": 2}]}
    done = run(place, "--config", place.config(setup), FAKE_CLAUDE="flaky", FAKE_FAILS="1", FAKE_FAIL="overloaded")
    assert done.returncode == 0
    first, second = ledger_of(place).attempts()
    assert (first.attempt, first.outcome, second.attempt, second.outcome) == (1, "failed", 2, "completed")
    assert first.usage.total_tokens + second.usage.total_tokens == place.report()["totals"]["total_tokens"]
    assert first.cost_nano_usd == second.cost_nano_usd == NANO // 100


def test_what_a_killed_run_had_not_written_comes_with_its_resume(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "hang-once"}}]}
    kill_in_the_middle(place, setup, "--ledger", str(place.root / "ledger.db"), until=b'"kind":"usage"')
    assert run(place, "--resume", "last").returncode == 0
    totals = place.report()["totals"]["total_tokens"]
    assert sum(a.usage.total_tokens for a in ledger_of(place).attempts()) == totals
    assert run(place, "--resume", "last").returncode == 0  # nothing left to do, nothing added
    assert sum(a.usage.total_tokens for a in ledger_of(place).attempts()) == totals


def test_a_ledger_that_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    (place.root / "ledger.db").write_bytes(b"this is no database" * 100)
    done = run(place, "/test")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nothing was changed" in done.stderr
    SqliteLedger(place.root / "good.db").close()
    blocker = "import sqlite3,sys,time; db=sqlite3.connect(sys.argv[1], isolation_level=None); "
    blocker += "db.execute('DROP TABLE records'); print(1)"
    subprocess.run([sys.executable, "-c", blocker, str(place.root / "good.db")], check=True, capture_output=True)
    done = place.run("/test", "--ledger", str(place.root / "good.db"))
    assert done.returncode == 0 and done.stderr.count("the ledger:") == 2 and "the next run adds" in done.stderr


# -- windows --


def test_a_daily_budget_holds_across_runs(place: Workplace) -> None:
    setup = {"instances": entries(5000), "budget": {"daily_token_budget": 6000, "enforcement_mode": "block"}}
    assert rehearse(place, setup).returncode == 0
    assert place.report()["budgets"]["windows"]["daily"]["used"] == 5000
    done = rehearse(place, {**setup, "instances": entries(5000, max_tokens_per_command=2000)})
    assert done.returncode == 1
    assert place.report()["instances"][0]["reason"] == (
        "daily budget: used 5,000 + estimate 2,000 > limit 6,000 tokens"
    )
    warned = rehearse(place, setup, "--budget-enforcement-mode", "warn")
    assert warned.returncode == 0
    said = re.search(r"Budget exceeded for daily \(used: (\d+)/6000 tokens\)", warned.stderr)
    assert said is not None and int(said[1]) > 6000
    assert ledger_of(place).sums()[0].usage.total_tokens == 10_000


@pytest.mark.slow
def test_what_another_orchestrator_holds_is_waited_for(place: Workplace) -> None:
    budget = {"daily_token_budget": 9000, "enforcement_mode": "block"}
    first = {"instances": entries(3000, seconds=3.0, max_tokens_per_command=8000), "budget": budget}
    argv = place.argv("--config", place.config(first, "first.json"), "--rehearse", "--ledger", "ledger.db")
    process = subprocess.Popen(
        argv, env=place.env, cwd=place.root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + HUNG_S
    while not (place.root / "ledger.db").exists() or not ledger_of(place).shared((), Weights(), 0).held.tokens:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = {"instances": entries(3000, max_tokens_per_command=5000), "budget": budget}
    done = rehearse(place, second)
    waits = re.search(r"used ([\d,]+) \+ held by others ([\d,]+) \+ estimate 5,000 > limit 9,000", done.stderr)
    assert done.returncode == 0 and waits is not None, done.stderr
    assert sum(int(figure.replace(",", "")) for figure in waits.groups()) == 8000  # of the first, spent or held
    assert process.wait(timeout=HUNG_S) == 0
    assert ledger_of(place).shared((), Weights(), 0).held == Amount()


@pytest.mark.slow
def test_no_order_of_requests_of_several_orchestrators_passes_a_daily_budget(place: Workplace) -> None:
    """Hard cap, by way of the ledger: each request of each run is held there before it goes."""
    budget = {"daily_token_budget": 60_000, "enforcement_mode": "block"}
    setup = {"instances": entries(*[30_000] * 3, seconds=0.5), "budget": budget}
    config, ledger = place.config(setup), str(place.root / "ledger.db")
    started = []
    for number in range(4):
        reports = ("--ledger", ledger, "--report", f"report{number}.json")
        argv = place.argv("--config", config, "--rehearse", "--meter", "api", *reports)
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(argv, env=place.env, cwd=place.root, **pipes))  # type: ignore[call-overload]
    said = [process.communicate(timeout=HUNG_S)[1] for process in started]
    assert [process.returncode for process in started] == [1] * 4 and "ledger" not in "".join(said), said
    used = [json.loads((place.root / f"report{n}.json").read_text())["totals"]["total_tokens"] for n in range(4)]
    assert sum(record.usage.total_tokens for record in ledger_of(place).records()) == sum(used)
    assert 54_000 <= sum(used) <= 60_000, (used, said)  # a response of these takes up to 10,000
    assert ledger_of(place).shared((), Weights(), 0).held == Amount()


def test_a_dry_run_shows_what_all_runs_have_used(place: Workplace) -> None:
    setup = {"instances": entries(5000), "budget": {"daily_token_budget": 6000}}
    assert rehearse(place, setup).returncode == 0
    shown = rehearse(place, setup, "--dry-run")
    assert "83% 5.0K/6.0K" in shown.stdout
    assert len(ledger_of(place).runs()) == 1


# -- money --


def test_cost_budgets_block_and_fence(place: Workplace) -> None:
    """The stand-in claude states 0.01 USD for each instance."""
    setup = {"instances": [{"name": f"i{n}", "command": "/test"} for n in range(4)]}
    options = ("--overall-cost-budget", "0.025", "--budget-enforcement-mode", "block", "--max-parallel", "1")
    done = run(place, "--config", place.config(setup), *options, FAKE_CLAUDE="echo")
    assert done.returncode == 1
    states = [instance["status"] for instance in place.report()["instances"]]
    assert states == ["completed"] * 3 + ["blocked"]
    assert "Budget exceeded for overall session cost (used: $0.0300/$0.0250)" in done.stderr
    assert place.report()["budgets"]["costs"][0]["used_usd"] == "0.03"
    assert "--max-budget-usd=0.005000" in json.loads((place.root / "argv.json").read_text())
    assert sum(a.cost_nano_usd or 0 for a in ledger_of(place).attempts()) == 30_000_000
    again = run(place, "/test", "--daily-cost-budget", "0.03", "--budget-enforcement-mode", "block")
    assert again.returncode == 1 and "daily cost budget: used $0.0300" in place.report()["instances"][0]["reason"]


def test_tokens_and_money_at_once_the_tightest_decides() -> None:
    manager = TokenBudgetManager(10_000, "block")
    manager.set_budget(Scope.COMMAND, NANO, "/test", Unit.USD)
    manager.set_budget(Scope.OVERALL, 10 * NANO, unit=Unit.USD)
    assert manager.reserve("/test", Amount(1000, NANO // 2)).action is Action.ALLOW
    assert manager.decide("/test", Amount(1000, NANO)).action is Action.WAIT
    refused = manager.decide("/test", Amount(1000, 2 * NANO))
    assert refused.action is Action.BLOCK and refused.reason.startswith("/test command cost budget: used $0.00")
    assert manager.decide("/other", Amount(1000, 2 * NANO)).action is Action.ALLOW
    assert "overall budget" in manager.decide("/other", Amount(10_001)).reason
    crossed = manager.record("/test", Amount(0, NANO + 1))
    assert [budget.label for budget in crossed] == ["/test command cost"]


@pytest.mark.slow
@pytest.mark.real_cli
@pytest.mark.parametrize("meter", ["stream", "api"])
def test_costs_are_claudes_own_and_prices_agree_with_them(claude: str, tmp_path: Path, meter: str) -> None:
    prices = Prices()
    script: dict[str, list[Reply]] = {"greet": [Tools((Call.bash("echo hi"),)), Text()]}

    def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        return prices.response(model, usage, written_for_1h_tokens=written_for_1h_tokens)

    with StandIn(script) as api:
        options = {"overall_cost_budget": "5", "budget_enforcement_mode": "block"}
        outcome = run_real(real_config("greet me"), api, claude, tmp_path, meter=meter, price=price, **options)
    stated = round((outcome.only.cost_usd or 0) * NANO)
    assert outcome.only.state is State.COMPLETED and stated > 0
    (budget,) = outcome.manager.budgets
    assert budget.used == outcome.only.attempt.costs.nano_usd and abs(budget.used - stated) <= stated // 100 + 10


# -- subscription limits, adjustment --


class Limited(Script):
    """Answers each question for its count with a subscription's limits."""

    async def launch(self, spec: Any) -> ScriptedRunning:
        running = await super().launch(spec)
        limits = {"five_hour": {"utilization": 85.0, "resets_at": "2026-11-24T20:00:00Z"}, "odd": None}
        session = {"total_cost_usd": 0, "model_usage": {}}
        response = {
            "subtype": "success",
            "request_id": "usage",
            "response": {"session": session, "rate_limits": limits},
        }
        running.emit({"type": "control_response", "response": response})
        return running


@pytest.mark.parametrize(("percent", "state"), [(80.0, State.STOPPED), (90.0, State.COMPLETED)])
def test_a_subscriptions_limit_can_be_a_budget(percent: float, state: State) -> None:
    setup = {"instances": [{"name": "a", "command": "/c" if percent > 85 else "wait"}, {"name": "b", "command": "/c"}]}
    seen: list[Any] = []
    outcome = run_config(
        setup,
        Limited(),
        workspace=Path("/"),
        stop_at_rate_limit=percent,
        max_parallel=1,
        on_event=lambda event: seen.append(event.limits) if isinstance(event, RateLimitsRead) else None,
    )
    assert outcome.instances[0].state is state and seen[-1]["five_hour"]["utilization"] == 85.0
    if state is State.STOPPED:
        assert "five_hour limit of the subscription: 85 % used, the run stops at 80 %" in outcome.instances[0].reason
        assert outcome.instances[1].state is State.BLOCKED


def test_a_subscriptions_limit_stops_short_instances_too() -> None:
    """They are asked at their beginning: no beat has come by then."""
    setup = {"instances": [{"name": f"i{n}", "command": "/c"} for n in range(3)]}

    class Asked(Script):
        async def launch(self, spec: Any) -> ScriptedRunning:
            running = await super().launch(spec)
            send = running.send

            def answer(message: Any) -> None:
                send(message)
                if message.get("request", {}).get("subtype") == "get_usage":
                    limits = {"five_hour": {"utilization": 92}}
                    usage = {"session": {"total_cost_usd": 0, "model_usage": {}}, "rate_limits": limits}
                    response = {"subtype": "success", "request_id": "usage", "response": usage}
                    running.emit({"type": "control_response", "response": response})

            running.send = answer  # type: ignore[method-assign]
            return running

    outcome = run_config(setup, Asked(), workspace=Path("/"), stop_at_rate_limit=90.0, max_parallel=1)
    assert [status.state for status in outcome.instances][1:] == [State.BLOCKED] * 2


@pytest.mark.parametrize(("adjust", "grown"), [("pool", True), ("off", False)])
def test_holds_grow_into_the_room_that_is_there(place: Workplace, adjust: str, grown: bool) -> None:
    setup = {"instances": entries(9000, seconds=1.0)}  # the estimate is 1,000
    options = ("--overall-token-budget", "20000", "--budget-enforcement-mode", "block", "--adjust", adjust)
    assert rehearse(place, setup, *options).returncode == 0
    adjustments = place.report()["adjustments"]
    assert any("hold of i0 up by" in text for text in adjustments) is grown
    assert [note.text for note in ledger_of(place).notes()] == adjustments
    assert (b'"kind":"adjust"' in next(place.root.glob("out/*/journal.jsonl")).read_bytes()) is grown


@pytest.mark.slow
@pytest.mark.parametrize(("adjust", "at_once"), [("pool", 1), ("fair", 2)])
def test_fair_shares_let_one_start_that_would_wait(place: Workplace, adjust: str, at_once: int) -> None:
    setup = {"instances": entries(3000, 3000, seconds=1.0, max_tokens_per_command=8000)}
    options = ("--command-budget", "/test=12000", "--budget-enforcement-mode", "block", "--adjust", adjust)
    done = rehearse(place, setup, *options)
    assert done.returncode == 0 and ("i1 waits" in done.stderr) is (at_once == 1)
    told = place.report()["adjustments"]
    assert any("i1 starts with" in text for text in told) is (at_once == 2)
    if at_once == 2:
        assert "Adjusted: hold of i0 down by" in done.stdout


def test_max_min_shares() -> None:
    assert max_min_shares(100, [10, 80, 80]) == [10, 45, 45]
    assert max_min_shares(100, [10, 20]) == [10, 20]
    assert max_min_shares(7, [5, 5, 5]) == [2, 2, 3] and max_min_shares(-5, [5]) == [0] and max_min_shares(5, []) == []
    assert floor_of(500) == 500 and floor_of(3000) == 1000 and floor_of(80_000) == 20_000


# -- alerts and forecasts --


def test_alerts_go_to_the_log_and_a_command_once(place: Workplace) -> None:
    setup = {"instances": entries(9000), "budget": {"overall_budget": 10_000, "daily_token_budget": 30_000}}
    sink = f'{sys.executable} -c \'import sys; open("alerts.txt","a").write(sys.stdin.read()+chr(10))\''
    done = rehearse(place, setup, "--alert-at", "25,50,80", "--alert-command", sink)
    assert done.returncode == 0 and "WARNING: 90 % of the overall budget is used (9,000/10,000 tokens)" in done.stderr
    told = [json.loads(line) for line in (place.root / "alerts.txt").read_text().splitlines() if line]
    assert ("daily", 25) in {(alert["budget"], alert["threshold"]) for alert in told}
    assert rehearse(place, setup, "--alert-at", "25", "--alert-command", sink).returncode == 0
    later = [json.loads(line) for line in (place.root / "alerts.txt").read_text().splitlines() if line][len(told) :]
    assert {(alert["budget"], alert["threshold"]) for alert in later} == {("overall", 25)}  # the day's was sent
    quiet = rehearse(place, setup, "--alert-at", "off")
    assert "budget is used" not in quiet.stderr


def test_a_failing_sink_neither_slows_nor_fails_the_run(place: Workplace) -> None:
    setup = {"instances": entries(9000), "budget": {"overall_budget": 10_000}}
    options = ("--alert-webhook", "http://127.0.0.1:1/secret", "--alert-command", "/no/such/program")
    done = rehearse(place, setup, *options)
    assert done.returncode == 0 and "secret" not in done.stderr
    assert "--alert-webhook" in done.stderr and "--alert-command" in done.stderr


def filled(place: Workplace, tokens: list[int]) -> None:
    """A ledger with so many completed instances of /test."""
    ledger, now_ms = SqliteLedger(place.root / "ledger.db"), int(time.time() * 1000)
    for number, count in enumerate(tokens):
        run_id, ended_ms = f"run{number}", now_ms - 3_600_000 * (len(tokens) - number)
        ledger.write(
            runs=[RunRecord(run_id, "m", ended_ms - 1000, ended_ms, exit_code=0)],
            attempts=[
                AttemptRecord(
                    run_id, "a", 1, ended_ms - 1000, None, "/test", "/test", "opus", ended_ms, "completed", True
                )
            ],
            records=[
                UsageRecord(f"{run_id}/a/1/1", run_id, "a", 1, ended_ms, "opus", Usage(count), count * 1000, "claude")
            ],
        )
    ledger.close()


def test_forecasts_are_shown_held_and_told_when_a_budget_will_be_passed(place: Workplace) -> None:
    filled(place, [40_000, 41_000, 39_000, 42_000, 40_500, 38_000, 41_500, 60_000])
    setup = {"instances": entries(20_000, 20_000, seconds=1.2), "budget": {"overall_budget": 70_000}}
    shown = rehearse(place, setup, "--dry-run").stdout
    assert "forecast:  about 41K, 90 % under" in shown and "n=8" in shown and "estimate:  4" in shown
    assert "Chance that the plan fits the overall budget (70,000): " in shown
    done = rehearse(place, setup)
    assert "the overall budget will probably be passed" in done.stderr
    few = rehearse(place, {"instances": entries(100, command="/rare")}, "--dry-run").stdout
    assert "forecast:  unknown (n=0)" in few and "estimate:  1,000 tokens" in few


@pytest.mark.slow
def test_forecasts_are_of_what_budgets_draw(place: Workplace) -> None:
    """With weights a budget draws less than was used, and so does the estimate."""
    setup = {"instances": entries(20_000), "budget": {"token_weights": "cache_read=0"}}
    for _ in range(5):
        assert rehearse(place, setup).returncode == 0
    limits = ("--overall-token-budget", "15000", "--budget-enforcement-mode", "block")
    shown = rehearse(place, setup, *limits, "--dry-run").stdout
    assert "forecast:  about 6K" in shown.replace("6.0K", "6K") and "fits the overall budget (15,000): 100%" in shown
    assert rehearse(place, setup, *limits).returncode == 0
    (run, *_) = ledger_of(place).runs()
    assert json.loads(run.budgets)["weights"].endswith("cache_read=0")
    last = "\n".join(run_detail(ledger_of(place), "last", RenderOptions()))
    assert re.search(r"overall +(4|3)\d% +\d\.\dK/15\.0K", last), last


@pytest.mark.slow
def test_money_that_is_forecast_to_run_out_is_told(place: Workplace) -> None:
    for _ in range(5):
        assert run(place, "/test").returncode == 0  # 0.01 USD each
    setup = {"instances": [{"name": f"i{n}", "command": "/test"} for n in range(4)]}
    told = run(place, "--config", place.config(setup), "--overall-cost-budget", "0.025", FAKE_SECONDS="1.2")
    assert "the overall cost budget will probably be passed ($0.0400/$0.0250" in told.stderr
    blocked = ("--budget-enforcement-mode", "block", "--max-parallel", "2")
    done = run(place, "--config", place.config(setup), "--overall-cost-budget", "0.025", *blocked)
    assert "overall cost budget: used $0.0200 + estimate $0.0100 > limit $0.0250" in done.stderr
    assert (
        "estimate:  1,050 tokens, $0.0100"
        in run(place, "--config", place.config(setup), "--overall-cost-budget", "0.025", "--dry-run").stdout
    )


def test_of_many_orchestrators_one_tells_of_a_window(place: Workplace) -> None:
    ledger = ledger_path(place)
    setup = {"instances": entries(4000, seconds=1.5), "budget": {"daily_token_budget": 5000}}
    argv = place.argv("--config", place.config(setup), "--rehearse", "--ledger", ledger, "--alert-at", "50")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(argv, env=place.env, cwd=place.root, **pipes)  # type: ignore[call-overload]
        for _ in range(3)
    ]
    said = "".join(process.communicate(timeout=HUNG_S)[1] for process in started)
    assert said.count("of the daily budget is used") == 1, said


def test_an_attempt_that_was_broken_off_is_told_so_and_others_keep_their_end(place: Workplace) -> None:
    entry = {"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "hang-once"}}
    kill_in_the_middle(place, {"instances": [entry]}, "--ledger", ledger_path(place), until=b'"kind":"usage"')
    for _ in range(2):
        assert run(place, "--resume", "last").returncode == 0
        assert [attempt.outcome for attempt in ledger_of(place).attempts()] == ["interrupted", "completed"]


# -- profiles and bad input --


def test_a_profile_gives_limits_with_their_origins(place: Workplace) -> None:
    profiles = {"profiles": {"small": {"overall_budget": 4000, "enforcement_mode": "block", "overall_cost_budget": 2}}}
    (place.workspace / "claude-orchestrator-profiles.json").write_text(json.dumps(profiles))
    setup = {"instances": entries(5000), "budget": {"overall_budget": 90_000}}
    shown = rehearse(place, setup, "--budget-profile", "small", "--dry-run").stdout
    assert "4000 (profile small" in shown and "$2.00 (profile small" in shown
    assert rehearse(place, setup, "--budget-profile", "small").returncode == 1
    done = rehearse(place, setup, "--budget-profile", "small", "--overall-token-budget", "50000")
    assert done.returncode == 0


BAD = {
    "an unknown profile": (("--budget-profile", "nightly"), "--budget-profile: "),
    "a window without a ledger": (
        ("--daily-token-budget", "5", "--ledger", "off"),
        "--daily-token-budget: needs the ledger",
    ),
    "a cost": (("--overall-cost-budget", "lots"), "--overall-cost-budget: expected an amount"),
    "a command's cost": (("--command-cost-budget", "/test=-1"), "--command-cost-budget: expected an amount"),
    "no webhook": (("--alert-webhook", "ftp://x"), "--alert-webhook: "),
    "thresholds": (("--alert-at", "many"), "--alert-at: "),
    "a command": (("--alert-command", "'unbalanced"), "--alert-command: "),
    "a percentage": (("--stop-at-rate-limit", "120"), "stop-at-rate-limit"),
    "a window": (("--weekly-token-budget", "0"), "weekly-token-budget"),
    "a limit beyond reason": (("--overall-token-budget", "9" * 23), "overall-token-budget"),
    "a command's limit beyond reason": (("--command-budget", "/test=" + "9" * 23), "--command-budget: expected"),
    "no percentage": (("--stop-at-rate-limit", "nan"), "stop-at-rate-limit"),
    "no ledger": (("--ledger", ""), "--ledger: is empty"),
    "a rehearsal's window": (("--daily-token-budget", "5"), "a rehearsal has no ledger: name one"),
    "a dry run's window": (("--daily-token-budget", "5", "--ledger", "off", "--dry-run"), "the ledger, which is off"),
    "a dry run's ledger": (("--ledger", "/dev/null/y.db", "--dry-run"), "--ledger: /dev/null/y.db: cannot be opened"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_nothing_is_started(place: Workplace, name: str) -> None:
    args, said = BAD[name]
    done = place.run("/test", "--rehearse", *args)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert not (place.root / "out").exists()
