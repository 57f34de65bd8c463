"""`--init`: what it writes, and that it never replaces anything."""

from __future__ import annotations

import json

import pytest

from claude_orchestrator.claude.commands import CommandInfo, CommandKind, CommandScope
from claude_orchestrator.cli.first_config import MAX_COMMANDS, USUAL_TOKENS, first_config, is_of_project
from claude_orchestrator.config.config import parse_config
from tests.harness import Workplace


def command(name: str, description: str = "", hint: str = "", **more: object) -> CommandInfo:
    return CommandInfo(name, description, hint, None, CommandScope.PROJECT, CommandKind.COMMAND, **more)  # type: ignore[arg-type]


def test_a_workspace_without_commands_gets_a_prompt() -> None:
    text, total = first_config((), lambda name: None)
    (entry,) = parse_config(json.loads(text), "x").instances
    assert (entry.name, entry.permission_mode, total) == ("summary", "plan", USUAL_TOKENS)


def test_each_command_gets_what_its_runs_needed() -> None:
    commands = [command("/test", 'all "tests"\n', "[kind]"), command("/git:sync")]
    text, total = first_config(commands, {"/test": 41_000}.get)
    config = parse_config(json.loads(text), "x")
    assert [(entry.name, entry.command, entry.max_tokens_per_command) for entry in config.instances] == [
        ("test", "/test", 41_000),
        ("git:sync", "/git:sync", USUAL_TOKENS),
    ]
    assert config.budget == {"overall_token_budget": total, "budget_enforcement_mode": "block"}
    assert total == 41_000 + USUAL_TOKENS


def test_of_many_commands_the_rest_is_named() -> None:
    text, _ = first_config([command(f"/c{number}") for number in range(MAX_COMMANDS + 2)], lambda name: None)
    assert len(json.loads(text)["instances"]) == MAX_COMMANDS
    assert "The workspace also has /c8, /c9." in json.loads(text)["// instances"]


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        (command("/a"), True),
        (command("/a", available=False), False),
        (CommandInfo("/a", "", "", None, CommandScope.USER, CommandKind.COMMAND), False),
        (CommandInfo("/a", "", "", None, CommandScope.BUILT_IN, CommandKind.BUILT_IN), False),
    ],
)
def test_only_the_projects_own_commands_are_taken(info: CommandInfo, wanted: bool) -> None:
    assert is_of_project(info) is wanted


@pytest.mark.slow
def test_it_is_written_once_and_runs(place: Workplace) -> None:
    folder = place.workspace / ".claude" / "commands"
    folder.mkdir(parents=True)
    (folder / "test.md").write_text("Run the tests")
    done = place.run("--init")
    path = place.workspace / "claude-orchestrator.json"
    assert done.returncode == 0 and f"Wrote {path}, with a limit of 200,000 tokens." in done.stdout
    assert place.run("--rehearse", "--quiet").returncode == 0
    before = path.read_text()
    again = place.run("--init")
    assert (again.returncode, path.read_text()) == (2, before)
    assert again.stderr == f"ERROR: --init: {path} already exists and was not changed\n"


def test_a_link_that_leads_nowhere_is_not_followed(place: Workplace) -> None:
    (place.workspace / "claude-orchestrator.json").symlink_to(place.root / "elsewhere.json")
    assert place.run("--init").returncode == 2
    assert not (place.root / "elsewhere.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(place: Workplace) -> None:
    done = place.run("--init", "--workspace", "/proc")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be written" in done.stderr
