"""What a journal's records say about a run, and how a later start takes it up."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.claude.permission_rules import Rule
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import CONTINUE_PROMPT
from claude_orchestrator.config.plan import Plan, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.journal_history import JournalHistory, read_history
from claude_orchestrator.engine.journal_records import record_of, turns_digest
from claude_orchestrator.engine.resume import (
    carry_over,
    charge_in_flight,
    earlier_attempts,
    removed,
    restore,
    resume_messages,
)
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.verification import CheckVerdict
from claude_orchestrator.engine.worktrees.changes import Changes
from tests.claude.test_tally import INIT, final, result, start
from tests.engine.test_state import feed
from token_budget import TokenBudgetManager, Usage
from token_budget.model_weights import ModelWeights
from token_budget.models import Amount, Hold, Scope, Unit, Weights

RUN = "run-1"


def a_plan(**commands: str) -> Plan:
    """Instances by their names, with one turn each; `/a;/b` is two."""
    entries = [
        {"name": name, "command": turns.split(";")[-1], "pre_commands": turns.split(";")[:-1]}
        for name, turns in commands.items()
    ]
    return make_plan(parse_config({"instances": entries}, "x"), Settings(), workspace="/", claude_bin="claude")


class Journal:
    """Records as the journal writes them: each event's record with its number and its time."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any] | None] = []

    def write(self, event: happened.RunEvent, at: float = 0.0) -> None:
        found = record_of(event)
        assert found is not None
        self.add(found[0], at=at, **found[1])

    def add(self, kind: str, **fields: Any) -> None:
        self.records.append({"n": len(self.records) + 1, "at": 0.0, "kind": kind, **fields})

    def start(self, plan: Plan, number: int = 1, **settings: Any) -> None:
        named = [
            {"name": spec.name, "base_command": spec.base_command, "turns": turns_digest(spec, RUN)}
            for spec in plan.specs
        ]
        self.add("run", number=number, settings=settings, instances=named)

    def attempt(self, status: InstanceStatus, tokens: int, *, ends: bool = True) -> None:
        """An attempt of two seconds, launched at the tenth, that used so many tokens in its first turn."""
        status.begin(0.0)
        self.write(happened.Launched(status, Hold((), Amount())), at=10.0)
        status.attempt.next_turn()
        feed(status, INIT, start("a", tokens - 1), final(1))
        delta = status.attempt.costs.take_delta(Weights())
        assert delta is not None
        self.write(happened.SessionNamed(status.name, "s-1"), at=10.5)
        self.write(happened.UsageRecorded(status, delta), at=11.5)
        if ends:
            feed(status, result(tokens - 1, 1))
            status.finish(2.0, 0, "")
            self.write(happened.AttemptEnded(status), at=12.0)

    @property
    def history(self) -> JournalHistory:
        return read_history(self.records)


def test_an_empty_journal_has_no_instances() -> None:
    history = Journal().history
    assert (history.runs, history.instances, history.usage, history.damaged_lines) == (0, {}, Usage(), 0)


def test_a_completed_instance_stays_completed() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    journal.attempt(InstanceStatus(plan.specs[0]), 500)
    history = journal.history
    assert history.usage == Usage(499, 1) and history.instances["one"].exact
    assert history.instances["one"].cost_usd == 0.499
    (status,) = restore(plan, history, RUN)
    assert status.state is State.COMPLETED and status.attempts == 1 and status.usage == Usage(499, 1)
    assert status.models == ("m",) and status.model_turns == 1


def test_an_interrupted_instance_continues_in_its_session() -> None:
    plan, journal = a_plan(one="/a;/b"), Journal()
    journal.start(plan)
    journal.attempt(InstanceStatus(plan.specs[0]), 500, ends=False)
    journal.write(happened.TurnEnded("one", 1))
    history = journal.history
    assert history.instances["one"].attempts == [
        AttemptTotals(Usage(499, 1), False, None, 1.5, by_model=(("m", Usage(499, 1)),))
    ]
    (status,) = restore(plan, history, RUN)
    assert status.state is State.PENDING and not status.exact
    assert status.session_id == "s-1" and status.spec.turns == (CONTINUE_PROMPT,) and status.spec.turns_before == 1


def test_an_instance_whose_turns_have_changed_starts_from_the_beginning() -> None:
    plan, journal = a_plan(one="/a;/b"), Journal()
    journal.start(plan)
    journal.attempt(InstanceStatus(plan.specs[0]), 500, ends=False)
    changed = a_plan(one="/a;/c")
    (status,) = restore(changed, journal.history, RUN)
    assert status.session_id is None and status.spec.turns == ("/a", "/c") and status.usage == Usage(499, 1)


