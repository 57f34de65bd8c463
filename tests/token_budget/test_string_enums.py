"""Each enumeration of the project behaves as one of the standard library."""

from __future__ import annotations

import copy
import enum
import json
import pickle
from typing import Any

import pytest

from token_budget import string_enums


class Ours(string_enums.StrEnum):
    """A colour."""

    RED = "red"
    LIGHT_BLUE = "light blue"

    @property
    def is_cold(self) -> bool:
        return self is not Ours.RED


class Theirs(enum.StrEnum):
    """A colour."""

    RED = "red"
    LIGHT_BLUE = "light blue"

    @property
    def is_cold(self) -> bool:
        return self is not Theirs.RED


def of(kind: Any) -> Any:
    return kind


@pytest.mark.parametrize("kind", [Ours, Theirs])
def test_what_an_enumeration_can_do(kind: type[Ours]) -> None:
    red, blue = kind
    assert red is kind.RED and blue is kind("light blue") is kind["LIGHT_BLUE"] and len(kind) == 2
    assert (blue.name, blue.value) == ("LIGHT_BLUE", "light blue") and blue.is_cold and not red.is_cold
    assert of(red) == "red" and hash(red) == hash("red") and {"red": 1}[red] == 1 and isinstance(red, str)
    assert f"{blue}" == str(blue) == "light blue" and type(str(blue)) is str and f"{red:>4}" == " red"
    assert repr(blue) == f"<{kind.__name__}.LIGHT_BLUE: 'light blue'>" and json.dumps([red]) == '["red"]'
    assert dict(kind.__members__) == {"RED": red, "LIGHT_BLUE": blue} and red in kind and kind.__doc__ == "A colour."
    assert copy.deepcopy(red) is copy.copy(red) is pickle.loads(pickle.dumps(red)) is red
    match red:
        case kind.LIGHT_BLUE:
            raise AssertionError(red)
        case kind.RED:
            pass


@pytest.mark.parametrize("kind", [Ours, Theirs])
@pytest.mark.parametrize("value", ["green", "RED", None, 1])
def test_what_is_no_member(kind: Any, value: object) -> None:
    with pytest.raises(ValueError, match=f"{value!r} is not a valid {kind.__name__}"):
        kind(value)
    with pytest.raises(KeyError):
        kind["red"]
