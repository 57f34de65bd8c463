"""Import of Claude Code's own transcripts: every response once, at the session that was first."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.limits import HUNG_S
from tests.stand_in import Call, Script, StandIn, Text, Tools, claude_env
from token_budget.ledger import transcript_files
from token_budget.ledger.export_import import Diff, apply
from token_budget.ledger.import_reader import ImportData
from token_budget.ledger.records import FOREVER_MS, AttemptRecord, RunRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.transcripts import Transcripts, known_sessions, read_transcripts
from token_budget.models import Usage

Line = dict[str, Any] | str


def at(second: int) -> str:
    return f"2026-11-24T18:00:{second:02}.500Z"


def said(name: str, second: int, *, session: str = "s1", model: str = "opus", **usage: Any) -> Line:
    """A line of a response."""
    counts = {"input_tokens": 10, "output_tokens": 20, **usage}
    message = {"id": name, "model": model, "usage": counts}
    return {"type": "assistant", "message": message, "timestamp": at(second), "sessionId": session}


def asked(content: Any, second: int, **extra: Any) -> Line:
    """A line of the user's."""
    return {"type": "user", "message": {"content": content}, "timestamp": at(second), **extra}


def slash(name: str, second: int) -> Line:
    text = f"<command-message>{name}</command-message>\n<command-name>/{name}</command-name>\n<command-args>secret"
    return asked(text, second)


def write(folder: Path, files: dict[str, list[Line]]) -> Path:
    for name, lines in files.items():
        path = folder / "projects" / "slug" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(text) + "\n", encoding="utf-8", errors="surrogatepass")
    return folder


def total(found: Transcripts) -> Usage:
    return sum((record.usage for record in found.records), Usage())


def places(found: Transcripts) -> dict[str, tuple[str, str, int]]:
    return {record.id: (record.run, record.instance, record.attempt) for record in found.records}


def test_a_response_is_counted_once_with_the_largest_of_each_count(tmp_path: Path) -> None:
    lines = [
        said("a", 2, output_tokens=1, cache_read_input_tokens=7),
        said("a", 1, output_tokens=50),
        said("b", 4, model="haiku", cache_creation_input_tokens=None),
        said("c", 5, model="<synthetic>"),
    ]
    found = read_transcripts(write(tmp_path, {"s1": lines}), "host")
    assert {record.id: record.usage for record in found.records} == {
        "claude:a": Usage(10, 50, 0, 7),
        "claude:b": Usage(10, 20),
    }
    (run,), (attempt,) = found.runs, found.attempts
    assert (run.run, run.machine, run.ended_ms) == ("claude:s1", "host", attempt.ended_ms)
    assert attempt.key == ("claude:s1", "main", 1)
    assert (attempt.session, attempt.outcome, attempt.base_command) == ("s1", "imported", None)
    assert [record.at_ms % 60_000 for record in found.records] == [1_500, 4_500]
    assert [(record.model, record.cost_nano_usd, record.cost_source) for record in found.records] == [
        ("opus", None, None),
        ("haiku", None, None),
    ]


def test_a_fork_begins_with_a_copy(tmp_path: Path) -> None:
    files = {
        "s1": [asked("hello", 0), said("a", 1), said("b", 9)],
        "a-fork": [
            {"type": "queue-operation", "timestamp": at(5)},
            asked("hello", 0),
            said("a", 1, session="a-fork"),
            said("c", 6, session="a-fork"),
        ],
        "s1/subagents/agent-x": [asked("do it", 1, isSidechain=True), said("d", 2)],
    }
    folder = write(tmp_path, files)
    found = read_transcripts(folder, "host")
    assert places(found) == {
        "claude:a": ("claude:s1", "main", 1),
        "claude:b": ("claude:s1", "main", 1),
        "claude:c": ("claude:a-fork", "main", 1),
        "claude:d": ("claude:s1", "agent-x", 1),
    }
    known = read_transcripts(folder / "projects", "host", known_sessions={"s1": [(0, FOREVER_MS)]})
    assert set(places(known)) == {"claude:c"} and known.known_responses == 3
    assert [run.run for run in known.runs] == ["claude:a-fork"]