def test_an_instance_that_has_not_begun_to_work_starts_from_the_beginning() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    status = InstanceStatus(plan.specs[0])
    status.begin(0.0)
    journal.write(happened.Launched(status, Hold((), Amount())))
    journal.write(happened.SessionNamed("one", "s-1"))
    (again,) = restore(plan, journal.history, RUN)
    assert again.session_id is None and again.attempts == 1


def test_without_a_history_the_plan_begins() -> None:
    plan = a_plan(one="/a", two="/b")
    assert [status.state for status in restore(plan, JournalHistory(), "")] == [State.PENDING] * 2


def test_work_that_was_done_before_the_process_left_is_complete() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    journal.write(happened.WorkEnded("one"))
    assert restore(plan, journal.history, RUN)[0].state is State.COMPLETED


def test_an_instance_that_was_never_launched_keeps_its_end() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    status = InstanceStatus(plan.specs[0])
    status.skip(State.BLOCKED, "spent")
    journal.write(happened.InstanceEnded(status, launched=False))
    one = journal.history.instances["one"]
    assert (one.state, one.reason, one.attempts) == (State.BLOCKED, "spent", [])


def test_settings_of_all_starts_are_merged_and_limits_by_command_are_joined() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan, overall_token_budget=100, command_budgets=["/a=5"])
    journal.start(plan, number=2, overall_token_budget=200, command_budgets=["/a=9"])
    history = journal.history
    assert history.runs == 2
    assert history.header["settings"] == {"overall_token_budget": 200, "command_budgets": ["/a=5", "/a=9"]}


def test_copies_of_a_line_count_once_and_missing_lines_are_counted() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    journal.add("turn", instance="one", done=1)
    journal.records.append(journal.records[1])
    journal.records.append({"n": 5, "kind": "turn", "instance": "one", "done": 3})
    history = journal.history
    assert history.instances["one"].turns_done == 3
    assert (history.last_number, history.damaged_lines) == (5, 2)


USED = {"n": 2, "kind": "usage", "instance": "one", "attempt": 1, "at": 0.0, "usage": [1, 2, 3, 4], "cost_usd": None}


@pytest.mark.parametrize(
    "record",
    [
        None,
        {"kind": "turn"},
        {"n": 2, "kind": "turn", "instance": "one"},
        {"n": 2, "kind": "end", "instance": "one", "attempt": -1},
        {"n": 2, "kind": "end", "instance": "one", "attempt": 10**9},
        {"n": 2, "kind": "end", "instance": "one", "attempt": 0, "state": "unheard of", "reason": ""},
        {**USED, "usage": 5},
        {**USED, "usage": "text"},
        {**USED, "usage": [1, 2, 3]},
        {**USED, "usage": [1, 2, 3, -4]},
        {**USED, "usage": [1, 2, 3, True]},
        {**USED, "cost_usd": "1"},
    ],
)
def test_a_damaged_record_is_counted_and_changes_nothing(record: dict[str, Any] | None) -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    journal.records.append(record)
    history = journal.history
    assert history.damaged_lines == 1 and history.instances["one"].usage == Usage()


def test_records_of_other_kinds_and_of_unknown_instances_are_skipped() -> None:
    plan, journal = a_plan(one="/a"), Journal()
    journal.start(plan)
    journal.add("news", instance="one")
    journal.add("turn", instance="nobody", done=1)
    history = journal.history
    assert history.damaged_lines == 0 and set(history.instances) == {"one"}


def two_attempts() -> Journal:
    """`one` failed without a word and then completed with 500 tokens; `gone` was interrupted with 200."""
    plan, journal = a_plan(one="/a", gone="/b"), Journal()
    journal.start(plan)
    one, gone = (InstanceStatus(spec) for spec in plan.specs)
    one.restore((AttemptTotals(exact=False),), None)
    journal.attempt(one, 500)
    journal.attempt(gone, 200, ends=False)
    return journal


def test_budgets_are_charged_what_was_used_before() -> None:
    manager = TokenBudgetManager(10_000)
    manager.set_command_budget("/a", 1_000)
    carry_over(manager, two_attempts().history, Weights.parse("input=2"))
    assert manager.total_usage == 2 * 499 + 1 + 2 * 199 + 1
    assert manager.budgets_of(Scope.COMMAND)["/a"].used == 2 * 499 + 1


@pytest.mark.parametrize(
    ("cost", "charged"),
    [
        ({"cost_usd": None, "cost_nano_usd": 7}, 7),  # by price lists, where claude states nothing
        ({"cost_usd": 0.25, "cost_nano_usd": 300_000_000}, 300_000_000),
        ({"cost_usd": 0.25}, 250_000_000),  # from an earlier version
        ({"cost_usd": None}, 0),
    ],
)
def test_budgets_in_money_are_charged_what_was_spent_before(cost: dict[str, Any], charged: int) -> None:
    plan, journal, manager = a_plan(one="/a"), Journal(), TokenBudgetManager()
    journal.start(plan)
    journal.add("usage", instance="one", attempt=1, usage=(5, 1, 0, 0), **cost)
    budget = manager.set_budget(Scope.OVERALL, 2_000_000_000, unit=Unit.USD)
    carry_over(manager, journal.history, Weights())
    assert budget.used == charged


