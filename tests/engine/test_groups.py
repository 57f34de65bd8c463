"""Groups on the screen and in reports."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.fields import DEFAULT_COLUMNS
from claude_orchestrator.config.item_sources import ForEach, InlineItems
from claude_orchestrator.config.items import Item
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.groups import groups_of
from claude_orchestrator.engine.results.answers import Answer, result_row
from claude_orchestrator.engine.results.report_json import json_report
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.ui.screen import ScreenStyle, screen
from claude_orchestrator.ui.status import final_report
from tests.ui.test_report import NOW
from tests.views import a_view
from token_budget.text import RenderOptions, fit

PLAIN = RenderOptions(140, visuals=False)


def items_of(source: ForEach) -> tuple[Item, ...]:
    assert isinstance(source, InlineItems)
    return source.items


def a_run(size: int, **other: int) -> RunView:
    """A run with a plain instance and groups of these sizes: `fix`, and others."""
    groups = [
        {"name": name, "prompt": "{{item}}", "for_each": [f"src/file{number}.py" for number in range(count)]}
        for name, count in {"fix": size, **other}.items()
    ]
    config = parse_config({"instances": [{"name": "plan", "prompt": "x"}, *groups]}, "x")
    plan = make_plan(expand_config(config, items_of, Selection()), Settings(), workspace="/", claude_bin="claude")
    instances = [InstanceStatus(spec) for spec in plan.specs]
    return a_view(plan, instances, make_manager(plan, Settings()), NOW, 100.0)


def end(view: RunView, states: dict[State, int]) -> None:
    """Bring instances of `fix` into these states: those that run began at 100 and end at 160."""
    members = iter([status for status in view.instances if status.planned.group == "fix"])
    for state, count in states.items():
        for _ in range(count):
            status = next(members)
            if state in (State.BLOCKED, State.WAITING):
                status.skip(state, "no room")
                continue
            status.begin(100.0)
            if state is not State.RUNNING:
                status.decide_end(state, "a reason")
                status.finish(160.0, 0, "")


def test_a_group_has_a_line() -> None:
    view = a_run(10_000, docs=2)
    end(view, {State.COMPLETED: 312, State.FAILED: 3, State.RUNNING: 8})
    lines = screen(Snapshots(view).take(180.0), PLAIN, ScreenStyle(DEFAULT_COLUMNS, 15))
    assert lines[0] == "312/10,003 done · 3 failed · 0"
    assert lines[1:3] == ["fix   312/10,000 done  3 failed  8 running  ~41 min left", "docs  0/2 done"]
    rows = [line.split()[:2] for line in lines[4:]]
    assert rows[:8] == [[f"fix[src/file{number}.py]", "running"] for number in range(315, 323)]
    assert rows[8:10] == [["fix[src/file312.py]", "failed"], ["fix[src/file313.py]", "failed"]] and len(lines) == 15
    assert lines[-1] == "… and 2 more: 1 pending, 1 failed"


@pytest.mark.parametrize(
    ("states", "figures"),
    [
        ({}, "0/20 done"),
        ({State.COMPLETED: 2}, "2/20 done"),
        ({State.COMPLETED: 3}, "3/20 done  ~6 min left"),
        ({State.COMPLETED: 20}, "20/20 done"),
        (
            {State.COMPLETED: 1, State.FAILED: 1, State.TIMED_OUT: 1, State.BLOCKED: 1, State.STOPPED: 1}
            | {State.CANCELLED: 1, State.RUNNING: 1, State.WAITING: 1},
            "1/20 done  1 failed  1 timed out  1 blocked  1 stopped  1 cancelled  1 running  1 waiting  ~3 min left",
        ),
    ],
)
def test_figures(states: dict[State, int], figures: str) -> None:
    view = a_run(20)
    end(view, states)
    assert groups_of(view.instances, 160.0)[0].figures() == figures


def test_the_final_report_is_short() -> None:
    view = a_run(1_000)
    end(view, {State.COMPLETED: 900, State.FAILED: 100})
    for number, status in enumerate(view.instances[901:981]):
        status.reason = f"reason {number}"
    lines = final_report(view, 180.0, PLAIN, DEFAULT_COLUMNS)
    assert "fix: 20 instances failed: a reason" in lines and "fix[src/file900.py]: failed: reason 0" in lines
    assert len(lines) < 120 and "... and 31 more instances with problems (in the JSON report)" in lines
    assert sum("completed" in line.split()[1:2] for line in lines[3:]) == 0


def test_reports_have_the_place_of_an_instance() -> None:
    view = a_run(12)
    end(view, {State.COMPLETED: 1, State.FAILED: 1})
    report = json_report(view, NOW, 1)
    places = [(one["name"], one["group"], one["item"], one["index"]) for one in report["instances"][:3]]
    assert places == [
        ("plan", None, None, 0),
        ("fix[src/file0.py]", "fix", "src/file0.py", 0),
        ("fix[src/file1.py]", "fix", "src/file1.py", 1),
    ]
    (group,) = report["groups"]
    assert group == {
        "name": "fix",
        "instances": 12,
        "states": {"completed": 1, "failed": 1, "pending": 10},
        "total_tokens": 0,
    }
    row = result_row("r", view.instances[2], Answer())
    assert (row["group"], row["item"], row["index"]) == ("fix", "src/file1.py", 1)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("fix[src/package/module.py]", 15, "fix[src…ule.py]"),
        ("fix[日本語日本語日本語]", 13, "fix[日…本語] "),
        ("short", 9, "short    "),
        ("abcdef", 3, "ab…"),
        ("abcdef", 1, "…"),
    ],
)
def test_a_name_keeps_its_end(text: str, width: int, shown: str) -> None:
    assert fit(text, width, middle=True) == shown
