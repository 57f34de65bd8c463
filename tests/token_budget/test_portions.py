"""What an attempt uses, divided by model, source and terms; and that the ledger keeps each of these."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from token_budget.api_usage import PriceTerms, UsagePart
from token_budget.ledger.export_import import export, export_csv
from token_budget.ledger.import_reader import read
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.sqlite_schema import APPLICATION_ID, MIGRATIONS, statements
from token_budget.models import Usage
from token_budget.portions import MAIN, Spent, Subagent, Terms

FAST = Terms("fast", "us", "batch", "redeemed")
AGENT = Subagent("a1", "Explore", "a0", 2)
RECORD = UsageRecord("r/i/1/1", "r", "i", 1, 5, "m", Usage(1, 2, 30, 4), 7, "prices", "a1", FAST, 20, 3)
ATTEMPT = AttemptRecord("r", "i", 1, 1, subagents=(AGENT,))


def test_terms_that_change_nothing_are_empty() -> None:
    usual = PriceTerms("standard", "global", "standard", fallback_credit="not_applied")
    assert Terms.of(usual) == Terms() == Terms.of(PriceTerms(inference_geo="not_available"))
    assert Terms.of(PriceTerms("fast", "us", "batch", (("web_search_requests", 2),), "redeemed")) == FAST


def test_counts_are_added_and_corrected() -> None:
    part = UsagePart("message", "", Usage(1, 2, 30, 4), 20)
    spent = Spent.of(part, PriceTerms(server_tools=(("web_search_requests", 3),)))
    assert spent == Spent(Usage(1, 2, 30, 4), 20, 3) and spent + Spent() == spent
    assert not spent - spent and Spent() - spent == Spent(Usage(-1, -2, -30, -4), -20, -3)


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.write(runs=[RunRecord("r", "m", 1)], attempts=[ATTEMPT], records=[RECORD])
    return ledger


def test_the_ledger_keeps_source_and_terms(ledger: SqliteLedger) -> None:
    assert list(ledger.records()) == [RECORD]
    assert ledger.attempts()[0].subagents == (AGENT,)
    ledger.write(attempts=[AttemptRecord("r", "i", 1, 1, outcome="completed")])  # of one that knows no subagents
    assert ledger.attempts()[0].subagents == (AGENT,)


def test_an_export_has_them_and_comes_back(ledger: SqliteLedger) -> None:
    lines = list(export(ledger))
    parcel = read(lines)
    assert parcel.records == (RECORD,) and parcel.attempts[0].subagents == (AGENT,)
    head, row = (line.split(",") for line in export_csv(ledger))
    values = dict(zip(head, row, strict=True))
    assert (values["source"], values["subagent_type"], values["subagent_depth"]) == ("a1", "Explore", "2")
    assert (values["speed"], values["written_for_1h_tokens"], values["web_searches"]) == ("fast", "20", "3")


def test_what_an_export_leaves_out_is_not_divided(ledger: SqliteLedger) -> None:
    plain = UsageRecord("r/i/1/2", "r", "i", 1, 6, "m", Usage(1))
    ledger.write(records=[plain])
    line = json.loads(next(line for line in export(ledger) if "r/i/1/2" in line))
    assert not {"source", "terms", "written_for_1h_tokens", "web_searches"} & line.keys()
    assert plain in read(export(ledger)).records


@pytest.mark.parametrize(
    ("kind", "key", "value", "reason"),
    [
        ("record", "terms", {"speed": 5}, "terms: expected text"),
        ("record", "terms", {"colour": "red"}, "terms: expected an object with speed, inference_geo"),
        ("record", "source", 5, "source: expected text"),
        ("record", "web_searches", "x", "web_searches: expected a whole number"),
        ("attempt", "subagents", [5], "subagents: expected a list of objects"),
        ("attempt", "subagents", [{"id": "a"}], "type: expected text, got nothing"),
    ],
)
def test_what_no_export_has(ledger: SqliteLedger, kind: str, key: str, value: object, reason: str) -> None:
    lines = [json.loads(line) for line in export(ledger)]
    changed = [json.dumps({**line, key: value} if line["kind"] == kind else line) for line in lines]
    with pytest.raises(ValueError, match=reason):
        read(changed)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_ledger_of_an_earlier_version_stays_readable(version: int, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.touch(mode=0o600)
    db = sqlite3.connect(path, isolation_level=None)
    for migration in MIGRATIONS[:version]:
        for statement in statements(migration):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(
        "INSERT INTO runs (run, machine, started_ms, ended_ms, mode, budgets, exit_code) "
        "VALUES ('r', 'm', 1, 2, 'warn', '{}', 0)"
    )
    db.execute("INSERT INTO attempts (run, instance, attempt, started_ms) VALUES ('r', 'i', 1, 1)")
    columns = "id, attempt, at_ms, model, input, output, cache_write, cache_read, cost_nano, cost_source"
    db.execute(f"INSERT INTO records ({columns}) VALUES ('old', 1, 5, 'm', 1, 2, 3, 4, 9, 'claude')")
    db.close()
    ledger = SqliteLedger(path)
    ledger.write(attempts=[ATTEMPT], records=[RECORD])
    old = UsageRecord("old", "r", "i", 1, 5, "m", Usage(1, 2, 3, 4), 9, "claude")
    assert set(ledger.records()) == {old, RECORD} and old.source != MAIN
    (attempt,) = ledger.attempts()
    assert attempt.usage == Usage(2, 4, 33, 8) and attempt.cost_nano_usd == 16 and attempt.subagents == (AGENT,)
    ledger.close()
