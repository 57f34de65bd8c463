"""Fan-out: makes an instance of a template for each item, and fills its texts. Pure.

A text is filled exactly once, so a value is never read for placeholders. A text that needs results of others stays
whole, as a Template: `fill_texts` fills it at the launch, with the item and the results together.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.items import Item, item_value, label_of, name_part, unknown_placeholder
from claude_orchestrator.config.kinds import LINE, TEXT, WORDS
from claude_orchestrator.config.placeholders import LATE, Placeholder, Template, is_late, parse
from token_budget.fields import BadValue, Kind
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable

if TYPE_CHECKING:
    from claude_orchestrator.config.config import InstanceConfig

ValueOf = Callable[[Placeholder], str]


def _as_is(value_of: ValueOf) -> ValueOf:
    return value_of


def _inside(value_of: ValueOf) -> ValueOf:
    """The same values, without those that lead out of a folder."""

    def checked(placeholder: Placeholder) -> str:
        value = value_of(placeholder)
        path = PurePath(value)
        if path.is_absolute() or ".." in path.parts:
            raise BadValue(("", f"{placeholder.text} must not lead out of the folder"))
        return value

    return checked


def _quoted(value_of: ValueOf) -> ValueOf:
    """The same values, each as one word of a shell command."""
    return lambda placeholder: shlex.quote(value_of(placeholder))


class Text(NamedTuple):
    """A field whose texts may have placeholders: the kind of the filled text, and what its values must be."""

    kind: Kind
    values: Callable[[ValueOf], ValueOf] = _as_is


# to let another field have placeholders, add it here: a text, a tuple of texts, or a dataclass that holds texts
TEXTS: Mapping[str, Text] = {
    "command": Text(WORDS),
    "pre_commands": Text(WORDS),
    "append_system_prompt": Text(TEXT),
    "env": Text(TEXT),
    "description": Text(TEXT),
    "cwd": Text(LINE, _inside),
    "worktree": Text(LINE, _inside),
    "base": Text(LINE),
    "check": Text(TEXT, _quoted),
}
ROOTS = frozenset({"item", "index", *LATE})
EARLY = ("description", "cwd")  # these cannot wait for results
MAX_ENV_CHARS = 100_000  # a process takes at most 128 KiB in one variable


def expand(template: InstanceConfig, items: Sequence[Item]) -> tuple[InstanceConfig, ...]:
    """One instance for each item, named `NAME[item]`, or as the template's name says if that has a placeholder.

    Raises BadValue with every fault and its place in the instance.
    """
    if template.session_id is not None:
        raise BadValue((".session_id", "several instances cannot continue one session: leave it out with for_each"))
    group, names = group_name(template), _names_to_fill(template)
    faults: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    made: dict[str, InstanceConfig] = {}
    for index, item in enumerate(items):
        try:
            one = _instance(template, names, group, item, index)
            if one.name in made:
                other = made[one.name].item_index
                raise BadValue(_same_name(template, one.name, f"item {other}"))
            made[one.name] = one
        except BadValue as error:
            faults.update(error.faults)
            for fault in error.faults:
                first.setdefault(fault, f"item {index}: {printable(label_of(item))}")
    if faults:
        more = {fault: f", and {count - 1:,} more" if count > 1 else "" for fault, count in faults.items()}
        raise BadValue(*((fault[0], f"{fault[1]} ({first[fault]}{more[fault]})") for fault in faults))
    return tuple(made.values())


def _same_name(template: InstanceConfig, name: str, other: str) -> tuple[str, str]:
    fix = "use {{index}} in it, or leave it out" if _has_placeholder(template.name) else 'add "name" with {{index}}'
    return ".name", f"the name {printable(name)} also belongs to {other}: {fix}"


def group_name(template: InstanceConfig) -> str:
    """The name of the instances of a template together: its name, without placeholders and what joined them to it."""
    if not _has_placeholder(template.name):
        return template.name
    literal = "".join(piece for piece in _pieces(template.name) if isinstance(piece, str))
    return re.sub(r"[\s\[\](){}.,:;/_-]+$|^[\s\[\](){}.,:;_-]+", "", literal) or "items"


def _instance(template: InstanceConfig, names: Sequence[str], group: str, item: Item, index: int) -> InstanceConfig:
    def value_of(placeholder: Placeholder) -> str:
        return item_value(placeholder, item, index)

    def part_of_name(placeholder: Placeholder) -> str:
        whole = placeholder.root == "item" and not placeholder.path
        return label_of(item) if whole else name_part(value_of(placeholder))

    if _has_placeholder(template.name):
        try:
            name = LINE.read(_filled(template.name, part_of_name))
        except BadValue as error:
            raise BadValue(*((".name", why) for _, why in error.faults)) from None
    else:
        name = f"{template.name}[{label_of(item)}]"
    changes = _filled_fields(template, names, value_of, at_launch=False)
    return template._replace(name=name, for_each=None, group=group, item=item, item_index=index, **changes)


def fill_texts(instance: InstanceConfig, value_of: ValueOf, *, at_launch: bool = False) -> InstanceConfig:
    """The instance with its texts filled: at its launch its Templates, before that all others.

    `value_of` raises BadValue for a placeholder that it does not know.
    Raises BadValue with every fault and its place in the instance.
    """
    changes = _filled_fields(instance, _names_to_fill(instance), value_of, at_launch=at_launch)
    return instance._replace(**changes) if changes else instance


def misplaced_placeholders(instance: InstanceConfig) -> list[tuple[str, str]]:
    """A fault for each placeholder in a field that allows none, because it would be passed on unchanged."""
    faults = []
    for field, value in instance._asdict().items():
        if field in ("name", "item", "group", "for_each", *TEXTS) and field != "env":
            continue
        texts = [name for name, _ in value] if field == "env" else _strings(value)
        for text in (text for text in texts if "{{" in text):
            for piece in _pieces(text):
                if isinstance(piece, Placeholder) and piece.root in ROOTS:
                    where = "name, prompt, " + ", ".join(TEXTS)
                    faults.append((f".{field}", f"{piece.text} cannot stand here, only in {where}"))
    return faults


def _names_to_fill(instance: InstanceConfig) -> list[str]:
    """The fields with braces in a text."""
    return [name for name in TEXTS if any("{{" in text for text in _strings(getattr(instance, name)))]


def _filled_fields(
    instance: InstanceConfig, names: Sequence[str], value_of: ValueOf, *, at_launch: bool
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    faults: list[tuple[str, str]] = []
    for name in names:
        try:
            changes[name] = _fill_value(name, getattr(instance, name), TEXTS[name].values(value_of), at_launch)
        except BadValue as error:
            faults += [(f".{name}{place}", why) for place, why in error.faults]
    if faults:
        raise BadValue(*faults)
    return changes


def has_templates(instance: InstanceConfig) -> bool:
    """Whether texts of the instance are filled at its launch."""
    return any(isinstance(text, Template) for name in TEXTS for text in _strings(getattr(instance, name)))


def item_values(instance: InstanceConfig) -> ValueOf:
    """What the item placeholders of an instance stand for; every other placeholder is unknown."""
    item, index = instance.item, instance.item_index

    def value_of(placeholder: Placeholder) -> str:
        if item is None or index is None:
            raise unknown_placeholder(placeholder)
        return item_value(placeholder, item, index)

    return value_of


def template_placeholders(instance: InstanceConfig) -> dict[str, tuple[Placeholder, ...]]:
    """The placeholders in the texts of an instance and in its name, by the field."""
    found = {}
    for name in ("name", *TEXTS):
        texts = _strings(getattr(instance, name))
        pieces = [piece for text in texts for piece in _pieces(text) if isinstance(piece, Placeholder)]
        if pieces:
            found[name] = tuple(pieces)
    return found


# -- one value --


def _fill_value(name: str, value: Any, value_of: ValueOf, at_launch: bool) -> Any:
    if isinstance(value, str):
        return _fill_text(name, value, value_of, at_launch)
    if name == "env":
        return tuple((variable, _variable(variable, text, value_of, at_launch)) for variable, text in value)
    if isinstance(value, tuple):
        make: Callable[[Iterable[Any]], Any] = getattr(value, "_make", tuple)  # a named tuple stays one
        return make(_fill_value(name, part, value_of, at_launch) for part in value)
    return value


def _fill_text(name: str, text: str, value_of: ValueOf, at_launch: bool) -> str:
    if "{{" not in text or isinstance(text, Template) is not at_launch:
        return text
    if not at_launch and name not in EARLY and is_late(text):
        return Template(text)
    filled: str = TEXTS[name].kind.read(_filled(text, value_of))
    return filled


def _variable(variable: str, text: str, value_of: ValueOf, at_launch: bool) -> str:
    try:
        filled = _fill_text("env", text, value_of, at_launch)
    except BadValue as error:
        raise BadValue(*((f".{variable}", why) for _, why in error.faults)) from None
    if len(filled) > MAX_ENV_CHARS:
        why = f"an environment variable has at most {MAX_ENV_CHARS:,} characters, and this one would have"
        raise BadValue((f".{variable}", f"{why} {len(filled):,}"))
    return filled


def _filled(text: str, value_of: ValueOf) -> str:
    return "".join([piece if isinstance(piece, str) else value_of(piece) for piece in _pieces(text)])


@lru_cache(maxsize=1024)
def _pieces(text: str) -> tuple[str | Placeholder, ...]:
    return tuple(parse(text))


@lru_cache(maxsize=1024)
def _has_placeholder(text: str) -> bool:
    return "{{" in text and any(isinstance(piece, Placeholder) for piece in _pieces(text))


def _strings(value: Any) -> list[str]:
    """The texts in the value of a field."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [text for part in value for text in _strings(part)]
    return []
