"""What forecasts are made of: samples of base commands, and of plain prompts by their instance's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from token_budget.forecast import forecast
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.samples import SampleReader, subject_of
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Unit, Usage, Weights
from token_budget.trials import Trial


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def add(ledger: SqliteLedger, instance: str, command: str | None, *tokens: int, outcome: str = "completed") -> None:
    """An instance with one attempt in a run of its own for each count."""
    for number, used in enumerate(tokens):
        run = f"{instance} {command} {number}"
        attempt = AttemptRecord(run, instance, 1, number, None, command, command, "opus", number + 1, outcome)
        record = UsageRecord(run, run, instance, 1, number, "opus", Usage(0, used), used * 10)
        ledger.write(runs=[RunRecord(run, "m", number)], attempts=[attempt], records=[record])


def test_plain_prompts_are_forecast_by_the_name_of_their_instance(ledger: SqliteLedger) -> None:
    add(ledger, "summary", None, *[100] * 9)
    add(ledger, "migration", None, *[90_000] * 9)
    reader = SampleReader(ledger)
    for name, least, most in (("summary", 50, 200), ("migration", 45_000, 180_000)):
        found = forecast(reader.of(None, name), subject_of(None, name), "opus")
        assert found.n == 9 and least <= (found.p50 or 0) <= most
    assert not forecast(reader.of(None, "new"), subject_of(None, "new"), "opus").known


def test_a_prompt_is_not_the_command_of_an_instance_with_the_same_name(ledger: SqliteLedger) -> None:
    add(ledger, "/test", None, 5, 5)
    add(ledger, "/test", "/test", 7)
    add(ledger, "x", "/test", 7)
    reader = SampleReader(ledger)
    subjects = [sample.subject for sample in reader.of(None, "/test")]
    assert sorted(subjects) == ["/test", "/test", "prompt /test", "prompt /test"]
    assert reader.subjects() == [("/test", ""), (None, "/test")]


def test_old_samples_of_a_prompt_are_found_behind_many_others(ledger: SqliteLedger) -> None:
    add(ledger, "nightly", None, *[100] * 6)
    many = [AttemptRecord("r", f"i{n}", 1, 9, base_command="/b", ended_ms=10, outcome="completed") for n in range(1100)]
    used = [UsageRecord(f"b{n}", "r", f"i{n}", 1, 9, "opus", Usage(1)) for n in range(1100)]
    ledger.write(runs=[RunRecord("r", "m", 9)], attempts=many, records=used)
    assert forecast(SampleReader(ledger).of(None, "nightly"), "prompt nightly", "opus").n == 6
    assert SampleReader(ledger).subjects() == [("/b", "")]  # these are the latest


def test_samples_count_in_weighted_tokens_or_money_and_leave_out_what_was_never_used(ledger: SqliteLedger) -> None:
    add(ledger, "a", "/a", 100, 0)
    add(ledger, "b", "/a", 50, outcome="failed")
    reader = SampleReader(ledger, Weights.parse("output=5"))
    assert [(one.tokens, one.censored) for one in reader.of("/a", "")] == [(500, False), (250, True)]
    assert [one.tokens for one in reader.of("/a", "", Unit.USD)] == [1_000, 500]
    assert len(reader.all()) == 2


def test_the_instances_of_a_group_are_samples_of_its_prompt(ledger: SqliteLedger) -> None:
    for number in range(6):
        add(ledger, f"fix[file{number}.py]", None, 100)
    add(ledger, "fixed", None, 9_000)
    add(ledger, "fix[slash]", "/fix", 9_000)
    reader = SampleReader(ledger)
    for name in ("fix[new.py]", "fix[]", "fix"):
        assert forecast(reader.of(None, name), subject_of(None, name), "opus").n == 6
    assert reader.subjects() == [("/fix", ""), (None, "fix"), (None, "fixed")]


def test_a_trial_is_the_latest_run_of_a_group(ledger: SqliteLedger) -> None:
    for run, tokens, outcome in (("r1", 100, "completed"), ("r2", 300, "completed"), ("r3", 5, "failed")):
        at = int(run[1])
        names = [f"fix[{number}]" for number in range(3)]
        attempts = [
            AttemptRecord(run, name, 1, at, None, None, None, "opus", at + number, outcome)
            for number, name in enumerate(names)
        ]
        used = [UsageRecord(run + name, run, name, 1, at, "opus", Usage(tokens)) for name in names]
        ledger.write(runs=[RunRecord(run, "m", at)], attempts=attempts, records=used)
    assert SampleReader(ledger).trial("fix") == Trial((300, 300, 300))
    assert SampleReader(ledger).trial("fi") is None
