"""Text that must fit a terminal, a table or a spreadsheet."""

from __future__ import annotations

import csv
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget.text import (
    csv_line,
    decimal_usd,
    display_width,
    encodable,
    fit,
    format_tokens,
    format_usd,
    printable,
    wrap,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("été", "été"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_could_drive_a_terminal_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1)])
def test_cells(text: str, width: int) -> None:
    assert display_width(text) == width


@pytest.mark.parametrize(
    ("text", "width", "ellipsis", "fitted"),
    [
        ("abc", 5, "…", "abc  "),
        ("abcdef", 4, "…", "abc…"),
        ("日本語", 4, "…", "日… "),
        ("abcdef", 2, "...", ".."),
        ("a", 0, "…", ""),
        ("xe\u0301e\u0301", 2, "…", "x…"),
    ],
)
def test_a_cell_of_a_table(text: str, width: int, ellipsis: str, fitted: str) -> None:
    assert fit(text, width, ellipsis=ellipsis) == fitted


def test_long_text_is_wrapped_at_spaces_with_an_indent() -> None:
    assert wrap("one two  three", 8, "  ") == ["one", "  two", "  three"]
    assert wrap("one two three", 80) == ["one two three"]
    assert wrap("", 10) == [""]


def test_a_word_that_is_too_long_is_broken() -> None:
    assert wrap("a abcdefghij", 5) == ["a abc", "defgh", "ij"]


@given(st.text(max_size=60), st.integers(4, 20))
def test_no_wrapped_line_is_too_wide(text: str, width: int) -> None:
    assert all(display_width(line) <= width for line in wrap(text, width, "  "))


def test_half_a_surrogate_pair_becomes_an_escape() -> None:
    assert encodable("a\ud800é") == "a\\ud800é"


def test_a_line_of_csv() -> None:
    cells: list[str | int | float | Decimal | None] = [
        "a,b",
        'say "x"',
        5,
        1.5,
        None,
        Decimal("0.000000001"),
        "two\nlines",
    ]
    line = csv_line(cells)
    assert next(csv.reader([line])) == ["a,b", 'say "x"', "5", "1.5", "", "0.000000001", "two\nlines"]
    assert not line.endswith("\n")


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@sum", "  =1", "\t=1"])
def test_a_cell_that_would_be_a_formula_gets_an_apostrophe(formula: str) -> None:
    assert next(csv.reader([csv_line([formula])])) == [f"'{formula}"]


@pytest.mark.parametrize(
    ("nano_usd", "shown", "exact"),
    [
        (0, "$0.00", "0"),
        (4_200_000, "$0.0042", "0.0042"),
        (1_234_500_000_000, "$1,234.50", "1234.5"),
        (-2_500_000_000, "$-2.50", "-2.5"),
        (1, "$0.0000", "0.000000001"),
    ],
)
def test_dollars(nano_usd: int, shown: str, exact: str) -> None:
    assert (format_usd(nano_usd), decimal_usd(nano_usd)) == (shown, exact)


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [(950, "950"), (999, "999"), (3_000, "3.0K"), (999_950, "1.0M"), (1_200_000, "1.2M"), (4_500_000_000, "4.5B")],
)
def test_tokens_in_short(tokens: int, shown: str) -> None:
    assert format_tokens(tokens) == shown
