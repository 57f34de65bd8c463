"""What was used, as rows, tables, JSON and CSV: by hand-made ledgers in zones of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget import pricing
from token_budget.ledger.records import FOREVER_MS, AttemptRecord, NoteRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage
from token_budget.text import RenderOptions, display_width, printable
from token_budget.usage.history import MOST_EMPTY_DAYS, By, UsageRow, history, percentile
from token_budget.usage.history_text import as_csv, as_json
from token_budget.usage.history_text import render as render_rows
from token_budget.usage.lookup import find_subject
from token_budget.usage.moments import read_since, read_until
from token_budget.usage.nearest import nearest
from token_budget.usage.run_detail import duration, run_detail
from token_budget.usage.tables import sparkline
from token_budget.windows import to_ms

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PLAIN = RenderOptions(100, ascii_only=True)
BYS: tuple[By, ...] = ("day", "command", "model", "run")
HOSTILE = "/x\033[31m\n\r\t\u202e\u2028漢=e\u0301"  # colour, line ends, right to left, two cells, none


def ms(text: str) -> int:
    """`11-24T12:00` of 2026 in UTC."""
    return round(datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC).timestamp() * 1000)


def zone(name: str) -> Callable[[int], datetime]:
    info = ZoneInfo(name)
    return lambda at_ms: datetime.fromtimestamp(at_ms / 1000, info)


utc = zone("UTC")


def render(rows: Sequence[UsageRow], by: By, options: RenderOptions) -> list[str]:
    return render_rows(rows, (by,), options)


class Book:
    """A ledger with an attempt for each `add`, which ended with its one record."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path)
        self._count = 0

    def add(self, at: str | int, tokens: int | Usage = 0, cost: int | None = None, **of: Any) -> None:
        self._count += 1
        end_ms = ms(at) if isinstance(at, str) else at
        key = (of.pop("run", "r"), of.pop("instance", f"i{self._count}"), of.pop("attempt", 1))
        known = {"base_command": "/test", "model": "opus", "ended_ms": end_ms, "outcome": "completed", "exact": True}
        attempt = AttemptRecord(*key, of.pop("started_ms", end_ms), **{**known, **of})
        usage = tokens if isinstance(tokens, Usage) else Usage(tokens)
        record = UsageRecord(str(self._count), *key, end_ms, attempt.model or "", usage, cost)
        self.ledger.write(runs=[RunRecord(key[0], "m", end_ms)], attempts=[attempt], records=[record])

    def rows(
        self, by: By, since_ms: int = 0, until_ms: int = FOREVER_MS, *, local: Callable[[int], datetime] = utc
    ) -> list[UsageRow]:
        return history(self.ledger, (by,), since_ms, until_ms, local)

    def tokens(self, by: By, *span_ms: int, local: Callable[[int], datetime] = utc) -> dict[str, int]:
        return {row.group: row.usage.total_tokens for row in self.rows(by, *span_ms, local=local)}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    opened = Book(tmp_path / "ledger.db")
    yield opened
    opened.ledger.close()


# -- rows --


def test_days_without_use_have_rows(book: Book) -> None:
    book.add("11-24T12:00", 5)
    book.add("11-26T12:00", 7)
    assert book.tokens("day") == {"2026-11-24": 5, "2026-11-25": 0, "2026-11-26": 7}
    wider = book.tokens("day", ms("11-23T08:00"), ms("11-28T00:00"))
    assert list(wider.items()) == [
        ("2026-11-23", 0),
        ("2026-11-24", 5),
        ("2026-11-25", 0),
        ("2026-11-26", 7),
        ("2026-11-27", 0),
    ]
    assert book.rows("day")[1] == UsageRow(("2026-11-25",))


def test_more_than_a_year_of_empty_days_has_no_rows(book: Book) -> None:
    at_ms, year_ms = ms("11-24T12:00"), MOST_EMPTY_DAYS * DAY_MS
    book.add(at_ms, 5)
    for span_ms in ((at_ms - year_ms,), (0, at_ms + year_ms)):
        assert len(book.rows("day", *span_ms)) == MOST_EMPTY_DAYS + 1
    for span_ms in ((1,), (0, at_ms + 9 * year_ms)):
        assert book.tokens("day", *span_ms) == {"2026-11-24": 5}
    book.add(5, 7)
    assert book.tokens("day") == {"1970-01-01": 7, "2026-11-24": 5}


@pytest.mark.parametrize("by", BYS)
def test_an_empty_ledger_has_no_rows(book: Book, by: By) -> None:
    assert book.rows(by) == [] == book.rows(by, ms("11-23T00:00"), ms("11-25T00:00"))
    assert render([], by, RenderOptions(20)) == ["nothing was used in", "this time"]


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("UTC", ["11-24", "11-24"]),
        ("Asia/Kathmandu", ["11-24", "11-25"]),  # 5:45 ahead
        ("Pacific/Kiritimati", ["11-25", "11-25"]),
        ("Pacific/Honolulu", ["11-24", "11-24"]),
    ],
)
def test_a_day_is_one_of_the_zone(book: Book, name: str, days: list[str]) -> None:
    book.add("11-24T18:14", 5)
    book.add("11-24T18:16", 7)
    expected: dict[str, int] = {}
    for day, tokens in zip(days, (5, 7), strict=True):
        expected[f"2026-{day}"] = expected.get(f"2026-{day}", 0) + tokens
    assert book.tokens("day", local=zone(name)) == expected
    assert sum(row.instances for row in book.rows("day", local=zone(name))) == 2


