"""The methods of the control protocol on the control of a run that has not begun: params, results and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from claude_orchestrator.claude.permission_rules import Call
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.approvals import Approvals, Reply
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.control.event_log import EventLog
from claude_orchestrator.engine.control.methods import MAX_NAMES, MAX_TEXT, METHODS, Params, by_of, call
from claude_orchestrator.engine.control.rpc import Code, RpcError, RpcRequest
from claude_orchestrator.engine.control.run_control import RunControl
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import By, RunEvent, Steered
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.simulated import SimulatedLauncher
from tests.ui.test_report import NOW
from tests.views import a_view


class Desk:
    """The control of a run of two instances that has not begun, and what is published and answered there."""

    def __init__(self) -> None:
        entries = [{"name": name, "command": "/test"} for name in ("one", "two")]
        settings = Settings(overall_token_budget=5_000, command_budgets=(("/test", 4_000),))
        plan = make_plan(parse_config({"instances": entries}, "x"), settings, workspace="/", claude_bin="claude")
        manager, bus = make_manager(plan, settings), Bus()
        view = a_view(plan, [InstanceStatus(spec) for spec in plan.specs], manager, NOW, 0.0)
        self.steered: list[Steered] = []
        self.stops: list[tuple[str, bool]] = []
        self.replies: list[Reply] = []
        self.approvals = Approvals(bus, 60.0)
        supervisor = Supervisor(view.instances, RunContext(settings, SimulatedLauncher(), manager, bus))
        bus.attach(self)
        log = EventLog(bus, "r/1")
        self.control = RunControl(view, supervisor, bus, self.approvals, log, lambda *stop: self.stops.append(stop))

    def observe(self, event: RunEvent) -> None:
        """Keep what somebody has changed."""
        if isinstance(event, Steered):
            self.steered.append(event)

    def ask(self, tool: str) -> str:
        """A tool asks for approval; needs a loop."""
        return self.approvals.ask("one", Call(tool, {"command": "ls"}, "/"), "", self.replies.append)

    def call(self, method: str, **params: Any) -> Any:
        """What a person called kim gets from the socket."""
        return call(self.control, RpcRequest(7, method, params), "socket", "kim")

    def refused(self, method: str, **params: Any) -> tuple[Code, str]:
        """The error that a request gets, which changes nothing."""
        with pytest.raises(RpcError) as error:
            self.call(method, **params)
        assert error.value.id == 7 and self.steered == [] and self.stops == []
        return error.value.code, str(error.value)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def params(**values: Any) -> Params:
    return Params(RpcRequest(7, "x", values))


def test_params_have_defaults() -> None:
    none = params()
    assert none.text("a", "x") == "x" and none.flag("a") is False and none.number("a") == -1
    assert none.names("a") == [] and none.any("a") is None
    assert by_of("web", "kim", none) == By("web", "kim", "") and by_of("web", "", params(why="lunch")).why == "lunch"


def test_params_are_read_by_their_types() -> None:
    given = params(text="x" * MAX_TEXT, flag=True, number=3, names=["a", "b"], name="a", any={"a": 1})
    assert given.text("text") == "x" * MAX_TEXT and given.flag("flag") and given.number("number") == 3
    assert given.names("names") == ["a", "b"] and given.names("name") == ["a"] and given.any("any") == {"a": 1}


@pytest.mark.parametrize(
    ("read", "value", "what"),
    [
        (Params.text, None, "a text of at most 1,000 characters"),
        (Params.text, "x" * (MAX_TEXT + 1), "a text of at most 1,000 characters"),
        (Params.flag, 1, "true or false"),
        (Params.number, True, "a whole number"),
        (Params.number, 1.5, "a whole number"),
        (Params.names, {"a": 1}, "a list of names"),
        (Params.names, ["a", 1], "a list of names"),
        (Params.names, ["a"] * (MAX_NAMES + 1), "a list of names"),
    ],
)
def test_a_param_of_another_type_is_an_error(read: Callable[[Params, str], object], value: Any, what: str) -> None:
    with pytest.raises(RpcError, match=f"^p: expected {what}$") as error:
        read(params(p=value), "p")
    assert (error.value.code, error.value.id) == (Code.PARAMS, 7)


def test_a_missing_text_is_an_error() -> None:
    with pytest.raises(RpcError, match="budget: expected a text"):
        params().text("budget")


def test_an_unknown_method_is_an_error(desk: Desk) -> None:
    assert desk.refused("explode") == (Code.METHOD, "there is no method 'explode'")
    assert len(desk.refused("x" * 10_000)[1]) < 200


def test_the_status_is_whole_or_brief(desk: Desk) -> None:
    whole, brief = desk.call("status"), desk.call("status", brief=True)
    assert [row["name"] for row in whole["instances"]] == ["one", "two"] and "instances" not in brief
    assert brief["run"]["state"] == "waiting" and brief["source"] == "r/1" and desk.steered == []


def test_instances_are_stopped_for_a_reason(desk: Desk) -> None:
    assert desk.call("stop", names=["one"], why="not needed") == {"stopping": ["one"]}
    rows = desk.call("status")["instances"]
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("stopped", "stopped by kim: not needed"),
        ("pending", ""),
    ]
    assert desk.steered == [Steered("stop", "one", "stop of one", By("socket", "kim", "not needed"))]


def test_the_run_is_stopped_with_or_without_grace(desk: Desk) -> None:
    desk.call("stop_run", why="late")
    desk.call("stop_run", at_once=True)
    assert desk.stops == [("cancelled by kim: late", False), ("cancelled by kim", True)]


def test_launches_are_paused_once(desk: Desk) -> None:
    assert desk.refused("resume") == (Code.REFUSED, "launches are not paused")
    desk.call("pause")
    assert desk.call("status", brief=True)["run"]["paused"] is True
    with pytest.raises(RpcError, match=r"^launches are paused$"):
        desk.call("pause")
    desk.call("resume")
    assert desk.call("status", brief=True)["run"]["paused"] is False
    assert [event.action for event in desk.steered] == ["pause", "resume"]


def test_limits_are_set_one_by_one_or_together(desk: Desk) -> None:
    row = desk.call("set_limit", budget="overall", limit=9_000)
    assert (row["label"], row["limit"]) == ("overall", 9_000)
    rows = desk.call("set_limits", limits={"overall": "10K", "/test command": 8_000})
    assert [(row["label"], row["limit"]) for row in rows] == [("overall", 10_000), ("/test command", 8_000)]
    assert desk.call("status", brief=True)["budgets"] == rows


@pytest.mark.parametrize("limits", [None, {}, [["overall", 1]], dict.fromkeys(map(str, range(MAX_NAMES + 1)), 1)])
def test_limits_are_an_object(desk: Desk, limits: Any) -> None:
    assert desk.refused("set_limits", limits=limits) == (Code.PARAMS, "limits: expected an object of limits by budget")


def test_one_bad_limit_sets_none(desk: Desk) -> None:
    code, text = desk.refused("set_limits", limits={"overall": 9_000, "monthly": 5})
    assert code is Code.REFUSED and "\n" not in text
    assert text.startswith("no budget is called 'monthly'; the run has: overall, /test command. To add one, stop")
    assert "claude-orchestrator --resume r --output-dir " in text and text.endswith(" --monthly-token-budget N")
    assert "--command-budget 'nope=N'" in desk.refused("set_limit", budget="nope", limit=5)[1]
    assert desk.refused("set_limit", limit=5)[0] is Code.PARAMS
    assert desk.refused("set_limit", budget="overall", limit=-5)[0] is Code.REFUSED
    assert desk.call("status", brief=True)["budgets"][0]["limit"] == 5_000


def test_the_number_of_instances_at_once_is_set(desk: Desk) -> None:
    assert desk.refused("set_max_parallel", number=0)[0] is Code.REFUSED
    assert desk.refused("set_max_parallel")[0] is Code.REFUSED
    assert desk.call("set_max_parallel", number=2) == {"max_parallel": 2}
    assert desk.call("status", brief=True)["run"]["max_parallel"] == 2


def test_tools_that_wait_are_approved_or_denied(desk: Desk) -> None:
    assert desk.refused("approve", ids=["all"]) == (Code.REFUSED, "approve: no tool waits for approval")

    async def main() -> None:
        first, second, third = desk.ask("Bash"), desk.ask("Write"), desk.ask("Bash")
        assert [row["tool"] for row in desk.call("approvals")] == ["Bash", "Write", "Bash"]
        assert desk.call("deny", ids=second, message="use Edit") == {"denied": [second]}
        assert desk.call("approve", ids=[first], always=True) == {"approved": [first]}
        assert desk.call("approvals") == []  # the third was the same call
        with pytest.raises(RpcError, match=f"under {third}"):
            desk.call("deny", ids=[third])

    asyncio.run(main())
    assert desk.replies == [Reply(False, "use Edit"), Reply(True), Reply(True)]


def test_a_run_that_has_ended_is_only_seen(desk: Desk) -> None:
    desk.control.end()
    assert desk.call("status", brief=True)["run"]["state"] == "ended"
    calls: dict[str, dict[str, Any]] = {
        "stop": {"names": ["one"]},
        "stop_run": {},
        "pause": {},
        "resume": {},
        "set_limit": {"budget": "overall", "limit": 5},
        "set_limits": {"limits": {"overall": 5}},
        "set_max_parallel": {"number": 3},
    }
    assert calls.keys() | {"status", "approvals", "approve", "deny"} == METHODS.keys()
    for method, values in calls.items():
        assert desk.refused(method, **values) == (Code.REFUSED, "run r has ended")
