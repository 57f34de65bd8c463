"""Retries: only after what may pass, at the price of what they cost, and never into a spent budget."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.argv import argv_in_worktree, asks_for_worktree
from claude_orchestrator.claude.line_events import parse_line
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import CONTINUE_PROMPT, LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.retries import backoff_s, passing_cause, reset_wait_s
from claude_orchestrator.engine.run_context import Clock
from claude_orchestrator.engine.run_events import RunEvent
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.base import Exit
from tests.harness import Outcome, Watcher, Workplace, make_supervisor, run_real
from tests.limits import HUNG_S
from tests.scripted import Script, ScriptedRunning
from tests.stand_in import Fail, StandIn, Text

# name: (the error that the CLI names, api_error_status, whether it may pass)
API_FAILURES = {
    "overloaded": ("overloaded", 529, True),
    "rate limit": ("rate_limit", 429, True),
    "server error": ("server_error", 500, True),
    "connection lost": ("server_error", None, True),
    "unnamed 503": ("unknown", 503, True),
    "unnamed 429": ("", 429, True),
    "bad request": ("unknown", 400, False),
    "prompt too long": ("invalid_request", 413, False),
    "payment": ("billing_error", 402, False),
    "not logged in": ("authentication_failed", None, False),
    "forbidden": ("authentication_failed", 403, False),
    "unknown model": ("model_not_found", 404, False),
    "refusal": ("invalid_request", None, False),
    "turn limit": ("", None, False),
}


class Failing(Script):
    """Instances whose first attempts fail: each entry of `failures` is (error, api_error_status) or an exit code."""

    def __init__(self, *failures: tuple[str, int | None] | int, events: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__()
        self.failures = list(failures)
        self.events = events
        self.specs: list[LaunchSpec] = []

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        self.specs.append(spec)
        await asyncio.sleep(0)
        return FailingRunning(self, spec, self.failures.pop(0) if self.failures else None)


class FailingRunning(ScriptedRunning):
    def __init__(self, script: Failing, spec: LaunchSpec, failure: tuple[str, int | None] | int | None) -> None:
        super().__init__(script, spec)
        self.failure, self.events = failure, script.events

    def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "user" and isinstance(self.failure, int):
            self.close_input()
        else:
            super().send(message)

    def result(self, *, is_error: bool) -> None:
        if not isinstance(self.failure, tuple):
            return super().result(is_error=is_error)
        error, status = self.failure
        for event in self.events:
            self.emit(event)
        self.emit({"type": "assistant", "message": {"id": "x", "model": "<synthetic>"}, "error": error})
        counts = {"inputTokens": 1000, "outputTokens": 1}
        base = {"type": "result", "subtype": "success", "is_error": True, "num_turns": 1}
        self.emit({**base, "result": f"API Error: {error}", "api_error_status": status, "modelUsage": {"m": counts}})
        return None

    async def wait(self) -> Exit:
        return Exit(self.failure if isinstance(self.failure, int) else 0)


def go(
    script: Script, *, instance: Mapping[str, Any] | None = None, now: Callable[[], float] = time.time, **options: Any
) -> Outcome:
    """One instance, with no time between attempts but a reset's."""
    settings = Settings(**options)
    config = parse_config({"instances": [{"name": "one", "command": "/test", **(instance or {})}]}, "x")
    plan = make_plan(config, settings, workspace="/", claude_bin="claude")
    watcher, bus = Watcher(), Bus()
    bus.attach(watcher)
    ticks = iter(range(10**9))
    # each reading of the clock is later than any wait
    clock = Clock(lambda: 1000.0 * next(ticks), now, lambda: 0.0)

    async def main() -> Supervisor:
        supervisor = make_supervisor(plan, settings, script, bus=bus, clock=clock)
        async with asyncio.timeout(HUNG_S):
            await supervisor.run()
        return supervisor

    supervisor = asyncio.run(main())
    return Outcome(tuple(supervisor.instances), supervisor.manager, watcher.messages)


@pytest.mark.parametrize("name", API_FAILURES)
def test_only_failures_that_can_pass_are_retried(name: str) -> None:
    error, status, passes = API_FAILURES[name]
    script = Failing((error, status))
    outcome = go(script, retries=2)
    assert len(script.specs) == (2 if passes else 1)
    assert outcome.only.state is (State.COMPLETED if passes else State.FAILED)
    assert outcome.only.attempts == len(script.specs)


