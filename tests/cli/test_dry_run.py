"""What `--dry-run` says about a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claude_orchestrator.cli.dry_run import DryRun, describe
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.given import Given
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import STREAM, MeterChoice, merge
from token_budget import pricing
from token_budget.forecast import Forecast
from token_budget.models import Unit
from token_budget.text import RenderOptions

PLAIN = RenderOptions(visuals=False)


def no_forecast(*about: object) -> Forecast | None:
    return None


def dry_run(
    *entries: dict[str, Any],
    meter: MeterChoice = STREAM,
    ended: str | None = None,
    forecast: Callable[..., Forecast | None] = no_forecast,
    **options: Any,
) -> DryRun:
    """A dry run of these entries, the last of which ended in an earlier start if `ended` is given."""
    config = parse_config({"instances": [{"command": "/test", **entry} for entry in entries]}, "test")
    settings = merge({name: Given(value, "option") for name, value in options.items()}, {}, "test")
    plan = make_plan(config, settings, workspace="/work", claude_bin="claude", forecast=forecast)
    ends = [None] * (len(entries) - 1) + [ended]
    instances = list(zip(plan.specs, ends, strict=True))
    return DryRun(instances, make_manager(plan, settings), settings, meter, "runs.json", ("look out",))


def lines_of(run: DryRun, options: RenderOptions = PLAIN) -> list[str]:
    return [line.strip() for line in describe(run, options)]


def the_line(run: DryRun, start: str) -> str:
    (found,) = [line for line in lines_of(run) if line.startswith(start)]
    return found


def test_an_instance_is_shown_with_all_that_it_would_be_given() -> None:
    entry = {
        "name": "one",
        "description": "a first try",
        "pre_commands": ["/plan"],
        "env": {"COLOUR": "ultramarine"},
        "timeout_s": 90,
        "append_system_prompt": "be brief",
        "max_tokens_per_command": 5_000,
    }
    lines = lines_of(dry_run(entry))
    assert lines[:2] == ["DRY RUN: 1 instance from runs.json, nothing starts", "WARNING: look out"]
    for expected in (
        "1. one: a first try",
        "by file:   --append-system-prompt (8 characters)",
        "turn 1:    '/plan'",
        "turn 2:    '/test'",
        "folder:    /work",
        "env:       COLOUR (values not shown)",
        "timeout:   90 s",
        "budgets:   instance one (5,000)",
        "estimate:  5,000 tokens",
        "admission: would start",
    ):
        assert expected in lines
    assert not any("ultramarine" in line or "be brief" in line for line in lines)


def test_estimates_are_held_one_after_the_other_and_given_back() -> None:
    entry = {"max_tokens_per_command": 700}
    run = dry_run(
        {"name": "one", **entry}, {"name": "two", **entry}, overall_token_budget=1_000, budget_enforcement_mode="block"
    )
    admissions = [line for line in lines_of(run) if line.startswith("admission")]
    assert admissions[0] == "admission: would start" and admissions[1].startswith("admission: would wait (overall")
    assert run.manager.overall is not None and run.manager.overall.held == 0


@pytest.mark.parametrize(("mode", "admission"), [("warn", "would start with a warning"), ("block", "would be blocked")])
def test_an_estimate_above_a_limit(mode: str, admission: str) -> None:
    run = dry_run({"name": "one"}, overall_token_budget=500, budget_enforcement_mode=mode)
    assert the_line(run, "admission").startswith(f"admission: {admission} (overall budget")


def test_an_instance_that_has_ended_is_not_run_again() -> None:
    lines = lines_of(dry_run({"name": "one"}, {"name": "two"}, ended="completed"))
    (two,) = [line for line in lines if line.startswith("2. two")]
    assert "completed" in two and sum(line.startswith("argv:") for line in lines) == 1


@pytest.mark.parametrize(
    ("meter", "mode", "words"),
    [
        (MeterChoice("stream", "a rehearsal"), "warn", "stream (a rehearsal)"),
        (MeterChoice("api"), "warn", "warn mode delays and changes nothing"),
        (MeterChoice("api"), "block", "max_tokens"),
    ],
)
def test_the_meter_is_explained(meter: MeterChoice, mode: str, words: str) -> None:
    assert words in the_line(dry_run({"name": "one"}, meter=meter, budget_enforcement_mode=mode), "Meter:")


def test_forecasts_and_the_chance_that_all_of_it_fits() -> None:
    known = Forecast(23, 0, (800, 2_000), (0.5, 1.0), 0.1)
    both: dict[str, Any] = {"forecast": lambda *args: known, "overall_token_budget": 10_000, "overall_cost_budget": "5"}
    lines = lines_of(dry_run({"name": "one"}, {"name": "two"}, **both))
    assert lines.count(f"forecast:  {known.describe(Unit.TOKENS)}") == 2
    assert lines.count(f"cost:      {known.describe(Unit.USD)}") == 2
    assert "Chance that the plan fits the overall budget (10,000): 100%" in lines
    one_unknown = {**both, "forecast": lambda command, name, *rest: known if name == "one" else Forecast(0)}
    assert not any("Chance" in line for line in lines_of(dry_run({"name": "one"}, {"name": "two"}, **one_unknown)))


def test_every_setting_is_shown_with_where_it_came_from() -> None:
    run = dry_run({"name": "one"}, max_parallel=3, command_budgets=["/test=50k"])
    assert the_line(run, "max_parallel").split() == ["max_parallel", "3", "(option)"]
    assert the_line(run, "command_budgets[/test]").split() == ["command_budgets[/test]", "50000", "(option)"]
    assert the_line(run, "overall_token_budget").split() == ["overall_token_budget", "none", "(default)"]


def test_weights_name_the_ratios_that_they_follow() -> None:
    own = "billing, each model's own ratios" if pricing.available() else "billing, fixed, since"
    run = dry_run({"name": "one"}, token_weights="billing")
    assert own in the_line(run, "token_weights")


def test_the_budget_panel_comes_last_where_there_are_budgets() -> None:
    with_budget = lines_of(dry_run({"name": "one"}, overall_token_budget=500), RenderOptions(visuals=True))
    assert any("BUDGET STATUS" in line for line in with_budget[-8:])
    assert not any("BUDGET STATUS" in line for line in lines_of(dry_run({"name": "one"}), RenderOptions(visuals=True)))


def test_control_characters_are_shown_and_not_sent() -> None:
    assert "1. one: a\\x1b[2Jb" in lines_of(dry_run({"name": "one", "description": "a\x1b[2Jb"}))
