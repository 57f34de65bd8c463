"""Each named tuple of the project behaves as one of the standard library."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from token_budget import named_tuples


class Ours(named_tuples.NamedTuple):
    """A point."""

    x: int
    y: int | None = None
    label: str = ""

    @property
    def far(self) -> bool:
        return self.x > 10


class Often(named_tuples.NamedTuple):
    """A point."""

    x: int
    y: int | None = None
    label: str = ""


for often in range(1000):  # its constructor is compiled meanwhile
    assert Often(often).x == often


class Theirs(typing.NamedTuple):
    """A point."""

    x: int
    y: int | None = None
    label: str = ""


class Empty(named_tuples.NamedTuple):
    """Without fields."""


def of(kind: Any) -> Any:
    return kind


@pytest.mark.parametrize("kind", [Ours, Often, Theirs])
def test_what_a_named_tuple_can_do(kind: type[Ours]) -> None:
    point = kind(1, label="a")
    assert of(point) == (1, None, "a") and hash(point) == hash((1, None, "a")) and sorted([point, kind(0)])[1] is point
    assert (point.x, point.y, point.label) == (1, None, "a") and point[2] == "a" and len(point) == 3
    x, *_ = point
    assert x == 1 and isinstance(point, tuple) and kind._fields == ("x", "y", "label")
    assert repr(point) == f"{kind.__name__}(x=1, y=None, label='a')" and kind.__doc__ == "A point."
    assert point._replace(y=2) == (1, 2, "a") and type(point._replace(y=2)) is kind
    assert point._asdict() == {"x": 1, "y": None, "label": "a"} and kind._make(point) == of(point)
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point
    assert type(copy.copy(point)) is kind and kind._field_defaults == {"y": None, "label": ""}
    match of(point):
        case kind(x=1, y=None):
            pass
        case _:
            raise AssertionError(point)


@pytest.mark.parametrize("kind", [Ours, Often, Theirs])
@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, "", 4), {}), ((1,), {"z": 1}), ((1,), {"x": 1})])
def test_wrong_values(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@pytest.mark.parametrize("kind", [Ours, Often, Theirs])
def test_a_point_does_not_change(kind: Any) -> None:
    with pytest.raises(AttributeError):
        kind(1).x = 2
    with pytest.raises(AttributeError):
        kind(1).other = 2
    with pytest.raises((TypeError, ValueError), match="Got unexpected field names: \\['z'\\]"):  # by the version
        kind(1)._replace(z=1)


def test_methods_and_no_fields() -> None:
    assert Ours(11).far and not Ours(1).far and Empty() == () and repr(Empty()) == "Empty()"
