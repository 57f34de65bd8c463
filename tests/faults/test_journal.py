"""The run journal: whatever kills the orchestrator, what was counted is there, and the run can be gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.argv import asks_for_worktree
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import CONTINUE_PROMPT
from claude_orchestrator.config.plan import Plan, make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine import journal
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.journal_history import JournalHistory, read_history
from claude_orchestrator.engine.journal_records import record_of, turns_digest
from claude_orchestrator.engine.resume import carry_over, restore
from claude_orchestrator.engine.run_events import SessionNamed
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.simulated import SimulatedLauncher
from tests.harness import ROOT, Workplace, content_of, make_supervisor
from tests.limits import HUNG_S
from tests.stand_in import Call, Script, StandIn, Text, Tools, claude_env
from token_budget import Usage
from token_budget.folders import Folder

RUN = "20261124-000000-abcdef"


def small_plan(count: int = 3) -> Plan:
    entries = [
        {"name": f"i{n}", "command": f"/test {n}", "rehearsal": {"tokens": 1000 + n, "seconds": 0.05}}
        for n in range(count)
    ]
    return make_plan(parse_config({"instances": entries}, "x"), Settings(), workspace="/", claude_bin="claude")


def run_journalled(folder: Path, plan: Plan, settings: Settings) -> Supervisor:
    """A rehearsal with a journal in the folder, to its end."""
    records = journal.create(Folder.open(folder), print)
    entries = [{"name": spec.name, "base_command": spec.base_command, "turns": "x"} for spec in plan.specs]
    records.write("run", number=1, instances=entries)
    bus = Bus()
    bus.attach(records, sync=records.sync)
    supervisor = make_supervisor(plan, settings, SimulatedLauncher(), bus=bus)
    asyncio.run(supervisor.run())
    records.close()
    return supervisor


def history_of(data: bytes) -> JournalHistory:
    return read_history(journal.records(data))


@pytest.mark.slow
def test_a_journal_cut_at_any_byte_still_has_the_counted_totals(tmp_path: Path) -> None:
    supervisor = run_journalled(tmp_path, small_plan(), Settings())
    data = (tmp_path / journal.NAME).read_bytes()
    whole = history_of(data)
    assert whole.usage == sum((status.usage for status in supervisor.instances), Usage())
    assert whole.damaged_lines == 0 and {past.state for past in whole.instances.values()} == {State.COMPLETED}
    before = 0
    for end in range(len(data)):
        history = history_of(data[:end])
        complete = data[: data.rfind(b"\n", 0, end + 1) + 1]
        assert history.damaged_lines == 0 and history.usage == history_of(complete).usage
        assert history.usage.total_tokens >= before
        before = history.usage.total_tokens
    assert before == 3003


def test_a_damaged_line_is_skipped_and_reported(tmp_path: Path) -> None:
    run_journalled(tmp_path, small_plan(1), Settings())
    lines = (tmp_path / journal.NAME).read_bytes().splitlines(keepends=True)
    for place in range(1, len(lines) - 1):  # totals, not differences: the next line makes it good
        for damage in (b"\0" * len(lines[place]), lines[place].replace(b"1", b"2", 1), b"[]\n", b'{"kind":"end"}\n'):
            history = history_of(b"".join((*lines[:place], damage, *lines[place + 1 :])))
            assert history.usage.total_tokens == 1000
            assert history.damaged_lines >= 1 or damage == lines[place]
    for place in range(1, len(lines) - 1):  # one that is missing altogether
        history = history_of(b"".join((*lines[:place], *lines[place + 1 :])))
        assert history.damaged_lines == 1 and history.usage.total_tokens == 1000
    strange = journal.encode({"kind": "usage", "instance": "i0", "attempt": "x", "usage": 5})
    assert history_of(b"".join((*lines, strange, lines[-1]))).damaged_lines == 1


def test_a_resumed_run_begins_with_the_use_of_the_earlier_budgets(tmp_path: Path) -> None:
    settings = Settings(overall_token_budget=10_000, command_budgets=(("/test", 5000),))
    plan = small_plan()
    supervisor = run_journalled(tmp_path, plan, settings)
    manager = make_manager(plan, settings)
    carry_over(manager, history_of((tmp_path / journal.NAME).read_bytes()), settings.token_weights)
    assert [budget.used for budget in manager.budgets] == [budget.used for budget in supervisor.manager.budgets]


def test_the_journal_is_private_and_has_no_prompt_and_no_environment(place: Workplace) -> None:
    entry = {
        "name": "one",
        "prompt": "a prompt with hunter2",
        "pre_commands": ["/x hunter2"],
        "env": {"TOKEN": "hunter2"},
    }
    assert place.run("--config", place.config({"instances": [entry]}), ANTHROPIC_API_KEY="hunter2").returncode == 0
    (path,) = place.root.glob("out/*/journal.jsonl")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"hunter2" not in path.read_bytes() and history_of(path.read_bytes()).usage.total_tokens == 2100


def kill_in_the_middle(place: Workplace, config: dict[str, Any], *args: str, until: bytes = b"") -> Path:
    """Start a run, kill the orchestrator once an instance hangs (and the journal has `until`); returns its folder."""
    argv = place.argv("--config", place.config(config), *args)
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stderr=subprocess.DEVNULL)
    content_of(place.root / "pids.json", process)
    (path,) = place.root.glob("out/*/journal.jsonl")
    while until not in path.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return path.parent


KILLED = {
    "instances": [
        {"name": "done", "command": "/test a"},
        {"name": "broken", "command": "/test b", "env": {"FAKE_CLAUDE": "hang-once"}},
        {"name": "never", "command": "/other"},
    ],
    "budget": {"overall_budget": 50_000},
}


BROKEN_COUNTED = b'"instance":"broken","attempt":1,"usage"'


@pytest.mark.slow
def test_resume_runs_only_incomplete_instances_and_keeps_the_use(place: Workplace) -> None:
    args = ("--max-parallel", "1", "--command-budget", "/test=9000")
    folder = kill_in_the_middle(place, KILLED, *args, until=BROKEN_COUNTED)
    for path in place.root.glob("turns*.json"):
        path.unlink()
    done = place.run("--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert f"resuming run {folder.name}: 1 of 3 instances had completed, 2,051 tokens used before" in done.stderr
    report = place.report()
    assert report["run_id"] == folder.name
    assert [instance["status"] for instance in report["instances"]] == ["completed"] * 3
    assert [instance["attempts"] for instance in report["instances"]] == [1, 2, 1]
    # the option of the killed run still holds, and what it used is on it
    assert report["budgets"]["commands"]["/test"] == {"limit": 9000, "used": 3101, "held": 0, "percentage": 34.46}
    assert report["budgets"]["overall"]["used"] == 4151 == report["totals"]["total_tokens"]
    assert not report["totals"]["exact"]
    again = place.run("--resume", folder.name, "--report", "report.json")
    assert again.returncode == 0 and len(list(place.root.glob("turns-*.json"))) == 2
    assert place.report()["totals"]["total_tokens"] == 4151


def test_resume_continues_in_the_interrupted_session(place: Workplace) -> None:
    kill_in_the_middle(place, KILLED, "--max-parallel", "1", until=BROKEN_COUNTED)
    for path in place.root.glob("turns*.json"):
        path.unlink()
    assert place.run("--resume", "last").returncode == 0
    launched = [json.loads(path.read_text()) for path in place.root.glob("turns-*.json")]
    sessions = {turns[0]: [arg for arg in argv if arg.startswith("--resume")] for argv, turns in launched}
    assert sessions == {"/other": [], CONTINUE_PROMPT: ["--resume=0f0e0d0c-0000-4000-8000-000000000001"]}


def test_resume_continues_in_the_worktree_that_has_the_work() -> None:
    config = parse_config({"instances": [{"name": "one", "prompt": "x", "extra_args": ["--worktree"]}]}, "test")
    plan = make_plan(config, Settings(), workspace="/work", claude_bin="claude")
    kind, named = record_of(SessionNamed("one", "s", "/work/tree")) or ("", {})
    digest = turns_digest(plan.specs[0], "r")
    own = {"instance": "one", "attempt": 1}
    records: list[dict[str, Any]] = [
        {"kind": "run", "number": 1, "instances": [{"name": "one", "base_command": None, "turns": digest}]},
        {"kind": "launch", **own, "session": None, "turns_done": 0, "goes_on": False, "at": 1.0},
        {"kind": kind, **named},
        {"kind": "usage", **own, "usage": [1, 2, 3, 4], "cost_usd": None, "at": 2.0},
    ]
    history = read_history({"n": number, **record} for number, record in enumerate(records, 1))
    (status,) = restore(plan, history, "r")
    assert status.spec.cwd == "/work/tree" and "--resume=s" in status.spec.argv
    assert not asks_for_worktree(status.spec.argv) and asks_for_worktree(status.planned.argv)


@pytest.mark.slow
def test_a_higher_limit_lets_a_blocked_run_continue(place: Workplace) -> None:
    config = place.config({"instances": [{"name": f"i{n}", "command": "/test"} for n in range(3)]})
    block = ("--overall-token-budget", "2500", "--budget-enforcement-mode", "block")
    assert place.run("--config", config, *block, "--max-parallel", "1").returncode == 1
    assert place.run("--resume", "last", "--report", "report.json").returncode == 1  # the limit still holds
    assert [instance["status"] for instance in place.report()["instances"]] == ["completed", "completed", "blocked"]
    raised = ("--overall-token-budget", "3000", "--command-budget", "/test=9000", "--report", "report.json")
    assert place.run("--resume", "last", *raised).returncode == 1
    assert place.run("--resume", "last", "--report", "report.json").returncode == 1  # it stays raised
    budgets = place.report()["budgets"]
    assert budgets["overall"]["limit"] == 3000 and budgets["commands"]["/test"]["limit"] == 9000
    done = place.run("--resume", "last", "--overall-token-budget", "4000", "--report", "report.json")
    assert done.returncode == 0 and place.report()["budgets"]["overall"]["used"] == 3150


def test_the_use_of_removed_instances_is_in_the_totals(place: Workplace) -> None:
    names = {"a": "/x", "b": "/test", "c": "/test"}
    entries = [{"name": name, "command": command} for name, command in names.items()]
    assert place.run("--config", place.config({"instances": entries})).returncode == 0
    more = [*entries[:1], {"name": "d", "command": "/test"}]
    config = place.config({"instances": more, "budget": {"overall_budget": 9000}}, "other.json")
    done = place.run("--resume", "last", "--config", config, "--report", "report.json")
    assert done.returncode == 0 and "1 of 2 instances had completed, 3,150 tokens used before" in done.stderr
    assert "b, c: no longer in the config" in done.stderr
    assert "b: no longer in the config; 1,050 tokens" in done.stdout and "Total: 4,200 tokens" in done.stdout
    report = place.report()
    assert report["totals"]["total_tokens"] == report["budgets"]["overall"]["used"] == 4200
    assert [(past["name"], past["usage"]["total_tokens"]) for past in report["removed_instances"]] == [
        ("b", 1050),
        ("c", 1050),
    ]
    done = place.run("--resume", "last", "--report", "report.json")  # the config given last is kept
    assert done.returncode == 0 and len(place.report()["instances"]) == 2


def test_finished_work_is_not_repeated_after_a_kill_of_everything(place: Workplace) -> None:
    """Its process had not left, but all its turns were done."""
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "lingers"}}]}
    folder = kill_in_the_middle(place, setup, until=b'"kind":"done"')
    for path in place.root.glob("turns*.json"):
        path.unlink()
    assert place.run("--resume", folder.name, "--report", "report.json").returncode == 0
    (one,) = place.report()["instances"]
    assert one["status"] == "completed" and one["attempts"] == 1 and not list(place.root.glob("turns-*.json"))


@pytest.mark.slow
def test_a_rehearsal_stays_one_and_a_real_run_too(place: Workplace) -> None:
    config = place.config({"instances": [{"name": "one", "command": "/test"}]})
    assert place.run("--config", config).returncode == 0
    (real,) = (path.name for path in place.root.glob("out/*"))
    done = place.run("--rehearse", "--resume", real)
    assert done.returncode == 2 and f"run {real} was no rehearsal, and that cannot change" in done.stderr
    assert place.run("--config", config, "--rehearse").returncode == 0
    (rehearsal,) = (path.name for path in place.root.glob("out/*") if path.name != real)
    done = place.run("--resume", rehearsal, "--report", "report.json")
    assert done.returncode == 0 and place.report()["rehearsal"]
    done = place.run("--resume", rehearsal, "a prompt")
    assert done.returncode == 2 and "was not started with a PROMPT" in done.stderr


def test_last_names_the_newer_run_that_it_skips(place: Workplace) -> None:
    assert place.run("hello").returncode == 0
    newer = place.root / "out" / "29991231-000000-000000"
    newer.mkdir()
    (newer / "journal.jsonl").write_bytes(b"torn")
    done = place.run("--resume", "last", "hello")
    assert done.returncode == 0 and f"{newer.name} is newer, but its journal is damaged: skipped" in done.stderr


def test_two_orchestrators_on_one_run_are_refused(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hang"}}]}
    argv = place.argv("--config", place.config(setup), "--quiet")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL)
    content_of(place.root / "pids.json", process)
    done = place.run("--resume", "last")
    assert done.returncode == 2 and "is in use by another orchestrator" in done.stderr
    assert done.stderr.count("\n") == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=HUNG_S) == 130


@pytest.mark.parametrize("run_id", ["20260101-000000-000000", "../out", ".", "..", "", "no/such", "last"])
def test_a_run_that_is_not_there(place: Workplace, run_id: str) -> None:
    done = place.run("--resume", run_id)
    assert done.returncode == 2 and "--resume: no run" in done.stderr and done.stderr.count("\n") == 1


def test_a_prompt_is_not_stored_and_has_to_be_given_again(place: Workplace) -> None:
    prompt = ("do this", "--model", "opus", "--instance-name", "it")
    assert place.run(*prompt, FAKE_CLAUDE="crash").returncode == 1
    done = place.run("--resume", "last")
    assert done.returncode == 2 and "started with a PROMPT, which is not stored: give it again" in done.stderr
    done = place.run("--resume", "last", "do this", "--report", "report.json", FAKE_CLAUDE="echo")
    assert done.returncode == 0 and place.report()["instances"][0]["name"] == "it"
    assert "--model=opus" in json.loads((place.root / "argv.json").read_text())


def test_leftovers_of_a_run_without_a_guard_are_ended_first(place: Workplace) -> None:
    assert place.run("hello", FAKE_CLAUDE="crash").returncode == 1
    (path,) = place.root.glob("out/*/journal.jsonl")
    mark = f"{path.parent.name}/0"
    left = subprocess.Popen(["sleep", "600"], env={"CLAUDE_ORCHESTRATOR_MARK": mark, "PATH": os.environ["PATH"]})
    try:
        done = place.run("--resume", "last", "hello")
        assert done.returncode == 0 and "ended 1 process of the earlier orchestrator" in done.stderr
        assert left.wait(timeout=HUNG_S) == -signal.SIGKILL
    finally:
        left.kill()


def test_a_folder_that_is_a_link_and_a_journal_without_its_head_are_refused(place: Workplace) -> None:
    assert place.run("hello").returncode == 0
    (path,) = place.root.glob("out/*/journal.jsonl")
    (place.root / "out" / "link").symlink_to(path.parent)
    assert "--resume: no run 'link'" in place.run("--resume", "link", "hello").stderr
    unknown = place.run("--resume", "nope", "hello").stderr
    assert "--resume: no run 'nope' in " in unknown and unknown.endswith(": claude-runs lists the runs\n")
    path.write_bytes(path.read_bytes()[5:])
    twin = path.parent.with_name(f"{path.parent.name[:-2]}zz")
    twin.mkdir()
    several = place.run("--resume", path.parent.name[:-2], "hello")
    assert several.returncode == 2
    assert several.stderr.endswith("several runs begin with this: claude-runs lists the runs\n")
    twin.rmdir()
    done = place.run("--resume", path.parent.name[:-2], "hello")  # the beginning of its name is enough
    assert done.returncode == 2 and "its first line is damaged: this run cannot be resumed" in done.stderr


def test_a_copied_line_starts_nothing_again(tmp_path: Path) -> None:
    run_journalled(tmp_path, small_plan(), Settings())
    data = (tmp_path / journal.NAME).read_bytes()
    launches = [line for line in data.splitlines(keepends=True) if b'"kind":"launch"' in line]
    whole, copied = history_of(data), history_of(data + b"".join(launches))
    assert copied.instances == whole.instances and copied.last_number == whole.last_number


def test_a_line_that_is_whole_but_no_json_is_damaged(tmp_path: Path) -> None:
    bodies = (b'{"n":1,"kind":', b'{"a":' * 20_000, b'{"n":' + b"9" * 5_000)
    lines = [body + b',"crc":"%08x"}' % zlib.crc32(body + b"}") for body in bodies]
    assert list(journal.records(b"\n".join([*lines, b""]))) == [None] * 3


def test_a_run_continues_after_a_torn_line_and_on_a_full_disk(tmp_path: Path) -> None:
    run_journalled(tmp_path, small_plan(), Settings())
    path = tmp_path / journal.NAME
    path.write_bytes(path.read_bytes()[:-5])
    size = path.stat().st_size
    said: list[str] = []
    data, again = journal.reopen(Folder.open(tmp_path), said.append)
    assert len(data) == size == path.stat().st_size and not said  # nothing is written before there is something to say
    again.continue_after(history_of(data).last_number)
    again.write("run", number=2, instances=[])
    again.close()
    assert history_of(path.read_bytes()).runs == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_once_and_records_are_written_when_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    full = os.open("/dev/full", os.O_WRONLY)
    records = journal.Journal(full, said.append)
    records.write("run", number=1, instances=[{"name": "a", "base_command": None, "turns": ""}])
    records.write("usage", instance="a", attempt=1, usage=[1, 2, 3, 4], cost_usd=None)
    assert len(said) == 1 and "the journal cannot be written (No space left on device)" in said[0]
    target = os.open(tmp_path / "journal", os.O_WRONLY | os.O_CREAT)
    os.dup2(target, full)
    os.close(target)
    records.write("usage", instance="a", attempt=1, usage=[2, 2, 3, 4], cost_usd=None)
    records.close()
    assert history_of((tmp_path / "journal").read_bytes()).usage == Usage(2, 2, 3, 4)


def test_a_journal_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / journal.NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="cannot be written"):
        journal.create(Folder.open(tmp_path), print)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.real_cli
def test_a_real_session_continues_after_a_sigkill_of_the_orchestrator(claude: str, tmp_path: Path) -> None:
    home, workspace, pidfile = tmp_path / "home", tmp_path / "work", tmp_path / "pid"
    home.mkdir()
    workspace.mkdir()
    tool = Call.bash(f"echo $$ > {pidfile}; exec sleep 600")
    script: Script = {"CERISE": [Tools((tool,)), Text()], CONTINUE_PROMPT: [Text("done")]}
    with StandIn(script) as api:
        own = ["--workspace", str(workspace), "--output-dir", str(tmp_path / "out"), "--report", str(tmp_path / "r")]
        argv = [sys.executable, "-m", "claude_orchestrator", *own, "--quiet", "--claude-bin", claude]
        env = {**claude_env(home, api.url), "PYTHONPATH": str(ROOT)}
        config = {"instances": [{"name": "one", "prompt": "CERISE work", "permission_mode": "bypassPermissions"}]}
        (tmp_path / "runs.json").write_text(json.dumps(config))
        process = subprocess.Popen([*argv, "--config", str(tmp_path / "runs.json")], env=env)
        content_of(pidfile, process)
        while not any("tool_use" in path.read_text() for path in home.glob(".claude/projects/*/*.jsonl")):
            assert process.poll() is None  # until the CLI has kept its session on disk
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert len(api.entries) == 1
        assert subprocess.run([*argv, "--resume", "last"], env=env, check=False).returncode == 0
        (instance,) = json.loads((tmp_path / "r").read_text())["instances"]
        assert instance["status"] == "completed" and instance["attempts"] == 2
        assert api.entries[1].marker == CONTINUE_PROMPT and len(api.entries) == 2
        billed = api.billed()
        counts = {key: instance["usage"][key] for key in Usage._fields}
        assert Usage(**counts) == billed