@pytest.mark.parametrize(("day", "hours"), [("03-29", 23), ("10-25", 25)])
def test_a_day_on_which_the_clocks_change_is_one_row(book: Book, day: str, hours: int) -> None:
    begin_ms = ms(f"{day}T00:00") - (2 if hours == 25 else 1) * HOUR_MS  # midnight in Berlin
    for hour in range(-24, hours + 24):
        book.add(begin_ms + hour * HOUR_MS, 1)
    rows = book.rows("day", local=zone("Europe/Berlin"))
    assert [(row.usage.total_tokens, row.instances) for row in rows] == [(24, 24), (hours, hours), (24, 24)]
    assert rows[1].group == f"2026-{day}"


def test_a_span_begins_with_its_first_moment_and_ends_before_its_last(book: Book) -> None:
    for at, tokens in (("11-24T11:59", 1), ("11-24T12:00", 10), ("11-24T12:59", 100), ("11-24T13:00", 1000)):
        book.add(at, tokens)
    for by, group in (("day", "2026-11-24"), ("command", "/test"), ("model", "opus"), ("run", "r")):
        (row,) = book.rows(by, ms("11-24T12:00"), ms("11-24T13:00"))  # type: ignore[arg-type]
        assert (row.group, row.usage.total_tokens, row.instances, row.completed) == (group, 110, 2, 2)


def test_rows_are_grouped_in_several_ways_at_once(book: Book) -> None:
    book.add("11-24T12:00", 5, base_command="/a", model="opus", run="x")
    book.add("11-24T13:00", 7, base_command="/a", model="haiku", run="x")
    book.add("11-25T13:00", 9, base_command=None, model="opus", run="w", outcome="failed")
    rows = history(book.ledger, ("model", "command"), local=utc)
    assert [(row.groups, row.usage.total_tokens, row.completed) for row in rows] == [
        (("opus", "(prompt)"), 9, 0),
        (("haiku", "/a"), 7, 1),
        (("opus", "/a"), 5, 1),
    ]
    assert [row.groups for row in history(book.ledger, ("run", "day"), local=utc)] == [
        ("x", "2026-11-24"),
        ("w", "2026-11-25"),
    ]
    lines = [line.split()[:3] for line in render_rows(rows, ("model", "command"), PLAIN)]
    assert lines[:2] == [["model", "command", "tokens"], ["opus", "(prompt)", "9"]] and lines[4][:2] == ["total", "21"]
    (first, *_) = as_json(rows, ("model", "command"))
    assert list(first)[:3] == ["model", "command", "input_tokens"] and first["command"] == "(prompt)"
    assert as_csv(rows, ("model", "command")).splitlines()[1].startswith("opus,(prompt),9,0,0,0,9,")


def test_rows_by_instance_and_by_workspace(book: Book) -> None:
    book.add("11-24T12:00", 5, run="x", instance="a", workspace="/home/me/one")
    book.add("11-25T12:00", 7, run="y", instance="a", workspace="/home/me/two")
    book.add("11-25T12:00", 1, run="y", instance="b")
    assert list(book.tokens("instance").items()) == [("a", 12), ("b", 1)]
    assert [row.instances for row in book.rows("instance")] == [2, 1]
    assert list(book.tokens("workspace").items()) == [("/home/me/two", 7), ("/home/me/one", 5), ("(unknown)", 1)]


def test_groups_are_sorted_by_use_and_runs_by_time(book: Book) -> None:
    book.add("11-24T12:00", 5, run="z", base_command="/b", model="opus")
    book.add("11-24T13:00", 5, run="y", base_command="/a", model="haiku")
    book.add("11-24T14:00", 9, run="x", base_command=None, model=None)
    book.add("11-24T15:00", 1, run="z", base_command="/b", model="opus")
    assert list(book.tokens("run").items()) == [("z", 6), ("y", 5), ("x", 9)]
    assert list(book.tokens("command").items()) == [("(prompt)", 9), ("/b", 6), ("/a", 5)]
    assert list(book.tokens("model").items()) == [("(unknown)", 9), ("opus", 6), ("haiku", 5)]
    assert [row.instances for row in book.rows("command")] == [1, 2, 1]


def test_all_attempts_at_an_instance_are_one_instance(book: Book) -> None:
    book.add("11-24T12:00", 100, instance="a", outcome="failed")
    book.add("11-25T12:00", 30, instance="a", attempt=2, outcome="failed")
    book.add("11-26T12:00", 7, instance="a", attempt=3)
    book.add("11-26T13:00", 50, instance="b", outcome="failed")
    (row,) = book.rows("command")
    assert (row.instances, row.completed, row.p50, row.p90) == (2, 1, 50, 137)
    days = [(row.usage.total_tokens, row.instances, row.completed) for row in book.rows("day")]
    assert days == [(100, 0, 0), (30, 0, 0), (57, 2, 1)]  # it counts where the last attempt ended
    (late,) = book.rows("command", ms("11-26T00:00"))
    assert (late.usage.total_tokens, late.instances, late.p90) == (57, 2, 137)  # attempts before the span too
    (early,) = book.rows("command", 0, ms("11-26T00:00"))
    assert (early.usage.total_tokens, early.instances) == (130, 0)


