"""The command that a run prints when it did not complete."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from claude_orchestrator.cli.continuing import raised_limits
from claude_orchestrator.engine.run_events import Decided, Stopping
from claude_orchestrator.engine.state import State
from tests.ui.test_report import a_run
from token_budget.models import Action, Scope, Unit
from token_budget.text import NANO


def test_limits_that_ended_instances_are_raised() -> None:
    view = a_run("one", "two", "three")  # one has used 3,012, and the others are estimated at 1,000 each
    manager = view.manager
    manager.set_budget(Scope.INSTANCE, 900, "two")
    manager.set_budget(Scope.DAILY, 2 * NANO, unit=Unit.USD)
    assert list(raised_limits(view)) == []
    overall = manager.overall
    assert overall is not None
    view.changes.observe(Decided("two", Action.BLOCK, "", overall))
    view.changes.observe(Stopping("three", State.STOPPED, "", overall))
    view.changes.observe(Decided("two", Action.WAIT, "", manager.budgets_of(Scope.COMMAND)["/test"]))
    assert list(raised_limits(view)) == ["--overall-token-budget", "5.1k"]
    view.changes.observe(Stopping("three", State.STOPPED, "", overall, 30_000))  # the gateway knows what it needs next
    view.changes.observe(Stopping("three", State.STOPPED, "", overall))
    assert list(raised_limits(view)) == ["--overall-token-budget", "30k"]
    for budget in (*manager.budgets_of(Scope.INSTANCE).values(), *manager.budgets_of(Scope.DAILY, Unit.USD).values()):
        view.changes.observe(Decided("two", Action.BLOCK, "", budget))
    assert list(raised_limits(view))[2:] == ["--command-budget", "two=1k", "--daily-cost-budget", "2.1"]


@pytest.mark.parametrize("limits", [{"overall_budget": 40_000}, {"command_budgets": {"/test": 40_000}}])
def test_the_printed_command_completes_the_run(tmp_path: Path, limits: dict[str, object]) -> None:
    instances = [
        {"name": "one", "command": "/test a", "rehearsal": {"tokens": 90_000, "seconds": 0.5, "turns": 20}},
        {"name": "two", "command": "/test b", "max_tokens_per_command": 50_000, "rehearsal": {"seconds": 0.1}},
    ]
    config = {"instances": instances, "budget": {**limits, "enforcement_mode": "block"}}
    (tmp_path / "claude-orchestrator.json").write_text(json.dumps(config))
    program = [sys.executable, "-m", "claude_orchestrator"]
    more = ["--workspace", str(tmp_path), "--ledger", str(tmp_path / "ledger.db"), "--rehearse"]
    words = ["--output-dir", str(tmp_path / "out")]
    for _ in range(6):  # each time, what was stopped gets as much again as it has used
        done = subprocess.run([*program, *words, *more], capture_output=True, text=True, check=False)
        last = done.stdout.splitlines()[-1]
        if done.returncode == 0:
            break
        assert done.returncode == 1 and last.startswith("Continue what did not complete: claude-orchestrator --resume ")
        words = shlex.split(last.partition(": ")[2])[1:]
    assert done.returncode == 0 and last.startswith("Logs: "), done.stderr
