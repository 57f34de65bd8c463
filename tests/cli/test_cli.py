"""The command line as a user meets it: real processes, a fake claude, what is printed and the exit code."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.harness import Workplace, alive, content_of
from tests.limits import HUNG_S

TWO = {"instances": [{"name": "one", "command": "/test --unit"}, {"name": "two", "command": "/test --all"}]}


def test_a_run_with_its_report(place: Workplace) -> None:
    done = place.run("--config", place.config(TWO), "--report", "report.json", "--junit", "junit.xml")
    assert done.returncode == 0, done.stderr
    report = place.report()
    assert report["schema_version"] == 1 and report["exit_code"] == 0 and report["mode"] == "warn"
    first = report["instances"][0]
    assert first["name"] == "one" and first["base_command"] == "/test" and first["status"] == "completed"
    assert first["usage"] == {
        "input_tokens": 1000,
        "output_tokens": 50,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "total_tokens": 1050,
        "exact": True,
    }
    assert first["cost_usd"] == 0.01 and first["models"] == ["fake-model"] and first["exit_code"] == 0
    assert report["totals"]["total_tokens"] == 2100
    log = Path(first["log"])
    assert stat.S_IMODE(log.stat().st_mode) == 0o600 and stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert '"type":"result"' in log.read_text()
    suite = ElementTree.parse(place.root / "junit.xml").getroot()[0]
    assert suite.get("tests") == "2" and suite.get("failures") == "0"


def test_block_mode_skips_what_does_not_fit(place: Workplace) -> None:
    args = ("--overall-token-budget", "1500", "--budget-enforcement-mode", "block", "--report", "report.json")
    done = place.run("--config", place.config(TWO), *args)
    assert done.returncode == 1
    assert "ERROR: BLOCK MODE: Budget exceeded for instance two. Skipping." in done.stderr
    statuses = [instance["status"] for instance in place.report()["instances"]]
    assert statuses == ["completed", "blocked"]
    assert place.report()["budgets"]["overall"] == {"limit": 1500, "used": 1050, "held": 0, "percentage": 70.0}


def test_warn_mode_says_so_and_goes_on(place: Workplace) -> None:
    done = place.run("--config", place.config(TWO), "--command-budget", "/test=1200", "--report", "report.json")
    assert done.returncode == 0
    # the second instance's start passes the limit; the first may or may not have ended by then
    assert re.search(r"WARNING: Budget exceeded for /test command \(used: \d+/1200 tokens\)", done.stderr)
    assert "BUDGET STATUS" in done.stdout and "(Warning!)" in done.stdout


def test_budget_stop_while_running(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "hang"}}]}
    args = ("--command-budget", "/test=1000", "--budget-enforcement-mode", "block", "--report", "report.json")
    done = place.run("--config", place.config(setup), *args)
    assert done.returncode == 1
    (instance,) = place.report()["instances"]
    assert instance["status"] == "stopped" and "/test command budget" in instance["reason"]
    assert instance["resume"] == "claude --resume 0f0e0d0c-0000-4000-8000-000000000001"
    assert "continue its session: claude --resume" in done.stdout
    assert not any(alive(pid) for pid in json.loads((place.root / "pids.json").read_text()))


@pytest.mark.parametrize(
    ("scenario", "status", "reason"),
    [
        ("crash", "failed", "exited with code 1 and without a result: something went wrong | badly"),
        ("no-result", "failed", "exited with code 0 and without a result: fatal: lost my way"),
        ("leaves-a-child", "completed", ""),
        ("garbage", "completed", ""),
        ("asks", "completed", ""),
        ("escapes", "failed", "error"),
    ],
)
def test_odd_instances(place: Workplace, scenario: str, status: str, reason: str) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": scenario}}]}
    done = place.run("--config", place.config(setup), "--report", "report.json", FORCE_COLOR="")
    (instance,) = place.report()["instances"]
    assert instance["status"] == status and instance["reason"].startswith(reason)
    assert done.returncode == (0 if status == "completed" else 1)
    assert "\x1b" not in done.stdout + done.stderr
    if (place.root / "pids.json").exists():
        assert not any(alive(pid) for pid in json.loads((place.root / "pids.json").read_text()))
    if scenario == "garbage":
        assert instance["broken_lines"] == 7 and instance["usage"]["total_tokens"] == 1050
    if scenario == "asks":
        answer = json.loads((place.root / "control_response.json").read_text())
        assert answer["response"]["response"]["behavior"] == "deny"


@pytest.mark.slow
def test_timeout_reaches_everything_that_was_started(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "timeout_s": 1, "env": {"FAKE_CLAUDE": "stubborn"}}]}
    begun = time.monotonic()
    place.run("--config", place.config(setup), "--report", "report.json")
    (instance,) = place.report()["instances"]
    assert instance["status"] == "timed_out" and instance["reason"] == "timed out after 1 s"
    assert instance["exit_code"] == -signal.SIGKILL and time.monotonic() - begun < 20
    assert not any(alive(pid) for pid in json.loads((place.root / "pids.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_stop_and_report(place: Workplace, number: signal.Signals, code: int) -> None:
    setup = {
        "instances": [
            {"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hang"}},
            {"name": "two", "prompt": "y", "env": {"FAKE_CLAUDE": "hang"}},
        ]
    }
    argv = place.argv("--config", place.config(setup), "--report", "report.json", "--max-parallel", "1")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pids = json.loads(content_of(place.root / "pids.json", process))
    process.send_signal(number)
    out, _ = process.communicate(timeout=HUNG_S)
    assert process.returncode == code and b"Total:" in out
    assert [instance["status"] for instance in place.report()["instances"]] == ["cancelled", "cancelled"]
    assert place.report()["exit_code"] == code
    assert not any(map(alive, pids))


def test_turns_arguments_folder_and_environment(place: Workplace) -> None:
    (place.workspace / "sub").mkdir()
    instance = {
        "name": "one",
        "command": "/test $(touch hacked) `x`",
        "pre_commands": ["/prime"],
        "clear_history": True,
        "compact_history": True,
        "permission_mode": "plan",
        "allowed_tools": ["Read", "Bash(git log:*)"],
        "model": "opus",
        "session_id": "0f0e0d0c-0000-4000-8000-000000000001",
        "append_system_prompt": "--be=kind",
        "mcp_config": {"mcpServers": {}},
        "cwd": "sub",
        "env": {"FAKE_CLAUDE": "echo", "SECRET": "s3cret"},
        "extra_args": ["--max-turns", "3"],
    }
    done = place.run("--config", place.config({"instances": [instance]}), "--report", "report.json")
    assert done.returncode == 0, done.stderr
    turns = json.loads((place.root / "turns.json").read_text())
    assert turns == ["/clear", "/compact", "/prime", "/test $(touch hacked) `x`"]
    argv = json.loads((place.root / "argv.json").read_text())
    assert argv[:6] == ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    assert argv[6:] == [
        "--include-partial-messages",
        "--permission-mode=plan",
        "--model=opus",
        "--resume=0f0e0d0c-0000-4000-8000-000000000001",
        "--allowedTools=Read,Bash(git log:*)",
        "--max-turns",
        "3",
        *argv[-2:],
    ]
    # these may hold secrets: by file, for everybody on the machine can read a process's arguments
    servers, system = (Path(arg.partition("=")[2]) for arg in argv[-2:])
    assert argv[-2].startswith("--mcp-config=") and argv[-1].startswith("--append-system-prompt-file=")
    assert servers.read_text() == '{"mcpServers": {}}' and system.read_text() == "--be=kind"
    assert stat.S_IMODE(servers.stat().st_mode) == stat.S_IMODE(system.stat().st_mode) == 0o600
    assert (place.root / "cwd.txt").read_text() == str(place.workspace / "sub")
    assert json.loads((place.root / "env.json").read_text())["SECRET"] == "s3cret"
    assert "s3cret" not in done.stdout + done.stderr
    assert not (place.workspace / "sub" / "hacked").exists()


# -- bad input --


BAD_CONFIGS: dict[str, tuple[Any, str]] = {
    "not json": ('{"instances": [}', "runs.json: line 1 column 16: invalid JSON"),
    "not an object": ([], "runs.json: expected an object, got []"),
    "no instances": ({}, "runs.json: instances: missing"),
    "empty instances": ({"instances": []}, "runs.json: instances: expected at least one instance"),
    "unknown key": (
        {"instances": [{"prompt": "x", "modle": "y"}]},
        "instances[0].modle: unknown key; did you mean 'model'?",
    ),
    "wrong type": (
        {"instances": [{"prompt": "x"}, {"prompt": "x"}, {"prompt": "x", "max_tokens_per_command": "lots"}]},
        "runs.json: instances[2].max_tokens_per_command: expected a positive whole number such as 50000, 50k or "
        '1.5M, got "lots"',
    ),
    "neither": ({"instances": [{"name": "x"}]}, "instances[0]: it has neither command nor prompt"),
    "empty command": ({"instances": [{"command": "  "}]}, "instances[0].command: is empty"),
    "duplicate names": (
        {"instances": [{"name": "a", "prompt": "x"}, {"name": "a", "prompt": "y"}]},
        'instances[1].name: duplicate name "a", first used by instances[0]',
    ),
    "zero budget": (
        {"instances": [{"prompt": "x"}], "budget": {"overall_budget": 0}},
        "budget.overall_budget: expected a positive",
    ),
    "float budget": (
        {"instances": [{"prompt": "x"}], "budget": {"command_budgets": {"/t": 1.5}}},
        "budget.command_budgets./t: expected",
    ),
    "bool budget": (
        {"instances": [{"prompt": "x"}], "budget": {"overall_budget": True}},
        "budget.overall_budget: expected",
    ),
    "unknown mode": (
        {"instances": [{"prompt": "x"}], "budget": {"enforcement_mode": "stop"}},
        "budget.enforcement_mode: expected one of warn, block",
    ),
    "unknown weights": (
        {"instances": [{"prompt": "x"}], "budget": {"token_weights": "heavy"}},
        "budget.token_weights: expected flat, billing",
    ),
    "output format": (
        {"instances": [{"prompt": "x", "output_format": "json"}]},
        "instances[0].output_format: expected one of stream-json",
    ),
    "duplicate key": (
        '{"instances": [{"prompt": "x", "prompt": "y"}]}',
        'instances[0]: the key "prompt" appears twice',
    ),
    "missing folder": ({"instances": [{"prompt": "x", "cwd": "nowhere"}]}, "nowhere: no such folder"),
    "name for all": ({"defaults": {"name": "x"}, "instances": [{"prompt": "y"}]}, "defaults.name: each instance has"),
    "wrong default": ({"defaults": {"model": 3}, "instances": [{"prompt": "y"}]}, "defaults.model: expected a string"),
    "no item": ({"instances": [{"prompt": "y", "for_each": []}]}, "instances[0].for_each: expected at least one item"),
    "two sources": (
        {"instances": [{"prompt": "y", "for_each": {"glob": "*", "lines": "x"}}]},
        "instances[0].for_each: expected one of glob, lines, jsonl, csv, matrix, result_of, got glob and lines",
    ),
    "unknown source": (
        {"instances": [{"prompt": "y", "for_each": {"globs": "*"}}]},
        "instances[0].for_each.globs: unknown key; did you mean 'glob'?",
    ),
    "glob outside": (
        {"instances": [{"prompt": "y", "for_each": {"glob": "../*"}}]},
        "instances[0].for_each.glob[0]: expected a pattern of files in the workspace",
    ),
    "empty matrix": (
        {"instances": [{"prompt": "y", "for_each": {"matrix": {"a": [], "b": [1]}}}]},
        "instances[0].for_each.matrix.a: expected a list of at least one value",
    ),
    "placeholder without items": (
        {"instances": [{"prompt": "y {{item}}"}]},
        "instances[0].command: {{item}}: there are no items: add for_each",
    ),
    "NUL in an item": (
        {"instances": [{"prompt": "y {{item}}", "for_each": ["a\0b"]}]},
        "instances[0].for_each[0]: a NUL or half a surrogate pair cannot be passed to claude",
    ),
    "the same item twice": (
        {"instances": [{"prompt": "y {{item}}", "name": "n", "for_each": ["a", "b", "a"]}]},
        "instances[0].name: the name n[a] also belongs to item 0",
    ),
    "the name of an item": (
        {"instances": [{"prompt": "y", "name": "n[a]"}, {"prompt": "y {{item}}", "name": "n", "for_each": ["a"]}]},
        "runs.json: two instances have the name n[a]: rename one of them",
    ),
    "own option": (
        {"instances": [{"prompt": "x", "extra_args": ["--output-format=json"]}]},
        "extra_args[0]: is set by the orchestrator",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_bad_config(place: Workplace, name: str, mode: list[str]) -> None:
    data, message = BAD_CONFIGS[name]
    done = place.run("--config", place.config(data), *mode)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    assert not (place.root / "turns.json").exists()


def test_all_config_errors_at_once(place: Workplace) -> None:
    data = {"instances": [{"prompt": 3, "timeout_s": -1}, {}], "budgets": {}, "budget": {"overall_budget": -5}}
    done = place.run("--config", place.config(data))
    assert done.returncode == 2 and done.stderr.count("ERROR: ") == 5


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "missing config": (["--config", "nope.json"], "nope.json: cannot read the config: No such file"),
    "config is a folder": (["--config", "."], "cannot read the config: Is a directory"),
    "zero budget": (["--overall-token-budget", "0"], "--overall-token-budget"),
    "negative budget": (["--overall-token-budget", "-5"], "--overall-token-budget"),
    "word budget": (["--overall-token-budget", "lots"], "--overall-token-budget"),
    "no equals": (["--command-budget", "/test"], "--command-budget: expected KEY=N"),
    "no key": (["--command-budget", "=5"], "--command-budget: the command before '=' is empty"),
    "no number": (["--command-budget", "/test="], "--command-budget: expected a positive whole number"),
    "bad number": (["--command-budget", "/test=1.5"], "--command-budget: expected a positive whole number"),
    "zero command budget": (["--command-budget", "/test=0"], "--command-budget: expected a positive whole number"),
    "unknown mode": (["--budget-enforcement-mode", "stop"], "--budget-enforcement-mode"),
    "unknown weights": (["--token-weights", "heavy"], "--token-weights: expected flat, billing"),
    "weights without number": (["--token-weights", "output=x"], "--token-weights: a weight is a number"),
    "unknown option": (["--nope"], "No such option"),
    "start at": (["--start-at", "soon"], "--start-at: expected a span"),
    "start at 25 o'clock": (["--start-at", "25:00"], "--start-at: expected a span"),
    "report folder": (["--report", "no/such/report.json"], "--report: no/such/report.json: cannot be written"),
    "report is a folder": (["--report", "."], "--report: .: is a folder"),
    "prompt and config": (["--config", "x", "hello"], "PROMPT and --config exclude each other"),
    "empty prompt": ([" "], "PROMPT: is empty"),
    "single option without prompt": (["--model", "opus"], "--model: only with a PROMPT or a config"),
    "item without for-each": (["Review {{item.stem}}"], "PROMPT: {{item}} stands for an item: add --for-each GLOB"),
    "for-each without prompt": (["--for-each", "*.py"], "--for-each: only with a PROMPT; in a config it is the key"),
    "limit without items": (["hello", "--limit", "3"], "--limit: only with --for-each, or with for_each in a config"),
    "empty glob": (["x {{item}}", "--for-each", "*.nope"], "matches *.nope (files that git ignores do not count)"),
    "glob of elsewhere": (["x", "--for-each", "/etc/*"], "--for-each: expected a pattern of files in the workspace"),
    "no file of items": (["x", "--for-each", "@nope.txt"], "nope.txt: cannot be read: No such file or directory"),
    "items of a device": (["x", "--for-each", "@/dev/zero"], "--for-each: /dev/zero: is not a regular file"),
    "no items": (["x", "--for-each", "@/dev/null"], "--for-each: /dev/null: is not a regular file"),
    "no items on standard input": (["x", "--for-each", "-"], "--for-each: standard input: has no items"),
    "standard input twice": (["-", "--for-each", "-"], "PROMPT and --for-each cannot both read standard input"),
    "bad seed": (["x", "--for-each", "-", "--shuffle", "x"], "--shuffle: expected a whole number"),
    "bad limit": (["x", "--for-each", "-", "--limit", "0"], "--limit: expected a positive whole number"),
    "nan": (["--timeout", "nan"], "--timeout"),
    "a value that the shell took": (
        ["x", "--overall-cost-budget", "--results", "-"],
        "'--overall-cost-budget' needs a value, but --results follows: write an amount in single quotes, as in '$2.50'",
    ),
    "a value that is missing": (
        ["x", "--model", "--quiet"],
        "Option '--model' needs a value, but --quiet follows (see",
    ),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(place: Workplace, name: str) -> None:
    args, message = BAD_OPTIONS[name]
    done = place.run(*args)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (place.root / "turns.json").exists()


def test_missing_workspace_and_claude(place: Workplace) -> None:
    done = place.run("hello", "--workspace", "nowhere")
    assert done.returncode == 2 and "--workspace" in done.stderr and "no such folder" in done.stderr
    done = place.run("hello", claude="/nowhere/claude")
    assert done.returncode == 2 and "--claude-bin: /nowhere/claude: no such file" in done.stderr
    plain = place.root / "plain"
    plain.write_text("x")
    done = place.run("hello", claude=str(plain))
    assert done.returncode == 2 and "not executable" in done.stderr
    done = place.run("hello", claude=None, PATH="/nowhere")
    assert done.returncode == 2 and "claude is not on PATH" in done.stderr


def test_too_old_and_mute_claude(place: Workplace) -> None:
    done = place.run("hello", FAKE_CLAUDE="old")
    assert done.returncode == 2 and "version 1.0.3 is too old" in done.stderr
    assert not (place.root / "turns.json").exists()
    assert place.run("hello", FAKE_CLAUDE="mute").returncode == 0
    done = place.run("hello", FAKE_CLAUDE="older")
    assert done.returncode == 0 and "WARNING: claude 2.1.100 cannot report its count while it works" in done.stderr


def test_output_folder_that_cannot_be(place: Workplace) -> None:
    (place.root / "file").write_text("")
    done = place.run("hello", "--output-dir", "file/runs")
    assert done.returncode == 2 and "--output-dir: file/runs: cannot be written" in done.stderr


# -- which config, which value --


def test_prompt_config_workspace_default(place: Workplace) -> None:
    assert "built-in default" in place.run("--dry-run").stdout
    (place.workspace / "claude-orchestrator.json").write_text(json.dumps(TWO))
    done = place.run("--dry-run")
    assert "claude-orchestrator.json" in done.stdout and "/test --unit" in done.stdout
    done = place.run("--dry-run", "/hello world", "--instance-name", "greeter")
    assert "from PROMPT" in done.stdout and "1. greeter" in done.stdout and "'/hello world'" in done.stdout


def test_dry_run_shows_everything_and_launches_nothing(place: Workplace) -> None:
    data = {**TWO, "budget": {"overall_budget": 1500, "enforcement_mode": "warn"}}
    args = (
        "--dry-run",
        "--budget-enforcement-mode",
        "block",
        "--command-budget",
        "/tset=9",
        "--command-budget",
        "two=5000",
    )
    done = place.run("--config", place.config(data), *args, CLAUDE_ORCHESTRATOR_MAX_PARALLEL="3")
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "-p --input-format stream-json --output-format stream-json --verbose" in out
    assert "the budget /tset=9 matches nothing in the plan; nearest: /test" in out
    assert "overall (1,500), instance two (5,000)" in out
    assert "admission: would start" in out
    assert "would wait (overall budget: used 0 + held by others 1,000 + estimate 1,000 > limit 1,500 tokens)" in out
    flat = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("overall_token_budget 1500 (") and line.endswith("runs.json)") for line in flat)
    assert "budget_enforcement_mode block (option)" in flat
    assert "max_parallel 3 (environment)" in flat
    assert "startup_delay_s 0.0 (default)" in flat
    assert "BUDGET STATUS" in out
    assert not (place.root / "turns.json").exists() and not (place.root / "out").exists()


def test_help_names_every_option_and_version(place: Workplace) -> None:
    done = place.run("--help")
    assert done.returncode == 0
    for option in (
        "--overall-token-budget",
        "--command-budget",
        "--budget-enforcement-mode",
        "--disable-budget-visuals",
    ):
        assert option in done.stdout
    assert place.run("--version").stdout.startswith("claude-orchestrator, version ")


def test_ascii_terminal(place: Workplace) -> None:
    args = ("--config", place.config(TWO), "--overall-token-budget", "5000")
    done = place.run(*args, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0 and "| Overall: [########" in done.stdout and done.stdout.isascii()


def test_start_at_waits(place: Workplace) -> None:
    done = place.run("hello", "--start-at", "1s")
    assert done.returncode == 0 and "INFO: Starting in 0:01" in done.stderr


# -- what the machine must have, and names of the program --


def test_values_as_people_write_them_in_options_and_environment(place: Workplace) -> None:
    args = ("--dry-run", "--overall-token-budget", "1.5M", "--overall-cost-budget", "$2.50", "--adjust", "fair")
    budgets = ("--command-budget", "/test=20k", "--command-cost-budget", "/test=$1.50", "--log-level", "WARNING")
    done = place.run("/test", *args, *budgets, CLAUDE_ORCHESTRATOR_TIMEOUT="5m")
    flat = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    for line in (
        "overall_token_budget 1500000 (option)",
        "overall_cost_budget $2.50 (option)",
        "hold_policy fair (option)",
        "timeout_s 300.0 (environment)",
        "command_budgets[/test] 20000 (option)",
        "command_cost_budgets[/test] $1.50 (option)",
    ):
        assert line in flat


def test_all_faults_of_the_command_line_at_once(place: Workplace) -> None:
    args = ("--overall-token-budget", "0.5", "--session-id", "", "--retries", "101")
    done = place.run("hello", *args, CLAUDE_ORCHESTRATOR_MAX_PARALLEL="many")
    assert done.returncode == 2
    assert sorted(line.split(": ")[1] for line in done.stderr.splitlines()) == [
        "--overall-token-budget",
        "--retries",
        "--session-id",
        "CLAUDE_ORCHESTRATOR_MAX_PARALLEL",
    ]


def test_mcp_files_are_looked_for_where_claude_looks(place: Workplace) -> None:
    (place.workspace / "sub").mkdir()
    (place.workspace / "sub" / "good.json").write_text('{"mcpServers": {}}')
    (place.workspace / "sub" / "bad.json").write_text("{}")
    entries = [
        {"prompt": "x", "cwd": "sub", "mcp_config": ["good.json"]},
        {"prompt": "x", "mcp_config": "good.json"},
        {"prompt": "x", "cwd": "sub", "mcp_config": "bad.json"},
    ]
    done = place.run("--config", place.config({"instances": entries}), "--dry-run")
    assert done.returncode == 2 and done.stderr.count("\n") == 2
    assert "instances[1].mcp_config: good.json: cannot be read: No such file or directory" in done.stderr
    assert "instances[2].mcp_config: bad.json: expected an object with mcpServers" in done.stderr


@pytest.mark.parametrize("script", ["claude-orchestrator", "claude-instance-orchestrator", "co"])
def test_completion_works_by_every_name_and_never_runs(place: Workplace, script: str) -> None:
    path = place.root / script
    path.write_text(f"#!{sys.executable}\nfrom claude_orchestrator.cli.main import main\nmain()\n")
    path.chmod(0o755)
    variable = f"_{script.replace('-', '_').upper()}_COMPLETE"
    for shell in ("zsh_source", "fish_source"):
        env = {**place.env, variable: shell}
        done = subprocess.run([path], env=env, cwd=place.workspace, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and variable in done.stdout and script in done.stdout, done.stderr
    words = {"COMP_WORDS": f"{script} --hold-policy p", "COMP_CWORD": "2", variable: "bash_complete"}
    done = subprocess.run([path], env={**place.env, **words}, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,pool\n"
    assert not (place.root / "turns.json").exists()


def test_the_variable_of_the_second_name_never_starts_a_run(place: Workplace) -> None:
    done = place.run("hello", _CLAUDE_INSTANCE_ORCHESTRATOR_COMPLETE="zsh_source")
    assert done.returncode == 0 and "claude-instance-orchestrator" in done.stdout
    assert not (place.root / "turns.json").exists() and not (place.root / "out").exists()


def test_a_budget_by_an_instances_name_is_an_instances_everywhere(place: Workplace) -> None:
    args = ("--command-budget", "one=5000", "--command-budget", "/test=9000", "--report", "report.json")
    done = place.run("--config", place.config(TWO), *args)
    budgets = place.report()["budgets"]
    assert set(budgets["instances"]) == {"one"} and set(budgets["commands"]) == {"/test"}
    assert done.returncode == 0


# -- tool calls that were denied --


def denied(place: Workplace, *args: str, own: object = None, **env: str) -> tuple[int, str, str]:
    """The exit code, what is printed, and the JUnit report of an instance that was denied two tool calls."""
    check = {"command": 'touch "$FAKE_DIR/checked"'}
    config = place.config({"instances": [{"name": "one", "prompt": "x", "fail_on_denied": own, "check": check}]})
    done = place.run("--config", config, "--junit", "junit.xml", *args, FAKE_DENIED="2", **env)
    return done.returncode, done.stdout, (place.root / "junit.xml").read_text()


def test_denied_tool_calls_are_shown(place: Workplace) -> None:
    code, table, junit = denied(place)
    assert code == 0 and "completed (2 denied)" in table and "completed (2 denied)\n" in junit
    assert (place.root / "checked").exists()


@pytest.mark.parametrize("how", ["option", "key", "CI"])
def test_denied_tool_calls_can_fail_an_instance(place: Workplace, how: str) -> None:
    env = {"CI": "true"} if how == "CI" else {}
    args = ("--fail-on-denied",) if how == "option" else ()
    code, table, junit = denied(place, *args, own=True if how == "key" else None, **env)
    assert code == 1 and "one: failed: 2 tool calls were denied: " in table and "<failure" in junit
    assert "allow what it needs with allowed_tools, or answer with --approvals ask" in table
    assert not (place.root / "checked").exists()  # nothing is verified that cannot count
    run = place.run("--resume", "last", *args, **env)
    assert run.returncode == 0, run.stdout  # another attempt, in which nothing was denied


def test_an_instance_has_the_last_word_on_denied_tool_calls(place: Workplace) -> None:
    assert denied(place, own=False, CI="true")[0] == 0 and denied(place, CI="false")[0] == 0
    text = place.run("/test", "--dry-run", CI="1").stdout
    assert "fail_on_denied" in text and "(CI is set)" in text
