"""What the journal keeps of each event."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.launch_spec import InterruptedSession
from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.in_flight import InFlight, SentRequest
from claude_orchestrator.engine.journal_records import record_of
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.verification import CheckVerdict
from tests.claude.test_tally import INIT, final, result, start
from tests.engine.test_state import an_instance, feed
from token_budget.models import Action, Amount, Budget, Hold, Scope, Usage, Weights


def ended() -> InstanceStatus:
    """An instance that used 5 + 1 tokens in 2.5 s and completed."""
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), result(5, 1))
    status.finish(2.5, 0, "")
    return status


BUDGET = Budget(100, scope=Scope.OVERALL, used=120)


@pytest.mark.parametrize(
    ("event", "record"),
    [
        (happened.RunStarted({"run_id": "r"}), ("run", {"run_id": "r"})),
        (happened.SessionNamed("one", "s"), ("session", {"instance": "one", "session": "s", "folder": None})),
        (happened.TurnEnded("one", 2), ("turn", {"instance": "one", "done": 2})),
        (
            happened.Expanded("fix", (happened.Member("fix[a]", None, "digest", "fix"),)),
            (
                "expand",
                {
                    "group": "fix",
                    "instances": [{"name": "fix[a]", "base_command": None, "turns": "digest", "group": "fix"}],
                },
            ),
        ),
        (
            happened.Checked("one", 1, CheckVerdict(True)),
            ("check", {"instance": "one", "round": 1, "passed": True}),
        ),
        (
            happened.Checked("one", 2, CheckVerdict(False, "exit code 1", "text")),
            (
                "check",
                {
                    "instance": "one",
                    "round": 2,
                    "passed": False,
                    "reason": "exit code 1",
                    "output": "text",
                    "hopeless": False,
                },
            ),
        ),
        (happened.ChangesKept("one", None), ("changes", {"instance": "one", "changes": None})),
        (happened.WorkEnded("one"), ("done", {"instance": "one"})),
        (
            happened.Decided("one", Action.WAIT, "full"),
            ("decision", {"instance": "one", "action": "wait", "reason": "full"}),
        ),
        (happened.Decided("one", Action.BLOCK, "spent"), None),  # its end is recorded instead
        (happened.HoldChanged("one", "grew", 5), ("adjust", {"instance": "one", "reason": "grew"})),
        (happened.Crossed(BUDGET), ("crossing", {"budget": "overall", "used": 120, "limit": 100})),
        (
            happened.Stopping("one", State.STOPPED, "stopped by budget", BUDGET),
            ("stop", {"instance": "one", "state": "stopped", "reason": "stopped by budget"}),
        ),
        (happened.AlertRaised("80 % used", {}), ("alert", {"reason": "80 % used"})),
        (
            happened.Steered("set_budget", "overall", "500 -> 700", happened.By("web", "eve")),
            (
                "steer",
                {
                    "action": "set_budget",
                    "target": "overall",
                    "reason": "500 -> 700",
                    "via": "web",
                    "user": "eve",
                    "why": "",
                },
            ),
        ),
        (
            happened.ApprovalAsked("7", "one", "Bash", "Bash: make"),
            ("ask", {"instance": "one", "id": "7", "tool": "Bash", "reason": "Bash: make"}),
        ),
        (
            happened.ApprovalEnded("7", "one", "Bash: make", "denied", happened.By("timeout", why="nobody answered")),
            (
                "answer",
                {
                    "instance": "one",
                    "id": "7",
                    "outcome": "denied",
                    "reason": "Bash: make",
                    "via": "timeout",
                    "user": "",
                    "why": "nobody answered",
                },
            ),
        ),
        (happened.RunEnded(1), ("finish", {"exit_code": 1})),
        (happened.RunEnded(1, raised=("--x", "1")), ("finish", {"exit_code": 1, "raised": ["--x", "1"]})),
        (happened.Changed(), None),
        (happened.RoomChanged(), None),
    ],
)
def test_record_of_an_event(event: happened.RunEvent, record: tuple[str, dict[str, Any]] | None) -> None:
    assert record_of(event) == record


def test_a_launch_is_recorded_with_its_hold_and_what_it_resumes() -> None:
    status = an_instance("/a", "/b")
    status.finish(1.0, 1, "")
    status.restore((status.attempt.totals,), InterruptedSession("s", 1))
    status.begin(2.0)
    record = record_of(happened.Launched(status, Hold((), Amount(700))))
    assert record is not None and record[0] == "launch"
    expected = {"instance": "one", "attempt": 2, "hold": 700, "session": "s", "turns_done": 1, "folder": "/"}
    assert record[1].items() >= expected.items()
    assert [value for name, value in record[1].items() if name not in expected] == [True, "001-one.2.jsonl"]  # resumes


def test_usage_is_recorded_as_the_attempts_total() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1))
    delta = status.attempt.costs.take_delta(Weights())
    assert delta is not None
    counts = {"usage": (5, 1, 0, 0), "models": {"m": (5, 1, 0, 0)}}
    usage = {"instance": "one", "attempt": 1, **counts, "cost_usd": None, "cost_nano_usd": None}
    assert record_of(happened.UsageRecorded(status, delta)) == ("usage", usage)


def test_a_resumed_run_can_read_what_requests_were_in_flight() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1))
    delta = status.attempt.costs.take_delta(Weights())
    assert delta is not None
    in_flight = InFlight()

    def write(event: happened.RunEvent, kind: str) -> None:
        record = record_of(event)
        assert record is not None and record[0] == kind
        in_flight.note(record[1])

    first, second = (SentRequest(number, Hold((), Amount(0, 9)), Usage(100, 50)) for number in (1, 2))
    for sent in (first, second):
        write(happened.RequestSent(status, sent), "sent")
    write(happened.RequestSettled(status, second), "settled")
    first.rest = Usage(output_tokens=49)  # its input was counted
    write(happened.UsageRecorded(status, delta, first), "usage")
    attempts = [AttemptTotals()]
    assert in_flight.charge(attempts, "bound") == Usage(output_tokens=49)
    assert attempts == [AttemptTotals(Usage(output_tokens=49), exact=False, cost_nano_usd=9)]


def test_the_end_of_an_attempt_holds_all_that_a_resumed_run_needs() -> None:
    status = ended()
    kind, fields = record_of(happened.AttemptEnded(status)) or ("", {})
    assert kind == "end" and fields["done"] == status.done
    expected = {"attempt": 1, "state": "completed", "reason": "", "usage": (5, 1, 0, 0), "exact": True, "seconds": 2.5}
    assert fields.items() >= {**expected, "turns_done": 1, "exit_code": 0, "session": status.session_id}.items()


def test_an_instance_that_was_never_launched_ends_without_an_attempt() -> None:
    status = InstanceStatus(an_instance("/a").spec)
    status.skip(State.BLOCKED, "spent")
    end = {"instance": "one", "attempt": 0, "state": "blocked", "reason": "spent"}
    assert record_of(happened.InstanceEnded(status, launched=False)) == ("end", end)
    assert record_of(happened.InstanceEnded(ended(), launched=True)) is None  # its attempt's end is recorded


def test_a_planned_retry_is_recorded_with_its_cause() -> None:
    record = record_of(happened.RetryPlanned(ended(), 1, "server_error", 1.23456))
    assert record == ("retry", {"instance": "one", "attempt": 1, "cause": "server_error", "wait_s": 1.235})