def test_what_still_runs_is_an_instance_that_says_nothing_of_its_size(book: Book) -> None:
    began_ms = ms("11-24T12:00")
    book.add("11-25T12:00", 100, started_ms=began_ms, ended_ms=None, outcome=None)
    book.add("11-25T12:00", 0, outcome="failed")  # never got to the API
    first, second = book.rows("day")
    assert (first.usage.total_tokens, first.instances, first.p50) == (0, 1, None)
    assert (second.usage.total_tokens, second.instances, second.p50) == (100, 1, None)


def test_what_was_imported_is_use_but_no_instance(book: Book) -> None:
    book.add("11-24T12:00", 100, outcome="imported")
    assert book.rows("day") == [UsageRow(("2026-11-24",), Usage(100), None, 100)]


def test_costs_are_summed_and_what_has_none_is_marked(book: Book) -> None:
    book.add("11-24T12:00", 100, 250_000_000, base_command="/both")
    book.add("11-24T13:00", 30, 500_000_000, base_command="/both", outcome="failed")
    book.add("11-24T14:00", 50, None, base_command="/both")
    book.add("11-24T15:00", 70, None, base_command="/none")
    book.add("11-24T16:00", 9, 0, base_command="/free")
    both, none, free = book.rows("command")
    assert (both.cost_nano_usd, both.unpriced_tokens, both.cost_per_completed) == (750_000_000, 50, 375_000_000)
    assert (none.cost_nano_usd, none.unpriced_tokens, none.cost_per_completed) == (None, 70, None)
    assert (free.cost_nano_usd, free.unpriced_tokens, free.cost_per_completed) == (0, 0, 0)
    lines = [line.split()[:3] for line in render([both, none, free], "command", PLAIN)]
    assert lines[:5] == [
        ["command", "tokens", "cost"],
        ["/both", "180", "$0.75+"],
        ["/none", "70", "?"],
        ["/free", "9", "$0.00"],
        ["total", "259", "$0.75+"],
    ]
    assert "+ or ?: 120 tokens have no price and are not in the costs" in render([both, none, free], "command", PLAIN)
    assert not any("no price" in line for line in render([free], "command", PLAIN))


def test_cache_share_is_of_all_input() -> None:
    assert UsageRow(("x",), Usage(10, 999, 20, 70)).cache_share == 0.7
    assert UsageRow(("x",), Usage(0, 999)).cache_share is None and UsageRow(("x",), Usage(5)).cache_share == 0.0


@pytest.mark.parametrize(
    ("values", "p50", "p90"),
    [([], None, None), ([7], 7, 7), ([2, 1], 1, 2), ([3, 1, 2], 2, 3), ([*range(1, 11)], 5, 9), ([*range(12)], 5, 10)],
)
def test_percentiles(values: list[int], p50: int | None, p90: int | None) -> None:
    assert (percentile(values, 50), percentile(values, 90)) == (p50, p90)


@given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_with_so_many_at_or_below_it(values: list[int], percent: int) -> None:
    enough = [value for value in values if sum(one <= value for one in values) * 100 >= percent * len(values)]
    assert percentile(values, percent) == min(enough)


def test_drift_is_the_latest_third_against_the_earliest(book: Book) -> None:
    for hour, tokens in enumerate((100, 200, 50, 10, 300)):
        book.add(ms("11-24T12:00") + hour * HOUR_MS, tokens)
    assert book.rows("command")[0].drift is None  # five are too few
    book.add("11-24T23:00", 600)
    assert book.rows("command")[0].drift == 450 / 150
    assert [row.drift for by in ("day", "model", "run") for row in book.rows(by)] == [None] * 3
    assert render(book.rows("command"), "command", PLAIN)[1].split()[-3:-1] == ["+200", "%"]


# -- tables --


def test_a_table(book: Book) -> None:
    book.add("11-24T12:00", Usage(500, 1_000, 500, 1_000), 1_500_000_000)
    book.add("11-26T12:00", 1_500, 300_000_000)
    assert render(book.rows("day"), "day", PLAIN) == [
        "day         tokens   cost  cached  done   p50   p90  $/done",
        "2026-11-24    3.0K  $1.50     50%   1/1  3.0K  3.0K   $1.50  ########################",
        "2026-11-25       0      -       -     -     -     -       -",
        "2026-11-26    1.5K  $0.30      0%   1/1  1.5K  1.5K   $0.30  ############",
        "total         4.5K  $1.80     29%   2/2     -     -   $0.90",
        "",
        "#_=",
        "2026-11-24 to 2026-11-26, tallest 3.0K tokens a day",
        "",
        "costs are estimates: subscriptions do not pay per token",
        "p50, p90: tokens of a finished instance; done: completed of all instances",
    ]


