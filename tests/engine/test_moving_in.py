"""What configs of other orchestrators need: sessions with names, and commands that may not exist."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator import Run, UserError, run
from claude_orchestrator.claude.argv import launch_argv, resume_argv
from claude_orchestrator.claude.events import COMMANDS_REQUEST, CommandsAnswer
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.config.config import Config, InstanceConfig
from claude_orchestrator.engine.command_check import CommandCheck, remembering
from claude_orchestrator.engine.sessions import with_sessions
from tests.engine.test_state import an_instance
from tests.harness import Workplace
from tests.repositories import sh
from tests.stand_in import StandIn, Text, claude_env

UUID = "0f0e0d0c-0000-4000-8000-000000000001"


def named(*sessions: str | None) -> Config:
    return Config("c", tuple(InstanceConfig(f"i{n}", "x", session_id=name) for n, name in enumerate(sessions)))


def test_ids_of_sessions_stay(tmp_path: Path) -> None:
    config = named(None, UUID)
    assert with_sessions(config, tmp_path, {}) is config


def test_a_named_session_is_begun_once_and_then_continued(tmp_path: Path) -> None:
    environ = {"CLAUDE_CONFIG_DIR": str(tmp_path / "own")}
    first = with_sessions(named("review"), tmp_path, environ)
    (entry,) = first.instances
    assert entry.session_id is None and entry.new_session_id is not None
    assert uuid.UUID(entry.new_session_id).version == 5
    assert first.warnings == (
        f'i0: the session "review" does not exist yet: this run begins it as {entry.new_session_id}',
    )
    file = tmp_path / "own" / "projects" / "-w" / f"{entry.new_session_id}.jsonl"
    file.parent.mkdir(parents=True)
    file.touch()
    again = with_sessions(named("review"), tmp_path, environ)
    assert again.instances == (entry._replace(session_id=entry.new_session_id, new_session_id=None),)
    assert again.warnings == ()


@pytest.mark.parametrize("session", ["review", UUID])
def test_with_a_worktree_the_file_of_the_session_is_continued(tmp_path: Path, session: str) -> None:
    """Each run has another worktree, and 2.1.197 finds an id only in the folder where the session began."""
    environ = {"CLAUDE_CONFIG_DIR": str(tmp_path / "own")}
    (entry,) = named(session).instances
    config = Config("c", (entry._replace(worktree=True),))
    (first,) = with_sessions(config, tmp_path, environ).instances
    session_id = first.new_session_id or first.session_id
    assert first.session_file is None and session_id is not None
    for folder, at_s in (("-old", 5), ("-new", 9), ("-other", 7)):
        file = tmp_path / "own" / "projects" / folder / f"{session_id}.jsonl"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (at_s, at_s))
    (again,) = with_sessions(config, tmp_path, environ).instances
    newest = str(tmp_path / "own" / "projects" / "-new" / f"{session_id}.jsonl")
    assert (again.session_id, again.new_session_id, again.session_file) == (session_id, None, newest)
    argv = launch_argv("claude", again)
    assert f"--resume={newest}" in argv and resume_argv(argv, session_id) == argv
    assert "--resume=another" in resume_argv(argv, "another")  # after /clear


def test_names_belong_to_a_folder(tmp_path: Path) -> None:
    ids = {with_sessions(named("a"), tmp_path / place, {}).instances[0].new_session_id for place in "xy"}
    assert len(ids) == 2


def test_the_same_folder_by_a_link_has_the_same_session(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    ids = {with_sessions(named("a"), tmp_path / way, {}).instances[0].new_session_id for way in ("real", "link")}
    assert len(ids) == 1


def test_a_relative_config_folder_is_taken_from_the_instances_own(tmp_path: Path) -> None:
    """As claude does (2.1.197, 2.1.332). It was looked for in the orchestrator's folder, and never found."""
    environ = {"CLAUDE_CONFIG_DIR": "own"}
    session = with_sessions(named("a"), tmp_path, environ).instances[0].new_session_id
    file = tmp_path / "own" / "projects" / "-w" / f"{session}.jsonl"
    file.parent.mkdir(parents=True)
    file.touch()
    assert with_sessions(named("a"), tmp_path, environ).instances[0].session_id == session


