"""Everything that the Messages API bills for one response, whatever its `usage` object looks like."""

from __future__ import annotations

import random
from typing import Any

import pytest

from token_budget.api_usage import (
    ADVISOR,
    COMPACTION,
    FALLBACK,
    MAX_COUNT,
    MESSAGE,
    ApiUsageObject,
    PriceTerms,
    UsagePart,
    least_tokens,
    output_text,
    read_usage,
    total,
)
from token_budget.models import Usage


def counts(input_tokens: Any, output_tokens: Any, written: Any = 0, read: Any = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        **more,
    }


def iteration(kind: str, *numbers: int, **more: Any) -> dict[str, Any]:
    return counts(*numbers, type=kind, **more)


def test_the_documented_example_of_a_compaction() -> None:
    said = counts(23_000, 1_000, iterations=[iteration(COMPACTION, 180_000, 3_500), iteration(MESSAGE, 23_000, 1_000)])
    found = read_usage(said)
    assert found.usage == Usage(203_000, 4_500) and found.exact
    assert found.beside == Usage(180_000, 3_500)


def test_an_advisor_is_billed_beside_the_messages_by_its_own_model() -> None:
    said = counts(
        2,
        491,
        7_853,
        226_584,
        iterations=[
            iteration(MESSAGE, 1, 45, 7_192, 109_696),
            iteration(ADVISOR, 159_419, 7_805, model="advisor"),
            iteration(MESSAGE, 1, 446, 661, 116_888),
        ],
    )
    found = read_usage(said)
    assert found.exact and found.usage.total_tokens == 402_154 and found.beside == Usage()
    assert [(part.kind, part.model, part.usage.total_tokens) for part in found.parts()] == [
        (MESSAGE, "", 116_934),
        (MESSAGE, "", 117_996),
        (ADVISOR, "advisor", 167_224),
    ]


SERVED = [iteration(MESSAGE, 400, 0, model="a"), iteration(FALLBACK, 500, 60, model="b")]


@pytest.mark.parametrize(
    ("top", "iterations", "expected", "exact"),
    [
        pytest.param((500, 60), SERVED, {"b": 560}, True, id="the declined attempt is not billed"),
        pytest.param((900, 60), SERVED, {"a": 400, "b": 560}, True, id="the top level has both"),
        pytest.param(
            (400, 90),
            [iteration(MESSAGE, 400, 90, model="a"), iteration(FALLBACK, 400, 0, model="b")],
            {"a": 490},
            True,
            id="a fallback that declined",
        ),
        pytest.param((800, 60), SERVED, {"b": 560, "": 300}, False, id="the top level has more"),
        pytest.param((100, 60), SERVED, {"b": 560}, False, id="the top level has less"),
    ],
)
def test_attempts_of_fallbacks(
    top: tuple[int, int], iterations: list[Any], expected: dict[str, int], exact: bool
) -> None:
    found = read_usage(counts(*top, iterations=iterations))
    assert ({part.model: part.usage.total_tokens for part in found.parts()}, found.exact) == (expected, exact)


@pytest.mark.parametrize(
    ("usage", "least"),
    [
        pytest.param(counts(5, 6, iterations=[iteration("dreaming", 70, 8)]), 89, id="an unknown kind"),
        pytest.param(counts(5, 6, iterations=[iteration(MESSAGE, 50, 6)]), 56, id="iterations have more"),
        pytest.param(counts(50, 6, iterations=[iteration(MESSAGE, 5, 6)]), 56, id="the top level has more"),
        pytest.param(counts(0, 0, iterations=[iteration(MESSAGE, 5, 6)]), 11, id="the top level is zero"),
        pytest.param(counts(5, 6, iterations=[counts(70, 8)]), 89, id="no kind"),
        pytest.param(counts(5, 6, iterations=[{**iteration(ADVISOR, 70, 8), "output_tokens": -1}]), 81, id="negative"),
        pytest.param(counts(5, 6, iterations=[{**iteration(ADVISOR, 70, 8), "output_tokens": 1e99}]), 81, id="huge"),
        pytest.param(counts(5, 6, iterations=["text", None, 5, []]), 11, id="no objects"),
        pytest.param(counts(5, 6, iterations={"type": MESSAGE}), 11, id="no list"),
        pytest.param(counts(5, 6, iterations="message"), 11, id="text"),
        pytest.param(counts("5", 6), 6, id="a count of text"),
        pytest.param(counts(True, 6), 6, id="a truth value"),
        pytest.param(counts(5, float("nan")), 5, id="no number"),
        pytest.param(counts(5, 6, 10, cache_creation={"ephemeral_5m_input_tokens": 30}), 41, id="more than the sum"),
        pytest.param(counts(5, 6, cache_creation="much"), 11, id="lifetimes of text"),
        pytest.param([], 0, id="a list"),
        pytest.param("usage", 0, id="only text"),
    ],
)
def test_what_makes_no_sense_is_inexact_and_never_less_than_certain(usage: Any, least: int) -> None:
    found = read_usage(usage)
    assert (found.usage.total_tokens, found.exact) == (least, False)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        counts(0, 0),
        {"output_tokens": 0, "iterations": None},
        {"input_tokens": 0.0, "iterations": []},
        counts(0, 0, cache_creation={"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": None}),
    ],
)
def test_what_is_not_there_is_zero(usage: Any) -> None:
    assert read_usage(usage).usage == Usage() and read_usage(usage).exact


