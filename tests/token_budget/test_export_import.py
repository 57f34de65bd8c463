"""Export and import of a ledger: round trips, what is left out, what is refused."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_budget.ledger.export_import import CSV_COLUMNS, Diff, apply, diff, export, export_csv
from token_budget.ledger.import_reader import MAX_COUNT, ImportData, read
from token_budget.ledger.records import AttemptRecord, NoteRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage

HEADER = '{"kind": "token-budget", "version": 4}'
PROFILES = {"night": {"overall_token_budget": 5000}, "day": {"extends": "night"}}
RUN = RunRecord("r1", "host", 1_000, 9_000, "block", '{"overall": 5000}', 0)
ONE = AttemptRecord("r1", "one", 1, 1_100, "s1", "/test --all\nsecret", "/test", "opus", 2_000, "completed", True)
TWO = AttemptRecord("r2", "two", 1, 1_200, command="a secret prompt")  # in progress
RECORDS = (
    UsageRecord("r1/one/1/1", "r1", "one", 1, 1_500, "opus", Usage(10, 20, 30, 40), 1_234_500, "claude"),
    UsageRecord("r1/one/1/2", "r1", "one", 1, 1_600, "=1+1", Usage(-10, 5, 0, 0)),
    UsageRecord("r2/two/1/1", "r2", "two", 1, 1_300, "", Usage(MAX_COUNT // 2, 0, 0, 0)),
)
NOTE = NoteRecord("n1", "r1", 1_700, "adjustment", "grew by 10", "one")
ALL = ImportData((RUN, RunRecord("r2", "host", 1_200)), (ONE, TWO), RECORDS, (NOTE,))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(tmp_path / "a.db")
    apply(opened, ALL)
    yield opened
    opened.close()


def test_round_trip_is_exact_and_a_second_import_adds_nothing(ledger: SqliteLedger, tmp_path: Path) -> None:
    lines = list(export(ledger, prompts=True, profiles=PROFILES))
    assert lines[0] == HEADER and all("\n" not in line for line in lines)
    parcel = read(line + "\n" for line in lines)
    assert parcel.profiles == PROFILES and set(parcel.records) == set(RECORDS) and parcel.notes == (NOTE,)
    other = SqliteLedger(tmp_path / "b.db")
    expected = Diff(2, 2, 3, 0, ("night", "day"), 95 + MAX_COUNT // 2)
    assert diff(other, parcel) == expected and list(export(other)) == [HEADER]
    assert apply(other, parcel) == expected
    assert list(export(other, prompts=True, profiles=PROFILES)) == lines
    assert apply(other, parcel) == Diff(0, 0, 0, 3, ("night", "day"), 0)
    assert list(export(other, prompts=True, profiles=PROFILES)) == lines
    assert other.attempts(run="r1")[0].usage == Usage(0, 25, 30, 40)


def test_the_first_version_is_read_and_sessions_and_workspaces_travel(ledger: SqliteLedger, tmp_path: Path) -> None:
    more = ONE._replace(instance="more", other_sessions=("s0", "s2"), workspace="/home/me")
    ledger.write(attempts=[more])
    lines = list(export(ledger, prompts=True))
    assert [a.other_sessions for a in read(lines).attempts if a.workspace == "/home/me"] == [("s0", "s2")]
    assert [a.other_sessions for a in read(export(ledger)).attempts if a.workspace] == []
    other = SqliteLedger(tmp_path / "b.db")
    apply(other, read(lines))
    assert list(export(other, prompts=True)) == lines
    other.close()
    first = [line for line in lines if "other_sessions" not in line]
    assert len(read([first[0].replace("2", "1"), *first[1:]]).attempts) == 2
    with pytest.raises(ValueError, match="expected a list of texts, got 5"):
        read([line.replace('["s0", "s2"]', "5") for line in lines])


def test_prompts_are_left_out_unless_asked(ledger: SqliteLedger) -> None:
    text = "\n".join(export(ledger))
    assert "secret" not in text and "--all" not in text
    assert [attempt.command for attempt in read(text.splitlines()).attempts] == ["/test", None]
    assert "secret" in "\n".join(export(ledger, prompts=True))


def test_what_is_there_stays_unless_a_later_end_is_known(ledger: SqliteLedger) -> None:
    stale = RUN._replace(ended_ms=None, mode="warn", budgets="{}")
    earlier = ONE._replace(ended_ms=1_999, exact=False, outcome="failed")
    later = TWO._replace(ended_ms=3_000, outcome="completed")
    assert apply(ledger, ImportData((stale,), (earlier, later))) == Diff(0, 0, 0, 0, (), 0)
    assert ledger.runs(run="r1") == [RUN]
    one, two = sorted(ledger.attempts(), key=lambda attempt: attempt.key)
    assert (one.ended_ms, one.exact, one.outcome) == (2_000, True, "completed")
    assert (two.ended_ms, two.outcome) == (3_000, "completed")


def test_records_that_are_there_with_other_figures_are_counted_and_stay(ledger: SqliteLedger) -> None:
    first, second, third = RECORDS
    others = first._replace(cost_nano_usd=5), second._replace(usage=Usage(1)), third._replace(at_ms=1, model="x")
    parcel = replace(ALL, records=others)
    before = list(ledger.records())
    assert diff(ledger, parcel).other_records == apply(ledger, parcel).other_records == 2
    assert list(ledger.records()) == before and diff(None, parcel).other_records == 0


def test_csv(ledger: SqliteLedger) -> None:
    rows = list(csv.DictReader(export_csv(ledger)))
    assert tuple(rows[0]) == CSV_COLUMNS and len(rows) == 3
    assert [row["record"] for row in rows] == ["r2/two/1/1", "r1/one/1/1", "r1/one/1/2"]
    assert rows[1] | {"at": "1970-01-01T00:00:01.500Z", "base_command": "/test", "total_tokens": "100"} == rows[1]
    assert (rows[1]["cost_usd"], rows[1]["output_tokens"], rows[0]["cost_usd"]) == ("0.001234500", "20", "")
    assert (rows[2]["model"], rows[2]["input_tokens"]) == ("'=1+1", "-10")  # text is guarded, numbers are not


def lines_with(kind: str, **changes: Any) -> list[str]:
    """A small export in which one line has other values; Ellipsis takes a key away."""
    parcel: list[dict[str, Any]] = [
        {"kind": "token-budget", "version": 4},
        {"kind": "run", "run": "r", "machine": "m", "started_ms": 1, "mode": "warn", "budgets": "{}"},
        {"kind": "attempt", "run": "r", "instance": "i", "attempt": 1, "started_ms": 1, "exact": True},
        {"kind": "record", "id": "x", "run": "r", "instance": "i", "attempt": 1, "at_ms": 2, "model": "m"}
        | dict.fromkeys(("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), 1),
        {"kind": "note", "id": "n", "run": "r", "at_ms": 3, "about": "a", "text": "t"},
        {"kind": "profiles", "profiles": {}},
    ]
    changed = [{**line, **changes} if line["kind"] == kind else line for line in parcel]
    return [json.dumps({key: value for key, value in line.items() if value is not ...}) for line in changed]


def test_the_small_export_is_valid() -> None:
    parcel = read(["\n", *lines_with("")])
    assert (len(parcel.runs), len(parcel.attempts), len(parcel.records), len(parcel.notes)) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], 'line 1: expected {"kind": "token-budget", "version": 4} as the first line, got nothing'),
        (["{}"], "line 1: expected"),
        (['{"kind": "token-budget", "version": 5}'], "line 1: version 5 is unknown: this program reads"),
        (['{"kind": "token-budget", "version": true}'], "line 1: version true"),
        ([HEADER, "", '{"kind": "run", "ru'], "line 3: is not JSON"),
        ([HEADER, "[" * 100_000], "line 2: is not JSON"),
        ([HEADER, "[1]"], "line 2: expected a JSON object, got [1]"),
        ([HEADER, HEADER], 'line 2: kind "token-budget" does not exist in version 4, which has run, attempt'),
        ([HEADER, '{"kind": ["run"]}'], "line 2: kind"),
        (lines_with("run", colour="red"), 'line 2: run: key "colour" does not exist in version 4'),
        (lines_with("run", started_ms=...), "line 2: run: started_ms: expected a whole number"),
        (lines_with("run", started_ms=2**62), "line 2: run: started_ms"),
        (lines_with("run", budgets="[]"), "line 2: run: budgets: expected the text of a JSON object"),
        (lines_with("run", machine="\ud800"), "line 2: run: machine: expected text"),
        (lines_with("attempt", exact=1), "line 3: attempt: exact: expected true or false, got 1"),
        (lines_with("attempt", session=7), "line 3: attempt: session: expected text, got 7"),
        (lines_with("attempt", attempt=2), 'line 4: record "x": no line before it has its attempt ["r", "i", 1]'),
        (lines_with("record", input_tokens=1.0), "line 4: record: input_tokens: expected a whole number"),
        (lines_with("record", input_tokens=True), "line 4: record: input_tokens"),
        (lines_with("record", output_tokens=2**62 + 1), "line 4: record: output_tokens"),
        (lines_with("record", output_tokens=2**62), 'line 4: record "x": all counts'),
        (lines_with("record", at_ms=-1), "line 4: record: at_ms"),
        (lines_with("note", text=...), "line 5: note: text: expected text, got nothing"),
        (lines_with("profiles", profiles={"a": 1}), "line 6: profiles: profiles: expected an object"),
        ([HEADER, '{"kind": "profiles", "profiles": {"a": {"b": NaN}}}'], "line 2: is not JSON"),
        ([*lines_with(""), lines_with("run", mode="block")[1]], 'line 7: run "r": an earlier line has it with other'),
    ],
)
def test_a_fault_is_told_in_one_line_with_its_number(lines: list[str], fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(lines, "a.jsonl")
    assert str(caught.value).startswith(f"a.jsonl: {fault}") and "\n" not in str(caught.value)


def test_not_utf_8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\xff\xfe\n")
    with file.open(encoding="utf-8") as lines, pytest.raises(ValueError, match="is not UTF-8 text"):
        read(lines, "a.jsonl")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
MS = st.integers(0, 10**13)
COUNT = st.integers(-(10**9), 10**9)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT, COUNT)


@st.composite
def parcels(draw: st.DrawFn) -> ImportData:
    names = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    runs = [
        RunRecord(n, draw(TEXT), draw(MS), draw(st.none() | MS), draw(TEXT), "{}", draw(st.none() | COUNT))
        for n in names
    ]
    keys = draw(st.lists(st.tuples(st.sampled_from(names), TEXT, st.integers(0, 3)), max_size=4, unique=True))
    maybe = st.none() | TEXT
    attempts = [
        AttemptRecord(
            *key,
            draw(MS),
            *(draw(maybe), draw(maybe), draw(maybe), draw(maybe)),
            ended_ms=draw(st.none() | MS),
            outcome=draw(maybe),
            exact=draw(st.booleans()),
        )
        for key in keys
    ]
    ids = draw(st.lists(TEXT, max_size=5 if keys else 0, unique=True))
    records = [
        UsageRecord(
            n, *draw(st.sampled_from(keys)), draw(MS), draw(TEXT), draw(USAGE), draw(st.none() | COUNT), draw(maybe)
        )
        for n in ids
    ]
    notes = [NoteRecord(n, draw(TEXT), draw(MS), draw(TEXT), draw(TEXT), draw(maybe)) for n in ids]
    return ImportData(tuple(runs), tuple(attempts), tuple(records), tuple(notes))


@settings(max_examples=25)
@given(parcels(), st.booleans())
def test_any_ledger_comes_through_whole(parcel: ImportData, prompts: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = SqliteLedger(f"{folder}/a.db"), SqliteLedger(f"{folder}/b.db")
        apply(first, parcel)
        lines = list(export(first, prompts=prompts))
        said = read(lines)
        assert set(said.records) == set(parcel.records) and set(said.runs) == set(parcel.runs)
        apply(second, said)
        assert list(export(second, prompts=prompts)) == lines
        assert apply(second, said).new_records == 0
        first.close()
        second.close()
