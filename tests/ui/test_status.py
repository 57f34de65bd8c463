"""The status report and the final report, beyond the plain case."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.fields import DEFAULT_COLUMNS
from claude_orchestrator.config.launch_spec import InterruptedSession
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.journal_history import EarlierInstance
from claude_orchestrator.engine.run_events import HoldChanged
from claude_orchestrator.engine.run_view import RunChanges, resume_hint
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.status import final_report
from tests.claude.test_tally import INIT, line
from tests.engine.test_state import a_result, an_instance, feed
from tests.ui.test_report import a_run
from token_budget import Usage
from token_budget.text import RenderOptions

PLAIN = RenderOptions(100, visuals=False)


def test_the_final_report_has_what_went_wrong_and_what_was_limited() -> None:
    view = a_run("one", "two")
    second = view.instances[1]
    second.begin(110.0)
    denial = {"tool_name": "Write", "tool_use_id": "t", "tool_input": {}}
    feed(second, INIT, b"{broken", a_result(permission_denials=[denial, denial]))
    second.finish(120.0, 0, "")
    gone = EarlierInstance("gone", attempts=[AttemptTotals(Usage(1_000, 234), exact=False)])
    limits = {"week": {"utilization": 12.5, "resets_at": "Monday"}, "five_hour": {"utilization": 3}}
    view = view._replace(removed=[gone], changes=RunChanges((), limits), directory="runs/run-1")
    lines = final_report(view, 165.0, PLAIN, DEFAULT_COLUMNS)
    for expected in (
        "two: permission denied for Write x2",
        "two: skipped 1 broken line of its stream",
        "Subscription: week 12.5 % used, resets at Monday",
        "Subscription: five_hour 3 % used",
        "Logs: runs/run-1",
    ):
        assert expected in lines
    assert any(text.startswith("gone: ") and text.endswith(" >=1,234 tokens") for text in lines)
    (total,) = [text for text in lines if text.startswith("Total: ")]
    assert total.startswith("Total: >=") and ", $3.0" in total


def test_the_total_has_the_cost_by_prices_where_claude_leaves_a_part_out() -> None:
    """2.1.197 leaves out the last response of a turn that ends with an error."""
    stated, priced = AttemptTotals(cost_usd=0.25, cost_nano_usd=250_000_000), AttemptTotals(cost_nano_usd=500_000_000)
    for removed, said in (
        ([stated], ", $3.2500 by claude's own count"),
        ([stated, priced], ", $3.7500 by prices, $3.2500 by claude's own count"),
    ):
        view = a_run("one")._replace(removed=[EarlierInstance("gone", attempts=removed)])
        (total,) = [text for text in final_report(view, 165.0, PLAIN, DEFAULT_COLUMNS) if text.startswith("Total: ")]
        assert total.endswith(said), total


def test_holds_that_grew_several_times_take_one_line_and_a_long_list_is_cut() -> None:
    grown = [HoldChanged("one", "", more) for more in (500, 700)] + [HoldChanged("two", "", 1_000)]
    shrunk = [HoldChanged("one", f"hold of one down to {number}") for number in range(9)]
    lines = final_report(a_run("one")._replace(changes=RunChanges([*grown, *shrunk])), 165.0, PLAIN, DEFAULT_COLUMNS)
    adjusted = [text for text in lines if text.startswith(("Adjusted: ", "... and "))]
    assert adjusted[0] == "Adjusted: hold of one down to 0" and len(adjusted) == 11
    assert adjusted[9] == "Adjusted: hold of one up 2 times, by 1,200 tokens in all"
    assert adjusted[10].startswith("... and 1 more")
    (once,) = [
        text
        for text in final_report(a_run("one")._replace(changes=RunChanges(grown[2:])), 165.0, PLAIN, DEFAULT_COLUMNS)
        if text.startswith("Adjusted")
    ]
    assert once == "Adjusted: hold of two up once, by 1,000 tokens in all"


def test_a_rehearsal_has_no_session_to_resume() -> None:
    view = a_run("one")
    second = an_instance("/a")
    feed(second, INIT)
    second.finish(5.0, 1, "")
    assert resume_hint(second) == "claude --resume s"
    for rehearsal in (True, False):
        text = "\n".join(
            final_report(view._replace(instances=[second], rehearsal=rehearsal), 165.0, PLAIN, DEFAULT_COLUMNS)
        )
        assert ("claude --resume" in text) is not rehearsal


def test_a_session_id_is_quoted_for_the_shell() -> None:
    status = an_instance("/a")
    feed(status, line({"type": "system", "subtype": "init", "session_id": "a b", "model": "m"}))
    assert resume_hint(status) is None  # it still runs
    status.decide_end(State.STOPPED, "stopped")
    status.finish(5.0, 1, "")
    assert resume_hint(status) == "claude --resume 'a b'"


NO_SESSION = a_result(is_error=True, num_turns=0, result="No conversation found with session ID: s")


@pytest.mark.parametrize(
    ("stream", "hint"),
    [([], None), ([INIT], "claude --resume s"), ([NO_SESSION], None), ([INIT, NO_SESSION], None)],
)
def test_a_hint_is_given_only_for_a_session_that_exists(stream: list[bytes], hint: str | None) -> None:
    """The id of a session is chosen before claude has begun it, and what a config names may not exist."""
    status = an_instance("/a")
    status.attempt.session_id = "s"
    feed(status, *stream)
    status.finish(5.0, 1, "")
    assert resume_hint(status) == hint


def test_a_session_of_an_earlier_attempt_exists() -> None:
    status = an_instance("/a")
    status.restore((AttemptTotals(Usage(5)),), InterruptedSession("s", 0))
    status.begin(0.0)
    status.finish(5.0, 1, "")
    assert resume_hint(status) == "claude --resume s"