def test_parts_of_one_response_are_merged() -> None:
    """`message_start` has the input, each `message_delta` what it has; what is stated later wins only by being more."""
    start = read_usage(counts(1_000, 1, 20, 300, service_tier="standard"))
    middle = read_usage({"output_tokens": 7})
    more = [iteration(COMPACTION, 18_000, 350), iteration(MESSAGE, 1_000, 9, 20, 300)]
    end = read_usage({"output_tokens": 9, "iterations": more, "speed": "fast"})
    found = start | middle | end
    assert found.usage == Usage(19_000, 359, 20, 300) and found.exact
    assert (found.terms.speed, found.terms.service_tier) == ("fast", "standard")
    assert found | start == found | middle == found


def test_prices_need_lifetimes_speed_place_and_server_tools() -> None:
    said = counts(
        1,
        2,
        30,
        4,
        cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        speed="fast",
        inference_geo="us",
        service_tier="priority",
        server_tool_use={"web_search_requests": 3, "web_fetch_requests": 0, "other": "x"},
        fallback_credit={"status": {"type": "redeemed"}},
    )
    found = read_usage(said)
    assert found.top == UsagePart(MESSAGE, "", Usage(1, 2, 30, 4), 20) and found.exact
    assert found.terms == PriceTerms("fast", "us", "priority", (("web_search_requests", 3),), "redeemed")


def test_lifetimes_alone_are_cache_writes() -> None:
    found = read_usage({"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 20}})
    assert found.usage == Usage(1, 0, 20) and found.parts()[0].written_for_1h_tokens == 20


def test_sums_stay_numbers_that_every_reader_can_represent() -> None:
    said = counts(1, 1, iterations=[iteration(ADVISOR, MAX_COUNT, MAX_COUNT)] * 9)
    assert max(read_usage(said).usage.counts) == MAX_COUNT


def test_names_are_short_and_can_be_written_down() -> None:
    found = read_usage(counts(1, 1, iterations=[iteration(ADVISOR, 1, 1, model="\ud800" + "x" * 9_999)]))
    model = found.parts()[1].model
    assert model.encode() and len(model) == 200


def test_any_object_is_read_and_never_below_its_top_level() -> None:
    randomness = random.Random(5)
    values: list[Any] = [None, 0, 1, 5, 10**6, 2**60, -1, True, 2.0, 2.5, "7", [], {}]
    kinds: list[Any] = [MESSAGE, FALLBACK, COMPACTION, ADVISOR, "new", 5, None]
    for _ in range(3_000):
        random_counts = [[randomness.choice(values) for _ in range(4)] for _ in range(5)]
        iterations: list[Any] = [iteration(randomness.choice(kinds), *numbers) for numbers in random_counts[1:]]
        objects = [
            read_usage(counts(*random_counts[0], iterations=iterations[: randomness.randrange(5)])) for _ in range(2)
        ]
        merged = ApiUsageObject()
        for found in (*objects, objects[0] | objects[1]):
            assert found.usage | found.top.usage == found.usage == total(found.parts())
            merged |= found
            assert merged.usage | found.top.usage == merged.usage


def test_the_output_of_a_cut_answer_is_estimated_by_its_text_only() -> None:
    assert output_text({"type": "text_delta", "text": "Short thought."}) == "Short thought."
    assert output_text({"type": "thinking_delta", "thinking": "so"}) == "so"
    assert output_text({"type": "input_json_delta", "partial_json": '{"a":'}) == '{"a":'
    nothings: list[Any] = [
        {"type": "signature_delta", "signature": "Er" + "A" * 20_000},
        {"text": ""},
        {"text": 5},
        None,
        [],
    ]
    for nothing in nothings:
        assert output_text(nothing) == ""
    assert [least_tokens(text) for text in ("", " ", "a", "Short thought.", " ".join(["word"] * 9))] == [0, 1, 1, 2, 9]


def test_lifetimes_that_only_the_top_level_states_are_those_of_its_attempts() -> None:
    split = {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}
    attempts = [iteration(MESSAGE, 1, 1, 50, 0), iteration(MESSAGE, 1, 1, 50, 0)]
    said = counts(2, 2, 100, 0, cache_creation=split, iterations=[iteration(COMPACTION, 9, 9, 9, 0), *attempts])
    found = read_usage(said)
    assert [part.written_for_1h_tokens for part in found.parts()] == [50, 10, 0] and found.exact
