"""Enumerations of strings whose classes are made in a fraction of the time. Pure.

A start of the program makes ten of them. With `enum.StrEnum` these took as long as fifty other classes. Here they do
what the program needs of it, and type checkers see `enum.StrEnum`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["StrEnum"]

if TYPE_CHECKING:
    from enum import StrEnum
else:
    from collections.abc import Iterator
    from types import MappingProxyType

    class _Maker(type):
        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            values = {key: value for key, value in namespace.items() if type(value) is str and key[0] != "_"}
            made = super().__new__(cls, name, bases, {key: namespace[key] for key in namespace if key not in values})
            members = {}
            for key, value in values.items():
                member = members[key] = str.__new__(made, value)
                member.name, member.value = key, value
                setattr(made, key, member)
            made.__members__ = MappingProxyType(members)
            return made

        def __call__(cls, value: object) -> str:
            for member in cls:
                if member == value:
                    return member
            raise ValueError(f"{value!r} is not a valid {cls.__name__}")

        def __getitem__(cls, name: str) -> str:
            return cls.__members__[name]

        def __contains__(cls, value: object) -> bool:
            return any(member == value for member in cls)

        def __iter__(cls) -> Iterator[str]:
            return iter(cls.__members__.values())

        def __len__(cls) -> int:
            return len(cls.__members__)

    class StrEnum(str, metaclass=_Maker):
        """The base of an enumeration, as `enum.StrEnum` is."""

        def __repr__(self) -> str:
            return f"<{self.__class__.__name__}.{self.name}: {self.value!r}>"

        def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
            return self.__class__, (self.value,)
