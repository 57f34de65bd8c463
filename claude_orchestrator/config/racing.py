"""Races: one entry becomes several attempts at the same work, of which the first that is verified wins. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from claude_orchestrator.config.config import Config, InstanceConfig
from claude_orchestrator.errors import UserError
from token_budget.text import printable


def expand_races(config: Config) -> Config:
    """The config with the attempts `NAME#1`, `NAME#2` … of each race. Each attempt has its own worktree.

    Raises UserError with every fault.
    """
    if all(instance.race == 1 for instance in config.instances):
        return config
    faults = [
        f"{config.source}: {printable(instance.name)}.race: {why}"
        for instance in config.instances
        if instance.race > 1
        for why in _faults(instance)
    ]
    instances = tuple(attempt for instance in config.instances for attempt in attempts_of(instance))
    names = [instance.name for instance in instances]
    faults += [
        f"{config.source}: two instances have the name {printable(name)}: rename one of them"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if faults:
        raise UserError(*faults)
    return config._replace(instances=instances)


def _faults(instance: InstanceConfig) -> Iterator[str]:
    if instance.check is None:
        yield "it needs a check, which decides who wins"
    if instance.session_id is not None:
        yield "several attempts cannot continue one session: leave out session_id"


def attempts_of(instance: InstanceConfig) -> Iterator[InstanceConfig]:
    """The attempts of an instance that races, or the instance itself; each has its own worktree.

    A group whose items are not known yet stays one entry. Its instances race once they are there.
    """
    if instance.race == 1:
        yield instance
        return
    if instance.for_each is not None:
        yield instance._replace(worktree=instance.worktree or True)  # checked before the start
        return
    group = instance.group or instance.name
    for number in range(1, instance.race + 1):
        tree = f"{instance.worktree}#{number}" if isinstance(instance.worktree, str) else True
        name = f"{instance.name}#{number}"
        yield instance._replace(name=name, worktree=tree, group=group, race=1, race_of=instance.name)