@pytest.mark.parametrize(("code", "attempts"), [(-9, 2), (1, 1), (0, 1)])
def test_a_dead_process_is_retried_but_not_one_with_wrong_options(code: int, attempts: int) -> None:
    outcome = go(Failing(code), retries=1)
    assert outcome.only.attempts == attempts


def test_every_attempt_stays_on_the_budgets_and_continues_in_its_session() -> None:
    script = Failing(("overloaded", 529), ("server_error", None))
    outcome = go(script, retries=5, overall_token_budget=50_000)
    assert outcome.only.attempts == 3 and outcome.only.state is State.COMPLETED
    assert outcome.only.total_tokens == outcome.manager.total_usage == 3 * 1001
    assert [spec.turns for spec in script.specs] == [("/test",), (CONTINUE_PROMPT,), (CONTINUE_PROMPT,)]
    assert "--resume=s" in script.specs[1].argv and script.specs[2].argv.count("--resume=s") == 1
    assert outcome.messages[0].startswith("WARNING: one: attempt 1 failed, continues at ")
    assert outcome.messages[0].endswith("(retry 1 of 5) after: API Error: overloaded")


def test_it_gives_up_after_n() -> None:
    outcome = go(Failing(*[("overloaded", 529)] * 9), retries=3)
    assert outcome.only.attempts == 4 and outcome.only.state is State.FAILED
    assert outcome.only.reason == "API Error: overloaded"
    outcome = go(Failing(*[("overloaded", 529)] * 9), instance={"retries": 1}, retries=3)
    assert outcome.only.attempts == 2


def test_a_spent_budget_refuses_the_retry_and_the_failure_stays() -> None:
    options: dict[str, Any] = {"overall_token_budget": 1500, "budget_enforcement_mode": "block"}
    outcome = go(Failing(("overloaded", 529)), retries=3, **options)
    assert outcome.only.state is State.FAILED and outcome.only.attempts == 1
    assert outcome.only.reason.startswith("API Error: overloaded; not retried: overall budget: used 1,001")


def test_never_after_a_budget_stop() -> None:
    options: dict[str, Any] = {"overall_token_budget": 500, "budget_enforcement_mode": "block"}
    outcome = go(Failing(("overloaded", 529)), retries=3, instance={"max_tokens_per_command": 400}, **options)
    assert outcome.only.state is State.STOPPED and outcome.only.attempts == 1


def test_a_lost_session_is_begun_anew() -> None:
    class LostRunning(FailingRunning):
        def result(self, *, is_error: bool) -> None:
            base = {"type": "result", "subtype": "error_during_execution", "is_error": True, "num_turns": 0}
            self.emit({**base, "errors": ["No conversation found with session ID: s"], "modelUsage": {}})

    class Lost(Failing):
        async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
            if not spec.resumed:
                return await super().launch(spec)
            self.specs.append(spec)
            self.tokens = 0
            await asyncio.sleep(0)
            return LostRunning(self, spec, None)

    script = Lost(("overloaded", 529))
    outcome = go(script, retries=1)
    assert [spec.turns for spec in script.specs] == [("/test",), (CONTINUE_PROMPT,), ("/test",)]
    assert outcome.only.state is State.COMPLETED


def test_a_rate_limits_reset_is_waited_for() -> None:
    info = {"status": "rejected", "resetsAt": 5000, "rateLimitType": "five_hour"}
    event = {"type": "rate_limit_event", "rate_limit_info": info}
    times = iter([4999.99] * 4 + [5001.0] * 20)
    script = Failing(("rate_limit", 429), events=(event,))
    looks: list[float] = []

    def now() -> float:
        looks.append(next(times))
        return looks[-1]

    outcome = go(script, wait_for_reset=True, now=now, startup_delay_s=0)
    assert outcome.only.state is State.COMPLETED and outcome.only.attempts == 2 and max(looks) == 5001.0
    assert "when its rate limit resets) after: API Error: rate_limit" in outcome.messages[0]
    # without the option it is a failure like others, and without a time there is nothing to wait for
    assert go(Failing(("rate_limit", 429), events=(event,))).only.state is State.FAILED
    assert go(Failing(("rate_limit", 429)), wait_for_reset=True).only.state is State.FAILED


@pytest.mark.parametrize("resets_at", [None, 0, 999, 10**12])
def test_no_wait_for_a_reset_that_cannot_be(resets_at: int | None) -> None:
    assert reset_wait_s(resets_at, 1000.0, 0.0) is None
    assert reset_wait_s(1060, 1000.0, 1.0) == 65.0


def test_backoff_doubles_to_two_minutes_and_is_spread() -> None:
    assert [backoff_s(n, 1.0) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10_000)] == [2, 4, 8, 16, 32, 64, 120, 120, 120]
    assert backoff_s(3, 0.0) == 4.0


