"""Answers in the form of a JSON Schema: checked before the start, taken from the real CLI, rehearsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.json_schema import as_argument
from claude_orchestrator.engine.run_events import Answered, RunEvent
from claude_orchestrator.engine.state import State
from claude_orchestrator.launch.sample_output import sample_of
from tests.harness import Workplace, run_real
from tests.stand_in import Call, Reply, StandIn, Text, Tools
from token_budget.fields import BadValue

FILES = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string"}}, "count": {"$ref": "#/$defs/count"}},
    "required": ["files"],
    "$defs": {"count": {"type": "integer", "minimum": 3}},
}


def answering(value: object) -> Tools:
    return Tools((Call("StructuredOutput", {"files": value}),))


@pytest.mark.parametrize(
    ("schema", "path", "why"),
    [
        ([], "", "expected a JSON Schema"),
        ({"type": "objekt"}, ".type", "expected one of array"),
        ({"type": "array"}, ".type", "the answer has to be an object"),
        ({"properties": []}, ".properties", "expected an object of schemas"),
        ({"properties": {"a": 3}}, ".properties.a", "expected a schema"),
        ({"properties": {"a": {"zz": 1}}}, ".properties.a.zz", "is no keyword"),
        ({"anyOf": []}, ".anyOf", "expected a list of schemas"),
        ({"anyOf": [{"minLength": -1}]}, ".anyOf[0].minLength", "a whole number from 0"),
        ({"required": "a"}, ".required", "expected a list of names"),
        ({"properties": {"a": {"pattern": "("}}}, ".properties.a.pattern", "no regular expression"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, ".properties.a.$ref", "names nothing"),
        ({"$schema": "https://example.com/"}, ".$schema", "expected http://json-schema.org/draft-07/schema#"),
        ({"description": "x" * 200_000}, "", "is too large"),
    ],
)
def test_what_is_no_schema(schema: object, path: str, why: str) -> None:
    with pytest.raises(BadValue) as caught:
        as_argument(schema)
    assert caught.value.faults[0][0] == path and why in caught.value.faults[0][1]


def test_a_schema_is_passed_on_without_its_draft() -> None:
    assert json.loads(as_argument({"$schema": "https://json-schema.org/draft/2020-12/schema", **FILES})) == FILES
    assert as_argument({}) == "{}"


def test_a_sample_has_the_form() -> None:
    assert sample_of(json.dumps(FILES)) == {"files": ["rehearsed-1", "rehearsed-2"], "count": 3}
    parts = {"a": {"enum": ["x"]}, "b": {"anyOf": [{"type": "boolean"}]}, "c": {"type": "null"}, "d": True}
    numbers = {"e": {"type": "number", "exclusiveMinimum": 4}, "f": {"type": "string", "maxLength": 3}}
    sample = sample_of(json.dumps({"properties": {**parts, **numbers}}))
    assert sample == {"a": "x", "b": True, "c": None, "d": None, "e": 5, "f": "reh"}
    endless = {"properties": {"self": {"$ref": "#"}}}
    assert str(sample_of(json.dumps(endless))).startswith("{'self': {'self'")


# -- through the program --


def test_rehearsed_structured_output(place: Workplace) -> None:
    (place.workspace / "form.json").write_text(json.dumps(FILES))
    config = {
        "instances": [
            {"name": "a", "prompt": "Say hi\nto all", "pre_commands": ["/clear", "before"]},
            {"name": "b", "prompt": "x", "json_schema": FILES},
            {"name": "c", "prompt": "y", "json_schema": "form.json"},
        ],
        "rehearsal": {"seconds": 0.01},
    }
    done = place.run("--config", place.config(config), "--rehearse", "--report", "-")
    a, b, c = json.loads(done.stdout)["instances"]
    assert a["result"] == "Rehearsed: Say hi" and a["turn_results"] == ["Rehearsed: before"]
    assert b["structured_output"] == c["structured_output"] == {"files": ["rehearsed-1", "rehearsed-2"], "count": 3}
    assert json.loads(Path(c["result_file"]).with_suffix(".json").read_text()) == c["structured_output"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "line 1 column 2: invalid JSON: "),
        ('{"type": 3}', "type: expected one of "),
        ("[]", "expected a JSON Schema"),
    ],
)
def test_schema_files_that_are_none(place: Workplace, content: str | None, why: str) -> None:
    if content is not None:
        (place.workspace / "form.json").write_text(content)
    entry = {"name": "a", "prompt": "x", "json_schema": "form.json"}
    done = place.run("--config", place.config({"instances": [entry]}), "--dry-run")
    assert done.returncode == 2
    assert f"runs.json: instances[0].json_schema: form.json: {why}" in done.stderr, done.stderr


def test_a_schema_that_is_none_in_a_config_and_as_an_option(place: Workplace) -> None:
    entry = {"name": "a", "prompt": "x", "json_schema": {"properties": {"a": {"type": "x"}}}}
    done = place.run("--config", place.config({"instances": [entry]}), "--dry-run")
    assert done.returncode == 2 and "instances[0].json_schema.properties.a.type: expected one of " in done.stderr
    done = place.run("hi", "--json-schema", '{"type": 1}', "--dry-run")
    assert done.returncode == 2 and done.stderr.startswith("ERROR: --json-schema: type: expected one of ")


def test_without_structured_output_an_instance_has_failed(place: Workplace) -> None:
    entry = {"name": "a", "prompt": "x", "json_schema": FILES, "pre_commands": ["y"]}
    done = place.run("--config", place.config({"instances": [entry]}), "--report", "report.json")
    (a,) = place.report()["instances"]
    assert done.returncode == 1 and a["status"] == "failed" and a["reason"].startswith("no structured output: ")
    assert a["result"] == "done" and a["turn_results"] == ["done"]


# -- the real CLI --


@pytest.mark.slow
@pytest.mark.real_cli
def test_the_real_cli_answers_in_the_form(claude: str, tmp_path: Path) -> None:
    script: dict[str, list[Reply]] = {
        "good-one": [Text("One moment."), answering(["a.py"])],
        "mended": [answering(3), answering(["b.py"])],
        "never-right": [answering(3)] * 12,
        "no-form": [Text("No.")] * 12,
        "free": [Text("x" * 1_000_000)],
    }
    names = ("good-one", "mended", "never-right", "no-form")
    instances: list[dict[str, Any]] = [{"name": name, "prompt": name, "json_schema": FILES} for name in names]
    seen: dict[str, Answered] = {}

    def see(event: RunEvent) -> None:
        if isinstance(event, Answered):
            seen[event.instance] = event

    with StandIn(script) as api:
        config = {"instances": [*instances, {"name": "free", "prompt": "free"}]}
        outcome = run_real(config, api, claude, tmp_path, on_event=see)
    good, mended, wrong, none, free = outcome.instances
    assert good.state is mended.state is free.state is State.COMPLETED, [status.reason for status in outcome.instances]
    assert seen["good-one"].structured_output == {"files": ["a.py"]} == json.loads(seen["good-one"].text)
    assert seen["mended"].structured_output == {"files": ["b.py"]}
    assert wrong.state is State.FAILED and "Failed to provide valid structured output" in wrong.reason
    assert none.state is State.FAILED and none.reason.startswith("no structured output: ")
    assert len(seen["free"].text) == 1_000_000 and "never-right" not in seen
