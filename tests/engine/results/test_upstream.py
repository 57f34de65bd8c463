"""Results and branches of instances that have ended, filled into texts, by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.results.answers import Answer
from claude_orchestrator.engine.results.upstream import FinishedInstance, fill
from token_budget.fields import BadValue


def use(prompt: str, **keys: object) -> LaunchSpec:
    entry = {"name": "use", "depends_on": ["up"], "prompt": prompt, **keys}
    config = parse_config({"instances": [{"name": "up", "prompt": "x", "worktree": True}, entry]}, "x")
    expanded = expand_config(config, lambda source: (), Selection())
    plan = make_plan(expanded, Settings(), workspace="/w", claude_bin="claude")
    return plan.specs[1]


def test_a_text_without_results_stays() -> None:
    spec = use("plain")
    assert fill(spec, lambda name: FinishedInstance("up", "completed", "", Answer("a"))) is spec


def test_the_branch_of_a_dependency() -> None:
    spec = use("{{results.up}}", worktree=True, base="{{branch.up}}")
    filled = fill(spec, lambda name: FinishedInstance("up", "completed", "", Answer("text"), branch="b/up"))
    assert (filled.turns, filled.base) == (("text",), "b/up")


@pytest.mark.parametrize(
    ("prompt", "upstream", "why"),
    [
        (
            "{{results.up}}",
            FinishedInstance("up", "completed", "", Answer()),
            "its result is missing: run it again in a new run",
        ),
        ("{{results.up.file}}", FinishedInstance("up", "timed_out", "", Answer()), "up has no file: it timed out"),
    ],
)
def test_what_cannot_be_filled(prompt: str, upstream: FinishedInstance, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        fill(use(prompt), lambda name: upstream)


def test_without_a_branch_a_base_cannot_be_filled() -> None:
    spec = use("x", worktree=True, base="{{branch.up}}")
    with pytest.raises(BadValue, match="up has no branch: it never worked in a worktree"):
        fill(spec, lambda name: FinishedInstance("up", "failed", "", Answer()))


def test_how_a_failed_one_ended_is_its_result() -> None:
    filled = fill(use("{{results.up}}"), lambda name: FinishedInstance("up", "failed", "why", Answer()))
    assert filled.turns == ("failed: why",)