@pytest.mark.parametrize(("number", "passes"), [(errno.EAGAIN, True), (errno.EMFILE, True), (errno.ENOENT, False)])
def test_a_machine_that_is_full_for_a_moment(number: int, passes: bool) -> None:
    status = InstanceStatus(any_spec())
    status.attempt.launch_errno = number
    status.decide_end(State.FAILED, "cannot be launched")
    status.finish(0.0, None, "")
    assert (passing_cause(status) is not None) is passes


def any_spec() -> LaunchSpec:
    config = parse_config({"instances": [{"prompt": "x"}]}, "x")
    return make_plan(config, Settings(), workspace="/", claude_bin="claude").specs[0]


def test_recorded_failures_are_classified_correctly() -> None:
    """Streams of the real CLI: what may pass, by the file's name."""
    passing = {"06-429-permanent-max2", "06-529-permanent-default", "06-drop-after-block-once", "06-drop-nofallback"}
    found = {}
    for path in sorted(Path(__file__).parent.parent.glob("data/*.jsonl")):
        status = InstanceStatus(any_spec())
        status.attempt.next_turn()
        for line in path.read_bytes().split(b"\n"):
            if (event := parse_line(line)) is not None:
                status.apply(event)
        status.finish(0.0, 0, "")
        if status.state is State.FAILED and status.attempt.last_result is not None and not status.attempt.turn_running:
            found[path.stem] = passing_cause(status) is not None
    assert {name for name, passes in found.items() if passes} == passing & set(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "attempts", "code"),
    [("overloaded", 3, 0), ("no-result", 3, 0), ("authentication_failed", 1, 1), ("invalid_request", 1, 1)],
)
def test_with_processes(place: Workplace, failure: str, attempts: int, code: int) -> None:
    env = {"FAKE_CLAUDE": "flaky", "FAKE_FAIL": failure, "FAKE_FAILS": "2"}
    setup = {"instances": [{"name": "one", "command": "/test", "env": env, "retries": 2}]}
    done = place.run("--config", place.config(setup), "--report", "report.json")
    (instance,) = place.report()["instances"]
    assert done.returncode == code and instance["attempts"] == attempts
    each = 1001 if failure == "no-result" else 1050
    assert place.report()["totals"]["total_tokens"] == (attempts - 1) * each + 1050
    logs = sorted(path.name for path in place.root.glob("out/*/001*"))
    assert logs == ["001-one.2.jsonl", "001-one.3.jsonl", "001-one.jsonl"][-attempts:] or attempts == 1


@pytest.mark.parametrize("retries", [-1, 101, 1.5, True, "three"])
def test_bad_numbers_of_retries(place: Workplace, retries: Any) -> None:
    setup = {"instances": [{"prompt": "x", "retries": retries}]}
    done = place.run("--config", place.config(setup))
    assert done.returncode == 2 and "instances[0].retries: expected a whole number from 0 to 100" in done.stderr


@pytest.mark.slow
@pytest.mark.real_cli
def test_the_real_cli_comes_back_after_an_overload(claude: str, tmp_path: Path) -> None:
    """It gives up after one retry of its own; the second attempt goes on in its session, and every token counts."""
    env = {"CLAUDE_CODE_MAX_RETRIES": "1"}
    entry = {"name": "one", "pre_commands": ["INDIGO work"], "prompt": "TEAL work", "env": env, "retries": 2}
    with StandIn({"INDIGO": [Text()], "TEAL": [Fail(529)], CONTINUE_PROMPT: [Text("done")]}) as api:
        outcome = run_real({"instances": [entry]}, api, claude, tmp_path)
        assert outcome.only.state is State.COMPLETED and outcome.only.attempts == 2, outcome.only.reason
        assert [entry.marker for entry in api.entries] == ["INDIGO", "TEAL", "TEAL", CONTINUE_PROMPT]
        assert outcome.only.usage == api.billed() and outcome.only.exact


@pytest.mark.real_cli
@pytest.mark.parametrize("status", [400, 403])
def test_the_real_cli_is_not_retried_after_a_bad_request(claude: str, tmp_path: Path, status: int) -> None:
    with StandIn({"OLIVE": [Fail(status)]}) as api:
        entry = {"name": "one", "prompt": "OLIVE work", "retries": 3}
        outcome = run_real({"instances": [entry]}, api, claude, tmp_path)
        assert outcome.only.state is State.FAILED and outcome.only.attempts == 1


