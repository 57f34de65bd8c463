"""The graph of a plan as text, Mermaid and SVG, by values and through the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from claude_orchestrator.cli.graph_view import Graph, as_mermaid, as_svg, describe_graph, graph_of
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from tests.harness import Workplace
from token_budget.forecast import Forecast
from token_budget.models import Unit

STEPS: list[dict[str, Any]] = [
    {"name": "end", "prompt": "x", "depends_on": ["fix", "lint"]},
    {"name": "plan", "prompt": "x", "max_tokens_per_command": 5_000, "json_schema": {"type": "object"}},
    {"name": "lint", "prompt": "x"},
    {"name": "fix", "prompt": "x {{item}}", "for_each": ["a", "b"], "depends_on": ["plan"]},
    {"name": "late", "prompt": "x {{item}}", "for_each": {"result_of": "plan", "path": "files"}},
    {"name": 'tell "<all>"', "prompt": "x", "depends_on": ["late"], "run_if": "failure"},
]


def specs_of(*steps: dict[str, Any]) -> tuple[LaunchSpec, ...]:
    config = parse_config({"instances": list(steps)}, "x")
    expanded = expand_config(config, lambda source: getattr(source, "items", ()), Selection())
    return make_plan(expanded, Settings(), workspace="/w", claude_bin="claude").specs


def test_the_graph_as_text() -> None:
    assert describe_graph(specs_of(*STEPS), ascii_only=True) == [
        "",
        "Graph, with each step below the one that it waits for longest:",
        "   plan: no forecast",
        "   |- fix: 2 instances, no forecast",
        "   |  `- end: no forecast (also after lint)",
        "   `- late: one for each item, no forecast",
        '      `- tell "<all>": no forecast, on failure',
        "   lint: no forecast",
        "Critical path: plan -> fix -> end",
        "Whole plan: no forecast",
    ]
    assert "   ├─ fix: 2 instances" in describe_graph(specs_of(*STEPS), ascii_only=False)[3]
    assert describe_graph(specs_of({"prompt": "x"}), ascii_only=True) == []


def test_forecasts_in_the_graph() -> None:
    known = {Unit.TOKENS: Forecast(9, points=(3_000, 8_000), below=(0.6, 1.0))}
    steps = specs_of({"name": "a", "prompt": "x"}, {"name": "b", "prompt": "x", "depends_on": ["a"]})
    both = [spec._replace(forecasts=known) for spec in steps]
    assert describe_graph(both, ascii_only=True)[2:] == [
        "   a: about 3,000 tokens",
        "   `- b: about 3,000 tokens",
        "Critical path: a -> b, about 6,000 tokens in sequence",
        "Whole plan: about 6,000 tokens, at most 16,000 if each stays under its 90th percentile",
    ]
    assert describe_graph([both[0], steps[1]], ascii_only=True)[-2:] == [
        "Critical path: a -> b",
        "Whole plan: no forecast for 1 of 2 instances, about 3,000 tokens for the other one",
    ]


def test_the_graph_as_mermaid() -> None:
    text = as_mermaid(graph_of(specs_of(*STEPS)))
    assert text.startswith("flowchart LR\n") and "tell &quot;&lt;all&gt;&quot;<br/>" in text
    assert "  s1 ==> s3\n" in text and "  s2 --> s0\n" in text and "  s4 -->|failure| s5\n" in text


def test_the_graph_as_svg() -> None:
    root = ElementTree.fromstring(as_svg(graph_of(specs_of(*STEPS))))
    kinds = [element.tag.rpartition("}")[2] for element in root]
    assert kinds.count("path") == 5 and kinds.count("rect") == 7
    assert ElementTree.fromstring(as_svg(Graph())).tag.endswith("svg")


def test_a_large_graph_is_cut() -> None:
    lines = describe_graph(
        specs_of({"name": "a", "prompt": "x"}, *({"prompt": "y", "depends_on": ["a"]},) * 500), ascii_only=True
    )
    assert len(lines) < 210 and "   ... and 301 more steps" in lines


@pytest.mark.parametrize("name", ["g.mmd", "g.svg"])
def test_the_option_writes_a_file(place: Workplace, tmp_path: Path, name: str) -> None:
    done = place.run("--config", place.config({"instances": STEPS}), "--dry-run", "--graph", str(tmp_path / name))
    assert done.returncode == 0 and "Critical path: plan -> fix -> end" in done.stdout
    assert "Group late: one instance for each item of files in the result of plan" in done.stdout
    assert "   after:     late (failure)\n" in done.stdout
    assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "why"), [("g.png", "expected a file that ends in .mmd or .svg"), ("no/g.svg", "cannot be written")]
)
def test_a_file_that_cannot_be_written(place: Workplace, name: str, why: str) -> None:
    done = place.run("--config", place.config({"instances": STEPS}), "--dry-run", "--graph", name)
    assert done.returncode == 2 and why in done.stderr
