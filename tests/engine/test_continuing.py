"""The command that a run prints when it did not complete."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.given import Given, Options, not_stored
from claude_orchestrator.engine.continuing import (
    apply_line,
    continue_command,
    raised_limits,
    rest_of_command,
)
from claude_orchestrator.engine.run_events import Decided, Stopping
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.worktrees.changes import Changes
from tests.cli.runs.test_runs import runs
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
    view.changes.observe(Stopping("three", State.STOPPED, "", overall, 30_000, 28_000))  # its bound: 5,012 + 28,000
    assert list(raised_limits(view)) == ["--overall-token-budget", "34k"]
    for budget in (*manager.budgets_of(Scope.INSTANCE).values(), *manager.budgets_of(Scope.DAILY, Unit.USD).values()):
        view.changes.observe(Decided("two", Action.BLOCK, "", budget))
    assert list(raised_limits(view))[2:] == ["--command-budget", "two=1k", "--daily-cost-budget", "2.1"]


def options_of(prompt: str | None, **values: Any) -> Options:
    given = {name: Given(value, "option") for name, value in values.items()}
    return Options(prompt, {"for_each": None, **values}, given)


def test_places_are_given_again() -> None:
    view = a_run("one")
    options = options_of(None, output_dir=Path("out"), claude_bin="claude-2", cluster="auto")
    places = f"--output-dir {Path('out').absolute()}"
    assert continue_command(options, view).endswith(f"{places} --claude-bin claude-2 --cluster auto")
    assert apply_line(options, view) is None
    view.instances[0].keep_changes(Changes("b", "base", "commit", None, 2, 3, 1, "one.patch"))
    assert apply_line(options, view) == (
        f"Changes: 2 files in 1 worktree. Apply them: claude-orchestrator --apply {view.run_id} {places}"
    )


def test_no_option_raises_the_limit_of_an_account() -> None:
    view = a_run("one", "two")
    of_account = view.manager.set_budget(Scope.DAILY, 2000, "team")
    view.changes.observe(Decided("two", Action.BLOCK, "", of_account))
    assert list(raised_limits(view)) == []


def test_the_rounded_limit_has_its_unit() -> None:
    view = a_run("one", "two")
    for name, limit_tokens in (("one", 41), ("two", 1_500_001)):
        view.manager.set_budget(Scope.INSTANCE, limit_tokens, name)
    view.manager.set_budget(Scope.INSTANCE, 5 * NANO, "one", unit=Unit.USD)
    for unit in Unit:
        for budget in view.manager.budgets_of(Scope.INSTANCE, unit).values():
            view.changes.observe(Decided("one", Action.BLOCK, "", budget))
    options = list(raised_limits(view))
    assert options[:2] == ["--command-budget", "one=42"]
    assert options[2:] == ["--command-budget", "two=1.6M", "--command-cost-budget", "one=5.1"]


SAME_PROMPT = "(with the same PROMPT on standard input)"
RESUME = "claude-orchestrator --resume run-1"
PLACES = {"output_dir": Path("/logs"), "claude_bin": "/opt/my claude"}
FROM_OPTIONS = {name: Given(str(value), "option") for name, value in PLACES.items()}
FROM_ENVIRONMENT = {name: Given(str(value), "environment") for name, value in PLACES.items()}


@pytest.mark.parametrize(
    ("prompt", "for_each", "given", "command"),
    [
        (None, None, {}, RESUME),
        (None, None, FROM_OPTIONS, f"{RESUME} --output-dir /logs --claude-bin '/opt/my claude'"),
        (None, None, FROM_ENVIRONMENT, RESUME),  # the next command finds them there, too
        ("fix it", None, {}, f"{RESUME} 'fix it'"),
        ("- fix it", None, {}, f"{RESUME} -- '- fix it'"),
        ("fix {{item}}", "items.txt", {}, f"{RESUME} 'fix {{{{item}}}}'"),
        ("fix\nit", None, {}, f"{RESUME} -  (with the same PROMPT on standard input)"),
        ("x" * 201, None, {}, f"{RESUME} -  (with the same PROMPT on standard input)"),
        ("fix {{item}}", "-", {}, f"{RESUME} 'fix {{{{item}}}}'  (with the same items on standard input)"),
        ("fix {{item}}", "@-", {}, f"{RESUME} 'fix {{{{item}}}}'  (with the same items on standard input)"),
    ],
)
def test_the_command_gives_again_what_the_run_does_not_keep(
    prompt: str | None, for_each: str | None, given: dict[str, Given], command: str
) -> None:
    values: dict[str, Any] = {**PLACES, "for_each": for_each}
    assert continue_command(Options(prompt, values, given), a_run("one", "two")) == command


@pytest.mark.parametrize(
    ("header", "finish", "rest"),
    [
        ({}, {}, ""),  # of an earlier version
        ({"not_stored": ["--cluster", "auto"], "source": "a.json"}, {}, "--cluster auto"),
        ({"not_stored": []}, {"raised": ["--command-budget", "a b=2k"]}, "--command-budget 'a b=2k'"),
        ({"source": "PROMPT", "not_stored": 5, "selection": 5}, {"raised": 5}, f"-  {SAME_PROMPT}"),
        (
            {"source": "PROMPT", "not_stored": ["--cluster", "auto"], "selection": {"for_each": "-"}},
            {},
            "--cluster auto  (add the same PROMPT)  (with the same items on standard input)",
        ),
    ],
)
def test_the_command_is_made_again_from_what_the_journal_has(
    header: dict[str, Any], finish: dict[str, Any], rest: str
) -> None:
    assert rest_of_command(header, finish) == rest


def test_the_journal_has_the_places_that_were_given() -> None:
    given = {"cluster": Given("auto", "argument"), "claude_bin": Given("c", "environment")}
    assert not_stored(Options(None, {"cluster": "auto", "claude_bin": "c"}, given)) == ["--cluster", "auto"]


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
        assert last in runs(tmp_path / "out", "show", "last").splitlines()
        words = shlex.split(last.partition(": ")[2])[1:]
    assert done.returncode == 0 and last.startswith("Logs: "), done.stderr
