"""The graph of a plan: as a tree of text, as Mermaid, as SVG; its critical path and what the whole plan needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from claude_orchestrator.config.launch_spec import LaunchSpec
from token_budget.models import Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import counted, printable

if TYPE_CHECKING:
    from token_budget.forecast import Forecast

MAX_ROWS = 200
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 220, 46, 60, 18, 16
LABEL_CHARS = 30


class Step(NamedTuple):
    """An instance, or a group as one. `size` is how many instances it has, None if a result will tell.

    `tokens` is what is held for one of them; `has_forecast` says whether earlier runs make that a forecast.
    """

    name: str
    needs: tuple[str, ...]
    run_if: str
    tokens: int
    size: int | None = 1
    has_forecast: bool = False

    @property
    def note(self) -> str:
        """What else a reader should know."""
        count = "" if self.size == 1 else "one for each item, " if self.size is None else f"{self.size:,} instances, "
        each = "" if self.size == 1 else " each"
        when = "" if self.run_if == "success" else f", on {self.run_if}" if self.run_if == "failure" else ", always"
        expected = f"about {self.tokens:,} tokens{each}" if self.has_forecast else "no forecast"
        return f"{count}{expected}{when}"


@dataclass(frozen=True)
class Graph:
    """The steps of a plan in their order; groups are one step each."""

    steps: dict[str, Step] = field(default_factory=dict)

    @property
    def has_edges(self) -> bool:
        """Whether anything depends on anything."""
        return any(step.needs for step in self.steps.values())

    @cached_property
    def order(self) -> list[str]:
        """The names, each after what it needs."""
        missing = {name: len(step.needs) for name, step in self.steps.items()}
        found = [name for name, count in missing.items() if not count]
        for name in found:
            for dependant in self.dependants[name]:
                missing[dependant] -= 1
                if not missing[dependant]:
                    found.append(dependant)
        return found

    @cached_property
    def dependants(self) -> dict[str, list[str]]:
        """What depends on each."""
        found: dict[str, list[str]] = {name: [] for name in self.steps}
        for name, step in self.steps.items():
            for need in step.needs:
                found[need].append(name)
        return found

    @cached_property
    def depth(self) -> dict[str, int]:
        """How many steps come before each, on the longest way."""
        found: dict[str, int] = {}
        for name in self.order:
            found[name] = max((found[need] + 1 for need in self.steps[name].needs), default=0)
        return found

    @cached_property
    def critical_path(self) -> list[str]:
        """The way with the most tokens, one instance of each group after the other."""
        total: dict[str, int] = {}
        before: dict[str, str | None] = {}
        for name in self.order:
            step = self.steps[name]
            before[name] = max(step.needs, key=total.__getitem__, default=None)
            total[name] = step.tokens + (total[before[name] or ""] if before[name] else 0)
        way: list[str] = []
        name_or_none = max(total, key=total.__getitem__, default=None)
        while name_or_none is not None:
            way.insert(0, name_or_none)
            name_or_none = before[name_or_none]
        return way


def graph_of(specs: Iterable[LaunchSpec]) -> Graph:
    """The graph of a plan's launches."""
    steps: dict[str, Step] = {}
    owner: dict[str, str] = {}
    for spec in specs:
        name = spec.group or spec.name
        owner[spec.name] = name
        step = steps.get(name)
        known = _forecast_of(spec)
        tokens = spec.estimate.tokens if known is None else known.p50 or 0
        if step is None:
            steps[name] = Step(name, spec.depends_on, spec.run_if, tokens, None if spec.grows else 1, known is not None)
        else:
            steps[name] = step._replace(size=(step.size or 0) + 1, tokens=max(step.tokens, tokens))
    return Graph(
        {
            name: step._replace(needs=tuple(dict.fromkeys(owner.get(need, need) for need in step.needs)))
            for name, step in steps.items()
        }
    )


def describe_graph(specs: Sequence[LaunchSpec], *, ascii_only: bool) -> list[str]:
    """The graph as lines of text; none if nothing depends on anything."""
    graph = graph_of(specs)
    if not graph.has_edges:
        return []
    path = graph.critical_path
    known = all(graph.steps[name].has_forecast for name in path)
    tokens = sum(graph.steps[name].tokens for name in path)
    length = f", about {tokens:,} tokens in sequence" if known else ""
    rows = _tree(graph, "|- `-   |  " if ascii_only else "├─ └─   │  ")
    more = [f"   ... and {counted(len(rows) - MAX_ROWS, 'more step')}"] if len(rows) > MAX_ROWS else []
    return [
        "",
        "Graph, with each step below the one that it waits for longest:",
        *(f"   {row}" for row in rows[:MAX_ROWS]),
        *more,
        f"Critical path: {' -> '.join(path)}{length}",
        f"Whole plan: {_forecast(specs)}",
    ]


