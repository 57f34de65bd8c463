"""Placeholders in texts, by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.placeholders import Placeholder, fill, is_late, placeholders


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain", ()),
        ("{{item}}", (Placeholder("item", "", "{{item}}"),)),
        ("{{ item.stem }}", (Placeholder("item", "stem", "{{ item.stem }}"),)),
        (
            "{{results.fix[src/a.py].file}}",
            (Placeholder("results", "fix[src/a.py].file", "{{results.fix[src/a.py].file}}"),),
        ),
        (r"\{{item}}", ()),
        ("{{ .Values.image }} {{-x}} {{}} {item}", ()),
        ("{{item}}{{index}}", (Placeholder("item", "", "{{item}}"), Placeholder("index", "", "{{index}}"))),
    ],
)
def test_placeholders_are_found(text: str, found: tuple[Placeholder, ...]) -> None:
    assert placeholders(text) == found


def test_a_text_is_filled_once() -> None:
    hostile = r"{{item}} \{{ $(reboot) " + "\n\\"
    assert fill("a {{item}}{{index}} b", lambda one: hostile if one.root == "item" else "7") == f"a {hostile}7 b"


def test_a_backslash_keeps_braces() -> None:
    assert fill(r"\{{item}} {{item}}", lambda one: "x") == "{{item}} x"


@pytest.mark.parametrize(
    ("text", "late"),
    [("{{item}}", False), ("{{item}} {{results.plan}}", True), (r"\{{results.plan}}", False), ("results", False)],
)
def test_a_text_with_results_is_filled_late(text: str, late: bool) -> None:
    assert is_late(text) is late