def test_a_slash_command_has_what_follows_it(tmp_path: Path) -> None:
    lines = [
        *(asked("hello", 0), said("a", 1), asked("more", 2), said("b", 3)),
        *(slash("test", 4), asked([{"type": "text", "text": "its prompt"}], 5, isMeta=True), said("c", 6)),
        *(asked([{"type": "tool_result", "content": "x"}], 7), asked("sub", 7, isSidechain=True), said("d", 8)),
        *(slash("model", 9), asked("<local-command-stdout>set", 9), slash("test", 10), said("e", 11)),
        *(asked([{"type": "text", "text": "say <command-name>/no</command-name>"}], 12), said("f", 13)),
    ]
    found = read_transcripts(write(tmp_path, {"s1": lines}), "host")
    attempts = {attempt.key: attempt for attempt in found.attempts}
    by_record = {name: (key[2], attempts[key].base_command) for name, key in places(found).items()}
    assert by_record == {
        **dict.fromkeys(("claude:a", "claude:b"), (1, None)),
        **dict.fromkeys(("claude:c", "claude:d"), (2, "/test")),
        "claude:e": (3, "/test"),
        "claude:f": (4, None),
    }
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "assis',
        "[" * 100_000,
        "[]",
        "\ud800",
        said("x", 1, input_tokens=-1),
        said("x", 1, input_tokens=True),
        said("x", 1, output_tokens=1.5),
        said("x", 1, output_tokens=2**63),
        said("", 1),
        said("\ud800", 1),
        said("x", 1, session="\ud800"),
        {"type": "assistant", "message": {"id": "x", "model": "m", "usage": {}}},
        {"type": "assistant", "message": {"id": "x", "model": "m"}, "timestamp": at(1)},
        {"type": "assistant", "message": "x", "timestamp": at(1)},
        {**said("x", 1), "timestamp": "yesterday"},  # type: ignore[dict-item]
        {**said("x", 1), "timestamp": "1066-10-14T09:00:00Z"},  # type: ignore[dict-item]
        json.dumps(said("x", 1)) + " " * 1_000,
    ],
)
def test_a_broken_line_is_counted_and_skipped(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(line, str) and line.endswith("  "):
        monkeypatch.setattr(transcript_files, "MAX_LINE_BYTES", 300)
    found = read_transcripts(write(tmp_path, {"s1": [said("a", 1), line, "", said("b", 2)]}), "host")
    assert (set(places(found)), found.skipped_lines) == ({"claude:a", "claude:b"}, 1)


def counts(found: Transcripts) -> dict[str, tuple[str, int]]:
    return {record.id: (record.model, record.usage.total_tokens) for record in found.records}


def test_everything_that_is_billed_beside_a_response_has_a_record_of_its_own(tmp_path: Path) -> None:
    iterations = [
        {"type": "message", "input_tokens": 4, "output_tokens": 8},
        {"type": "compaction", "input_tokens": 100, "output_tokens": 1},
        {"type": "advisor_message", "model": "sonnet", "input_tokens": 50, "output_tokens": 2},
        {"type": "message", "input_tokens": 6, "output_tokens": 12},
        {"type": "advisor_message", "model": "sonnet", "input_tokens": 7, "output_tokens": 0},
    ]
    early = said("a", 1, output_tokens=1)
    found = read_transcripts(write(tmp_path, {"s1": [early, said("a", 2, iterations=iterations)]}), "host", one_each)
    assert counts(found) == {
        "claude:a": ("opus", 30),
        "claude:a#compaction/opus": ("opus", 101),
        "claude:a#advisor_message/sonnet": ("sonnet", 59),
    }
    assert [record.cost_nano_usd for record in found.records] == [2, 1, 2]  # a price for each iteration


def one_each(model: str, usage: Usage, *, written_for_1h_tokens: int = 0, at_ms: int | None = None) -> int | None:
    assert model, "a response without a model has no price"
    return 1


def test_a_damaged_list_of_iterations_takes_nothing_from_the_top_level(tmp_path: Path) -> None:
    lines = [said("a", 1, iterations="many"), said("b", 2, iterations=[{"type": "message", "input_tokens": -5}, 7])]
    found = read_transcripts(write(tmp_path, {"s1": lines}), "host")
    assert total(found) == Usage(20, 40) and found.skipped_lines == 0


def named(second: int, response: str | None, request: str | None, uuid: str | None = None, **usage: Any) -> Line:
    line = said("", second, **usage)
    assert isinstance(line, dict)
    line["message"]["id"] = response
    return {**line, "requestId": request, "uuid": uuid}


def test_a_response_is_known_by_its_id_then_its_request_then_its_line(tmp_path: Path) -> None:
    lines = [
        *(named(1, None, "req1", "u1"), named(2, None, "req1", "u2")),  # two lines of one
        *(named(3, "", None, "u3"), named(4, None, None, "u4"), named(5, None, None, "u4")),
        *(named(6, "same", "req2"), named(7, "same", "req3"), named(8, "same", "req3"), named(9, "same", "req2")),
    ]
    found = read_transcripts(write(tmp_path, {"s1": lines, "s2": lines}), "host")
    assert {record.id: record.at_ms % 60_000 // 1_000 for record in found.records} == {
        "claude:request:req1": 1,
        "claude:line:u3": 3,
        "claude:line:u4": 4,
        "claude:same": 6,
        "claude:same/req3": 7,
    }


def test_one_id_with_other_input_counts_is_several_where_no_request_is_named(tmp_path: Path) -> None:
    lines = [
        named(1, "chat", None, input_tokens=0),
        named(2, "chat", None, input_tokens=0, cache_read_input_tokens=900),  # what is not stated yet is zero
        named(3, "chat", None, input_tokens=9, cache_read_input_tokens=1_000),
        named(4, "chat", None, input_tokens=9, cache_read_input_tokens=1_000, output_tokens=70),
    ]
    found = read_transcripts(write(tmp_path, {"s1": lines}), "host")
    assert sorted(record.usage.total_tokens for record in found.records) == [920, 1_079]


def test_a_response_without_a_model_counts_and_has_no_price(tmp_path: Path) -> None:
    line = said("a", 1)
    assert isinstance(line, dict)
    del line["message"]["model"]
    found = read_transcripts(write(tmp_path, {"s1": [line, named(2, "b", None)]}), "host", one_each)
    assert counts(found) == {"claude:a": ("", 30), "claude:b": ("opus", 30)}
    assert [record.cost_source for record in found.records] == [None, "prices"]


def test_a_damaged_line_gives_up_its_whole_records(tmp_path: Path) -> None:
    a, b, c = (json.dumps(said(name, 1)) for name in "abc")
    found = read_transcripts(write(tmp_path, {"s1": [a[:60] + b, "\0" * 99 + c]}), "host")
    assert (set(places(found)), found.skipped_lines) == ({"claude:b", "claude:c"}, 1)


def test_agent_and_session_are_those_that_the_lines_name(tmp_path: Path) -> None:
    def agents(name: str, second: int, agent: str | None) -> Line:
        line = said(name, second)
        assert isinstance(line, dict)
        return {**line, "isSidechain": True, "agentId": agent}

    files: dict[str, list[Line]] = {
        "s1": [slash("review", 0), said("a", 1)],
        "s1/subagents/workflows/wf-1/agent-x": [asked("look", 1, isSidechain=True), agents("b", 2, "x")],
        "s1/subagents/agent-y": [agents("c", 3, "y"), agents("d", 4, "z")],
        "agent-w": [agents("e", 5, None)],  # beside the session, as older versions have it
        "s2": [said("f", 6)],  # another file with a part of the session
    }
    found = read_transcripts(write(tmp_path, files), "host")
    assert places(found) == {
        "claude:a": ("claude:s1", "main", 1),
        "claude:b": ("claude:s1", "agent-x", 1),
        "claude:c": ("claude:s1", "agent-y", 1),
        "claude:d": ("claude:s1", "agent-z", 1),
        "claude:e": ("claude:s1", "agent-w", 1),
        "claude:f": ("claude:s1", "main in s2", 1),
    }
    commands = {attempt.instance: attempt.base_command for attempt in found.attempts}
    assert commands.pop("main") == "/review" and set(commands.values()) == {None}


def test_a_linked_project_is_read_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "claude", {"s1": [said("a", 1)]})
    (folder / "projects" / "slug").rename(tmp_path / "moved")
    for name in ("slug", "again"):
        (folder / "projects" / name).symlink_to(tmp_path / "moved")
    (tmp_path / "moved" / "loop").symlink_to(folder / "projects")
    found = read_transcripts(folder, "host")
    assert places(found) == {"claude:a": ("claude:s1", "main", 1)} and found.skipped_lines == 0


