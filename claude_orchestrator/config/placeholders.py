"""Placeholders such as `{{item.stem}}` in the texts of a config. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from token_budget.named_tuples import NamedTuple

# `{{name}}`, `{{name.path}}`, or `\{{`, which stands for `{{`. Other braces, as in `{{ .Values }}`, belong to another
# language and stay.
_PATTERN = re.compile(r"\\\{\{|\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)(?:\.([^{}\n]*?))?[ \t]*\}\}")


LATE = frozenset({"branch", "results"})  # the roots whose values exist only when the upstream has ended


class Template(str):
    """A text that is filled at its instance's launch, all placeholders in one pass; every other text is final."""

    __slots__ = ()


class Placeholder(NamedTuple):
    """One placeholder: `{{item.key}}` has the root `item`, the path `key` and itself as `text`."""

    root: str
    path: str
    text: str


def parse(text: str) -> Iterator[str | Placeholder]:
    """The pieces of a text: literal text, and placeholders."""
    end = 0
    for match in _PATTERN.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        root, path = match[1], match[2]
        yield "{{" if root is None else Placeholder(root, path or "", match[0])
        end = match.end()
    if end < len(text):
        yield text[end:]


def placeholders(text: str) -> tuple[Placeholder, ...]:
    """The placeholders of a text, in order."""
    return tuple(piece for piece in parse(text) if isinstance(piece, Placeholder))


def is_late(text: str) -> bool:
    """Whether a text has a placeholder that can only be filled at the launch: it becomes a Template, whole."""
    return any(placeholder.root in LATE for placeholder in placeholders(text))


def fill(text: str, value_of: Callable[[Placeholder], str]) -> str:
    """The text with the value of each placeholder. Fill a text only once: values are never read for placeholders."""
    return "".join(piece if isinstance(piece, str) else value_of(piece) for piece in parse(text))
