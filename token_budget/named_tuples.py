"""Named tuples whose classes are made in a fraction of the time. Pure.

A start of the program makes about 180 of them. `typing.NamedTuple` compiles each annotation and each constructor,
which was a tenth of the start. Here a constructor is compiled only for a class that is called often. For all else they
are the same, and type checkers see `typing.NamedTuple`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import _tuplegetter as _field  # what its own named tuples have, on every Python
    from collections import defaultdict

    COMPILED_AT = 20  # calls save what compiling takes. A start calls half of the classes, most of them once or twice.
    _calls: defaultdict[type, int] = defaultdict(int)

    def _new(cls: type, /, *args: Any, **kwargs: Any) -> Any:
        _calls[cls] += 1
        if _calls[cls] < COMPILED_AT and len(args) <= len(cls._fields):
            others = cls._fields[len(args) :]
            named = {**cls._field_defaults, **kwargs}
            if kwargs.keys() <= {*others} <= named.keys():
                return tuple.__new__(cls, (*args, *map(named.__getitem__, others)))
        cls.__new__ = _constructor(cls._fields, cls._field_defaults)  # it also says what is wrong with the values
        return cls(*args, **kwargs)

    def _make(cls: type, values: Iterable[Any]) -> Any:
        return cls(*values)

    def _replace(self: Any, /, **changes: Any) -> Any:
        changed = self.__class__(*map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return changed

    def _asdict(self: Any) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _repr(self: Any) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{self.__class__.__name__}({', '.join(fields)})"

    def _values(self: Any) -> tuple[Any, ...]:
        return tuple(self)

    # Each named tuple gets these methods, which `collections.namedtuple` documents. They are not in a base class,
    # because Python would search it for each special method of each new class.
    _METHODS = {
        "__new__": _new,
        "_make": classmethod(_make),
        "_replace": _replace,
        "_asdict": _asdict,
        "__repr__": _repr,
        "__getnewargs__": _values,
    }

    def _constructor(fields: tuple[str, ...], defaults: dict[str, Any]) -> staticmethod:
        names = "".join(f"{name}, " for name in fields)
        made = eval(f"lambda _cls, {names}: _new(_cls, ({names}))", {"__builtins__": {}, "_new": tuple.__new__})
        made.__defaults__ = tuple(defaults.values())
        return staticmethod(made)

    class _Maker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            namespace["_fields"] = namespace["__match_args__"] = fields
            namespace["_field_defaults"] = {field: namespace[field] for field in fields if field in namespace}
            namespace["__slots__"] = ()
            for index, field in enumerate(fields):
                namespace[field] = _field(index, "")
            return type(name, (tuple, *bases[1:]), {**_METHODS, **namespace})

    class NamedTuple(metaclass=_Maker):
        """The base of a named tuple, as `typing.NamedTuple` is."""
