"""Reports as pure functions of state, time and render options; the terminal on a real pseudo-terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from claude_orchestrator.claude.events import Init
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.fields import DEFAULT_COLUMNS
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.results.report_json import json_report
from claude_orchestrator.engine.run_view import RunView, exit_code
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.ui import status
from claude_orchestrator.ui.junit import junit_report
from claude_orchestrator.ui.terminal import Terminal
from tests.claude.test_tally import INIT, final, result, start
from tests.limits import HUNG_S
from tests.views import a_view
from token_budget.text import RenderOptions

ESCAPE = re.compile(r"\033\[[0-9;]*m")
NOW = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)


def a_run(*names: str, budget: int | None = 5000) -> RunView:
    """A run in which the first instance is done and the others wait."""
    entries = [{"name": name, "command": "/test"} for name in names]
    settings = Settings(overall_token_budget=budget, command_budgets=(("/test", 4000),))
    plan = make_plan(parse_config({"instances": entries}, "x"), settings, workspace="/", claude_bin="claude")
    instances = [InstanceStatus(spec) for spec in plan.specs]
    manager = make_manager(plan, settings)
    first = instances[0]
    first.begin(100.0)
    first.attempt.next_turn()
    for event in parse(b"\n".join((INIT, start("a", 3000), final(12), result(3000, 12), b""))):
        first.apply(event)
    delta = first.attempt.costs.take_delta(settings.token_weights)
    assert delta is not None
    manager.record("/test", delta.amount, first.name)
    first.finish(165.0, 0, "")
    return a_view(plan, instances, manager, NOW, 100.0, "run-1")


def test_final_report_says_how_to_go_on() -> None:
    run = a_run("one", "two")
    second = run.instances[1]
    second.begin(110.0)
    second.apply(Init("abc", "m", "", frozenset()))
    second.decide_end(State.STOPPED, "stopped by budget: overall budget: used 6,000/5,000 tokens")
    second.finish(120.0, 1, "")
    text = "\n".join(status.final_report(run, 165.0, RenderOptions(100), DEFAULT_COLUMNS))
    assert "two: stopped: stopped by budget: overall budget" in text
    assert "continue its session: claude --resume abc" in text
    assert exit_code(run.instances) == 1 and exit_code(run.instances[:1]) == 0


def test_json_report_has_the_documented_keys() -> None:
    data = json_report(a_run("one", "two"), NOW, 1)
    assert set(data) >= {"schema_version", "run_id", "started_at", "ended_at", "exit_code", "mode", "budgets"}
    assert data["budgets"]["commands"]["/test"] == {"limit": 4000, "used": 3012, "held": 0, "percentage": 75.3}
    documented = """name command base_command status reason session_id models usage cost_usd duration_s turns
        tool_calls tools permission_denials exit_code log""".split()
    assert set(data["instances"][0]) >= set(documented)
    assert data["instances"][0]["usage"]["exact"] is True and data["totals"]["total_tokens"] == 3012
    assert datetime.fromisoformat(data["started_at"]) == NOW
    json.dumps(data)


def test_junit_holds_hostile_text() -> None:
    run = a_run("one", "two")
    run.instances[1].skip(State.BLOCKED, "no \x1b[2J & <more>\x00")
    root = ElementTree.fromstring(junit_report(run, 12.5))
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "0", "1")
    assert suite[1][0].get("message") == "blocked: no \\x1b[2J & <more>\\x00"


def test_messages_by_level_and_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err, level="warning")
    for level in ("INFO", "WARNING", "ERROR"):
        terminal.message(level, "a\x1b]0;title\x07b")
    assert err.getvalue() == "WARNING: a\\x1b]0;title\\x07b\nERROR: a\\x1b]0;title\\x07b\n"
    quiet = Terminal(out, err, quiet=True)
    quiet.message("WARNING", "x")
    assert "WARNING: x" not in err.getvalue()


def on_a_terminal(*args: str, **env: str) -> str:
    """What the program writes to a terminal of 80 cells and 24 lines."""
    master, slave = pty.openpty()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": env.pop("HOME"),
        "TERM": "xterm",
        "COLUMNS": "80",
        "LINES": "24",
        **env,
    }
    argv = [sys.executable, "-m", "claude_orchestrator", *args]
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=environ)
    os.close(slave)
    chunks = []
    while True:
        select.select([master], [], [], 30)
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    assert process.wait(HUNG_S) == 0
    return b"".join(chunks).decode()


@pytest.fixture
def rehearsal(tmp_path: Path) -> list[str]:
    path = tmp_path / "c.json"
    entry = {"name": "one", "prompt": "x", "rehearsal": {"tokens": 900, "seconds": 0.5}}
    path.write_text(json.dumps({"instances": [entry], "budget": {"overall_budget": 1000}}))
    return ["--config", str(path), "--rehearse", "--output-dir", str(tmp_path / "out"), "--workspace", str(tmp_path)]


def test_a_terminal_is_redrawn_in_place(rehearsal: list[str], tmp_path: Path) -> None:
    shown = on_a_terminal(*rehearsal, HOME=str(tmp_path))
    assert re.search(r"\033\[\d+F", shown) and "900" in shown
    assert "\033[33m[██████████████████░░]\033[0m 90%" in shown
    colorless = on_a_terminal(*rehearsal, HOME=str(tmp_path), NO_COLOR="1")
    assert "[██████████████████░░] 90%" in colorless and not ESCAPE.search(colorless)


def test_a_dumb_terminal_gets_plain_lines(rehearsal: list[str], tmp_path: Path) -> None:
    assert "\033" not in on_a_terminal(*rehearsal, HOME=str(tmp_path), TERM="dumb")