def test_two_instances_cannot_share_a_named_session(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'c: instances\[2\].session_id: instances\[0\] uses the session "a" too'):
        with_sessions(named("a", "b", "a"), tmp_path, {})


# -- commands that may not exist --


def test_commands_that_are_listed_with_their_slash() -> None:
    listed = {"commands": [{"name": "/deploy", "aliases": ["/ship"]}, {"name": "review"}]}
    data = {
        "type": "control_response",
        "response": {"subtype": "success", "response": listed, "request_id": COMMANDS_REQUEST},
    }
    (answer,) = parse(json.dumps(data).encode() + b"\n")
    assert answer == CommandsAnswer(frozenset({"deploy", "ship", "review"}))


def check_of(*turns: str, policy: str = "fail", known: tuple[str, ...] = ()) -> CommandCheck:
    spec = an_instance("a", "x").spec._replace(turns=turns, unknown_command=policy)
    return CommandCheck(spec, lambda folder, word: word in known)


@pytest.mark.parametrize("turns", [("plain",), ("/known a", "text"), ("/a/path",), ("/analyse; it",)])
def test_nothing_is_asked_without_a_doubt(turns: tuple[str, ...]) -> None:
    assert check_of(*turns, known=("/known",)).request() is None


def test_commands_in_doubt_are_looked_up_in_the_list() -> None:
    check = check_of("set up", "/plugin:do it", "/nope now")
    request = check.request()
    assert request is not None and request["request"] == {"subtype": "initialize"}
    assert check.failure(["plugin:do", "other"]) == "Unknown command: /nope: nothing was sent"
    assert check_of("/nope").failure(["nope"]) is None
    assert check_of("/nope").failure([]) is None  # claude did not say


def test_an_unknown_command_may_be_a_prompt() -> None:
    check = check_of("/nope now", "/mine", policy="prompt")
    assert check.failure(["mine"]) is None
    assert [check.text_of(turn) for turn in ("/nope now", "/mine", "text")] == [" /nope now", "/mine", "text"]


def test_a_command_that_was_found_is_not_searched_for_again() -> None:
    searches: list[tuple[str, str]] = []

    def knows(folder: str, command: str) -> bool:
        searches.append((folder, command))
        return command == "/mine"

    knew = remembering(knows)
    assert [knew("a", "/mine"), knew("a", "/mine"), knew("b", "/mine")] == [True] * 3
    assert [knew("a", "/new"), knew("a", "/new")] == [False] * 2  # it may be written while the run goes on
    assert searches == [("a", "/mine"), ("b", "/mine"), ("a", "/new"), ("a", "/new")]


def test_the_answer_lists_names_and_aliases() -> None:
    line = (
        b'{"type":"control_response","response":{"subtype":"success","request_id":"commands","response":'
        b'{"commands":[{"name":"clear","aliases":["new"]},{"name":"mine","aliases":null},7,{"name":3}]}}}\n'
    )
    assert list(parse(line)) == [CommandsAnswer(frozenset({"clear", "new", "mine"}))]
    assert list(parse(b'{"type":"control_response","response":{"subtype":"error","request_id":"commands"}}\n')) == [
        CommandsAnswer(frozenset())
    ]