def _forecast(specs: Sequence[LaunchSpec]) -> str:
    """What all instances are expected to use together."""
    known = [found for spec in specs if (found := _forecast_of(spec)) is not None]
    total = f"about {sum(one.p50 or 0 for one in known):,} tokens"
    if not known:
        parts = ["no forecast"]
    elif len(known) == len(specs):
        parts = [total, f"at most {sum(one.p90 or 0 for one in known):,} if each stays under its 90th percentile"]
    else:
        parts = [f"no forecast for {len(specs) - len(known):,} of {counted(len(specs), 'instance')}"]
        parts.append(f"{total} for the {'other one' if len(known) == 1 else 'others'}")
    open_groups = [spec.name for spec in specs if spec.grows is not None]
    if known and open_groups:
        parts.append(f"where {', '.join(open_groups)} counts as one instance, until its items are known")
    return ", ".join(parts)


def _forecast_of(spec: LaunchSpec) -> Forecast | None:
    """The forecast of an instance's tokens, from earlier runs."""
    found = spec.forecasts.get(Unit.TOKENS)
    return found if found is not None and found.known else None


def _tree(graph: Graph, parts: str) -> list[str]:
    """A row for each step. A step with several needs is below the last of them, and names the others."""
    branch, end, blank, line = parts[:3], parts[3:6], "   ", parts[8:11]
    under: dict[str | None, list[str]] = {}
    for name in graph.order:
        needs = graph.steps[name].needs
        under.setdefault(max(needs, key=graph.depth.__getitem__, default=None), []).append(name)
    rows: list[str] = []
    waiting = [(name, "", "") for name in reversed(under.get(None, []))]
    while waiting:
        name, own, inner = waiting.pop()
        step = graph.steps[name]
        parent = max(step.needs, key=graph.depth.__getitem__, default=None)
        others = [need for need in step.needs if need != parent]
        also = f" (also after {', '.join(others)})" if others else ""
        rows.append(f"{own}{name}: {step.note}{also}")
        below = under.get(name, [])
        for place, child in reversed(list(enumerate(below))):
            last = place == len(below) - 1
            waiting.append((child, inner + (end if last else branch), inner + (blank if last else line)))
    return rows


# -- files --


def as_mermaid(graph: Graph) -> str:
    """The graph as Mermaid, with the critical path in bold."""
    from xml.sax.saxutils import escape  # with all of urllib, which only a file needs

    ids = {name: f"s{number}" for number, name in enumerate(graph.steps)}
    path = set(pairwise(graph.critical_path))
    lines = ["flowchart LR"]
    for name, step in graph.steps.items():
        label = escape(printable(f"{name}"), {'"': "&quot;", "#": "&num;"})
        lines.append(f'  {ids[name]}["{label}<br/>{escape(step.note)}"]')
    for name, step in graph.steps.items():
        for need in step.needs:
            arrow = "==>" if (need, name) in path else "-->"
            label = "" if step.run_if == "success" else f"|{step.run_if}|"
            lines.append(f"  {ids[need]} {arrow}{label} {ids[name]}")
    return "\n".join(lines) + "\n"


def as_svg(graph: Graph) -> str:
    """The graph as SVG: a column for each depth, the critical path in bold."""
    columns: dict[int, list[str]] = {}
    for name in graph.order:
        columns.setdefault(graph.depth[name], []).append(name)
    corner = {
        name: (MARGIN + column * (BOX_W + GAP_X), MARGIN + row * (BOX_H + GAP_Y))
        for column, names in columns.items()
        for row, name in enumerate(names)
    }
    width = max((x for x, _ in corner.values()), default=0) + BOX_W + MARGIN
    height = max((y for _, y in corner.values()), default=0) + BOX_H + MARGIN
    path = graph.critical_path
    bold = set(pairwise(path))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for name, step in graph.steps.items():
        for need in step.needs:
            (x1, y1), (x2, y2) = corner[need], corner[name]
            start, stop = (x1 + BOX_W, y1 + BOX_H // 2), (x2, y2 + BOX_H // 2)
            middle = (start[0] + stop[0]) // 2
            stroke = 3 if (need, name) in bold else 1
            dash = "" if step.run_if == "success" else ' stroke-dasharray="5 4"'
            curve = f"M{start[0]} {start[1]} C{middle} {start[1]} {middle} {stop[1]} {stop[0]} {stop[1]}"
            lines.append(f'<path d="{curve}" fill="none" stroke="#4a5568" stroke-width="{stroke}"{dash}/>')
    for name, (x, y) in corner.items():
        stroke = 3 if name in path else 1
        lines.append(
            f'<rect x="{x}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="6" fill="#edf2f7" stroke="#4a5568" '
            f'stroke-width="{stroke}"/>'
        )
        note = graph.steps[name].note
        lines.append(f'<text x="{x + 10}" y="{y + 19}" fill="#1a202c">{_label(name)}</text>')
        lines.append(f'<text x="{x + 10}" y="{y + 36}" fill="#4a5568" font-size="11">{_label(note, 36)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _label(text: str, limit: int = LABEL_CHARS) -> str:
    from xml.sax.saxutils import escape

    shown = printable(text)
    return escape(shown if len(shown) <= limit else f"{shown[: limit - 1]}…")