def test_columns_go_one_after_the_other_where_there_is_no_room(book: Book) -> None:
    for hour in range(6):
        book.add(ms("11-24T12:00") + hour * HOUR_MS, 100, 10**9)
    titles = [render(book.rows("command"), "command", RenderOptions(width))[0].split() for width in range(24, 121)]
    order = ["drift", "$/done", "p50", "p90", "cached", "done", "cost"]
    shown = ["command", "tokens", "cost", "cached", "done", "p50", "p90", "$/done", "drift"]
    seen = [list(title) for place, title in enumerate(titles) if not place or title != titles[place - 1]]
    assert [[name for name in shown if name not in order[:count]] for count in range(7, -1, -1)] == seen


NAMES = st.text(max_size=60) | st.sampled_from([HOSTILE, "/" + "漢" * 50, "\u0301" * 9, "\U0001f600", "\ud800"])
COUNT = st.integers(-(10**6), 10**15)
NONE_OR_COUNT = st.none() | st.integers(0, 10**18)
ROWS = st.builds(
    UsageRow,
    *(st.tuples(NAMES), st.builds(Usage, COUNT, COUNT, COUNT, COUNT), NONE_OR_COUNT, st.integers(0, 10**15)),
    *(st.integers(0, 10**6), st.integers(0, 10**6), NONE_OR_COUNT, NONE_OR_COUNT, st.none() | st.floats(0, 10**6)),
)


@given(st.lists(ROWS, max_size=9), st.sampled_from(BYS), st.integers(20, 120), st.booleans())
def test_no_line_is_wider_than_the_look_or_drives_the_terminal(
    rows: list[UsageRow], by: By, width: int, ascii_only: bool
) -> None:
    lines = render(rows, by, RenderOptions(width, ascii_only=ascii_only))
    assert all(display_width(line) <= width for line in lines)
    assert all(char >= " " and char not in "\x7f\x9b\u2028\u202e" for line in lines for char in line)
    assert ascii_only <= all(
        line.isascii() for line in render([UsageRow(("/a",), row.usage) for row in rows], by, PLAIN)
    )


def test_hostile_names_are_shown(book: Book) -> None:
    book.add("11-24T12:00", 5, base_command=HOSTILE, model=HOSTILE, run=HOSTILE)
    shown = r"/x\x1b[31m\x0a\x0d\x09\u202e\u2028漢=e" + "\u0301"
    for by in BYS[1:]:
        assert render(book.rows(by), by, RenderOptions(120))[1].startswith(shown)


def test_colours_are_escape_sequences_around_the_same_text(book: Book) -> None:
    book.add("11-24T12:00", 5)
    for by in BYS:
        text = "\n".join(render(book.rows(by), by, RenderOptions(80, color=True)))
        for code in ("\033[1m", "\033[36m", "\033[0m"):
            assert code in text
            text = text.replace(code, "")
        assert text.splitlines() == render(book.rows(by), by, RenderOptions(80))


def test_sparklines() -> None:
    assert sparkline([0, 1, 50, 100], RenderOptions()) == "▁▂▅█"  # only nothing at all is the lowest
    assert sparkline([0, 1, 50, 100], PLAIN) == "_.=#"
    assert (
        sparkline([0, 0], RenderOptions()) == "▁▁"
        and sparkline([], RenderOptions()) == ""
        and sparkline([3], RenderOptions()) == "█"
    )
    assert sparkline([0, 100, 50, 50, 100], RenderOptions(3)) == "▅▅█"  # neighbours are averaged
    assert len(sparkline([*range(1000)], RenderOptions(30))) == 30


# -- data --

FULL = UsageRow(("/test",), Usage(10, 999, 20, 70), 1_500_000_001, 7, 3, 2, 40, 90, 4 / 3)


def test_json() -> None:
    full, empty = json.loads(json.dumps(as_json([FULL, UsageRow(("2026-11-24",))])))
    assert full == {
        "group": "/test",
        "input_tokens": 10,
        "output_tokens": 999,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 70,
        "total_tokens": 1099,
        "cost_usd": 1.500000001,
        "unpriced_tokens": 7,
        "instances": 3,
        "completed": 2,
        "cost_per_completed_usd": 0.75,
        "p50_tokens": 40,
        "p90_tokens": 90,
        "cache_share": 0.7,
        "drift": 4 / 3,
        "verified": 0,
        "cost_per_verified_usd": None,
    }
    assert [key for key, value in empty.items() if value is None] == [
        *("cost_usd", "cost_per_completed_usd", "p50_tokens", "p90_tokens", "cache_share", "drift"),
        "cost_per_verified_usd",
    ]


def test_csv_has_the_json_s_keys_and_empty_cells_for_what_is_unknown() -> None:
    text = as_csv([FULL, UsageRow(('a,"b"\nc',))])
    full, odd = csv.DictReader(io.StringIO(text))
    assert list(full) == list(as_json([FULL])[0]) and text.endswith("\n") and "\r" not in text
    (returned,) = csv.DictReader(io.StringIO(as_csv([UsageRow(("a\rb",))]), newline=""))
    assert returned["group"] == "a\rb"
    assert (full["cost_usd"], full["cost_per_completed_usd"]) == ("1.500000001", "0.75")
    assert (full["total_tokens"], full["cache_share"], full["drift"]) == ("1099", "0.7", "1.333333")
    assert (odd["group"], odd["cost_usd"], odd["p50_tokens"], odd["drift"]) == ('a,"b"\nc', "", "", "")
    assert as_csv([]).splitlines() == text.splitlines()[:1]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1+1"])
