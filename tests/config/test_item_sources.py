"""What `for_each` may be, by values."""

from __future__ import annotations

import jsonschema
import pytest

from claude_orchestrator.config.item_sources import FOR_EACH, Glob, InlineItems, ItemFile
from token_budget.fields import BadValue


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (["a", 7, {"k": "v"}], InlineItems(("a", "7", {"k": "v"}))),
        ({"glob": "./src/*.py"}, Glob(("src/*.py",))),
        ({"glob": ["a", "b"], "exclude": "c", "// why": 1}, Glob(("a", "b"), ("c",))),
        ({"lines": "-"}, ItemFile("lines", "-")),
        ({"csv": "a.csv"}, ItemFile("csv", "a.csv")),
        ({"matrix": {"a": ["x"]}}, InlineItems(({"a": "x"},))),
    ],
)
def test_sources(value: object, source: object) -> None:
    assert FOR_EACH.read(value) == source
    jsonschema.validate(value, dict(FOR_EACH.schema))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("*.py", ": expected a list of items, or an object with"),
        ([], ": expected at least one item, got an empty list"),
        (["a", None], "[1]: expected a text or an object, got null"),
        ({"glob": []}, ".glob: expected at least one pattern, got an empty list"),
        ({"glob": "/etc/*"}, ".glob[0]: expected a pattern of files in the workspace"),
        ({"glob": "a/../../b"}, ".glob[0]: expected a pattern of files in the workspace"),
        ({"glob": ""}, ".glob[0]: expected one line of text"),
        ({"lines": 3}, ".lines: expected a string, got 3"),
        ({"lines": "x", "exclude": "y"}, ".exclude: only with glob"),
        ({"exclude": "y"}, ": expected one of glob, lines, jsonl, csv, matrix"),
        ({}, ": expected one of glob, lines, jsonl, csv, matrix"),
        ({"glob": "a", "csv": "b"}, ": expected one of glob, lines, jsonl, csv, matrix"),
        ({"matrix": []}, ".matrix: expected an object of lists"),
        ({"matrix": {}}, ".matrix: expected an object of lists"),
        ({"matrix": {"a": "x"}}, ".matrix.a: expected a list of at least one value"),
        ({"globs": "x"}, ".globs: unknown key; did you mean 'glob'?"),
    ],
)
def test_what_is_no_source(value: object, fault: str) -> None:
    with pytest.raises(BadValue) as error:
        FOR_EACH.read(value)
    place, why = error.value.faults[0]
    assert f"{place}: {why}".startswith(fault)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, dict(FOR_EACH.schema))
