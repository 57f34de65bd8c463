"""Weights by model: each model's own ratios, one rounding, and the fixed ratios for what has no price."""

from __future__ import annotations

import pytest

from token_budget import pricing
from token_budget.fields import WEIGHTS
from token_budget.ledger.run_budgets import read_budgets, write_budgets
from token_budget.model_weights import FIXED, MAX_MODELS, ModelWeights, draw, parse_weights, weights_for
from token_budget.models import Budget, Scope, Usage, Weights

CHEAP_READS = Weights(40, 200, 50, 1, 40)  # a cache read is a fortieth of an input token
TENTH = Usage(cache_read_input_tokens=1_000)


def by_model() -> ModelWeights:
    return ModelWeights({"cheap": CHEAP_READS, "plain": Weights()}.get)


def test_each_model_draws_by_its_own_ratios_and_the_sum_is_rounded_once() -> None:
    weights = by_model()
    parts = {"cheap": Usage(1, 0, 0, 3), "plain": Usage(10, 10), "unknown": Usage(0, 2, 0, 1)}
    total = sum(parts.values(), Usage())
    # 1 + 3/40, 20, and 10 + 1/10
    assert weights.draw(total, parts) == draw(weights, total, parts) == 32
    assert weights.draw(Usage(cache_read_input_tokens=1), {"cheap": Usage(cache_read_input_tokens=1)}) == 1


def test_what_no_model_is_known_for_draws_by_the_fixed_ratios() -> None:
    weights = by_model()
    assert weights.draw(TENTH, {}) == 100
    assert weights.draw(TENTH + TENTH, {"cheap": TENTH}) == 25 + 100
    assert weights.of(None) == weights.of("") == weights.of("unknown") == FIXED


def test_weights_that_are_the_same_for_all_models_do_not_look_at_models() -> None:
    weights = Weights.parse("output=5")
    assert draw(weights, Usage(1, 2), {"cheap": Usage(100)}) == 11
    assert weights_for(weights, "cheap") is weights
    assert weights_for(by_model(), "cheap") is CHEAP_READS


def test_names_from_responses_are_remembered_up_to_a_bound() -> None:
    asked: list[str] = []

    def ratios(model: str) -> Weights | None:
        asked.append(model)
        return None

    weights = ModelWeights(ratios)
    for number in range(MAX_MODELS + 5):
        weights.of(f"m{number}")
        weights.of(f"m{number}")
    assert len(asked) == MAX_MODELS + 10


def test_billing_is_each_models_own_and_other_texts_are_as_they_are() -> None:
    weights = by_model()
    assert parse_weights(" billing ", lambda: weights) is weights
    assert parse_weights("output=5", lambda: weights) == Weights.parse("output=5")
    assert weights.describe() == "billing"
    assert ModelWeights().describe() == "input=1,output=5,cache_write=1.25,cache_read=0.1"
    assert ModelWeights().of("cheap") == FIXED


def test_a_setting_names_which_ratios_it_has() -> None:
    assert WEIGHTS.show(by_model()) == "billing, each model's own ratios"
    assert WEIGHTS.show(ModelWeights()) == "billing, fixed, since each model's own need the extra cost"
    assert WEIGHTS.show(Weights.parse("output=5")) == "input=1,output=5,cache_write=1,cache_read=1"


def test_the_ledger_keeps_them_by_name_with_the_lists_and_as_numbers_without() -> None:
    budget = Budget(1_000, scope=Scope.OVERALL)
    kept = read_budgets(write_budgets([budget], by_model())).weights
    assert kept == pricing.billing_weights()
    assert read_budgets(write_budgets([budget], ModelWeights())).weights == FIXED


@pytest.mark.skipif(not pricing.available(), reason="needs the extra cost")
def test_the_ratios_are_those_of_the_price_lists() -> None:
    weights = pricing.billing_weights()
    assert weights.of("claude-opus-4-8[1m]").draw(TENTH) == 100
    assert weights.of("claude-opus-5-5").draw(TENTH) == 50
    old = weights.of("claude-3-haiku-20240307")
    assert (old.draw(Usage(0, 1_000)), old.draw(Usage(0, 0, 1_000)), old.draw(TENTH)) == (5_000, 1_200, 120)
    assert weights.of("no-such-model") == weights.of("<synthetic>") == FIXED
