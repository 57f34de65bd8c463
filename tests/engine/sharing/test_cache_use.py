"""What the report says of the prompt cache."""

from __future__ import annotations

from claude_orchestrator.claude.prompt_cache import LIFETIME_S
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.run_events import Launched, UsageRecorded
from claude_orchestrator.engine.sharing.cache_report import CacheReport, Why, cache_report
from claude_orchestrator.engine.sharing.cache_use import CacheUse, Kept, cache_lines
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from tests.engine.test_state import an_instance
from token_budget.models import Amount, Hold, Usage
from token_budget.portions import CACHE_KEEPING, Portion, Spent

SPEC = an_instance("/a").spec
PREFIX_TOKENS, OWN_TOKENS = 9_000, 2_000


class Run:
    """A run whose instances respond at times that the test says."""

    def __init__(self, *, priced: bool = True) -> None:
        self.now = 0.0
        self.use = CacheUse(lambda: self.now, price if priced else None)
        self.instances: list[InstanceStatus] = []

    def launch(self, name: str, at: float, *, cwd: str = "/w", model: str = "opus") -> InstanceStatus:
        spec = SPEC._replace(name=name, cwd=cwd, argv=(*SPEC.argv, f"--model={model}"))
        status = InstanceStatus(spec)
        self.now = at
        status.begin(at)
        self.instances.append(status)
        self.use.observe(Launched(status, Hold((), Amount())))
        return status

    def respond(self, status: InstanceStatus, at: float, *, written: int, read: int) -> None:
        self.now = at
        usage = Usage(10, 5, written, read)
        status.earlier = (*status.earlier, status.attempt.totals._replace(usage=usage))
        self.use.observe(UsageRecorded(status, UsageDelta(Amount(), {Portion("opus"): PortionDelta(Spent(usage))})))

    def report(self) -> CacheReport:
        report = cache_report(self.use, self.instances)
        assert report is not None
        return report


def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int:
    return usage.cache_creation_input_tokens * 6_250 + usage.cache_read_input_tokens * 500


def test_a_group_that_shares() -> None:
    run = Run()
    first = run.launch("a", 0.0)
    run.respond(first, 2.0, written=PREFIX_TOKENS + OWN_TOKENS, read=0)
    for name in "bc":
        run.respond(run.launch(name, 2.0), 3.0, written=OWN_TOKENS, read=PREFIX_TOKENS)
    report = run.report()
    assert report.shared_tokens == 2 * PREFIX_TOKENS and report.saved_nano_usd == 2 * PREFIX_TOKENS * 5_750
    assert report.unread_tokens == 3 * OWN_TOKENS and not report.again and not report.separate
    lines = [
        "Prompt cache: 54% of the input was read from it. Instances read 18,000 tokens that others had written, which "
        "saved $0.10.",
        "Prompt cache: 6,000 tokens were written and never read.",
    ]
    assert report.lines() == cache_lines(run.use, run.instances) == lines


def test_calls_that_keep_the_cache_warm_are_summed_by_instance() -> None:
    run = Run()
    status = run.launch("a", 0.0)
    for _ in range(2):
        call = PortionDelta(Spent(Usage(0, 1, 0, 100)), nano_usd=7)
        run.use.observe(UsageRecorded(status, UsageDelta(Amount(), {Portion("opus", CACHE_KEEPING): call})))
    assert run.use.kept == {"a": Kept(2, Usage(0, 2, 0, 200), 14)}


def test_a_second_response_reads_what_the_first_one_wrote() -> None:
    run = Run(priced=False)
    first, second = run.launch("a", 0.0), run.launch("b", 0.0)
    for status in (first, second):
        run.respond(status, 1.0, written=1_000, read=0)
        run.respond(status, 2.0, written=0, read=1_000)
    report = run.report()
    assert report.unread_tokens == 0 and report.saved_nano_usd is None and report.shared_tokens == 0


def test_instances_that_start_together_write_the_same_again() -> None:
    run = Run()
    for status in [run.launch(name, 0.0) for name in "abc"]:
        run.respond(status, 2.0, written=PREFIX_TOKENS, read=0)
    (again,) = run.report().again
    assert again == (Why.TOGETHER, 2, 2 * PREFIX_TOKENS, True, 2 * PREFIX_TOKENS * 5_750)
    assert (
        "2 instances wrote up to 18,000 tokens again, for $0.10 more than reading them costs: they started"
        in run.report().lines()[2]
    )


def test_one_that_starts_late_writes_again() -> None:
    run = Run()
    run.respond(run.launch("a", 0.0), 2.0, written=PREFIX_TOKENS, read=0)
    run.respond(run.launch("b", 2.0), 3.0, written=0, read=PREFIX_TOKENS)
    late = 3.0 + LIFETIME_S + 1
    run.respond(run.launch("c", late), late + 1, written=PREFIX_TOKENS, read=0)
    run.respond(run.launch("d", late + 2), late + 3, written=PREFIX_TOKENS, read=0)
    again = run.report().again
    cost = PREFIX_TOKENS * 5_750
    assert again == ((Why.IDLE, 1, PREFIX_TOKENS, False, cost), (Why.UNKNOWN, 1, PREFIX_TOKENS, False, cost))
    assert " more than reading them costs: it started more than 5 minutes after" in run.report().lines()[-2]


def test_one_whose_first_turn_waited_did_not_start_together_with_the_others() -> None:
    run = Run()
    first, second = run.launch("a", 0.0), run.launch("b", 0.0)
    run.respond(first, 2.0, written=PREFIX_TOKENS, read=0)
    run.now = 2.1
    run.use.observe(Activity("b", Doing.STARTING))
    run.respond(second, 3.0, written=PREFIX_TOKENS, read=0)
    assert [one.why for one in run.report().again] == [Why.UNKNOWN]


def test_what_another_model_or_folder_writes_is_apart() -> None:
    run = Run()
    for name in "ab":
        run.respond(run.launch(name, 0.0), 1.0, written=0, read=PREFIX_TOKENS)
    run.respond(run.launch("c", 1.0, cwd="/v", model="haiku"), 2.0, written=PREFIX_TOKENS, read=0)
    (apart,) = run.report().separate
    assert apart == (1, PREFIX_TOKENS, ("model", "folder"))
    assert run.report().fields()["separate"] == [
        {"instances": 1, "written_tokens": PREFIX_TOKENS, "differs_in": ["model", "folder"]}
    ]


def test_sessions_that_continue_and_single_instances_are_left_out() -> None:
    run = Run()
    run.respond(run.launch("a", 0.0), 1.0, written=1, read=1)
    assert cache_report(run.use, run.instances) is None and cache_lines(run.use, run.instances) == []
    status = InstanceStatus(SPEC._replace(name="b", session_id="s"))
    status.begin(0.0)
    run.use.observe(Launched(status, Hold((), Amount())))
    run.respond(status, 1.0, written=1, read=1)
    assert cache_report(run.use, run.instances) is None and cache_lines(run.use, run.instances) == []