# -- the command line --


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("runs.json",), "PROMPT: runs.json looks like a config: run it with --config runs.json"),
        (("x", "--max-console-lines", "5"), "--max-console-lines has no effect: the raw output"),
        (("x", "--output-format", "json"), "--output-format has no effect: instances always print stream-json"),
        (("x", "--budget-parameter-type", "mixed"), "--budget-parameter-type has no effect"),
        ((), "WARNING: no PROMPT and no claude-orchestrator.json: one instance summarises this repository"),
    ],
)
def test_one_line_says_it(place: Workplace, args: tuple[str, ...], said: str) -> None:
    done = place.run(*args, "--rehearse", "--dry-run")
    assert said in done.stdout + done.stderr
    assert done.returncode == (2 if args == ("runs.json",) else 0)


@pytest.mark.slow
def test_levels_and_descriptions_of_zen(place: Workplace) -> None:
    options = ("--log-level", "detailed", "--verbose", "--max-line-length", "80", "--instance-description", "d")
    done = place.run("x", "--rehearse", "--report", "report.json", *options)
    assert done.returncode == 0, done.stderr
    assert place.report()["instances"][0]["description"] == "d"


def test_a_config_in_the_form_of_zen_runs(place: Workplace) -> None:
    entry = {
        "name": "security-reviewer",
        "command": "/analyze all changes; look for SQL injection",
        "description": "Looks for vulnerabilities",
        "permission_mode": "bypassPermissions",
        "output_format": "stream-json",
        "max_tokens_per_command": 15000,
        "allowed_tools": ["Read", "Grep", "Task"],
        "session_id": "security_review_session",
        "clear_history": False,
        "compact_history": True,
        "pre_commands": ["/clear", "Set context: a review"],
    }
    budget = {"budget_type": "mixed", "overall_budget": 100000, "enforcement_mode": "warn"}
    config = place.config({"// Use Case": "x", "instances": [entry], "budget": budget, "// Notes": {"a": ["b"]}})
    for args in (("--dry-run",), ()):
        done = place.run("--config", config, *args, IS_SANDBOX="1")
        assert done.returncode == 0, done.stderr
        assert "budget.budget_type has no effect" in done.stdout + done.stderr
        assert 'the session "security_review_session" does not exist yet' in done.stdout + done.stderr


# -- the real CLI --


def real(config: Mapping[str, Any], api: StandIn, claude: str, root: Path) -> Run:
    home, workspace = root / "home", root / "work"
    home.mkdir(exist_ok=True)
    workspace.mkdir(exist_ok=True)
    entry = {**config, "name": "one", "env": claude_env(home, api.url)}
    return run(
        {"instances": [entry]},
        workspace=workspace,
        output_dir=root / "out",
        claude_bin=claude,
        ledger="off",
        meter="stream",
    )


@pytest.mark.real_cli
def test_an_unknown_command_costs_nothing_or_is_a_prompt(claude: str, tmp_path: Path) -> None:
    with StandIn({"hello": [Text("Hi.")], "nope": [Text("As text.")]}) as api:
        failed = real({"command": "/nope x", "pre_commands": ["hello"]}, api, claude, tmp_path)
        assert (failed["one"].status, failed["one"].reason) == ("failed", "Unknown command: /nope: nothing was sent")
        assert (api.entries, failed.usage.total_tokens) == ([], 0)
        sent = real({"command": "/nope x", "unknown_command": "prompt"}, api, claude, tmp_path)
        assert (sent.result, sent.usage) == ("As text.", api.billed())


@pytest.mark.real_cli
@pytest.mark.parametrize("worktree", [False, True])
def test_a_session_with_a_name_is_continued_by_the_next_run(claude: str, tmp_path: Path, worktree: bool) -> None:
    sh(tmp_path, "git init -q; git commit -q --allow-empty -m first")
    entry = {"command": "hello", "session_id": "review", "worktree": worktree}
    with StandIn({"hello": [Text("One.")]}) as api:
        first = real(entry, api, claude, tmp_path)
        second = real(entry, api, claude, tmp_path)
        assert first["one"].session_id == second["one"].session_id
        assert first.completed and second.completed
        assert first.usage.total_tokens + second.usage.total_tokens == api.billed().total_tokens
