"""Configs with defaults and for_each, by values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from claude_orchestrator.config.config import Config, parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.item_sources import ForEach, InlineItems
from claude_orchestrator.config.items import Item
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue


def listed(source: ForEach) -> Sequence[Item]:
    if isinstance(source, InlineItems):
        return source.items
    raise BadValue((".glob", "no file matches"))


def expanded(*instances: dict[str, Any], selection: Selection | None = None, **top: Any) -> Config:
    config = parse_config({"instances": list(instances), **top}, "x.json", None)
    return expand_config(config, listed, selection or Selection())


def test_a_config_becomes_its_instances() -> None:
    config = expanded(
        {"name": "plan", "prompt": r"Plan \{{item}}"},
        {"name": "fix", "prompt": "Fix {{item}}", "for_each": ["a", "b"]},
        {"command": "/test {{item.n}}", "for_each": [{"n": 1}, {"n": 2}]},
        {"command": "/test --unit"},
    )
    assert [(one.name, one.command, one.group, one.item_index) for one in config.instances] == [
        ("plan", "Plan {{item}}", None, None),
        ("fix[a]", "Fix a", "fix", 0),
        ("fix[b]", "Fix b", "fix", 1),
        ("/test[1]", "/test 1", "/test", 0),
        ("/test[2]", "/test 2", "/test", 1),
        ("/test #2", "/test --unit", None, None),
    ]
    assert config.groups == {"fix": 2, "/test": 2}


def test_a_selection_keeps_names_and_indexes() -> None:
    template = {"name": "n", "prompt": "{{item}} {{index}}", "for_each": [f"i{number}" for number in range(100)]}
    some = expanded(template, selection=Selection(3))
    assert [one.name for one in some.instances] == ["n[i0]", "n[i1]", "n[i2]"] and some.groups == {"n": 100}
    mixed = expanded(template, selection=Selection(3, 7))
    assert mixed == expanded(template, selection=Selection(3, 7)) != expanded(template, selection=Selection(3, 8))
    for one in mixed.instances:
        assert one.command == f"{one.item} {one.item_index}" and one.item == f"i{one.item_index}"
    assert len(expanded(template, selection=Selection(shuffle=1)).instances) == 100
    with pytest.raises(UserError, match="no instance has a for_each: leave them out"):
        expanded({"prompt": "x"}, selection=Selection(3))


@pytest.mark.parametrize(
    ("instances", "lines"),
    [
        (
            [{"prompt": "{{item}} {{nme}}", "for_each": ["a"]}, {"prompt": "x", "cwd": "{{index}}"}],
            [
                r"x.json: instances[0].command: unknown placeholder {{nme}}; known here: ",
                r"x.json: instances[1].cwd: {{index}}: there are no items: add for_each",
            ],
        ),
        (
            [{"prompt": "x", "model": "{{item}}", "allowed_tools": ["Read({{item}})"], "env": {"{{index}}": "y"}}],
            [
                "x.json: instances[0].allowed_tools: {{item}} cannot stand here, only in name, prompt, command",
                "x.json: instances[0].model: {{item}} cannot stand here, only in name, prompt, command",
                "x.json: instances[0].env: {{index}} cannot stand here, only in name, prompt, command",
            ],
        ),
        ([{"prompt": "x", "for_each": {"glob": "*"}}], ["x.json: instances[0].for_each.glob: no file matches"]),
        (
            [{"prompt": "x", "name": f"n-{end}", "for_each": ["a"]} for end in ("{{item}}", "{{index}}")],
            ["x.json: instances[1].name: another for_each has the name n, too: choose another name"],
        ),
        (
            [{"prompt": "x", "name": "n", "for_each": ["a"]}, {"prompt": "x", "name": "n[a]"}],
            ["x.json: two instances have the name n[a]: rename one of them"],
        ),
    ],
)
def test_faults_name_the_entry(instances: list[dict[str, Any]], lines: list[str]) -> None:
    with pytest.raises(UserError) as error:
        expanded(*instances)
    assert len(error.value.lines) == len(lines)
    for line, start in zip(error.value.lines, lines, strict=True):
        assert line.startswith(start)


# -- defaults --


def test_instances_come_before_defaults() -> None:
    data = {
        "defaults": {"model": "opus", "permission_mode": "plan", "env": {"A": "1"}, "timeout_s": "5m"},
        "instances": [{"prompt": "x"}, {"prompt": "y", "model": "haiku", "env": {"B": "2"}}],
    }
    one, two = parse_config(data, "x").instances
    assert (one.model, one.permission_mode, one.env, one.timeout_s) == ("opus", "plan", (("A", "1"),), 300)
    assert (two.model, two.permission_mode, two.env) == ("haiku", "plan", (("B", "2"),))
    one, two = parse_config(data, "x", {"model": "sonnet", "allowed_tools": ("Read",)}).instances
    assert (one.model, two.model, one.allowed_tools) == ("sonnet", "haiku", ("Read",))


def test_a_default_prompt_stands_in_for_a_missing_one() -> None:
    data = {"defaults": {"prompt": "all"}, "instances": [{"name": "a"}, {"command": "/own"}, {"prompt": "mine"}]}
    config = parse_config(data, "x")
    assert [one.command for one in config.instances] == ["all", "/own", "mine"] and config.warnings == ()