def test_cost_is_by_the_price_of_its_time(tmp_path: Path) -> None:
    def price(model: str, usage: Usage, *, written_for_1h_tokens: int = 0, at_ms: int | None = None) -> int | None:
        assert at_ms is not None and at_ms % 60_000 == 1_500
        return usage.output_tokens + 1_000 * written_for_1h_tokens if model == "opus" else None

    lines = [said("a", 1, cache_creation={"ephemeral_1h_input_tokens": 4}), said("b", 1, model="other")]
    found = read_transcripts(write(tmp_path, {"s1": lines}), "host", price)
    assert [(record.cost_nano_usd, record.cost_source) for record in found.records] == [(4_020, "prices"), (None, None)]


def test_import_twice_adds_what_is_new_alone(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "a.db")
    ledger.write(attempts=[AttemptRecord("ours", "one", 1, 1, session="s9")])
    lines = [said("a", 1), said("b", 2)]

    def bring() -> Diff:
        files = {"s1": lines, "s9": [said("z", 1, session="s9")]}
        found = read_transcripts(write(tmp_path, files), "host", known_sessions=known_sessions(ledger))
        return apply(ledger, ImportData(found.runs, found.attempts, found.records))

    assert bring() == Diff(1, 1, 2, 0, (), 60)
    assert bring() == Diff(0, 0, 0, 2, (), 0)
    lines.append(said("c", 9))
    assert bring() == Diff(0, 0, 1, 2, (), 30)
    (attempt,) = ledger.attempts(run="claude:s1")
    assert attempt.usage == Usage(30, 60) and attempt.ended_ms is not None and attempt.ended_ms % 60_000 == 9_500
    ledger.close()


