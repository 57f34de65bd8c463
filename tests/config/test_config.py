"""Config files, settings, plans: by values; the schema against the loader in both directions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from claude_orchestrator import RunOptions
from claude_orchestrator.claude.failures import command_word
from claude_orchestrator.config import reference
from claude_orchestrator.config.config import InstanceConfig, Rehearsal, load_config, parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.fields import INSTANCE, REHEARSAL, RUN, SETTINGS
from claude_orchestrator.config.given import OPTIONS, Given, parse_limit
from claude_orchestrator.config.item_reading import ItemReader
from claude_orchestrator.config.kinds import DURATION, PERCENT
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings, merge
from claude_orchestrator.errors import UserError
from tests.cli.test_cli import BAD_CONFIGS
from tests.harness import ROOT
from token_budget import Amount, Scope, Weights
from token_budget.fields import PROFILE_FIELDS, TOKENS, USD, BadValue
from token_budget.pricing import billing_weights

SCHEMA = json.loads((ROOT / "claude_orchestrator" / "config" / "config.schema.json").read_text())
# what only a terminal needs, or what the API has in another form
NOT_IN_THE_API = {
    *("config", "dry_run", "disable_budget_visuals", "status_report_interval", "quiet", "log_level"),
    *("verbose", "max_console_lines", "max_line_length", "output_format", "budget_parameter_type"),
    *("init", "graph", "print_results", "results", "report", "junit", "list_commands", "inspect_command"),
    *("columns", "apply", "only", "dashboard", "dashboard_host", "dashboard_token_file", "dashboard_read_only", "html"),
    *("summary", "otlp"),
}
FULL: dict[str, Any] = {
    "$schema": "x",
    "// note": "a comment",
    "instances": [
        {
            "name": "one",
            "command": "/test",
            "// why": "another",
            "description": "d",
            "allowed_tools": ["Read"],
            "disallowed_tools": ["Bash"],
            "permission_mode": "plan",
            "model": "opus",
            "session_id": "0f0e0d0c-0000-4000-8000-000000000001",
            "clear_history": True,
            "compact_history": False,
            "pre_commands": ["/prime"],
            "max_tokens_per_command": 5000,
            "cwd": "sub",
            "env": {"A": "b"},
            "timeout_s": 1.5,
            "append_system_prompt": "be kind",
            "mcp_config": ["a.json"],
            "worktree": "tree",
            "extra_args": ["--max-turns", "3"],
            "output_format": "stream-json",
            "rehearsal": {"turns": 2, "tokens": 10, "seconds": 0.5, "seed": 1},
        },
        {"prompt": "hello", "model": None},
    ],
    "budget": {
        "overall_budget": 10_000,
        "command_budgets": {"/test": 100},
        "enforcement_mode": "block",
        "disable_visuals": True,
        "token_weights": {"output": 5},
    },
    "rehearsal": {"seconds": 2},
}


def test_every_key_arrives() -> None:
    config = parse_config(FULL, "x")
    one, two = config.instances
    assert one.name == "one" and one.env == (("A", "b"),) and one.timeout_s == 1.5 and one.worktree == "tree"
    assert one.rehearsal == Rehearsal(2, 10, 0.5, 1) and config.rehearsal == Rehearsal(seconds=2.0)
    assert two == InstanceConfig("prompt", "hello")
    assert config.budget == {
        "overall_token_budget": 10_000,
        "command_budgets": {"/test": 100},
        "budget_enforcement_mode": "block",
        "disable_budget_visuals": True,
        "token_weights": Weights.parse("output=5"),
    }


def test_names_are_made_where_there_are_none() -> None:
    config = parse_config(
        {"instances": [{"prompt": "hi"}, {"prompt": "ho"}, {"name": "prompt #2", "prompt": "x"}, {"command": "/a b"}]},
        "x",
    )
    assert [instance.name for instance in config.instances] == ["prompt", "prompt #3", "prompt #2", "/a"]


def test_command_counts_before_prompt_with_a_warning() -> None:
    config = parse_config({"instances": [{"command": "/a", "prompt": "b"}]}, "x.json")
    assert config.instances[0].command == "/a"
    assert config.warnings == ("x.json: instances[0]: it has both command and prompt: the command is used",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "too deeply nested"),
        (b'{"instances": ' + b"9" * 5000 + b"}", "invalid JSON"),
        (b"", "line 1 column 1"),
    ],
)
def test_unreadable_files(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b'\xef\xbb\xbf{"instances": [{"prompt": "x"}]}')
    assert load_config(path).instances[0].command == "x"


# -- the schema --


def test_the_schema_takes_what_the_loader_takes() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(FULL, SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    config = load_config(path)
    data = json.loads(path.read_text())
    jsonschema.validate(data, SCHEMA)
    assert (path.parent / data["$schema"]).resolve() == ROOT / "claude_orchestrator" / "config" / "config.schema.json"
    expanded = expand_config(config, ItemReader(ROOT).read, Selection())
    assert make_plan(expanded, merge({}, config.budget, "x"), workspace="/", claude_bin="claude").warnings == ()


# what a schema cannot say
BEYOND_SCHEMA = {"not json", "duplicate names", "duplicate key", "missing folder", "own option", "unknown weights"} | {
    "placeholder without items",
    "the same item twice",
    "the name of an item",
    "NUL in an item",
    "two sources",
}


@pytest.mark.parametrize("name", sorted(set(BAD_CONFIGS) - BEYOND_SCHEMA))
def test_the_schema_refuses_what_the_loader_refuses(name: str) -> None:
    data, _ = BAD_CONFIGS[name]
    with pytest.raises(UserError):
        parse_config(data, "x")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_the_table_names_what_instances_and_settings_have() -> None:
    keys = {setting.name for setting in INSTANCE} | {"check", "rehearsal"}
    by_for_each, for_sessions = {"group", "item", "item_index", "race_of"}, {"new_session_id", "session_file"}
    made = by_for_each | for_sessions
    assert keys == set(InstanceConfig._fields) - made | {"prompt", "output_format"}
    assert {setting.name for setting in REHEARSAL} == set(Rehearsal._fields)
    assert {setting.name for setting in RUN} | {"origins"} == set(Settings._fields)
    assert {setting.budget for setting in SETTINGS if setting.profile} == {field.key for field in PROFILE_FIELDS}


def test_what_is_generated_is_committed() -> None:
    assert reference.schema() == SCHEMA, "python -m claude_orchestrator.config.reference schema"
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == reference.options_page(), "python -m claude_orchestrator.config.reference options"


def test_every_option_of_a_run_is_an_argument() -> None:
    """`RunOptions` is written out, because type checkers cannot read the table."""
    assert set(RunOptions.__annotations__) == set(OPTIONS) - NOT_IN_THE_API


# -- settings and plans --


def test_option_over_environment_over_file_over_default() -> None:
    budget = {"overall_token_budget": 1, "command_budgets": {"/a": 1, "/b": 1}, "budget_enforcement_mode": "block"}
    given = {
        "overall_token_budget": Given(2, "option"),
        "command_budgets": Given(("/b=3", "/c=x=4"), "environment"),
        "token_weights": Given("billing", "option"),
    }
    settings = merge(given, budget, "file.json")
    assert settings.overall_token_budget == 2 and settings.budget_enforcement_mode == "block"
    assert settings.command_budgets == (("/a", 1), ("/b", 3), ("/c=x", 4))
    assert settings.token_weights == billing_weights() and settings.max_parallel == 8
    assert settings.origins["overall_token_budget"] == "option"
    assert settings.origins["budget_enforcement_mode"] == "file.json"
    assert settings.origins["command_budgets[/a]"] == "file.json"
    assert settings.origins["command_budgets[/b]"] == "environment"
    assert settings.origins["max_parallel"] == "default"


def test_command_budget_texts() -> None:
    assert parse_limit(" /test = 1000 ", TOKENS) == ("/test", 1000)
    assert parse_limit("a=b=5", TOKENS) == ("a=b", 5)
    assert parse_limit("/test=20k", TOKENS) == ("/test", 20_000)
    assert parse_limit("/test=$1.50", USD) == ("/test", 1_500_000_000)
    for bad in ("", "/test", "=5", "/test=", "/test=-1", "/test=1e3", "/test=0", "/test=²"):
        with pytest.raises(UserError, match=r"^--command-budget: "):
            merge({"command_budgets": Given((bad,), "option")}, {}, "x")


def test_the_base_command_is_the_first_word() -> None:
    assert command_word("/test --real-services --category unit") == "/test"
    assert command_word("/git:sync\nnow") == "/git:sync" and command_word("please /test") is None


def plan_of(settings: Settings, *instances: dict[str, Any]) -> Any:
    return make_plan(parse_config({"instances": list(instances)}, "x"), settings, workspace="/w", claude_bin="claude")


def test_which_budget_a_key_means() -> None:
    settings = Settings(command_budgets=(("/test", 1), ("deploy", 2), ("runner", 3), ("tset", 4)))
    instances = ({"name": "runner", "command": "/test"}, {"name": "x", "command": "/deploy"})
    plan = plan_of(settings, *instances)
    assert [(budget.scope, budget.key, budget.limit) for budget in plan.budgets] == [
        (Scope.COMMAND, "/test", 1),
        (Scope.COMMAND, "/deploy", 2),
        (Scope.INSTANCE, "runner", 3),
        (Scope.COMMAND, "tset", 4),
    ]
    assert plan.warnings == ("the budget tset=4 matches nothing in the plan; nearest: /test",)
    manager = make_manager(plan, settings)
    assert [budget.limit for budget in manager.budgets_for("/test", "runner")] == [1, 3]


def test_a_group_has_a_budget_for_all_its_instances() -> None:
    config = parse_config(
        {
            "instances": [
                {"name": "fix", "prompt": "{{item}}", "for_each": ["a", "b"], "max_tokens_per_command": 9},
                {"name": "n-{{index}}", "command": "/test {{item}}", "for_each": ["a"]},
                {"name": "other", "command": "/fix"},
            ]
        },
        "x",
    )
    limits = (("fix", 1), ("fix[b]", 2), ("/fix", 3), ("other", 4), ("/test", 5), ("fix[c]", 6), ("fixx", 7))
    settings = Settings(command_budgets=limits, command_cost_budgets=(("fix", 8),))
    expanded = expand_config(config, lambda source: source.items, Selection())  # type: ignore[union-attr]
    plan = make_plan(expanded, settings, workspace="/w", claude_bin="claude")
    assert [(str(budget.scope), budget.key, budget.limit) for budget in plan.budgets] == [
        ("group", "fix", 1),
        ("instance", "fix[b]", 2),
        ("command", "/fix", 3),
        ("instance", "other", 4),
        ("command", "/test", 5),
        ("command", "fix[c]", 6),
        ("command", "fixx", 7),
        ("instance", "fix[a]", 9),
        ("group", "fix", 8),
    ]
    assert plan.warnings == (
        "the budget fix[c]=6 matches nothing in the plan; nearest: fix[b], fix[a], fix",
        "the budget fixx=7 matches nothing in the plan; nearest: fix, /fix",
    )
    manager = make_manager(plan, settings)
    labels = [budget.label for budget in manager.budgets_for(None, "fix[b]")]
    assert labels == ["group fix", "instance fix[b]", "group fix cost"]


def test_worktrees_and_defaults() -> None:
    plan = plan_of(
        Settings(timeout_s=9), {"prompt": "x", "worktree": True}, {"prompt": "y", "cwd": "/abs", "timeout_s": 1}
    )
    assert plan.specs[0].worktree is True and plan.specs[0].timeout_s == 9 and plan.specs[0].cwd == "/w"
    assert plan.specs[1].cwd == "/abs" and plan.specs[1].timeout_s == 1 and plan.specs[1].estimate == Amount(1000)
    assert not any("permission" in arg for arg in plan.specs[0].argv)


# -- what people type, in every place --


def instance_with(**keys: Any) -> InstanceConfig:
    return parse_config({"instances": [{"prompt": "x", **keys}]}, "x").instances[0]


def test_a_config_takes_what_people_write() -> None:
    budget = {"overall_budget": "50k", "daily_cost_budget": "$2.50", "command_budgets": {"/a": "1.5M"}}
    data = {"instances": [{"prompt": "x", "timeout_s": "5m", "max_tokens_per_command": "20k"}], "budget": budget}
    config = parse_config(data, "x")
    assert config.instances[0].timeout_s == 300 and config.instances[0].max_tokens_per_command == 20_000
    assert config.budget["overall_token_budget"] == 50_000 and config.budget["daily_cost_budget"] == 2_500_000_000
    assert config.budget["command_budgets"] == {"/a": 1_500_000}
    jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("0.5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.read(text) == seconds
    jsonschema.validate(text, DURATION.schema)


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "0", "-5", "5x", "m", "1.2.3s", "5m5h", "31d", "1e3", 0, True, 2_592_001]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(BadValue, match=r"^expected a (positive number of seconds|duration of at most 30 days)"):
        DURATION.read(text)


@pytest.mark.parametrize(("typed", "percent"), [("90", 90), ("90%", 90), (12.5, 12.5), ("100 %", 100)])
def test_percentages(typed: object, percent: float) -> None:
    assert PERCENT.read(typed) == percent


@pytest.mark.parametrize("typed", ["20%=haiku", "20 = haiku", {"below": "20%", "model": "haiku"}])
def test_a_model_when_little_is_left(typed: object) -> None:
    config = parse_config({"instances": [{"prompt": "x"}], "budget": {"model_when_low": typed}}, "x")
    settings = merge({}, config.budget, "x")
    assert settings.model_when_low == (20.0, "haiku")
    assert ("model_when_low", "20%=haiku", "x") in settings.rows()


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("haiku", "expected a percentage and a model such as 20%=haiku"),
        ("0=haiku", "expected a percentage above 0"),
        ("20=", "expected one line of text, not empty"),
        ({"below": 20}, "it has no model"),
        ({"below": 20, "model": "haiku", "above": 1}, "unknown key"),
    ],
)
def test_what_is_no_model_when_little_is_left(typed: object, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse_config({"instances": [{"prompt": "x"}], "budget": {"model_when_low": typed}}, "x")


@pytest.mark.parametrize(
    ("typed", "wait_s"), [({}, 10.0), ({"share_cache_wait": "2s"}, 2.0), ({"share_cache": "off"}, 0.0)]
)
def test_how_long_one_waits_for_the_prompt_cache(typed: dict[str, object], wait_s: float) -> None:
    config = parse_config({"instances": [{"prompt": "x"}], "budget": typed}, "x")
    assert merge({}, config.budget, "x").cache_wait_s == wait_s


def test_worktrees_leave_their_folders_out_where_several_share_a_prompt() -> None:
    own = {"prompt": "x", "worktree": True}
    system = ["--system-prompt", "Mine."]
    entries = [own, own, {**own, "model": "haiku"}, {**own, "extra_args": system}, {"prompt": "x"}]
    config = parse_config({"instances": entries}, "x")
    for share, free in (("auto", [True, True, False, False, False]), ("off", [False] * 5)):
        settings = merge({"share_cache": Given(share, "option")}, {}, "x")
        made = make_plan(config, settings, workspace="/w", claude_bin="claude")
        assert [spec.folder_free for spec in made.specs] == free


def test_all_faults_of_options_name_where_they_were_given() -> None:
    given = {
        "timeout_s": Given("nan", "option"),
        "max_parallel": Given("none", "environment"),
        "command_budgets": Given(("/a=0", "/b=1", "=5"), "option"),
    }
    with pytest.raises(UserError) as error:
        merge(given, {}, "x")
    assert [line.partition(":")[0] for line in error.value.lines] == [
        "--command-budget",
        "--command-budget",
        "CLAUDE_ORCHESTRATOR_MAX_PARALLEL",
        "--timeout",
    ]


def test_adjust_is_the_older_name_of_hold_policy() -> None:
    for key in ("adjust", "hold_policy"):
        config = parse_config({"instances": [{"prompt": "x"}], "budget": {key: "fair"}}, "x")
        assert merge({}, config.budget, "x").hold_policy == "fair"
    assert merge({}, {}, "x", {"adjust": Given("off", "run 1")}).hold_policy == "off"
    both = {"instances": [{"prompt": "x"}], "budget": {"adjust": "fair", "hold_policy": "off"}}
    with pytest.raises(UserError, match=r"budget.hold_policy: is another name of hold_policy"):
        parse_config(both, "x")


def test_a_suggestion_is_made_once() -> None:
    plan = plan_of(Settings(command_budgets=(("/tset", 500),)), {"name": "/test", "command": "/test"})
    assert plan.warnings == ("the budget /tset=500 matches nothing in the plan; nearest: /test",)


def test_suggestions_are_near_or_none() -> None:
    instances = tuple({"name": f"q{number}", "command": "/test"} for number in range(9))
    plan = plan_of(Settings(command_budgets=(("/tset", 500), ("nothing-like-it", 5))), *instances)
    assert plan.warnings == (
        "the budget /tset=500 matches nothing in the plan; nearest: /test",
        "the budget nothing-like-it=5 matches nothing in the plan",
    )


def test_a_key_that_holds_two_is_refused() -> None:
    settings = merge({"command_budgets": Given(("/a=5,/b=6",), "option")}, {}, "x")
    with pytest.raises(UserError, match='budget for "/a=5,/b": no command, group or instance has this name'):
        plan_of(settings, {"command": "/a"})
    named = plan_of(Settings(command_budgets=(("a=b", 6),)), {"name": "a=b", "prompt": "x"})
    assert named.budgets[0].scope is Scope.INSTANCE


# -- what claude refuses, and what it takes --


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"session_id": "two\nlines"}, "session_id: expected one line of text without a line end"),
        ({"mcp_config": {}}, "mcp_config: expected an object with mcpServers"),
        ({"mcp_config": {"mcpServers": []}}, "mcp_config: expected an object with mcpServers"),
        ({"env": {"A=B": "c"}}, "env.A=B: no name of an environment variable"),
        ({"env": {"A,B": "c"}}, "env.A,B: no name of an environment variable"),
        ({"env": {"": "c"}}, "env.: no name of an environment variable"),
        ({"allowed_tools": ["Read", "Bash()"]}, "allowed_tools[1]: expected a tool such as Read"),
        ({"allowed_tools": ["(git log)"]}, "allowed_tools[0]: expected a tool such as Read"),
        ({"disallowed_tools": [","]}, "disallowed_tools[0]: expected a tool such as Read"),
        ({"name": "a\x07b"}, "name: expected one line of text without a control character (U+0007)"),
        ({"name": "a\u2028b"}, "name: expected one line of text without a line end (U+2028)"),
    ],
)
def test_what_claude_refuses_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        instance_with(**keys)
    assert str(error.value).startswith(f"x: instances[0].{message}")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"instances": [{"prompt": "x", **keys}]}, SCHEMA)


@pytest.mark.parametrize("name", ["テスト\u3000実行", "unit\u00a0tests", "می\u200cخواهم", "👩\u200d💻 review"])
def test_names_in_any_script(name: str) -> None:
    keys = {"name": name, "allowed_tools": [f"Bash(echo '{name}')"]}
    assert instance_with(**keys).name == name
    jsonschema.validate({"instances": [{"prompt": "x", **keys}]}, SCHEMA)


# -- files --


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"instances": [{"prompt": "x"},]}', "line 1 column 32: invalid JSON: an extra comma"),
        ("c.json", '{"instances": [{"prompt": "x",}]}', "invalid JSON: an extra comma before '}'"),
        ("c.yaml", "instances:\n- prompt: x\n", "invalid JSON: this file has to be JSON"),
        ("c.json", "instances:\n- prompt: x\n", "invalid JSON: this file has to be JSON"),
        ("c.json", '{"instances": [] // none\n}', "JSON has no comments: use a key that begins with //"),
        ("c.json", '{\n# none\n"instances": []}', "line 2 column 1: invalid JSON: JSON has no comments"),
    ],
)
def test_likely_mistakes_in_a_file_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        load_config(tmp_path / name)
    assert message in str(error.value) and len(error.value.lines) == 1


def test_pipes_devices_and_huge_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    for path, reason in (
        ("pipe", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("huge", "is larger"),
    ):
        with pytest.raises(UserError, match=reason):
            load_config(tmp_path / path)
