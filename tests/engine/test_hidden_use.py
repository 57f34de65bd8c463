"""When hidden responses are asked for, and when they let a limit be foreseen."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.events import Assistant, Event, MessageStart, Retry, Task, User
from claude_orchestrator.engine.hidden_use import HiddenResponses, HiddenUse
from token_budget.models import Amount, Budget, Unit, Usage, Weights

FLAT = Weights()
INPUT = Usage(input_tokens=100, cache_creation_input_tokens=200, cache_read_input_tokens=700, output_tokens=1)
RESULT = User("agent", interrupted=False)


def responded(*tools: str, response: str = "m1", agent: str = "agent") -> Assistant:
    """A response of a subagent has ended."""
    return Assistant(response, "model", INPUT, None, agent, tools, (), synthetic=False)


class Asked:
    """Hidden responses of one instance, and how often its Claude was asked."""

    def __init__(self, use: HiddenUse, *budgets: Budget) -> None:
        self.times = 0
        self.own = use.of(budgets, self.ask)
        use.add(self.own)

    def ask(self) -> None:
        self.times += 1
        self.own.asked()

    def after(self, *events: Event) -> HiddenResponses:
        for event in events:
            self.own.observe(event)
        return self.own


def test_a_request_that_has_begun_takes_at_least_the_input_of_the_one_before() -> None:
    asked = Asked(HiddenUse(0, FLAT))
    assert asked.after(RESULT).least_in_progress == 0  # the first request of a subagent is not known
    assert asked.after(responded("Bash")).least_in_progress == 0  # nothing is in progress
    assert asked.after(RESULT).least_in_progress == 1000


def test_with_weights_all_input_may_come_from_the_cache() -> None:
    asked = Asked(HiddenUse(0, Weights.parse("billing")))
    assert asked.after(responded("Bash"), RESULT).least_in_progress == 100


def test_a_request_waits_for_the_results_of_all_tools() -> None:
    asked = Asked(HiddenUse(0, FLAT))
    assert asked.after(responded("Bash"), responded("Read")).least_in_progress == 0
    assert asked.after(RESULT).least_in_progress == 0
    assert asked.after(RESULT).least_in_progress == 1000


@pytest.mark.parametrize("event", [Retry(1, "529"), Task("t", "", "completed", tool_use_id="agent")])
def test_what_the_api_refused_or_what_ended_is_not_in_progress(event: Event) -> None:
    asked = Asked(HiddenUse(0, FLAT))
    assert asked.after(responded("Bash"), RESULT, event).least_in_progress == 0


def test_the_end_of_an_agent_is_the_end_of_its_last_response() -> None:
    asked = Asked(HiddenUse(0, FLAT))
    asked.after(responded("Bash")).asked()
    assert not asked.own.waiting
    assert asked.after(RESULT, Task("t", "", "completed", tool_use_id="agent")).waiting


def test_events_of_the_main_thread_and_of_shell_commands_say_nothing() -> None:
    asked = Asked(HiddenUse(0, FLAT))
    for event in (
        MessageStart("m", "model", INPUT, None),
        Assistant("m", "model", INPUT, None, None, ("Bash",), (), synthetic=False),
        User(None, interrupted=False),
        Task("shell", "local_bash", "completed", tool_use_id="toolu"),
    ):
        assert not asked.own.observe(event)


def test_far_from_a_limit_nobody_is_asked_out_of_turn() -> None:
    use, budget = HiddenUse(0, FLAT), Budget(100_000)
    asked = Asked(use, budget)
    use.ask_near_limits(asked.after(responded()))
    assert asked.times == 0


def test_near_a_limit_every_instance_with_uncounted_responses_is_asked() -> None:
    use, budget, other = HiddenUse(0, FLAT), Budget(100_000, used=97_000), Budget(10**9)
    first, second, elsewhere, idle = Asked(use, budget), Asked(use, budget), Asked(use, other), Asked(use, budget)
    second.after(responded())
    elsewhere.after(responded())
    use.ask_near_limits(first.after(responded()))
    assert (first.times, second.times, elsewhere.times, idle.times) == (1, 1, 0, 0)
    use.ask_near_limits(first.own)
    assert first.times == 1  # that is asked already
    first.own.counted(Amount(1000))
    use.ask_near_limits(first.after(responded(response="m2")))
    assert first.times == 2


def test_near_a_limit_in_money_the_last_count_is_the_measure() -> None:
    use, budget = HiddenUse(0, FLAT), Budget(1_000, used=900, unit=Unit.USD)
    asked = Asked(use, budget)
    use.ask_near_limits(asked.after(responded()))
    assert asked.times == 0  # nothing is known of its cost
    asked.own.asked()
    asked.own.counted(Amount(5, 60))
    use.ask_near_limits(asked.after(responded(response="m2")))
    assert asked.times == 1


def test_a_limit_is_foreseen_by_what_all_instances_have_in_progress() -> None:
    use, budget = HiddenUse(0, FLAT), Budget(100_000, used=98_500)
    first, second = Asked(use, budget), Asked(use, budget)
    first.after(responded("Bash"), RESULT)
    assert use.foreseen((budget,)) is None
    second.after(responded("Bash"), RESULT)
    assert use.foreseen((budget,)) == (budget, 2000)
    use.remove(second.own)
    assert use.foreseen((budget,)) is None


def test_a_limit_in_money_is_not_foreseen() -> None:
    use, budget = HiddenUse(0, FLAT), Budget(1_000, used=999, unit=Unit.USD)
    Asked(use, budget).after(responded("Bash"), RESULT)
    assert use.foreseen((budget,)) is None


@pytest.mark.parametrize(("used", "is_foreseen"), [(95_000, False), (95_001, True)])
def test_a_margin_stops_before_the_limit_without_subagents_too(used: int, is_foreseen: bool) -> None:
    use = HiddenUse(5, FLAT)
    assert use.watches
    assert (use.foreseen((Budget(100_000, used=used),)) is not None) == is_foreseen


def test_without_margin_and_subagents_nothing_is_watched() -> None:
    use = HiddenUse(0, FLAT)
    assert not use.watches and use.foreseen((Budget(100),)) is None