def test_a_name_that_is_a_formula_gets_a_quote(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([UsageRow((name,))]), newline=""))
    assert row["group"] == f"'{name}"


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (10**9, "1"),
        (1_500_000_000, "1.5"),
        (10**18 + 1, "1000000000.000000001"),  # more digits than a float has
        (-1_500_000_000, "-1.5"),
    ],
)
def test_costs_in_csv_are_exact(nano: int, text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([UsageRow(("x",), cost_nano_usd=nano)])))
    assert row["cost_usd"] == text


# -- one run --

BUDGETS = {"overall": 5_000, "/test command": 1_000, "instance a": 4_000, "overall cost": 2_000_000_000}


def fill_run(ledger: SqliteLedger, **of: Any) -> None:
    """A run of Tuesday 24 November from 12:00 to 12:30, with two instances and three attempts."""
    start = ms("11-24T12:00")
    ledger.write(
        runs=[
            RunRecord(**{"run": "run-1", "machine": "host", "started_ms": start, "ended_ms": start + 1_805_000, **of})
        ],
        attempts=[
            AttemptRecord(
                *("run-1", "a", 1, start, "s", "/test x", "/test", "opus", start + 4_200, "failed"), exact=True
            ),
            AttemptRecord(
                *("run-1", "a", 2, start, "s", "/test x", "/test", "opus", start + 185_000, "completed"), exact=True
            ),
            AttemptRecord("run-1", "b", 1, start, command="tell me", model="haiku"),
        ],
        records=[
            UsageRecord("run-1/1", "run-1", "a", 1, start + 1, "opus", Usage(100, 200), 1_000_000_000),
            UsageRecord("run-1/2", "run-1", "a", 2, start + 2, "opus", Usage(0, 0, 300, 400), 500_000_000),
            UsageRecord("run-1/3", "run-1", "b", 1, start + 3, "haiku", Usage(2_000)),
        ],
    )


def detail(ledger: SqliteLedger, run_id: str = "run-1", options: RenderOptions = PLAIN) -> list[str]:
    return run_detail(ledger, run_id, options, utc)


def test_a_run_in_detail(book: Book) -> None:
    fill_run(book.ledger, mode="block", exit_code=3, budgets=json.dumps(BUDGETS))
    book.ledger.write(notes=[NoteRecord("n", "run-1", ms("11-24T12:05"), "adjustment", "grew by 10", "a")])
    assert detail(book.ledger, options=RenderOptions(120)) == [
        "run        run-1",
        "started    2026-11-24 12:00:00",
        "duration   30 min 05 s",
        "machine    host",
        "mode       block",
        "exit code  3",
        "",
        "budget         used           of",
        "overall         60%    3.0K/5.0K  ██████████████",
        "/test command  100%    1.0K/1.0K  ████████████████████████",
        "instance a      25%    1.0K/4.0K  ██████",
        "overall cost    75%  $1.50/$2.00  ██████████████████",
        "",
        "instance  #  command  model  outcome            took  input  output  cache write  cache read  tokens    cost",
        "a         1  /test x  opus   failed            4.2 s    100     200            0           0     300   $1.00",
        "a         2  /test x  opus   completed    3 min 05 s      0       0          300         400     700   $0.50",
        "b         1  tell me  haiku  interrupted           -  2,000       0            0           0  ≥2,000       ?",
        "total                                                 2,100     200          300         400  ≥3,000  $1.50+",
        "",
        "costs are estimates: subscriptions do not pay per token",
        "≥: a lower bound: the attempt still runs, or was cut off",
        "",
        "notes",
        "12:05:00 adjustment a: grew by 10",
    ]


def columns_of(lines: list[str], *names: str) -> list[list[str]]:
    """The cells of some columns, which have their right ends below their titles', in a run's table of attempts."""
    start = next(place for place, line in enumerate(lines) if line.startswith("instance  "))
    title = lines[start]
    ends = [title.index(name) + len(name) for name in names]
    rows = lines[start : next(place for place in range(start, len(lines)) if lines[place].startswith("total")) + 1]
    return [[row[:end].split("  ")[-1].strip() for row in rows[1:]] for end in ends]


def test_what_a_run_shows_adds_up_to_its_total_line(book: Book) -> None:
    for number in range(7):
        usage = Usage(1_249 + number, 1_149, 4_449, 12_345_649)
        book.add(ms("11-24T12:00") + number, usage, 3_333_333 + number, run="x", instance=f"i{number}")
    lines = detail(book.ledger, "x", RenderOptions(200))
    counts = columns_of(lines, "input", "output", "cache write", "cache read", "tokens")
    figures = [[int(cell.replace(",", "")) for cell in column] for column in counts]
    assert all(sum(column[:-1]) == column[-1] for column in figures)
    assert all(sum(kinds) == tokens for *kinds, tokens in zip(*figures, strict=True))
    (costs,) = columns_of(lines, "cost")
    assert sum(round(float(cell.removeprefix("$")) * 10_000) for cell in costs[:-1]) == 233 and costs[-1] == "$0.0233"