def test_ctrl_c_while_it_waits_for_a_retry() -> None:
    """A retry waits a second or two: Ctrl-C in that time cancels it."""
    script = Failing(("overloaded", 529))

    async def main() -> Supervisor:
        settings = Settings(retries=1)
        config = parse_config({"instances": [{"name": "one", "command": "/test"}]}, "x")
        plan = make_plan(config, settings, workspace="/", claude_bin="claude")
        bus = Bus()
        supervisor = make_supervisor(plan, settings, script, bus=bus)

        def cancel_once_waiting(event: RunEvent) -> None:
            if supervisor.instances[0].failed_before and not supervisor.cancelled:
                supervisor.cancel("cancelled by test")

        bus.attach(Watcher(on_event=cancel_once_waiting))
        await supervisor.run()
        return supervisor

    (status,) = asyncio.run(main()).instances
    assert status.state is State.CANCELLED and status.attempts == 1 and status.total_tokens == 1001


class InWorktrees(Failing):
    """Instances that make a worktree where they are asked for one, and name the folder that they work in."""

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        running = await super().launch(spec)
        made = any(arg.startswith("--worktree") for arg in spec.argv)
        folder = f"{spec.cwd}/tree-{len(self.specs)}" if made else spec.cwd
        running.emit({"type": "system", "subtype": "init", "model": "m", "cwd": folder})
        return running


@pytest.mark.parametrize("asked", ["--worktree", "--worktree=mine"])
def test_a_retry_continues_in_the_worktree_that_has_the_work(asked: str) -> None:
    script = InWorktrees(("overloaded", 529), ("overloaded", 529))
    instance = {"mcp_config": "servers.json", "extra_args": [asked, "--add-dir", "x"]}
    outcome = go(script, retries=2, instance=instance)
    assert outcome.only.state is State.COMPLETED
    first, second, third = script.specs
    assert second.cwd == third.cwd == f"{first.cwd}/tree-1"
    assert asks_for_worktree(first.argv) and not asks_for_worktree(second.argv + third.argv)
    assert second.argv[-2:] == ("--add-dir", "x") and "--mcp-config=/servers.json" in second.argv


def test_without_a_worktree_a_retry_stays_in_its_folder() -> None:
    script = Failing(("overloaded", 529), events=({"type": "system", "subtype": "init", "cwd": "/elsewhere"},))
    assert go(script, retries=1).only.state is State.COMPLETED
    assert len({spec.cwd for spec in script.specs}) == 1


def test_an_instance_starts_anew_if_its_worktree_is_missing() -> None:
    class Gone(InWorktrees):
        async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
            if spec.cwd.endswith("/tree-1"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            return await super().launch(spec)

    script = Gone(("overloaded", 529))
    outcome = go(script, retries=1, instance={"extra_args": ["--worktree"]})
    assert outcome.only.state is State.COMPLETED and asks_for_worktree(script.specs[-1].argv)
    assert any("its session is lost" in message for message in outcome.messages)


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (("--worktree",), ()),
        (("--worktree=a", "--x"), ("--x",)),
        (("-w", "a", "--x", "y"), ("--x", "y")),
        (("--worktree", "--x", "y"), ("--x", "y")),
        (("--mcp-config=/abs/s.json",), ("--mcp-config=/abs/s.json",)),
    ],
)
def test_arguments_in_a_worktree(args: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert argv_in_worktree(("claude", *args), "/work") == ("claude", *left)


@pytest.mark.real_cli
@pytest.mark.slow  # it waits for a limit that resets
def test_the_wait_for_a_reset_and_claudes_own_do_not_fight(claude: str, tmp_path: Path) -> None:
    """Claude's setting has no effect without a person, so one request is refused and one attempt follows the reset."""
    settings = tmp_path / "home" / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"autoContinueAtUsageLimit": true}')
    env = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy", "ANTHROPIC_API_KEY": ""}
    with StandIn({"hello": [Text()]}) as api:

        def limit(_: dict[str, Any]) -> None:
            """A limit that resets two to three seconds after the first request, however late that is."""
            api.limited_until = api.limited_until or int(time.time()) + 3

        api.on_request = limit
        config = {"instances": [{"name": "one", "prompt": "hello", "env": env}]}
        outcome = run_real(config, api, claude, tmp_path, wait_for_reset=True)
        status = outcome.only
        assert status.state is State.COMPLETED and (status.attempts, status.retries_used) == (2, 0)
        assert len(api.refused_at) == 1 and len(api.entries) == 1
        assert any("when its rate limit resets" in message for message in outcome.messages)
