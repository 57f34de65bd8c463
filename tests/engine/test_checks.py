"""Checks: an instance is done when its check has passed, and claude gets the output of one that failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.config import Check
from claude_orchestrator.config.launch_spec import InterruptedSession, continued
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.verification import CheckVerdict, Verification, verdict_of
from tests.harness import Outcome, Workplace, alive, content_of, run_config
from tests.scripted import Script
from token_budget.ledger.sqlite import SqliteLedger

# fails as often as there is no file for, then passes
COUNTS = 'n=$(ls "$FAKE_DIR" | grep -c ran-); touch "$FAKE_DIR/ran-$n"; echo "attempt $n"; echo bad >&2; [ $n -ge %d ]'


def one(**check: Any) -> dict[str, Any]:
    return {"instances": [{"name": "one", "prompt": "work", "check": {"command": "make test", **check}}]}


def go(config: dict[str, Any], checks: list[tuple[int, str]], tmp_path: Path, **options: Any) -> tuple[Outcome, Script]:
    script = Script()
    script.checks = checks
    return run_config(config, script, workspace=tmp_path, **options), script


# -- by values --


@pytest.mark.parametrize(
    ("code", "output", "timeout_s", "verdict"),
    [
        (0, "fine", None, CheckVerdict(True)),
        (1, "bad", None, CheckVerdict(False, "exit code 1", "bad")),
        (-9, "", None, CheckVerdict(False, "ended by signal 9")),
        (None, "", None, CheckVerdict(False, "exit code None")),
        (-15, "half", 2.5, CheckVerdict(False, "timed out after 2.5 s", "half")),
        (
            127,
            "sh: 1: pytset: not found\n\n",
            None,
            CheckVerdict(False, "sh: 1: pytset: not found", "sh: 1: pytset: not found\n\n", True),
        ),
        (126, "", None, CheckVerdict(False, "exit code 126", "", True)),
    ],
)
def test_verdicts(code: int | None, output: str, timeout_s: float | None, verdict: CheckVerdict) -> None:
    assert verdict_of(code, output, timeout_s) == verdict


def test_a_prompt_names_the_command_and_repeats_the_output() -> None:
    verification = Verification(Check("make test"))
    verification.end(CheckVerdict(False, "exit code 2", "/test is no command here"))
    assert verification.prompt.startswith("The check of your work failed (exit code 2, round 1 of 3). ")
    assert verification.prompt.endswith("make test\n\nThe end of its output:\n\n/test is no command here")
    verification.end(CheckVerdict(False, "exit code 2", " \n"))
    assert verification.prompt.endswith("It printed nothing.")


def test_rounds_end_and_begin_again_with_another_start() -> None:
    verification = Verification(Check("x", rounds=2))
    for _ in range(2):
        assert verification.pending
        verification.end(CheckVerdict(False, "exit code 1", "o"))
    assert not verification.pending and verification.failure == "check failed after 2 rounds: exit code 1"
    later = Verification(Check("x", rounds=2))
    later.restore(2, CheckVerdict(False, "exit code 1", "o"), fix_due=True)
    assert later.pending and later.fix_due
    later.restore(1, CheckVerdict(False, "not found", "o", hopeless=True), fix_due=True)
    assert later.pending and not later.fix_due
    later.restore(1, CheckVerdict(True), fix_due=False)
    assert not later.pending and later.verified


def test_what_is_left_of_a_session_whose_turns_are_done(tmp_path: Path) -> None:
    outcome, _ = go(one(), [], tmp_path)
    spec = outcome.only.planned
    assert continued(spec, InterruptedSession("s", 1)).turns == ()
    assert continued(spec, InterruptedSession("s", 3, None, "fix it")).turns == ("fix it",)
    assert continued(spec, InterruptedSession("s", 0, None, None)).turns != ("work",)


# -- with scripted instances --


def test_a_check_that_passes_at_once(tmp_path: Path) -> None:
    outcome, script = go(one(), [(0, "")], tmp_path)
    assert outcome.only.state is State.COMPLETED and outcome.only.verified is True and outcome.only.check_rounds == 1
    assert script.log == ["launch one", "one: work", f"check one in {tmp_path}"]


def test_a_failed_check_is_answered_in_the_same_session(tmp_path: Path) -> None:
    outcome, script = go(one(), [(1, "red"), (2, "still red"), (0, "")], tmp_path)
    status = outcome.only
    assert (status.state, status.verified, status.check_rounds, status.attempts) == (State.COMPLETED, True, 3, 1)
    turns = [line for line in script.log if line.startswith("one: ")]
    assert len(turns) == 3 and "red" in turns[1] and "round 2 of 3" in turns[2] and "still red" in turns[2]
    assert status.total_tokens == 3 * 1001


def test_rounds_are_bounded(tmp_path: Path) -> None:
    outcome, script = go(one(rounds=2), [(1, "a")] * 9, tmp_path, retries=3)
    status = outcome.only
    assert (status.state, status.verified, status.check_rounds) == (State.FAILED, False, 2)
    assert status.reason == "check failed after 2 rounds: exit code 1" and status.attempts == 1
    assert len(script.checks) == 7


def test_a_command_that_is_not_found_fails_at_once(tmp_path: Path) -> None:
    outcome, script = go(one(), [(127, "sh: 3: mkae: not found")], tmp_path)
    assert outcome.only.reason == "check cannot be started: sh: 3: mkae: not found"
    assert sum(line.startswith("one: ") for line in script.log) == 1


def test_a_failed_turn_is_not_checked(tmp_path: Path) -> None:
    config = one()
    config["instances"][0]["prompt"] = "broken"
    outcome, script = go(config, [], tmp_path)
    assert outcome.only.state is State.FAILED and outcome.only.verified is None
    assert not any(line.startswith("check") for line in script.log)


def test_budgets_apply_to_every_round(tmp_path: Path) -> None:
    config = {**one(rounds=9), "budget": {"overall_budget": 2500, "enforcement_mode": "block"}}
    outcome, _ = go(config, [(1, "")] * 9, tmp_path)
    assert outcome.only.state is State.STOPPED and "overall budget" in outcome.only.reason
    assert outcome.only.check_rounds == 2 and outcome.only.verified is False


def test_every_turn_comes_before_the_check(tmp_path: Path) -> None:
    config = one()
    config["instances"][0]["pre_commands"] = ["first"]
    _, script = go(config, [(1, "")], tmp_path)
    assert [line.partition(" in ")[0][:10] for line in script.log] == [
        "launch one", "one: first", "one: work", "check one", "one: The c", "check one",
    ]  # fmt: skip


# -- with real processes --


def test_it_fails_twice_and_passes(place: Workplace) -> None:
    config = place.config(one(command=COUNTS % 2))
    done = place.run("--config", config, "--report", "report.json", "--results", "results.jsonl")
    assert done.returncode == 0, done.stderr
    (entry,) = place.report()["instances"]
    assert (entry["verified"], entry["check_rounds"], entry["status"]) == (True, 3, "completed")
    (line,) = [json.loads(text) for text in (place.root / "results.jsonl").read_text().splitlines()]
    assert line["verified"] is True and line["check_rounds"] == 3
    turns = json.loads((place.root / "turns.json").read_text())
    assert [turn.rpartition("\n\n")[2] for turn in turns[1:]] == ["attempt 0\nbad", "attempt 1\nbad"]
    assert "one: check round 1 failed: exit code 1" in done.stdout + done.stderr


def test_the_output_is_bounded_and_without_secrets(place: Workplace) -> None:
    command = 'yes filler | head -c 100000; echo "key $API_KEY"; head -c 99 /dev/zero; exit 3'
    config = one(command=command, rounds=2)
    config["instances"][0]["env"] = {"API_KEY": "sk-verysecret"}
    done = place.run("--config", place.config(config))
    assert done.returncode == 1 and "check failed after 2 rounds: exit code 3" in done.stdout
    prompt = json.loads((place.root / "turns.json").read_text())[1]
    assert len(prompt) < 4_400 and prompt.endswith("key ***") and "\0" not in prompt
    journal = next((place.root / "out").glob("*/journal.jsonl")).read_text()
    assert "sk-verysecret" not in journal


def test_one_that_hangs_is_stopped_with_all_it_started(place: Workplace) -> None:
    command = 'sleep 600 & echo $! > "$FAKE_DIR/pid"; echo waiting; wait'
    done = place.run("--config", place.config(one(command=command, rounds=1, timeout_s=0.3)), "--grace", "0.2")
    assert done.returncode == 1 and "check failed after 1 round: timed out after 0.3 s" in done.stdout
    assert not alive(int((place.root / "pid").read_text()))


def test_one_that_cannot_start(place: Workplace) -> None:
    done = place.run("--config", place.config(one(command="pytset -q")))
    assert done.returncode == 1 and "one: failed: check cannot be started: " in done.stdout
    assert "pytset" in done.stdout and len(json.loads((place.root / "turns.json").read_text())) == 1
    done = place.run("--config", place.config(one(command='rmdir "$PWD"; exit 1')))
    assert "check cannot be started" in done.stdout and "No such file" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--timeout", "1"), ("--idle-timeout", "2")])
def test_timeouts_of_the_instance(place: Workplace, option: tuple[str, str]) -> None:
    """The timeout reaches a running check; the idle time does not count it."""
    done = place.run("--config", place.config(one(command="sleep 2.5")), *option, "--grace", "0.2")
    assert ("timed out after 1 s" in done.stdout) is (option[0] == "--timeout")
    assert done.returncode == (1 if option[0] == "--timeout" else 0)


WAITS = 'echo $$ > "$FAKE_DIR/pid"; [ -e "$FAKE_DIR/go" ] || exec sleep 600'


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_during_a_check_it_is_checked_again(place: Workplace, number: signal.Signals) -> None:
    config = place.config(one(command=WAITS))
    process = subprocess.Popen(place.argv("--config", config), env=place.env, cwd=place.root, stdout=-3, stderr=-3)
    pid = int(content_of(place.root / "pid", process))
    process.send_signal(number)
    process.wait()
    while alive(pid):  # the guard ends it
        pass
    (place.root / "go").touch()
    done = place.run("--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    (entry,) = place.report()["instances"]
    assert entry["verified"] is True and entry["check_rounds"] == 1
    assert json.loads((place.root / "turns.json").read_text()) == ["work"]  # no turn was repeated
    assert place.run("--resume", "last").returncode == 0 and int((place.root / "pid").read_text()) > 0


def test_killed_while_a_failure_is_answered(place: Workplace) -> None:
    """The answer is asked for again, and the check that failed is not repeated."""
    config = place.config(one(command=COUNTS % 1))
    env = {**place.env, "FAKE_SECONDS": "0"}
    process = subprocess.Popen(
        place.argv("--config", config), env={**env, "FAKE_CLAUDE": "hangs-at-2"}, cwd=place.root, stdout=-3, stderr=-3
    )
    content_of(place.root / "pids.json", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = place.run("--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert place.report()["instances"][0]["check_rounds"] == 2
    (turn,) = json.loads((place.root / "turns.json").read_text())
    assert turn.startswith("The check of your work failed") and "attempt 0" in turn


def test_a_rehearsal_runs_no_command(place: Workplace) -> None:
    config = one(command=f"touch {place.root}/ran")
    config["rehearsal"] = {"seconds": 0.05}
    done = place.run("--config", place.config(config), "--rehearse", "--report", "report.json")
    assert done.returncode == 0 and not (place.root / "ran").exists()
    assert "one: the check counts as passed, because a rehearsal does not run its command" in done.stdout + done.stderr
    assert place.report()["instances"][0]["verified"] is True


def test_a_stop_of_the_run_reaches_a_check(place: Workplace) -> None:
    config = one(command='echo $$ > "$FAKE_DIR/pid"; exec sleep 600')
    config["instances"].append({"name": "two", "prompt": "x", "env": {"FAKE_CLAUDE": "crash-after"}})
    config["instances"][0]["check"]["command"] += "; : "
    config["instances"][0]["check"]["command"] = 'echo $$ > "$FAKE_DIR/pids.json"; exec sleep 600'
    done = place.run("--config", place.config(config), "--fail-fast", "--grace", "0.3")
    assert done.returncode == 1 and "cancelled because two failed" in done.stdout
    assert not alive(int((place.root / "pids.json").read_text()))


@pytest.mark.slow
def test_a_claude_that_leaves_during_its_check(place: Workplace) -> None:
    """Where the check passes, the work is done; where it fails, a retry continues the session."""
    env = {"FAKE_CLAUDE": "leaves-after-1"}
    done = place.run("--config", place.config(one(command="sleep 0.5")), **env)
    assert done.returncode == 0
    done = place.run("--config", place.config(one(command="sleep 0.5; " + COUNTS % 1)), **env)
    assert done.returncode == 1 and "exited with code 0 and without a result for turn 2 of 2" in done.stdout
    for path in place.root.glob("ran-*"):
        path.unlink()
    done = place.run("--config", place.config(one(command="sleep 0.5; " + COUNTS % 1)), "--retries", "1", **env)
    assert done.returncode == 0, done.stdout


def test_the_history_has_the_cost_of_each_verified_success(place: Workplace) -> None:
    """Of three instances of one command, two have checks: what these two cost is shared by the one that passed."""
    good = {"name": "good", "command": "/test", "check": {"command": "true"}}
    bad = {"name": "bad", "command": "/test", "check": {"command": "false", "rounds": 1}}
    ledger = str(place.root / "ledger.db")
    config = place.config({"instances": [good, bad, {"name": "unchecked", "command": "/test"}]})
    assert place.run("--config", config, "--ledger", ledger).returncode == 1
    found = {one.instance: one.verified for one in SqliteLedger(Path(ledger)).instances()}
    assert found == {"good": True, "bad": False, "unchecked": None}
    argv = [sys.executable, "-m", "token_budget", "--ledger", ledger, "history", "--by", "command"]

    def shown(*more: str) -> str:
        return subprocess.run([*argv, *more], env=place.env, capture_output=True, text=True, check=True).stdout

    (row,) = json.loads(shown("--json"))
    assert (row["completed"], row["verified"]) == (2, 1)
    assert row["cost_per_verified_usd"] == pytest.approx(row["cost_usd"] * 2 / 3)
    assert "$/verified" in shown()