def test_of_a_session_only_what_a_run_of_ours_counted_is_left_out(tmp_path: Path) -> None:
    begin_ms = round(datetime.fromisoformat("2026-11-24T18:00:00Z").timestamp() * 1000)
    minute_ms = 60_000
    minutes = {"before": 1, "slack": 4, "ours": 6, "soon": 8, "between": 15, "again": 21, "after": 40, "open": 59}
    lines: list[Line] = [
        {**said(name, 0), "timestamp": f"2026-11-24T18:{minute:02}:30Z"}  # type: ignore[dict-item]
        for name, minute in minutes.items()
    ]
    folder = write(tmp_path, {"s1": lines})
    ledger = SqliteLedger(tmp_path / "a.db")
    ledger.write(
        runs=[RunRecord("ours", "host", begin_ms, begin_ms + 25 * minute_ms), RunRecord("other", "host", 0, 5)],
        attempts=[
            AttemptRecord("ours", "i", 1, begin_ms + 5 * minute_ms, "s1", ended_ms=begin_ms + 8 * minute_ms),
            AttemptRecord("ours", "i", 2, begin_ms + 20 * minute_ms, "s1"),  # cut off: its run has ended
            AttemptRecord("claude:s1", "main", 1, begin_ms, "s1", ended_ms=begin_ms + 50 * minute_ms),
            AttemptRecord("ours", "i", 3, begin_ms, "s2"),
        ],
    )
    found = read_transcripts(folder, "host", known_sessions=known_sessions(ledger))
    assert {name.removeprefix("claude:") for name in places(found)} == {"before", "between", "after", "open"}
    assert found.known_responses == 4
    ledger.write(
        attempts=[AttemptRecord("other", "i", 1, begin_ms + 50 * minute_ms, "s1")]
    )  # goes on: its run was resumed
    found = read_transcripts(folder, "host", known_sessions=known_sessions(ledger))
    assert {name.removeprefix("claude:") for name in places(found)} == {"before", "between", "after"}
    ledger.close()


