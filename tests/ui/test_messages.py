"""What the user reads about each event."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.run_events import Level
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.verification import CheckVerdict
from claude_orchestrator.ui.messages import message_of
from tests.claude.test_tally import INIT, final, result, start
from tests.engine.test_state import an_instance, feed
from token_budget.models import Action, Budget, Scope, Unit

OVERALL = Budget(1_000, scope=Scope.OVERALL, used=1_200)
COMMAND = Budget(1_000, key="/test", used=1_200)
DOLLARS = Budget(1_000_000_000, scope=Scope.OVERALL, unit=Unit.USD, used=1_200_000_000)


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (happened.Message(Level.INFO, "hello"), Level.INFO, "hello"),
        (
            happened.Crossed(OVERALL),
            Level.WARNING,
            "Budget exceeded for overall session (used: 1200/1000 tokens)",
        ),
        (happened.Crossed(COMMAND), Level.WARNING, "Budget exceeded for /test command (used: 1200/1000 tokens)"),
        (happened.Crossed(DOLLARS), Level.WARNING, "Budget exceeded for overall session cost (used: $1.20/$1.00)"),
        (happened.Decided("one", Action.WAIT, "no room"), Level.INFO, "one waits: no room"),
        (
            happened.Decided("one", Action.BLOCK, "no room", OVERALL),
            Level.ERROR,
            "BLOCK MODE: Budget exceeded for instance one. Skipping. (no room)",
        ),
        (
            happened.Decided("one", Action.WARN, "no room", COMMAND),
            Level.WARNING,
            "Budget would be exceeded for /test command (used: 1200/1000 tokens): instance one starts anyway (no room)",
        ),
        (
            happened.Stopping("one", State.STOPPED, "stopped by budget: 1,200/1,000", OVERALL),
            Level.ERROR,
            "BLOCK MODE: Budget exceeded for instance one. Stopping. (1,200/1,000)",
        ),
        (happened.RunStopping("a limit was reached"), Level.ERROR, "stopping: a limit was reached"),
        (happened.AlertRaised("80 % used", {}), Level.WARNING, "80 % used"),
        (
            happened.ModelChosen("one", "haiku", COMMAND),
            Level.WARNING,
            "one starts with haiku: /test command budget: used 1,200/1,000 tokens",
        ),
        (happened.Checked("one", 2, CheckVerdict(True)), Level.INFO, "one: check round 2 passed"),
        (
            happened.Checked("one", 1, CheckVerdict(False, "exit code 3")),
            Level.WARNING,
            "one: check round 1 failed: exit code 3",
        ),
        (
            happened.Checked("one", 1, CheckVerdict(True), simulated=True),
            Level.INFO,
            "one: the check counts as passed, because a rehearsal does not run its command",
        ),
        (
            happened.Steered("pause", "one", "one is paused", happened.By("web", "ann", "too dear")),
            Level.WARNING,
            "one is paused (ann by web: too dear)",
        ),
        (
            happened.ApprovalAsked("7", "one", "Bash", "Bash: ls"),
            Level.WARNING,
            "one asks for approval 7: Bash: ls (claude-runs approve last 7)",
        ),
        (
            happened.ApprovalEnded("7", "one", "Bash: ls", "denied", happened.By("timeout")),
            Level.INFO,
            "one: approval 7 denied (timeout): Bash: ls",
        ),
    ],
)
def test_the_message_about_an_event(event: happened.RunEvent, level: Level, text: str) -> None:
    assert message_of(event) == (level, text)


def ended(state: State = State.COMPLETED, reason: str = "") -> InstanceStatus:
    status = an_instance("/a")
    feed(status, INIT, start("a", 1_233), final(1), result(1_233, 1))
    if reason:
        status.decide_end(state, reason)
    status.finish(2.5, 0, "")
    return status


def test_the_end_of_an_instance_has_its_figures_and_its_reason() -> None:
    completed = happened.InstanceEnded(ended(), launched=True)
    assert message_of(completed) == (Level.INFO, "one: completed after 2.5 s, 1,234 tokens")
    stopped = happened.InstanceEnded(ended(State.STOPPED, "stopped by budget: overall"), launched=True)
    assert message_of(stopped) == (Level.ERROR, "one: stopped after 2.5 s, 1,234 tokens")  # the reason was reported
    failed = happened.InstanceEnded(ended(State.FAILED, "it broke"), launched=True)
    assert message_of(failed) == (Level.ERROR, "one: failed after 2.5 s, 1,234 tokens: it broke")


@pytest.mark.parametrize(("unneeded", "level"), [(False, Level.WARNING), (True, Level.INFO)])
def test_an_instance_that_was_skipped_has_its_reason(unneeded: bool, level: Level) -> None:
    status = an_instance("/a")
    status.skip(State.SKIPPED, "nothing failed", unneeded=unneeded)
    assert message_of(happened.InstanceEnded(status, launched=False)) == (level, "one: skipped: nothing failed")


def test_an_instance_that_may_start_after_all_is_named() -> None:
    assert message_of(happened.Reopened(an_instance("/a"))) == (
        Level.INFO,
        "one: may start after all, because a limit was raised",
    )


def test_a_retry_names_the_attempt_that_failed() -> None:
    status = ended(State.FAILED, "it broke")
    assert message_of(happened.RetryPlanned(status, 1, "server_error", 2.0)) == (
        Level.WARNING,
        "one: attempt 1 failed, it broke",
    )


@pytest.mark.parametrize(
    "event",
    [
        happened.Changed(),
        happened.RunEnded(0),
        happened.Decided("one", Action.ALLOW, ""),
        happened.Stopping("one", State.CANCELLED, "cancelled"),
        happened.AlertRaised("80 % used", {}, already_reported=True),
        happened.ApprovalEnded("7", "one", "Bash: ls", "allowed", happened.By("rules")),
        happened.InstanceEnded(ended(), launched=False),  # the decision was reported
    ],
)
def test_an_event_without_a_message(event: happened.RunEvent) -> None:
    assert message_of(event) is None
