"""Timestamps of other programs, with an offset or without, and what is none."""

from __future__ import annotations

import pytest

from token_budget.timestamps import unix_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10.500+01:00", 10.5),
        ("1970-01-01T00:00:10", 10.0),
        ("soon", None),
        ("", None),
        ("1970-01-01T00:00:10Z" + " " * 100, None),
        (10, None),
        (None, None),
    ],
)
def test_a_timestamp_is_read_in_utc(value: object, expected: float | None) -> None:
    assert unix_s(value) == expected


def test_an_offset_can_be_required() -> None:
    assert unix_s("1970-01-01T00:00:10Z", needs_offset=True) == 10.0
    assert unix_s("1970-01-01T00:00:10", needs_offset=True) is None


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_do_not_raise(value: str) -> None:
    assert unix_s(value) is None or isinstance(unix_s(value), float)
