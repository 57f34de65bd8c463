"""A run on screens of several sizes."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.config.fields import DEFAULT_COLUMNS, MORE_COLUMNS
from claude_orchestrator.engine.groups import GroupStatus
from claude_orchestrator.engine.snapshot import Row, Snapshot
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.screen import ScreenStyle, header, screen
from claude_orchestrator.ui.table import COLUMNS, TableStyle, duration, instance_table
from token_budget import Usage
from token_budget.models import Budget, Scope, Unit
from token_budget.text import NANO, RenderOptions, display_width

ESCAPE = re.compile(r"\033\[[0-9;]*m")
SIZES = [(80, 24), (120, 40), (200, 50)]


ORDER = {state: place for place, state in enumerate("running failed waiting pending completed".split())}


def a_row(name: str, state: State = State.RUNNING, **more: object) -> Row:
    values: dict[str, object] = {"label": str(state), "group": None, "attempts": 1, "seconds": 65.0, "turn": 1}
    return Row(name=name, state=state, **values | more)  # type: ignore[arg-type]


def a_snapshot(rows: list[Row], budgets: tuple[Budget, ...] = (), **more: object) -> Snapshot:
    usage = Usage(*map(sum, zip(*(row.usage for row in rows), strict=True))) if rows else Usage()
    costs = [row.nano_usd for row in rows if row.nano_usd is not None]
    values: dict[str, object] = {"groups": (), "exact": True, "nano_usd": sum(costs) if costs else None}
    return Snapshot("r", False, 65.0, tuple(rows), budgets=budgets, usage=usage, **values | more)  # type: ignore[arg-type]


def a_run(count: int) -> Snapshot:
    """A run of every state, with long and wide names, and a budget for each second instance."""
    chance = random.Random(count)
    rows, budgets = [], [Budget(10**6, scope=Scope.OVERALL, used=600_000)]
    for number in range(count):
        state = chance.choice([State.PENDING, State.RUNNING, State.COMPLETED, State.FAILED, State.WAITING])
        name = f"{chance.choice(['integration-tests-of-the-billing-service', 'docs', '日本語テスト'])}-{number}"
        doing = "Bash: pytest -q tests/with/a/long/path" if state is State.RUNNING else ""
        usage = Usage(*(chance.randrange(10**7) for _ in range(4)))
        rows.append(a_row(name, state, doing=doing, doing_s=12.0 if doing else None, usage=usage, nano_usd=NANO))
        if number % 2:
            budgets.append(Budget(1_000, scope=Scope.INSTANCE, key=name, used=chance.randrange(1_200)))
    return a_snapshot(rows, tuple(budgets), tokens_per_min=38_123.0, left_s=371.0)


@pytest.mark.parametrize("count", [4, 12, 60, 1_000])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_run_fits_on_the_screen(width: int, height: int, count: int) -> None:
    lines = screen(a_run(count), RenderOptions(width), ScreenStyle(DEFAULT_COLUMNS, height))
    assert len(lines) <= height and max(map(display_width, lines)) <= width
    panel = [line for line in lines if line[0] in "╔║╚"]
    assert len({display_width(line) for line in panel}) == 1 and 4 <= len(panel) <= height // 3
    assert panel[0][-1] == "╗" and panel[-1][-1] == "╝" and all(line[-1] == "║" for line in panel[1:-1])
    table = [line for line in lines[1:] if line not in panel]
    assert display_width(panel[0]) >= max(map(display_width, table))
    states = [line.split()[1] for line in table[1:] if not line.startswith("… and")]
    if count >= 60:
        assert len(lines) == height and states == sorted(states, key=ORDER.__getitem__)
        assert re.search(r"^… and [\d,]+ more: ", table[-1])
    assert "Bash: pytest -q" in "\n".join(table)


def test_the_header() -> None:
    rows = [a_row(f"c{n}", State.COMPLETED) for n in range(21)] + [a_row(f"f{n}", State.FAILED) for n in range(3)]
    rows += [a_row(f"r{n}") for n in range(35)] + [a_row("last", usage=Usage(487_123), nano_usd=1_320_000_000)]
    run = a_snapshot(rows, tokens_per_min=38_123.0, left_s=371.0)
    assert header(run, RenderOptions()) == "21/60 done · 3 failed · 487K · $1.32 · 38.1K/min · ~6 min left"
    rehearsal = run._replace(rehearsal=True, exact=False, tokens_per_min=None, left_s=None)
    assert header(rehearsal, RenderOptions(ascii_only=True)) == "REHEARSAL - 21/60 done - 3 failed - >=487K - $1.32"
    over = a_snapshot([a_row("one", State.COMPLETED)], tokens_per_min=1.0)
    assert header(over, RenderOptions()) == "1/1 done · 0 · in 1:05"


def test_the_table() -> None:
    rows = [
        a_row("build", doing="Bash: pytest -q", doing_s=12.0, usage=Usage(1_000, 200), nano_usd=12_300_000),
        a_row("write", doing="writing src/a.py", turn=2, turns=3, exact=False, usage=Usage(5)),
        a_row("later", State.WAITING, doing="waits: overall budget", attempts=0, seconds=None),
    ]
    assert instance_table(rows, RenderOptions(100), TableStyle(DEFAULT_COLUMNS)) == [
        "INSTANCE STATE      TIME  TOKENS    COST TURN NOW",
        "build    running    1:05    1.2K $0.0123  1/1 Bash: pytest -q (12s)",
        "write    running    1:05     >=5       -  2/3 writing src/a.py",
        "later    waiting       -       -       -    - waits: overall budget",
    ]


def test_chosen_columns() -> None:
    row = a_row("one", usage=Usage(1, 2_000, 3, 4), model="claude-m-1[1m]", tools=7, budgets=(Budget(10, used=8),))
    lines = instance_table([row], RenderOptions(120), TableStyle(("budget", *MORE_COLUMNS[:-2], "try")))
    assert lines[0].split() == "INSTANCE BUDGET MODEL INPUT OUTPUT C.WRITE C.READ TOOLS TRY".split()
    assert lines[1].split() == "one 80% m-1 1 2.0K 3 4 7 1".split()
    assert set(COLUMNS) == {*DEFAULT_COLUMNS, *MORE_COLUMNS}


def test_a_column_without_values_is_left_out() -> None:
    lines = instance_table([a_row("one", State.PENDING, attempts=0)], RenderOptions(), TableStyle(DEFAULT_COLUMNS))
    assert lines[0].split() == ["INSTANCE", "STATE", "TIME"]


def test_a_narrow_screen_loses_the_least_useful_columns_first() -> None:
    rows = [a_row("x" * 50, doing="Bash: make", nano_usd=NANO)]
    for width, titles in ((70, "INSTANCE STATE TIME TOKENS COST TURN NOW"), (52, "INSTANCE STATE TIME TOKENS NOW")):
        lines = instance_table(rows, RenderOptions(width), TableStyle(DEFAULT_COLUMNS))
        assert lines[0].split() == titles.split()
        assert lines[1].startswith("xxx") and "…" in lines[1].split()[0]
    lines = instance_table(rows, RenderOptions(60, ascii_only=True), TableStyle(DEFAULT_COLUMNS))
    assert "..." in lines[1] and lines[1].isascii()


def test_what_runs_and_what_failed_comes_first() -> None:
    rows = [a_row(f"r{n}") for n in range(10)] + [a_row(f"f{n}", State.STOPPED) for n in range(10)]
    rows = [a_row("p", State.PENDING), *rows, a_row("w", State.WAITING)]
    lines = instance_table(rows, RenderOptions(), TableStyle(DEFAULT_COLUMNS, 10))
    assert [line.split()[0] for line in lines[1:-1]] == ["r0", "r1", "r2", "r3", "r4", "r5", "f0", "f1"]
    assert lines[-1] == "… and 14 more: 1 pending, 1 waiting, 4 running, 8 stopped" and len(lines) == 10
    assert len(instance_table(rows, RenderOptions(), TableStyle(DEFAULT_COLUMNS))) == 23


def test_groups_are_folded_and_those_at_work_come_first() -> None:
    from collections import Counter

    groups = tuple(GroupStatus(f"g{n}", Counter({State.COMPLETED: 9, State.RUNNING: n == 30}), 0) for n in range(40))
    rows = [a_row("g30[x]", group="g30"), a_row("g0[x]", State.COMPLETED, group="g0"), a_row("alone", State.COMPLETED)]
    lines = screen(a_snapshot(rows, groups=groups), RenderOptions(80), ScreenStyle(DEFAULT_COLUMNS, 24))
    assert lines[1].startswith("g30  9/10 done  1 running") and lines[8] == "… and 33 more groups"
    assert [line.split()[0] for line in lines[10:]] == ["g30[x]", "alone"]


def test_the_fullest_budgets_are_shown() -> None:
    every = [Budget(100, scope=Scope.INSTANCE, key=f"i{n}", used=n) for n in range(60)]
    lines = screen(a_snapshot([a_row("one")], tuple(every)), RenderOptions(80), ScreenStyle(DEFAULT_COLUMNS, 24))
    shown = [line.split()[1] for line in lines if "[" in line]
    assert shown == ["i59", "i58", "i57", "i56"] and "║ … and 56 more below 70 %" in lines[-2]


def test_money_and_shared_budgets_have_their_places() -> None:
    budgets = (
        Budget(NANO, scope=Scope.OVERALL, unit=Unit.USD, used=NANO // 2),
        Budget(100, scope=Scope.DAILY, used=95),
        Budget(100, scope=Scope.OVERALL, used=10),
    )
    text = "\n".join(screen(a_snapshot([a_row("one")], budgets), RenderOptions(80), ScreenStyle(DEFAULT_COLUMNS)))
    assert text.index("Overall: [██") < text.index("Budgets of All Runs:") < text.index("Cost Budgets (estimates):")
    assert "95% (Warning!) 95/100" in text and "50% $0.50/$1.00" in text


def test_the_time_comes_first_where_there_is_no_screen() -> None:
    at = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)
    lines = screen(a_run(4), RenderOptions(100, visuals=False), ScreenStyle(DEFAULT_COLUMNS, at=at))
    assert lines[0].startswith("2026-11-27T10:00:00+00:00 ") and len(lines) == 6


def test_colours_follow_the_state_and_the_budget() -> None:
    rows = [a_row("one", State.COMPLETED), a_row("two"), a_row("three", State.FAILED, budgets=(Budget(10, used=8),))]
    lines = instance_table(rows, RenderOptions(100, color=True), TableStyle(("state", "budget")))
    assert "\033[32mcompleted" in lines[1] and "\033[36mrunning" in lines[2]
    assert "\033[31mfailed" in lines[3] and "\033[33m   80%\033[0m" in lines[3]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0s"), (59.9, "59s"), (205.0, "3:25"), (3745.0, "1:02:25"), (-5.0, "0s")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


ROWS = st.builds(
    a_row,
    st.text(min_size=1, max_size=60),
    st.sampled_from(list(State)),
    doing=st.text(max_size=90),
    doing_s=st.none() | st.floats(0, 1e7),
    group=st.sampled_from([None, "g"]),
    nano_usd=st.none() | st.integers(0, 10**18),
    usage=st.builds(Usage, *[st.integers(0, 10**15)] * 4),
    turns=st.integers(1, 10**6),
    seconds=st.none() | st.floats(0, 1e8),
    label=st.text(max_size=20),
)
BUDGETS = st.builds(
    lambda scope, key, used, unit: Budget(10**6, scope=scope, key=key, used=used, unit=unit),
    st.sampled_from(list(Scope)),
    st.text(max_size=50),
    st.integers(0, 10**9),
    st.sampled_from(list(Unit)),
)


@given(
    st.lists(ROWS, max_size=12),
    st.lists(BUDGETS, max_size=30),
    st.integers(20, 200),
    st.integers(1, 50),
    st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, max_size=8),
    st.booleans(),
)
def test_nothing_is_wider_or_higher_than_the_screen(
    rows: list[Row], budgets: list[Budget], width: int, height: int, columns: list[str], ascii_only: bool
) -> None:
    from collections import Counter

    members = Counter(row.state for row in rows if row.group)
    groups = (GroupStatus("g" * 50, members, 0),) if members else ()
    run = a_snapshot(rows, tuple(budgets), groups=groups)
    options = RenderOptions(width, color=True, ascii_only=ascii_only)
    lines = [ESCAPE.sub("", line) for line in screen(run, options, ScreenStyle(tuple(columns), height))]
    assert len(lines) <= height and all(display_width(line) <= width for line in lines)
    assert not any(re.search(r"[\x00-\x1f\x7f]", line) for line in lines)
