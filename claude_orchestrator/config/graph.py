"""Dependencies between the entries of a config: every name has to exist, and nothing may wait for itself. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from claude_orchestrator.config.for_each import EARLY, group_name, template_placeholders
from claude_orchestrator.config.item_sources import ResultOf
from claude_orchestrator.config.placeholders import LATE, Placeholder
from token_budget.fields import nearest_name, show_json

if TYPE_CHECKING:
    from claude_orchestrator.config.config import InstanceConfig

Fault = tuple[str, str]
FILE = "file"  # the last word of `{{results.NAME.file}}`


def result_of(path: str, names: Iterable[str]) -> tuple[str, str] | None:
    """The instance or group that `results.PATH` means, and the path into its result; None if it means none of them."""
    fitting = [name for name in names if path == name or path.startswith(f"{name}.")]
    name = max(fitting, key=len, default=None)
    return None if name is None else (name, path[len(name) + 1 :])


def graph_faults(entries: Sequence[InstanceConfig]) -> list[Fault]:
    """Every fault of the dependencies, with its place in the config. `entries` are as the config has them."""
    known = {node_name(entry): entry for entry in entries}
    faults = [
        (f".instances[{index}]{place}", why)
        for index, entry in enumerate(entries)
        for place, why in _entry_faults(entry, known)
    ]
    names = Counter(map(node_name, entries))
    meant = {need for entry in entries for need in needs_of(entry)}
    faults += [
        (f".instances[{index}].name", f"another entry has the name {show_json(name)}, too: rename one of them")
        for index, (name, entry) in enumerate((node_name(entry), entry) for entry in entries)
        if names[name] > 1 and (name in meant or isinstance(entry.for_each, ResultOf))
    ]
    return faults or _cycle_faults(entries)


def node_name(entry: InstanceConfig) -> str:
    """The name by which others depend on an entry: its own, or that of its group."""
    return entry.name if entry.for_each is None else group_name(entry)


def needs_of(entry: InstanceConfig) -> tuple[str, ...]:
    """What an entry depends on, with the one that gives its items."""
    source = (entry.for_each.name,) if isinstance(entry.for_each, ResultOf) else ()
    return tuple(dict.fromkeys((*entry.depends_on, *source)))


def _entry_faults(entry: InstanceConfig, known: dict[str, InstanceConfig]) -> Iterator[Fault]:
    own = node_name(entry)
    for number, name in enumerate(entry.depends_on):
        if name == own:
            yield f".depends_on[{number}]", f"{show_json(name)} would wait for itself"
        elif name not in known and not _is_member(name, known):
            yield f".depends_on[{number}]", f"no instance or group is called {show_json(name)}{near(name, known)}"
    if isinstance(entry.for_each, ResultOf):
        yield from _source_faults(entry.for_each, own, known)
    if entry.run_if != "success" and not needs_of(entry):
        yield ".run_if", "it depends on nothing: add depends_on, or leave run_if out"
    for field, found in template_placeholders(entry).items():
        for placeholder in found:
            if placeholder.root in LATE:
                why = _placeholder_fault(entry, field, placeholder, known)
                yield from [(f".{field}", f"{placeholder.text}: {why}")] if why else []


def _source_faults(source: ResultOf, own: str, known: dict[str, InstanceConfig]) -> Iterator[Fault]:
    upstream = known.get(source.name)
    place = ".for_each.result_of"
    if source.name == own:
        yield place, f"{show_json(own)} would wait for itself"
    elif upstream is None:
        yield place, f"no instance or group is called {show_json(source.name)}{near(source.name, known)}"
    elif upstream.json_schema is None and upstream.for_each is None:
        yield place, f"{source.name} has no json_schema, so its result is a text and no list"


def _is_member(name: str, known: dict[str, InstanceConfig]) -> bool:
    """Whether the name may be that of one instance of a group; the expanded plan tells."""
    group = known.get(name.partition("[")[0])
    return name.endswith("]") and group is not None and group.for_each is not None


def _placeholder_fault(
    entry: InstanceConfig, field: str, placeholder: Placeholder, known: dict[str, InstanceConfig]
) -> str | None:
    if field == "name" or field in EARLY:
        return "this is needed before results are known"
    if not placeholder.path:
        return "names no instance: write {{results.NAME}}"
    meant = result_of(placeholder.path, needs_of(entry))
    if meant is None:
        named = result_of(placeholder.path, known)
        if named is not None:
            return f"{named[0]} may not have ended then: add it to depends_on"
        return f"no instance or group has this name{near(placeholder.path.partition('.')[0], known)}"
    upstream = known.get(meant[0])
    if placeholder.root == "branch" and upstream is not None:
        return _branch_fault(field, upstream, meant)
    if placeholder.root != "results" or upstream is None:
        return None
    is_group = upstream.for_each is not None
    if meant[1] not in ("", FILE) and upstream.json_schema is None and not is_group:
        return f"{meant[0]} has no json_schema, so its result is a text without parts"
    return None


def _branch_fault(field: str, upstream: InstanceConfig, meant: tuple[str, str]) -> str | None:
    name, rest = meant
    if rest:
        return f"a branch has no parts: write {{{{branch.{name}}}}}"
    if field == "worktree":
        return "the name of a worktree is needed before branches are known: it belongs to base"
    if upstream.for_each is not None or upstream.race > 1:
        return f"{name} is a group, which has many branches"
    return None if upstream.worktree else f"{name} has no worktree, and so no branch"


def _cycle_faults(entries: Sequence[InstanceConfig]) -> list[Fault]:
    """The first cycle, as the path from an instance back to itself."""
    known = {node_name(entry) for entry in entries}
    needs = {
        node_name(entry): [name if name in known else name.partition("[")[0] for name in needs_of(entry)]
        for entry in entries
    }
    index = {node_name(entry): number for number, entry in enumerate(entries)}
    done: set[str] = set()
    for start, first in needs.items():
        way = {} if start in done else {start: iter(first)}
        while way:
            name = next(reversed(way))
            following = next((need for need in way[name] if need not in done), None)
            if following is None:
                done.add(name)
                del way[name]
            elif following in way:
                names = [*way][[*way].index(following) :]
                shown = " -> ".join([*names, following])
                return [(f".instances[{index[following]}].depends_on", f"a cycle: {shown}: none of them could start")]
            else:
                way[following] = iter(needs[following])
    return []


def near(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest name; empty if nothing is near."""
    found = nearest_name(name, known)
    return f"; did you mean {show_json(found)}?" if found else ""