def test_the_four_kinds_of_tokens_are_all_shown_or_none(book: Book) -> None:
    book.add("11-24T12:00", Usage(1, 2, 3, 4), run="x")
    kinds = ("input", "output", "cache write", "cache read")
    shown = []
    for width in range(40, 160):
        (title,) = (line for line in detail(book.ledger, "x", RenderOptions(width)) if line.startswith("instance "))
        shown.append(sum(kind in title for kind in kinds))
    assert set(shown) == {0, 4}


def test_a_command_whose_arguments_were_not_exported_shows_as_its_base_command(book: Book) -> None:
    for instance, command, base in (("a", None, "/test"), ("b", "/test --all", "/test"), ("c", None, None)):
        book.add("11-24T12:00", 5, run="x", instance=instance, command=command, base_command=base)
    rows = [line.split("  ") for line in detail(book.ledger, "x", RenderOptions(200))]
    cells = {row[0].strip(): [cell.strip() for cell in row if cell.strip()] for row in rows}
    assert [cells[name][2] for name in "abc"] == ["/test", "/test --all", "(prompt)"]


@pytest.mark.parametrize(
    ("run_ended_ms", "started_ms", "ended_ms", "outcome", "shown"),
    [
        (None, 1_000, None, None, "running"),
        (None, 1_000, 2_000, None, "interrupted"),
        (None, 1_000, 2_000, "failed", "failed"),
        (3_000, 1_000, None, None, "interrupted"),
        (3_000, 4_000, None, None, "running"),  # the run was resumed, and its end is the earlier one
    ],
)
def test_what_ended_without_an_outcome_was_interrupted(
    book: Book, run_ended_ms: int | None, started_ms: int, ended_ms: int | None, outcome: str | None, shown: str
) -> None:
    attempt = AttemptRecord("r", "a", 1, started_ms, command="x", model="m", ended_ms=ended_ms, outcome=outcome)
    book.ledger.write(runs=[RunRecord("r", "host", 500, run_ended_ms)], attempts=[attempt])
    (line,) = (line for line in detail(book.ledger, "r") if line.startswith("a "))
    assert line.split()[4] == shown


@pytest.mark.parametrize("asked", ["/test", "test", " /test all --now", "test\nall"])
def test_a_command_is_found_by_its_first_word_with_or_without_slash(book: Book, asked: str) -> None:
    book.add("11-24T12:00", 5)
    assert find_subject(book.ledger, asked) == ("/test", "")
    book.add("11-24T12:00", 5, base_command="test")
    assert find_subject(book.ledger, asked) == (asked.split(maxsplit=1)[0], "")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("/tset", "got '/tset'; the nearest: /test"),
        ("tset all", "got 'tset all'; the nearest: /test"),
        ("/\033[31m", r"got '/\x1b[31m'; known: /a, /b, /c, …"),
    ],
)
def test_an_unknown_command_is_told_with_the_nearest(book: Book, asked: str, hint: str) -> None:
    for command in ("/test", "/a", "/b", "/c", None):
        book.add("11-24T12:00", 5, base_command=command)
    with pytest.raises(ValueError) as error:
        find_subject(book.ledger, asked)
    assert str(error.value) == f"COMMAND: expected a command or an instance of the ledger, {hint}"


def test_an_instance_with_a_plain_prompt_is_found_by_its_name(book: Book) -> None:
    book.add("11-24T12:00", 5, base_command=None, instance="nightly summary")
    book.add("11-24T12:00", 5, base_command="/test", instance="unit")
    assert find_subject(book.ledger, " nightly summary ") == (None, "nightly summary")
    with pytest.raises(ValueError, match=r"got 'nightly sumary'; the nearest: nightly summary$"):
        find_subject(book.ledger, "nightly sumary")
    with pytest.raises(ValueError, match=r"got 'unit'; known: /test, nightly summary$"):
        find_subject(book.ledger, "unit")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("/tset", ["/test", "/test2"]),
        ("/tests", ["/test", "/test2"]),
        ("/deploy", []),  # /docs is all that begins alike
        ("x9", []),
        ("/quit", []),
        ("", []),
    ],
)
def test_only_what_is_near_is_suggested(word: str, near: list[str]) -> None:
    assert nearest(word, ["/test", "/test2", "/docs", "q1", "q2", "q3"]) == near


def test_a_ledger_without_commands_is_told(book: Book) -> None:
    with pytest.raises(ValueError, match=r"got '/test'; known: none$"):
        find_subject(book.ledger, "/test")


def test_a_window_s_budget_has_what_all_runs_used_in_it_until_the_run_ended(book: Book) -> None:
    for at, tokens in (
        ("10-31T23:00", 1),
        ("11-22T12:00", 600),
        ("11-23T12:00", 400),
        ("11-24T11:00", 1_000),
        ("11-24T12:20", 10_000),
        ("11-24T13:00", 100_000),
    ):
        book.add(at, tokens, tokens * 10**9, run="other")
    limits = dict.fromkeys(("daily", "weekly", "monthly"), 20_000) | {"daily cost": 22_000 * 10**9}
    fill_run(book.ledger, budgets=json.dumps(limits))
    lines = [line.split()[-4:-1] for line in detail(book.ledger)[8:12]]
    assert lines == [
        ["daily", "70%", "14.0K/20.0K"],
        ["weekly", "72%", "14.4K/20.0K"],
        ["monthly", "75%", "15.0K/20.0K"],
        ["cost", "50%", "$11,001.50/$22,000.00"],
    ]


