"""Admission by values: whatever is asked and answered, no budget is overspent, and nobody waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.gateway.admission import Admission, Cost, Ticket, Verdict, bound
from claude_orchestrator.gateway.bounds import InputBound, by_server_tools, common, common_end, is_bounded
from token_budget.budget_manager import TokenBudgetManager
from token_budget.model_weights import ModelWeights
from token_budget.models import Amount, Budget, Scope, Unit, Usage, Weights

WEIGHTS = st.sampled_from([Weights(), Weights.parse("billing"), Weights.parse("output=0"), Weights.parse("input=0.3")])
request = st.tuples(
    st.integers(0, 900), st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 2), st.integers(0, 9)
)


@given(st.lists(request, max_size=40), st.lists(st.integers(300, 20_000), min_size=3, max_size=3), WEIGHTS)
def test_no_budget_is_overspent_and_every_request_is_answered(
    requests: list[tuple[int, int, int, int, int]], limits: list[int], weights: Weights
) -> None:
    manager = TokenBudgetManager(limits[0], "block")
    commands = [manager.set_budget(Scope.COMMAND, limit, f"/{place}") for place, limit in enumerate(limits[1:])]
    overall = manager.budgets[0]
    admission = Admission(manager, weights)
    flying: list[tuple[Ticket, int, int]] = []
    answers: dict[int, Verdict] = {}

    def check() -> None:
        for budget in (overall, *commands):
            assert budget.used + budget.held <= budget.limit and budget.held >= 0

    def land(ticket: Ticket, needs: int, kind: int) -> None:
        """It is billed at most its input, of any kind, and at most the output that it was given."""
        output = min(needs, ticket.output_tokens)
        used = Usage(ticket.input_tokens, output) if kind % 2 else Usage(0, output, ticket.input_tokens)
        draw = weights.draw(used)
        assert draw <= bound(ticket.input_tokens, ticket.output_tokens, weights)
        command = next((budget.key for budget in ticket.budgets if budget.key), None)
        manager.record(command, Amount(draw), hold=ticket.hold)
        check()
        admission.learn(output)
        admission.settle(ticket)

    for number, (tokens, max_tokens, needs, which, kind) in enumerate(requests):
        budgets = (overall, commands[which]) if which < 2 else (overall,)
        ticket = Ticket(budgets, tokens, max_tokens, least_tokens=min(256, max_tokens))

        def answer(
            verdict: Verdict, number: int = number, entry: tuple[Ticket, int, int] = (ticket, needs, kind)
        ) -> None:
            answers[number] = verdict
            if verdict is Verdict.GO:
                flying.append(entry)

        ticket.answer = answer
        verdict = admission.ask(ticket)
        if verdict is not Verdict.WAIT:
            answer(verdict)
        check()
        if flying and kind < 4:
            land(*flying.pop(kind % len(flying)))
    while flying:
        land(*flying.pop())
    assert not admission.waiting and len(answers) == len(requests)
    assert all(budget.held == 0 for budget in (overall, *commands)) and admission.in_flight == 0


def test_first_come_first_served_for_each_budget() -> None:
    overall = Budget(5000, scope=Scope.OVERALL)
    other = Budget(5000, key="/other")
    admission, order = Admission(), []
    first = Ticket((overall,), 1000, 64_000)
    assert admission.ask(first) is Verdict.GO and first.output_tokens == 4000
    for name, budget in (("second", overall), ("third", overall), ("fourth", other)):
        ticket = Ticket((budget,), 1000, 64_000, answer=lambda verdict, name=name: order.append((name, verdict)))  # type: ignore[misc]
        assert admission.ask(ticket) is (Verdict.GO if name == "fourth" else Verdict.WAIT)
    admission.settle(first)
    assert order == [("second", Verdict.GO)]


def test_a_cut_answer_is_given_more_and_scarcity_is_shared() -> None:
    overall = Budget(100_000, scope=Scope.OVERALL)
    admission = Admission()
    for _ in range(50):
        admission.learn(400)
    assert admission.expected == 500
    alone = Ticket((overall,), 1000, 64_000)
    admission.ask(alone)
    assert alone.output_tokens == 64_000  # nobody else is there
    beside = Ticket((overall,), 1000, 64_000)
    assert admission.ask(beside) is Verdict.GO and beside.output_tokens == (100_000 - 65_000 - 1000) // 2
    wanted = Ticket((overall,), 1000, 64_000, wanted_tokens=16_000)
    assert admission.ask(wanted) is Verdict.GO and wanted.output_tokens == 16_000


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_what_is_new_bounds_what_it_adds(start: bytes, old: bytes, new: bytes) -> None:
    """In the worst tokenizer every byte is a token."""
    known = InputBound()
    before, after = start + old + b"tail", start + new + b"tail"
    known.learn(before, len(before))
    assert known.of(after) >= len(after)
    same = common(before, after)
    assert before[:same] == after[:same] and same >= len(start)
    assert common_end(before, after) >= 4


def test_a_growing_conversation_is_bounded_closely() -> None:
    known = InputBound()
    body = b'{"messages":[' + b'{"role":"user","content":"word word word"},' * 1000
    tail = b'],"system":"' + b"s" * 20_000 + b'"}'
    known.learn(body + tail, 9_000)
    longer = body + b'{"role":"assistant","content":"done"},' + tail
    assert known.of(longer) <= 9_000 + 100 and known.of(b"x" * 50_000) >= 50_000
    for number in range(100):
        known.learn(b"%d" % number * 200_000, 5)
    assert len(known.known) <= 16


def test_images_are_seen_even_where_they_begin_and_end_alike() -> None:
    known = InputBound()
    image = b'{"type":"image","source":{"data":"iVBORw0KGgo%sAAAA=="}}'
    text = b"t" * 20_000
    known.learn(text + image % b"x", 5_100)
    assert known.of(text + image % b"y") >= 5_000 + 4_784
    assert known.of(text + image % b"x" + image % b"y") >= 5_100 + 4_784


def test_the_first_request_leaves_the_others_their_share() -> None:
    overall = Budget(64_000, scope=Scope.OVERALL)
    admission = Admission(places=16)
    first = Ticket((overall,), 100, 64_000)
    assert admission.ask(first) is Verdict.GO and first.output_tokens < 5_000


def test_tokens_and_money_together() -> None:
    overall, cost = Budget(10_000), Budget(1_000_000, unit=Unit.USD)
    ticket = Ticket((overall, cost), 1_000, 64_000, cost=Cost(100_000, 300_000))
    assert Admission().ask(ticket) is Verdict.GO
    assert ticket.output_tokens == 3_000 and cost.held == 1_000_000 and overall.held == 4_000
    without_price = Ticket((overall, cost), 1_000, 64_000)
    assert Admission().ask(without_price) is Verdict.GO and cost.held == 1_000_000
    cost.used = 500_000
    refused = Ticket((cost,), 1_000, 64_000, cost=Cost(450_000, 300_000))
    assert Admission().ask(refused) is Verdict.REFUSE and refused.spent is cost
    free = Cost(0, 0)
    assert free.bound(10**6) == 0 and free.output_for(0) == 2**53 and Cost(5, 0).output_for(4) == -1


def test_only_tools_that_the_api_runs_are_reckoned_with() -> None:
    text = {"messages": [{"role": "user", "content": 'the type "web_search_20250305" and "mcp_servers"'}]}
    assert by_server_tools({**text, "tools": [{"name": "Bash", "input_schema": {}}, {"type": "custom"}]}) == 0
    assert 0 < by_server_tools({"tools": [{"type": "bash_20250124"}]}) < 10_000
    tool_search = {"tools": [{"type": "tool_search_tool_regex_20251119"}]}
    bodies: list[dict[str, object]] = [{**tool_search}, {"mcp_servers": [{}]}, {"container": "c"}]
    for body in bodies:
        assert by_server_tools(body) > 100_000
    assert not is_bounded(b'{"type":"container_upload","file_id":"f"}')


def test_documents_and_references_are_not_bounded_by_their_bytes() -> None:
    assert is_bounded(b'{"content":[{"type":"text"}]}')
    assert not is_bounded(b'{"content":[{"type":"document","source":{"type":"base64"}}]}')
    assert not is_bounded(b'{"content":[{"type":"image","source":{"type":"url"}}]}')
    assert InputBound().of(b'{"type":"image"}') > 5_000
    assert by_server_tools({"tools": [{"type": "web_search_20250305"}]}) > 100_000


def test_a_request_is_held_by_the_weights_of_its_model() -> None:
    by_model = ModelWeights({"dear": Weights(input=2, output=10)}.get)
    for model, output_tokens in (("dear", 300), ("other", 750)):
        overall = Budget(5_000, scope=Scope.OVERALL)
        admission = Admission(weights=by_model)
        ticket = Ticket((overall,), 1_000, 64_000, model=model)
        assert admission.ask(ticket) is Verdict.GO
        assert ticket.output_tokens == output_tokens and overall.held == 5_000
        assert admission.needed(ticket, overall) == {"dear": 2_000 + 2_560, "other": 1_250 + 1_280}[model]


def test_uses_of_the_web_that_a_tool_bounds_are_held_and_no_more() -> None:
    search, fetch = {"type": "web_search_20250305", "max_uses": 1}, {"type": "web_fetch_20250910", "max_uses": 2}
    assert by_server_tools({"tools": [search]}) == 20_000
    assert by_server_tools({"tools": [search, fetch, {"name": "Bash"}]}) == 60_000
    assert by_server_tools({"tools": [search, {"type": "code_execution_20250825"}]}) == 180_000
    for odd in (0, -1, True, "1", None, 1.5):
        assert by_server_tools({"tools": [{**search, "max_uses": odd}]}) == 160_000
    assert by_server_tools({"tools": [{"type": "code_execution_20250825", "max_uses": 1}]}) == 160_000
