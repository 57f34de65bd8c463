"""What people type for budgets: tokens, money, percentages, limits by command; each kind beside its schema."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget.fields import (
    PERCENTAGES,
    PROFILE_FIELDS,
    TOKENS,
    USD,
    WEIGHTS,
    BadValue,
    Kind,
    by_command,
    forbidden_character,
    whole_number,
)
from token_budget.models import MAX_LIMIT, Weights
from token_budget.pricing import billing_weights
from token_budget.text import NANO

TAKEN: list[tuple[Kind, object, object]] = [
    (TOKENS, 50_000, 50_000),
    *((TOKENS, text, 50_000) for text in ("50000", "50k", "50K", " 50_000 ", "50,000", "0.05M", "50 k")),
    (TOKENS, "1.5M", 1_500_000),
    (TOKENS, "2B", 2_000_000_000),
    (TOKENS, MAX_LIMIT, MAX_LIMIT),
    (TOKENS, "1.0005M", 1_000_500),
    (USD, 2.5, 2_500_000_000),
    *((USD, text, 2_500_000_000) for text in ("2.5", "2.50", "$2.50", "$ 2.50", "$.25e1")),
    (USD, "$1,000", 1000 * NANO),
    (USD, "0.000000001", 1),
    (USD, 0.1, 100_000_000),
    (PERCENTAGES, 80, (80,)),
    (PERCENTAGES, [80, 50], (50, 80)),
    (PERCENTAGES, "50,80,95", (50, 80, 95)),
    (PERCENTAGES, " 95, 80,95 ", (80, 95)),
    (PERCENTAGES, "1,1000", (1, 1000)),
    (PERCENTAGES, "", ()),
    (PERCENTAGES, " off ", ()),
    (WEIGHTS, "billing", billing_weights()),
    (WEIGHTS, {"output": 5, "cache_read": 0.1}, Weights.parse("output=5,cache_read=0.1")),
    (by_command(TOKENS), {"/test": "20k", "// why": 1, " a ": 5}, {"/test": 20_000, "a": 5}),
    (by_command(USD), {"/test": "$1.50"}, {"/test": 1_500_000_000}),
]
REFUSED: list[tuple[Kind, object, str]] = [
    *((TOKENS, value, "expected a positive whole number") for value in (0, -1, 1.5, True, None, [5], "", "lots")),
    (whole_number(1, 10**6), "many", 'expected a positive whole number, got "many"'),
    *(
        (TOKENS, text, "such as 50000, 50k or 1.5M")
        for text in ("1e3", "²", "1.5", "1.0005k", "5,00", "1__0", "-5k", "k")
    ),
    *((TOKENS, value, "up to 1,000,000,000,000,000") for value in (MAX_LIMIT + 1, "9" * 30, "2000000B")),
    *((TOKENS, value, "expected a positive whole number") for value in ("9" * 5000, "0k")),
    *((USD, value, "expected a positive number of US dollars") for value in (0, -1, 1e-10, True, [1], float("nan"))),
    *((USD, value, "up to 1,000,000") for value in (5_000_000, 10**400)),
    *((USD, text, "such as 5") for text in ("lots", "1_0", "5 USD", "1,5", "$", "€5")),
    (USD, "0.0000000001", "at most nine decimals"),
    (USD, "5000000", "at most 1,000,000"),
    *((PERCENTAGES, text, "expected percentages") for text in ("0", "1001", "80%", "80,", "-5", "8.5", "1e2", "80;90")),
    *((PERCENTAGES, text, "expected percentages") for text in ("off,80", "٨٠", "9" * 5000)),
    (WEIGHTS, "heavy", "expected flat, billing"),
    (WEIGHTS, {"colour": 1}, "expected numbers for input"),
    (WEIGHTS, 5, "expected flat, billing"),
    (by_command(TOKENS), [1], "expected an object of command: limit"),
    (by_command(TOKENS), {" ": 1}, "a command's name is empty"),
]


@pytest.mark.parametrize(("kind", "typed", "value"), TAKEN, ids=lambda item: repr(item)[:30])
def test_what_people_write_is_taken(kind: Kind, typed: object, value: object) -> None:
    assert kind.read(typed) == value
    jsonschema.validate(typed, kind.schema)


@pytest.mark.parametrize(("kind", "typed", "reason"), REFUSED, ids=lambda item: repr(item)[:30])
def test_anything_else_is_refused_with_one_line(kind: Kind, typed: object, reason: str) -> None:
    with pytest.raises(BadValue) as error:
        kind.read(typed)
    assert reason in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300
    assert "<=" not in str(error.value)


def test_every_fault_of_limits_has_its_place() -> None:
    with pytest.raises(BadValue) as error:
        by_command(TOKENS).read({"/a": 0, "/b": 1, "/c": "x"})
    assert [place for place, _ in error.value.faults] == ["./a", "./c"]


@given(st.integers(1, 10**15))
def test_money_as_text_is_exact(nano: int) -> None:
    text = f"{nano // NANO}.{nano % NANO:09}"
    assert USD.read(text) == USD.read(f"${text}") == nano == Fraction(text) * NANO


@given(st.integers(1, 10**9))
def test_tokens_in_every_notation_are_the_same(tokens: int) -> None:
    texts = (
        str(tokens),
        f"{tokens:,}",
        f"{tokens:_}",
        f"{tokens / 1000:.3f}k",
        f"{tokens // 10**6}.{tokens % 10**6:06}M",
    )
    assert {TOKENS.read(text) for text in texts} == {tokens}


def test_a_range_is_said_in_words() -> None:
    with pytest.raises(BadValue, match=r"^expected a whole number from 0 to 100, got 101$"):
        whole_number(0, 100).read(101)
    assert whole_number(0, 100).read("0") == 0


@pytest.mark.parametrize(
    "text", ["テスト\u3000実行", "unit\u00a0tests", "می\u200cخواهم", "👩\u200d💻 review", "a\u00adb"]
)
def test_spaces_and_joiners_of_any_script_are_allowed(text: str) -> None:
    assert forbidden_character(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a\x07b", "a control character (U+0007)"),
        ("a\nb", "a line end (U+000A)"),
        ("a\x85b", "a line end (U+0085)"),
        ("a\u2028b", "a line end (U+2028)"),
        ("\u202ea", "a character that turns the direction of text around (U+202E)"),
        ("\ud800", "half of a surrogate pair (U+D800)"),
    ],
)
def test_the_forbidden_character_is_named(text: str, name: str) -> None:
    assert forbidden_character(text) == name


@pytest.mark.parametrize("field", PROFILE_FIELDS, ids=lambda field: field.key)
def test_a_default_is_a_value_that_is_shown(field: Any) -> None:
    assert field.default is None or isinstance(field.kind.show(field.default), str)
    assert field.help.endswith(".")