def test_budgets_are_charged_by_the_ratios_of_the_models_that_served() -> None:
    plan, journal, manager = a_plan(one="/a"), Journal(), TokenBudgetManager()
    journal.start(plan)
    models = {"dear": [2, 1, 0, 0]}
    journal.add("usage", instance="one", attempt=1, usage=(5, 1, 0, 0), models=models, cost_usd=None)
    journal.add("sent", instance="one", attempt=1, request=1, left=[0, 4, 0, 0, 0], left_model="dear")
    history = journal.history
    charge_in_flight(history, "bound")
    carry_over(manager, history, ModelWeights({"dear": Weights(output=7)}.get))
    assert manager.total_usage == 5 + 7 * 5
    journal.add("usage", instance="one", attempt=1, usage=(5, 1, 0, 0), models=["dear"], cost_usd=None)
    assert journal.history.damaged_lines == 1


def test_messages_about_a_resumed_run() -> None:
    journal = two_attempts()
    journal.records.append(None)
    assert resume_messages(a_plan(one="/changed", new="/c"), journal.history, RUN) == [
        ("INFO", f"resuming run {RUN}: 1 of 2 instances had completed, 700 tokens used before"),
        ("WARNING", "damaged or missing in the run's journal: 1 line"),
        ("WARNING", "one: completed before and not run again, although the turns have changed"),
        ("WARNING", "gone: no longer in the config, but the use still counts"),
        ("INFO", "new: new in the config"),
    ]
    assert len(resume_messages(a_plan(one="/a", gone="/b"), two_attempts().history, RUN)) == 1


def test_only_launched_instances_count_as_removed() -> None:
    journal = two_attempts()
    journal.start(a_plan(one="/a", gone="/b", idle="/c"), number=2)
    assert [instance.name for instance in removed(a_plan(other="/d"), journal.history)] == ["one", "gone"]


def test_earlier_attempts_for_the_ledger() -> None:
    first, second, gone = earlier_attempts(two_attempts().history, RUN)
    assert [(one.instance, one.attempt, one.outcome) for one in (first, second, gone)] == [
        ("one", 1, "failed"),
        ("one", 2, "completed"),
        ("gone", 1, "interrupted"),
    ]
    assert (second.started_ms, second.ended_ms, second.usage) == (10_000, 12_000, Usage(499, 1))
    assert second.exact and not gone.exact and gone.session == "s-1"
    assert second.cost_nano_usd == 499_000_000 and gone.cost_nano_usd is None


def test_checks_changes_and_grown_groups_come_back() -> None:
    plan, journal = a_plan(one="/a", two="/b"), Journal()
    journal.start(plan)
    journal.write(happened.Checked("one", 1, CheckVerdict(False, "exit code 1", "text")))
    journal.write(happened.Checked("two", 2, CheckVerdict(True)))
    changes = Changes("b", "base", "commit", None, 1, 2, 3, None)
    journal.write(happened.ChangesKept("two", changes))
    journal.write(happened.Expanded("fix", (happened.Member("fix[a]", None, "digest", "fix"),)))
    history = journal.history
    one, two = history.instances["one"], history.instances["two"]
    assert (one.check_rounds, one.verdict, one.fix_due) == (1, CheckVerdict(False, "exit code 1", "text"), True)
    assert (two.check_rounds, two.state, two.changes) == (2, State.COMPLETED, changes)
    assert history.instances["fix[a]"].group == "fix"
    status = restore(plan, history, RUN)[1]
    assert (status.state, status.changes) == (State.COMPLETED, changes)


def test_what_people_allowed_for_the_rest_of_the_run_stays_allowed() -> None:
    journal, plan = Journal(), a_plan(one="/a")
    journal.start(plan)
    journal.write(happened.RuleMade(Rule("Bash", "npm test", exact=True), happened.By("socket", "kim")))
    journal.write(happened.RuleMade(Rule("Read"), happened.By("web")))
    assert journal.history.rules == [Rule("Bash", "npm test", exact=True), Rule("Read")]
    texts = [text for _, text in resume_messages(plan, journal.history, RUN)]
    assert "still allowed, as approved before: Bash(npm test), Read" in texts


@pytest.mark.parametrize("rule", [None, {}, {"tool": 7, "pattern": None, "exact": True}, {"tool": "x", "pattern": [1]}])
def test_a_damaged_rule_allows_nothing(rule: object) -> None:
    journal = Journal()
    journal.start(a_plan(one="/a"))
    journal.add("rule", rule=rule)
    assert journal.history.rules == [] and journal.history.damaged_lines == 1
