"""The instances that a group has, when its items are a list in the result of another instance. Pure."""

from __future__ import annotations

import json

from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.expansion import Selection
from claude_orchestrator.config.for_each import expand
from claude_orchestrator.config.graph import needs_of
from claude_orchestrator.config.item_sources import check_count
from claude_orchestrator.config.items import Item, read_item
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.racing import attempts_of
from claude_orchestrator.engine.results.upstream import FinishedInstance, Group, list_of, part_of, structured_output
from token_budget.fields import BadValue, show_json


def grown(spec: LaunchSpec, upstream: FinishedInstance | Group) -> tuple[tuple[InstanceConfig, ...], int]:
    """The instances of a group, and how many items were left out because they were there before.

    Raises BadValue where the result is no list of items.
    """
    source, template = spec.grows, spec.late
    assert source is not None and template is not None
    try:
        if isinstance(upstream, Group):
            value = part_of(source.name, list_of(upstream), source.path)
        else:
            value = part_of(source.name, structured_output(upstream), source.path)
    except LookupError as error:
        raise BadValue(("", str(error.args[0]))) from None
    what = f"the result of {source.name}{f' at {source.path}' if source.path else ''}"
    if not isinstance(value, list):
        raise BadValue(("", f"{what} is no list but {show_json(value)}"))
    check_count(len(value))
    items: dict[str, Item] = {}
    for number, entry in enumerate(value):
        try:
            items.setdefault(json.dumps(entry, sort_keys=True), read_item(entry))
        except BadValue as error:
            raise BadValue(*((f"{what}: item {number}", why) for _, why in error.faults)) from None
    instances = expand(template._replace(depends_on=needs_of(template)), list(items.values()))
    selected = Selection(source.limit, source.shuffle).of(instances)
    return tuple(attempt for one in selected for attempt in attempts_of(one)), len(value) - len(items)