@pytest.mark.parametrize("ended", ["11-25T01:00", None])
def test_a_window_s_budget_has_nothing_of_the_window_after(book: Book, ended: str | None) -> None:
    book.add("11-24T23:30", 100, run="other")
    book.add("11-25T00:30", 100, run="other")
    run = RunRecord("x", "m", ms("11-24T23:00"), ms(ended) if ended else None, budgets='{"daily": 150, "weekly": 400}')
    book.ledger.write(runs=[run])
    assert [line.split()[:3] for line in detail(book.ledger, "x")[8:10]] == [
        ["daily", "67%", "100/150"],
        ["weekly", "50%", "200/400"],
    ]


@pytest.mark.skipif(not pricing.available(), reason="needs the extra cost")
def test_a_budget_has_what_each_model_drew_by_its_own_ratios(book: Book) -> None:
    weights = {"weights": "billing", "budgets": [{"scope": "overall", "key": "", "unit": "tokens", "limit": 10_000}]}
    reads = Usage(cache_read_input_tokens=10_000)
    records = [
        UsageRecord(f"x/a/1/{model}", "x", "a", 1, ms("11-24T10:01"), model, reads)
        for model in ("claude-opus-4-8", "claude-opus-5-5")
    ]
    book.ledger.write(
        runs=[RunRecord("x", "m", ms("11-24T10:00"), ms("11-24T11:00"), budgets=json.dumps(weights))],
        attempts=[AttemptRecord("x", "a", 1, ms("11-24T10:00"), model="claude-opus-4-8", ended_ms=ms("11-24T10:30"))],
        records=records,
    )
    assert detail(book.ledger, "x")[8].split()[:3] == ["overall", "15%", "1.5K/10.0K"]


def test_notes_in_wide_characters_lose_nothing(book: Book) -> None:
    book.ledger.write(
        runs=[RunRecord("x", "m", 1)], notes=[NoteRecord("n", "x", 5, "k", "漢字 " + "漢字" * 40 + " ok")]
    )
    lines = detail(book.ledger, "x", RenderOptions(40))
    notes = lines[lines.index("notes") + 1 :]
    assert notes[0] == "00:00:00 k: 漢字 " + "漢字" * 5 and all(display_width(line) <= 40 for line in notes)
    assert "".join(line.strip() for line in notes).count("漢字") == 41 and notes[-1].endswith("漢字 ok")


def test_an_instance_whose_name_ends_like_a_cost_has_a_limit_in_tokens(book: Book) -> None:
    book.add("11-24T12:00", 500, 10**9, run="x", instance="the cost")
    book.ledger.write(
        runs=[RunRecord("x", "m", 1, budgets='{"instance the cost": 1000, "instance the cost cost": 4000000000}')]
    )
    assert [line.split()[-3:-1] for line in detail(book.ledger, "x")[8:10]] == [
        ["50%", "500/1.0K"],
        ["25%", "$1.00/$4.00"],
    ]


@pytest.mark.parametrize("budgets", ["", "[]", "{}", '{"overall": 0}', '{"overall": "lots", "daily": true}', "[" * 99])
def test_budgets_that_say_nothing_are_left_out(book: Book, budgets: str) -> None:
    fill_run(book.ledger, budgets=budgets)
    assert not any(line.startswith("budget") for line in detail(book.ledger))


def test_last_is_the_run_that_started_last(book: Book) -> None:
    fill_run(book.ledger)
    book.ledger.write(runs=[RunRecord("newer", "m", ms("11-25T00:00")), RunRecord("older", "m", 1)])
    assert detail(book.ledger, "last") == [
        *("run        newer", "started    2026-11-25 00:00:00", "duration   not ended", "machine    m"),
        *("mode       warn", "exit code  -", "", "no attempt at an instance yet", ""),
        "costs are estimates: subscriptions do not pay per token",
    ]


@pytest.mark.parametrize(
    ("run_id", "hint"),
    [
        ("20261124-120001-abce", "the nearest: 20261124-120001-abcd, 20261124-110000-abcd"),
        ("yesterday's", r"the latest: z\x1b"),
        ("\033[31m", r"got '\x1b[31m'; "),
    ],
)
def test_an_unknown_run_is_told_with_the_nearest(book: Book, run_id: str, hint: str) -> None:
    names = ["20261124-110000-abcd", "20261124-120001-abcd", "z\033"]
    book.ledger.write(runs=[RunRecord(name, "m", place) for place, name in enumerate(names)])
    with pytest.raises(ValueError) as told:
        detail(book.ledger, run_id)
    text = str(told.value)
    assert text.startswith("RUN_ID: expected a run of the ledger or last, got") and hint in text
    assert text.isprintable()


