"""Expands a config: each entry with `for_each` becomes its instances, and placeholders are filled. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from claude_orchestrator.config.config import Config, InstanceConfig
from claude_orchestrator.config.for_each import expand, fill_texts, group_name, item_values, misplaced_placeholders
from claude_orchestrator.config.item_sources import ForEach, ResultOf
from claude_orchestrator.config.items import Item
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable

ReadItems = Callable[[ForEach], Sequence[Item]]


class Selection(NamedTuple):
    """Which items of each `for_each` are used: at most `limit`, in the config's order or shuffled by a seed."""

    limit: int | None = None
    shuffle: int | None = None

    def of(self, instances: Sequence[InstanceConfig]) -> tuple[InstanceConfig, ...]:
        """The selected ones of a group. Their names and indexes are the same as without a selection."""
        order = list(instances)
        if self.shuffle is not None:
            from random import Random  # only for this option

            Random(self.shuffle).shuffle(order)
        return tuple(order[: self.limit])


def expand_config(config: Config, read_items: ReadItems, selection: Selection) -> Config:
    """The config with one instance for each item. Raises UserError with every fault, one line each."""
    faults: list[str] = []
    instances: list[InstanceConfig] = []
    groups: dict[str, int] = {}
    for place, template in enumerate(config.instances):
        try:
            if misplaced := misplaced_placeholders(template):
                raise BadValue(*misplaced)
            if template.for_each is None:
                instances.append(fill_texts(template, item_values(template)))
                continue
            group = group_name(template)
            if group in groups:
                raise BadValue((".name", f"another for_each has the name {printable(group)}, too: choose another name"))
            if isinstance(template.for_each, ResultOf):  # it expands when its upstream has ended
                later = template.for_each._replace(limit=selection.limit, shuffle=selection.shuffle)
                instances.append(template._replace(for_each=later))
                groups[group] = 0
                continue
            made = expand(template, _items(read_items, template.for_each))
            groups[group] = len(made)
            instances += selection.of(made)
        except BadValue as error:
            faults += [f"{config.source}: instances[{place}]{path}: {why}" for path, why in error.faults]
    faults += [f"{config.source}: {fault}" for fault in _names_used_twice(instances)] if not faults else []
    if faults:
        raise UserError(*faults)
    if not groups and selection != Selection():
        raise UserError("--limit and --shuffle: no instance has a for_each: leave them out")
    return config._replace(instances=tuple(instances), groups=groups)


def _items(read_items: ReadItems, source: ForEach) -> Sequence[Item]:
    try:
        return read_items(source)
    except BadValue as error:
        raise BadValue(*((f".for_each{path}", why) for path, why in error.faults)) from None


def _names_used_twice(instances: Sequence[InstanceConfig]) -> Iterator[str]:
    seen: set[str] = set()
    for instance in instances:
        if instance.name in seen:
            yield f"two instances have the name {printable(instance.name)}: rename one of them"
        seen.add(instance.name)