def test_all_sessions_of_an_attempt_are_known(tmp_path: Path) -> None:
    """Also the session before a `/clear`, and that of a claude that a tool has started."""
    ledger = SqliteLedger(tmp_path / "a.db")
    ledger.write(attempts=[AttemptRecord("ours", "i", 1, 1, "s1", other_sessions=("s2", "s3"))])
    files: dict[str, list[Line]] = {name: [said(name, 1, session=name)] for name in ("s1", "s2", "s3", "s4")}
    found = read_transcripts(write(tmp_path, files), "host", known_sessions=known_sessions(ledger))
    assert set(places(found)) == {"claude:s4"} and found.known_responses == 3
    ledger.close()


def test_a_time_to_come_is_none(tmp_path: Path) -> None:
    now_ms = round(datetime.fromisoformat("2026-11-23T18:00:05Z").timestamp() * 1000)
    lines = [said("b", 9), said("a", 1), asked("hello", 9), said("c", 4)]
    files = {"s1": lines, "s2": [said("a", 1, session="s2"), said("d", 3, session="s2")]}
    found = read_transcripts(write(tmp_path, files), "host", now_ms=now_ms)
    assert (set(places(found)), found.skipped_lines) == ({"claude:a", "claude:c", "claude:d"}, 1)
    assert places(found)["claude:a"][0] == "claude:s2"  # a time to come says nothing of which was first


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope: expected a folder of Claude Code's transcripts: No such file"):
        read_transcripts(tmp_path / "nope", "host")
    assert read_transcripts(tmp_path, "host") == Transcripts((), (), (), 0, 0)


SUBAGENT: Script = {
    "delegate": [Tools((Call.agent("SUBWORK please", run_in_background=False),)), Text("parent done")],
    "SUBWORK": [Tools((Call.bash("echo 1"), Call.bash("echo 2")), text="two:", output=500), Text("done", output=600)],
}


@pytest.mark.real_cli
def test_what_the_real_claude_wrote_is_what_was_billed(claude: str, tmp_path: Path) -> None:
    home, workspace = tmp_path / "home", tmp_path / "workspace"
    commands = workspace / ".claude" / "commands"
    commands.mkdir(parents=True)
    (commands / "check.md").write_text("$ARGUMENTS, please delegate")
    home.mkdir()
    with StandIn(SUBAGENT) as api:

        def run(*prompt: str) -> str:
            argv = [claude, "-p", *prompt, "--permission-mode", "bypassPermissions", "--output-format", "json"]
            env, quiet = claude_env(home, api.url), subprocess.DEVNULL
            done = subprocess.run(
                argv, env=env, cwd=workspace, stdin=quiet, capture_output=True, timeout=HUNG_S, check=True
            )
            return str(json.loads(done.stdout)["session_id"])

        session = run("/check now")
        first = api.billed()
        fork = run("go on", "--resume", session, "--fork-session")
        assert fork != session
        found = read_transcripts(home / ".claude", "host")
        assert total(found) == api.billed() and found.skipped_lines == 0
        by_session = {run.run: Usage() for run in found.runs}
        for record in found.records:
            by_session[record.run] += record.usage
        assert by_session == {f"claude:{session}": first, f"claude:{fork}": api.billed() - first}
    (main,) = (a for a in found.attempts if a.key == (f"claude:{session}", "main", 1))
    assert main.base_command == "/check" and any(entry.agent for entry in api.entries)
    assert {attempt.instance for attempt in found.attempts} > {"main"}
