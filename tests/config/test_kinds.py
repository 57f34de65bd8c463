"""What each kind of setting accepts and how it refuses the rest; and where a setting's value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config import compound_kinds, instance_kinds, kinds
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.given import Given
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings, merge
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue, Kind
from token_budget.usage.profiles import Profile

SERVERS = {"mcpServers": {"files": {"command": "files"}}}
SESSION = "01234567-89ab-cdef-0123-456789abcdef"
COLORS = compound_kinds.names_of({"red": 1, "blue": 2})


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (kinds.FLAG, True, True),
        (kinds.INTEGER, -3, -3),
        (kinds.SEED, "007", 7),
        (kinds.PORT, True, 0),
        (kinds.PORT, False, None),
        (kinds.PORT, " 8080 ", 8080),
        (kinds.PORT, 65_535, 65_535),
        (kinds.DURATION, "1h30m", 5_400.0),
        (kinds.DURATION, 2, 2.0),
        (kinds.DELAY, 0, 0.0),
        (kinds.PERCENT, "90 %", 90.0),
        (kinds.PERCENT, 12.5, 12.5),
        (kinds.MARGIN, "5%", 5.0),
        (kinds.MARGIN, 0, 0.0),
        (kinds.COMMAND_LINE, " make test ", "make test"),
        (kinds.COMMAND_LINE, "pytest {{item}}", "pytest {{item}}"),
        (COLORS, "Blue, red,blue", ("blue", "red")),
        (kinds.WORDS, " /test ", "/test"),
        (kinds.FILE, "a/b", Path("a/b")),
        (kinds.SESSION, f" {SESSION} ", SESSION),
        (kinds.TOOL, "Bash(git log:*)", "Bash(git log:*)"),
        (instance_kinds.TOOLS, "Read, Bash(git log, git diff)", ("Read", "Bash(git log, git diff)")),
        (instance_kinds.TOOLS, ["Read", "Edit"], ("Read", "Edit")),
        (instance_kinds.MODEL_WHEN_LOW, "20%= haiku", instance_kinds.ModelWhenLow(20, "haiku")),
        (instance_kinds.MODEL_WHEN_LOW, {"below": 12.5, "model": "haiku"}, instance_kinds.ModelWhenLow(12.5, "haiku")),
        (compound_kinds.list_of(kinds.LINE), ["a", "b"], ("a", "b")),
        (instance_kinds.ENV, {"A": "1", "//": "a comment"}, (("A", "1"),)),
        (instance_kinds.WANTS, {"gpu": 1, "//": "a comment"}, (("gpu", 1.0),)),
        (instance_kinds.PER_NODE, "auto", 0),
        (instance_kinds.PER_NODE, "8", 8),
        (instance_kinds.MCP, "servers.json", ("servers.json",)),
        (instance_kinds.MCP, ["a.json", "b.json"], ("a.json", "b.json")),
        (instance_kinds.MCP, SERVERS, (json.dumps(SERVERS),)),
        (instance_kinds.WORKTREE, False, False),
        (instance_kinds.WORKTREE, "feature", "feature"),
        (instance_kinds.EXTRA_ARGS, ["--verbose-hooks"], ("--verbose-hooks",)),
    ],
)
def test_accepted(kind: Kind, given: object, value: object) -> None:
    assert kind.read(given) == value


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        (kinds.FLAG, 1, "expected true or false"),
        (kinds.INTEGER, True, "expected a whole number"),
        (kinds.INTEGER, 1.5, "expected a whole number"),
        (kinds.DURATION, 0, "expected a positive number of seconds, or a duration such as 90s, 5m or 2h"),
        (kinds.DURATION, "1.2.3", "expected a positive number of seconds"),
        (kinds.DURATION, "1.2.3h", "expected a positive number of seconds"),
        (kinds.DURATION, "soon", "expected a positive number of seconds"),
        (kinds.DURATION, "31d", "at most 30 days"),
        (kinds.PERCENT, "0", "expected a percentage above 0 and up to 100"),
        (kinds.PERCENT, "many", "expected a percentage"),
        (kinds.SEED, -1, "expected a whole number such as 1"),
        (kinds.SEED, 1.5, "expected a whole number such as 1"),
        (kinds.PORT, 65_536, "expected a port from 1 to 65535, or 0 for any free one"),
        (kinds.PORT, "http", "expected a port"),
        (kinds.PORT, 80.5, "expected a port"),
        (kinds.MARGIN, 51, "expected a percentage from 0 to 50, such as 5%"),
        (kinds.MARGIN, True, "expected a percentage from 0 to 50"),
        (kinds.COMMAND_LINE, " ", "is empty: expected a shell command"),
        (kinds.COMMAND_LINE, "pytest '{{item}}'", "{{item}} has to stand outside of quotes"),
        (COLORS, "red,bleu", "\"bleu\" is unknown; did you mean 'blue'?: expected some of red, blue"),
        (COLORS, 5, "expected some of red, blue"),
        (kinds.TEXT, 5, "expected a string"),
        (kinds.TEXT, "a\0b", "a NUL or half a surrogate pair cannot be passed to claude"),
        (kinds.LINE, "  ", "expected one line of text, not empty"),
        (kinds.LINE, "a\nb", "expected one line of text without"),
        (kinds.WORDS, "  ", "is empty: expected a slash command or a prompt"),
        (kinds.FILE, "", "is empty: expected a path"),
        (kinds.SESSION, " ", "expected one line of text, not empty"),
        (kinds.TOOL, "Bash()", "expected a tool such as Read"),
        (kinds.TOOL, "(x)", "expected a tool such as Read"),
        (instance_kinds.MODEL_WHEN_LOW, "haiku", "expected a percentage and a model such as 20%=haiku"),
        (instance_kinds.MODEL_WHEN_LOW, {}, "it has no below and no model"),
        (instance_kinds.MODEL_WHEN_LOW, {"below": 20}, "it has no model"),
        (compound_kinds.list_of(kinds.LINE), "a", "expected a list of strings"),
        (instance_kinds.ENV, [], "expected an object of strings"),
        (instance_kinds.ENV, {"A B": "1"}, "no name of an environment variable"),
        (instance_kinds.WANTS, "gpu", "expected an object of resources"),
        (instance_kinds.WANTS, {"gpu": True}, "expected a positive number, got true"),
        (instance_kinds.PER_NODE, 0, "auto, or a whole number from 1 to 10000"),
        (instance_kinds.PER_NODE, "many", "auto, or a whole number from 1 to 10000"),
        (instance_kinds.MCP, {"servers": {}}, "expected an object with mcpServers"),
        (instance_kinds.MCP, 5, "expected a file, a list of files or an object"),
        (instance_kinds.WORKTREE, 5, "expected true, false or a name"),
        (instance_kinds.EXTRA_ARGS, ["--print"], "is set by the orchestrator itself"),
    ],
)
def test_refused(kind: Kind, given: object, why: str) -> None:
    with pytest.raises(BadValue) as error:
        kind.read(given)
    ((_, reason),) = error.value.faults
    assert why in reason


@pytest.mark.parametrize(("text", "is_one"), [(SESSION, True), (f" {SESSION.upper()} ", True), ("my session", False)])
def test_an_id_of_a_session_differs_from_a_name(text: str, is_one: bool) -> None:
    assert kinds.is_session_id(text) is is_one


def test_an_object_names_all_its_faults_and_the_nearest_key() -> None:
    with pytest.raises(BadValue) as error:
        compound_kinds.read_object(
            {"colour": 1, "wheels": "x", "//": "a comment"}, {"color": kinds.TEXT, "wheels": kinds.FLAG}
        )
    assert [place for place, _ in error.value.faults] == [".wheels", ".colour"]
    assert error.value.faults[1][1] == "unknown key; did you mean 'color'?"
    with pytest.raises(BadValue, match="known keys: color"):
        compound_kinds.read_object({"xyz": 1}, {"color": kinds.TEXT})
    with pytest.raises(BadValue, match="expected an object"):
        compound_kinds.read_object([], {})


def argv_of(**fields: Any) -> tuple[str, ...]:
    config = parse_config({"instances": [{"command": "/test", **fields}]}, "test")
    return make_plan(config, Settings(), workspace="/", claude_bin="claude").specs[0].argv


@pytest.mark.parametrize(
    ("fields", "args"),
    [
        ({"worktree": True, "base": "main"}, []),  # git makes it
        ({"mcp_config": ["a.json", "b.json"]}, ["--mcp-config=a.json", "--mcp-config=b.json"]),
        ({"mcp_config": SERVERS}, []),  # it may hold secrets, and goes by file
        ({"allowed_tools": ["Read", "Edit"], "extra_args": ["-x"]}, ["--allowedTools=Read,Edit", "-x"]),
    ],
)
def test_an_instances_options_become_arguments(fields: dict[str, Any], args: list[str]) -> None:
    assert set(argv_of(**fields)) - set(argv_of()) == set(args)


def test_an_option_overrides_a_profile_which_overrides_the_config() -> None:
    profile = Profile(
        "big",
        {"overall_token_budget": 200, "command_budgets": {"/a": 20, "/b": 21}},
        {
            "overall_token_budget": "profile big",
            "command_budgets[/a]": "profile big",
            "command_budgets[/b]": "profile base",
        },
    )
    budget = {"overall_token_budget": 100, "command_budgets": {"/a": 10, "/c": 11}}
    settings = merge({"command_budgets": Given(["/b=31"], "option")}, budget, "runs.json", profile=profile)
    assert dict(settings.command_budgets) == {"/a": 20, "/b": 31, "/c": 11}
    assert settings.origins["command_budgets[/a]"] == "profile big"
    assert settings.origins["command_budgets[/b]"] == "option"
    assert settings.origins["command_budgets[/c]"] == "runs.json"


def test_a_resumed_run_keeps_what_it_was_given_before() -> None:
    before = {"max_parallel": Given(3, "an earlier run"), "retries": Given(2, "an earlier run")}
    settings = merge({"retries": Given(5, "option")}, {}, "runs.json", before)
    assert (settings.max_parallel, settings.retries) == (3, 5)


def test_every_bad_value_is_named_after_where_it_came_from() -> None:
    given = {
        "max_parallel": Given("many", "environment"),
        "command_budgets": Given(["/a", "=5", "/b=x"], "option"),
    }
    with pytest.raises(UserError) as error:
        merge(given, {}, "runs.json")
    lines = error.value.lines
    assert len(lines) == 4 and sum(text.startswith("--command-budget") for text in lines) == 3
    assert any("expected KEY=N such as /test=50k" in text for text in lines)
    assert any("the command before '=' is empty" in text for text in lines)


def test_a_schema_is_an_object_its_text_or_a_file() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    as_text = instance_kinds.SCHEMA.read(schema)
    assert json.loads(as_text) == schema and json.loads(instance_kinds.SCHEMA.read(json.dumps(schema))) == schema
    assert instance_kinds.SCHEMA.read("schemas/answer.json") == "schemas/answer.json"
    for bad in ('{"type": ', {"type": "nonsense"}, 5):
        with pytest.raises(BadValue):
            instance_kinds.SCHEMA.read(bad)