@pytest.mark.parametrize("run_id", ["last", "x"])
def test_a_ledger_without_runs_is_told(book: Book, run_id: str) -> None:
    with pytest.raises(ValueError, match=r"^RUN_ID: the ledger has no run yet$"):
        detail(book.ledger, run_id)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_run_s_lines_fit_and_drive_no_terminal(book: Book, ascii_only: bool) -> None:
    limits = {**BUDGETS, HOSTILE: 5, "daily": 10**15, f"instance {HOSTILE * 9} cost": 1}
    start = ms("11-24T12:00")
    book.ledger.write(
        runs=[RunRecord(HOSTILE, HOSTILE, start, start + 1, HOSTILE, json.dumps(limits), -(10**9))],
        attempts=[
            AttemptRecord(HOSTILE, name, number, start, HOSTILE, HOSTILE * 9, HOSTILE, HOSTILE, start + 10**9, HOSTILE)
            for name in (HOSTILE, HOSTILE * 9, "a")
            for number in (1, 999)
        ],
        notes=[NoteRecord("n", HOSTILE, start, HOSTILE, f"{HOSTILE} " * 30, HOSTILE)],
    )
    for width in range(20, 121):
        lines = run_detail(book.ledger, HOSTILE, RenderOptions(width, ascii_only=ascii_only), utc)
        assert all(display_width(line) <= width for line in lines)
        assert all(char >= " " and char not in "\u2028\u202e" for line in lines for char in line)
    fill_run(book.ledger, budgets=json.dumps(BUDGETS))
    assert all(line.isascii() for line in detail(book.ledger))
    assert any(">=2,000" in line for line in detail(book.ledger))


@pytest.mark.parametrize(
    ("span_ms", "text"),
    [
        (-5, "0.0 s"),
        (4_200, "4.2 s"),
        (59_960, "59.9 s"),
        (60_000, "1 min 00 s"),
        (185_999, "3 min 05 s"),
        (3_599_999, "59 min 59 s"),
        (7_620_000, "2 h 07 min"),
        (100 * HOUR_MS, "100 h 00 min"),
    ],
)
def test_durations(span_ms: int, text: str) -> None:
    assert duration(span_ms) == text


# -- moments --


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", "2026-11-23T15:30"),
        (" 7d ", "2026-11-17T15:30"),
        ("4w", "2026-10-27T15:30"),
        ("0d", "2026-11-24T15:30"),
        ("today", "2026-11-24"),
        ("month", "2026-11-01"),
        ("yesterday", "2026-11-23"),
        ("week", "2026-11-23"),
        ("2026-11-24", "2026-11-24"),
        ("1999-12-31", "1999-12-31"),
    ],
)
@pytest.mark.parametrize("info", [None, timezone(timedelta(hours=-9, minutes=-30))])
def test_moments_are_in_the_zone_of_now(text: str, moment: str, info: timezone | None) -> None:
    now = datetime(2026, 11, 24, 15, 30, tzinfo=info)
    assert read_since(text, now) == to_ms(datetime.fromisoformat(moment).replace(tzinfo=info))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", "2026-11-23T15:30"),
        ("7d", "2026-11-17T15:30"),
        ("yesterday", "2026-11-24"),
        ("today", "2026-11-25"),
        ("week", "2026-11-30"),
        ("month", "2026-12-01"),
        ("2026-11-01", "2026-11-02"),
    ],
)
def test_a_span_ends_with_the_whole_of_what_is_named(text: str, moment: str) -> None:
    assert read_until(text, datetime(2026, 11, 24, 15, 30)) == to_ms(datetime.fromisoformat(moment))


def test_yesterday_is_of_its_own_length_where_the_clocks_change() -> None:
    now = datetime(2026, 3, 30, 0, 15, tzinfo=ZoneInfo("Europe/Berlin"))
    assert read_until("yesterday", now) - read_since("yesterday", now) == 23 * HOUR_MS


def test_hours_are_elapsed_ones_and_days_those_of_the_calendar() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 3, 29, 15, 30, tzinfo=berlin)  # the clocks went from 2 to 3

    def at(text: str) -> int:
        return to_ms(datetime.fromisoformat(text))

    assert read_since("24h", now) == at("2026-03-28T14:30:00+01:00")
    assert read_since("1d", now) == at("2026-03-28T15:30:00+01:00")
    assert read_since("today", now) == at("2026-03-29T00:00:00+01:00")
    again = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)  # the second 2:30
    assert read_since("1h", again) == at("2026-10-25T02:30:00+02:00")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "7", "d", "-1d", "1.5h", "7 d", "7m", "7D", "٧d", "1234567d", "999999w", "tomorrow", "Today"),
        *(
            "2026-11-25",
            "2026-02-30",
            "2026-13-01",
            "26-11-01",
            "2026-11-01T00:00",
            "20261101",
            "0001-01-01",
            "\033[31m\n",
        ),
    ],
)
def test_what_is_no_past_moment_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as told:
        read_since(text, datetime(2026, 11, 24, 15, 30), "--before")
    expected = "a past moment such as 24h, 7d, 4w, today, yesterday, week, month or 2026-11-01"
    assert str(told.value) == f"--before: expected {expected}, got '{printable(text.strip())}'"


def test_the_cost_of_a_verified_success_is_that_of_instances_with_checks(book: Book) -> None:
    book.add("11-24T12:00", 10, 100, instance="good", verified=True)
    book.add("11-24T12:00", 10, 30, instance="bad", verified=False, outcome="failed")
    book.add("11-24T12:00", 10, 7, instance="bad", attempt=2, verified=False, outcome="failed")
    book.add("11-24T12:00", 10, 1_000, instance="unchecked")
    (row,) = book.rows("command")
    assert (row.verified, row.checked_nano_usd, row.cost_per_verified) == (1, 137, 137)
