"""Dependencies of a config, by values."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.graph import result_of
from claude_orchestrator.config.placeholders import Template
from claude_orchestrator.errors import UserError

PLAN = {"name": "plan", "prompt": "Plan.", "json_schema": {"type": "object"}}


def faults_of(*entries: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_config({"instances": list(entries)}, "x")
    return list(caught.value.lines)


def step(name: str, *needs: str, prompt: str = "x", **keys: Any) -> dict[str, Any]:
    return {"name": name, "prompt": prompt, **({"depends_on": list(needs)} if needs else {}), **keys}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([step("a", "a")], '[0].depends_on[0]: "a" would wait for itself'),
        ([step("a", "b"), step("b", "a")], "[0].depends_on: a cycle: a -> b -> a: none of them could start"),
        (
            [step("x"), step("a", "x", "b"), step("b", "c"), step("c", "a")],
            "[1].depends_on: a cycle: a -> b -> c -> a: none of them could start",
        ),
        (
            [PLAN, step("b", "plam")],
            '[1].depends_on[0]: no instance or group is called "plam"; did you mean "plan"?',
        ),
        ([PLAN, step("b", "zzz")], '[1].depends_on[0]: no instance or group is called "zzz"'),
        ([step("a", run_if="always")], "[0].run_if: it depends on nothing: add depends_on, or leave run_if out"),
        ([step("a", run_if="never")], '[0].run_if: expected one of success, always, failure, got "never"'),
        (
            [PLAN, step("b", prompt="{{results.plan}}")],
            "[1].command: {{results.plan}}: plan may not have ended then: add it to depends_on",
        ),
        (
            [PLAN, step("b", "plan", prompt="{{results.pan}}")],
            '[1].command: {{results.pan}}: no instance or group has this name; did you mean "plan"?',
        ),
        (
            [step("a"), step("b", "a", prompt="{{results.a.files}}")],
            "[1].command: {{results.a.files}}: a has no json_schema, so its result is a text without parts",
        ),
        (
            [step("a"), step("b", "a", prompt="{{ results }}")],
            "[1].command: {{ results }}: names no instance: write {{results.NAME}}",
        ),
        (
            [step("a"), step("b", "a", cwd="{{results.a}}")],
            "[1].cwd: {{results.a}}: this is needed before results are known",
        ),
        (
            [step("a"), step("b", "a", worktree="{{branch.a}}")],
            "[1].worktree: {{branch.a}}: "
            "the name of a worktree is needed before branches are known: it belongs to base",
        ),
        (
            [step("a"), step("b", "a", worktree=True, base="{{branch.a}}")],
            "[1].base: {{branch.a}}: a has no worktree, and so no branch",
        ),
        (
            [step("a", worktree=True), step("b", "a", worktree=True, base="{{branch.a.x}}")],
            "[1].base: {{branch.a.x}}: a branch has no parts: write {{branch.a}}",
        ),
        (
            [step("a", worktree=True, for_each=["x"]), step("b", "a", worktree=True, base="{{branch.a}}")],
            "[1].base: {{branch.a}}: a is a group, which has many branches",
        ),
        (
            [step("a"), step("b", env={"X": "{{results.a}}"})],
            "[1].env: {{results.a}}: a may not have ended then: add it to depends_on",
        ),
    ],
)
def test_faults(entries: list[dict[str, Any]], said: str) -> None:
    assert faults_of(*entries) == [f"x: instances{said}"]


def test_every_fault_is_reported_at_once() -> None:
    assert len(faults_of(step("a", "b", "c"), step("d", "d", prompt="{{results.q}}"))) == 4


def test_a_long_chain_is_no_cycle_and_no_recursion() -> None:
    entries = [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, 5_000))]
    assert len(parse_config({"instances": entries}, "x").instances) == 5_000
    entries[0] = step("s0", "s4999")
    assert "a cycle: s0 -> s4999 -> s4998" in faults_of(*entries)[0]


def test_only_texts_with_results_wait() -> None:
    texts = {"pre_commands": ["{{results.plan}}", "y"], "env": {"A": "{{results.plan.x}}", "B": "{{ .b }}"}}
    entry = step("b", "plan", prompt=r"\{{results.plan}}", append_system_prompt="{{results.plan.file}}", **texts)
    config = parse_config({"instances": [PLAN, entry]}, "x")
    instance = expand_config(config, lambda source: [], Selection()).instances[1]
    marked = [instance.command, *instance.pre_commands, instance.append_system_prompt, *dict(instance.env).values()]
    assert [isinstance(text, Template) for text in marked] == [False, True, False, True, True, False]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("plan", ("plan", "")),
        ("plan.files", ("plan", "files")),
        ("a.b.c", ("a.b", "c")),
        ("a.c", ("a", "c")),
        ("fix[src/a.py].file", ("fix[src/a.py]", "file")),
        ("planet", None),
    ],
)
def test_names_may_have_dots(path: str, meant: tuple[str, str] | None) -> None:
    assert result_of(path, ["plan", "a", "a.b", "fix[src/a.py]", "fix"]) == meant
