"""What `--dry-run` says about groups."""

from __future__ import annotations

from collections import defaultdict

from claude_orchestrator.cli.dry_run import DryRun, describe
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import STREAM, Settings
from tests.engine.test_groups import a_run
from token_budget.models import Scope
from token_budget.text import RenderOptions
from token_budget.trials import Trial

PLAIN = RenderOptions(visuals=False)


def dry_run(size: int) -> DryRun:
    view = a_run(size)
    view.manager.enforcement_mode = "block"
    settings = Settings(origins=dict.fromkeys(Settings._fields, "default"))
    return DryRun([(spec, None) for spec in view.plan.specs], view.manager, settings, STREAM, "runs.json")


def test_a_large_group_shows_its_first_instances() -> None:
    run = dry_run(10_000)
    run.manager.set_budget(Scope.GROUP, 7_000, "fix")
    lines = describe(run._replace(groups={"fix": 20_000}, trials={"fix": Trial((100,) * 5)}), PLAIN)
    assert "Group fix: 10,000 instances of 20,000 items" in lines
    assert [line for line in lines if ". " in line][:4] == [
        "1. plan",
        "2. fix[src/file0.py]",
        "3. fix[src/file1.py]",
        "4. fix[src/file2.py]",
    ]
    more = "... and 9,997 more like these: 4 would start, 9,993 would wait (--log-level debug shows all)"
    assert more in lines and len(lines) < 100
    assert "Forecast of fix: a trial of 5 cost 500 tokens; 10,000 would need about 1M, 90 % under 1M" in lines
    assert all(budget.held == 0 for budget in run.manager.budgets)


def test_a_group_whose_instances_a_result_will_tell() -> None:
    """It has no number of instances yet, but it draws on its budget."""
    plan = {"name": "plan", "prompt": "x", "json_schema": {"type": "object"}}
    fix = {"name": "fix", "prompt": "x {{item}}", "for_each": {"result_of": "plan", "path": "files"}}
    config = parse_config({"instances": [plan, fix]}, "x")
    settings = Settings(command_budgets=(("fix", 7_000),), origins=defaultdict(str))
    made = make_plan(expand_config(config, no_items, Selection()), settings, workspace="/", claude_bin="claude")
    run = DryRun([(spec, None) for spec in made.specs], make_manager(made, settings), settings, STREAM, "runs.json")
    lines = describe(run, PLAIN)
    assert lines[0] == "DRY RUN: 1 instance and 1 growing group from runs.json, nothing starts"
    assert [line for line in lines if "budgets:" in line] == ["   budgets:   none", "   budgets:   group fix (7,000)"]


def no_items(source: object) -> tuple[str, ...]:
    return ()


def test_a_small_group_and_one_in_full_are_shown_whole() -> None:
    for run in (dry_run(5), dry_run(60)._replace(in_full=True)):
        lines = describe(run, PLAIN)
        assert not any("more like these" in line for line in lines)
        assert f"{len(run.instances)}. fix[src/file{len(run.instances) - 2}.py]" in lines


def test_what_an_earlier_run_has_ended_is_counted() -> None:
    run = dry_run(100)
    ended = [(spec, "completed" if spec.position > 10 else None) for spec, _ in run.instances]
    lines = describe(run._replace(instances=ended, trials={"fix": Trial((100,) * 5)}), PLAIN)
    assert any("... and 97 more like these: 7 would start, 90 completed in an earlier run" in line for line in lines)
    assert any("; 10 would need about 1K" in line for line in lines)
