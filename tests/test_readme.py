"""Every documented command is run; documented Python too."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prose
from tests.limits import HUNG_S
from tests.postgres import Postgres
from tests.ray_nodes import HAS_RAY
from token_budget.fields import TOKENS
from token_budget.ledger.export_import import export
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import AccountLimit, AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Unit, Usage
from token_budget.windows import Window

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
GUIDE_NAMES = """
    alerts approvals budgets config fan-out forecasts ledger live money profiles report retries shared-ledger stopping
"""
GUIDES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in GUIDE_NAMES.split())]
# .ci/run runs these, each in an environment of its own
SET_UP = ("python3 -m venv",)
SERVER = "postgresql://db.example/ledger"  # that of the tests takes its place
FIRST_REQUEST_TOKENS = 20_000  # what Claude Code sends before the user's own words, at most
LIMIT = re.compile(r"--(?:overall|daily|weekly|monthly)-token-budget[ =](\S+)|--command-budget[ =][^\s=]+=(\S+)")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


COMMANDS = [
    line
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.strip().splitlines()
    if not line.startswith(SET_UP)
]
MANUAL = """
claude-orchestrator --dry-run --overall-token-budget 5000
claude-orchestrator --dry-run --command-budget "/test=1000" --command-budget "/deploy=2000"
claude-orchestrator --help | grep -A5 "token-budget"
claude-orchestrator --list-commands --overall-token-budget 10000
claude-instance-orchestrator --overall-token-budget 10000 --disable-budget-visuals --quiet
eval "$(_CLAUDE_ORCHESTRATOR_COMPLETE=bash_source claude-orchestrator)"
""".strip().splitlines()
# a block of Python, which may await as a cell of a notebook does
CELL = """
import ast, asyncio, sys
result = eval(compile(sys.argv[1], "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), globals())
if result is not None:
    asyncio.run(result)
"""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """A workspace with the README's runs.json, a `claude` on PATH that spends little, and a past."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "claude").symlink_to(Path(__file__).with_name("fake_claude.py"))
    scripts = {"claude-orchestrator": "-m claude_orchestrator", "python": ""}
    scripts["claude-instance-orchestrator"] = scripts["claude-orchestrator"]
    scripts["claude-runs"] = "-c 'from claude_orchestrator.cli.runs.main import main; main()'"
    scripts["token-budget"] = "-c 'from token_budget.usage.cli import main; main()'"
    for name, args in scripts.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {args} "$@"\n')
        (tools / name).chmod(0o755)
    (tmp_path / "runs.json").write_text(blocks(ROOT / "README.md", "json")[0])
    (tmp_path / "fan-out.json").write_text(blocks(ROOT / "docs" / "fan-out.md", "json")[0])
    (tmp_path / "graph.json").write_text(blocks(ROOT / "docs" / "graphs.md", "json")[0])
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("")
    (tmp_path / "claude-orchestrator-profiles.json").write_text(blocks(ROOT / "docs" / "profiles.md", "json")[0])
    app = tmp_path / ".config" / "claude-orchestrator"
    app.mkdir(parents=True)
    shutil.copy(tmp_path / "claude-orchestrator-profiles.json", app / "profiles.json")
    (tmp_path / ".claude" / "projects").mkdir(parents=True)
    ledger = SqliteLedger(app / "ledger.db")
    ledger.write(
        runs=[RunRecord("past", "m", 1, 2)],
        attempts=[AttemptRecord("past", "unit", 1, 1, None, "/test", "/test", "opus", 2, "completed", exact=True)],
        records=[UsageRecord("past/unit/1/1", "past", "unit", 1, 1, "opus", Usage(100), 500, "claude")],
    )
    (tmp_path / "use.jsonl").write_text("\n".join(export(ledger)))
    ledger.close()
    (tmp_path / ".claude" / "commands").mkdir(parents=True)
    (tmp_path / ".claude" / "commands" / "test.md").write_text("Run the tests")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return {
        "PATH": path,
        "HOME": str(tmp_path),
        "FAKE_DIR": str(tmp_path),
        "FAKE_TOKENS": "100",
        "PYTHONPATH": str(ROOT),
        "CLAUDE_ORCHESTRATOR_OUTPUT_DIR": str(tmp_path / "runs"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS + MANUAL)
def test_documented_command(command: str, shell: dict[str, str], request: pytest.FixtureRequest) -> None:
    if "--cluster" in command and not HAS_RAY:
        pytest.skip("Ray is not installed")
    if SERVER in command:
        address = shared_ledger(request.getfixturevalue("postgres"), shell)
        command = command.replace(SERVER, f"'{address}'")
    with contextlib.ExitStack() as at_work:
        if command.startswith("claude-runs "):
            at_work.enter_context(run_for(command, shell))
        done = in_shell(command, shell)
    assert done.returncode == 0, done.stdout + done.stderr


def shared_ledger(postgres: Postgres, shell: dict[str, str]) -> str:
    """A database with limits of an account, and a ledger in a file that can move there; returns its address."""
    address = postgres.database()
    ledger = open_store(address)
    limits = [AccountLimit(Window.DAILY, Unit.TOKENS, 10**7), AccountLimit(Window.MONTHLY, Unit.USD, 10**12)]
    ledger.set_limits("team", limits)
    ledger.close()
    home = Path(shell["HOME"])
    shutil.copy(home / ".config" / "claude-orchestrator" / "ledger.db", home / "ledger.db")
    return address


def in_shell(command: str, shell: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = ["bash", "-c", command]
    return subprocess.run(
        argv, cwd=shell["HOME"], env=shell, capture_output=True, text=True, timeout=HUNG_S, check=False
    )


@contextlib.contextmanager
def run_for(command: str, shell: dict[str, str]) -> Iterator[None]:
    """A rehearsal that a command of claude-runs sees: one that waits for an approval, or one that is over."""
    is_over = any(word in command for word in (" wait ", " results ", " watch ", " prune "))
    options = "--config runs.json --rehearse --ledger off" + ("" if is_over else " --approvals ask")
    process = subprocess.Popen(
        ["bash", "-c", f"exec claude-orchestrator {options} >/dev/null 2>&1"], cwd=shell["HOME"], env=shell
    )
    try:
        if is_over:
            process.wait(timeout=HUNG_S)
        else:
            in_shell("until claude-runs approvals last 2>&1 | grep -q npm; do sleep 0.2; done", shell)
        if " resume " in command:
            in_shell("claude-runs pause last", shell)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_python_and_json(page: Path, shell: dict[str, str]) -> None:
    for block in blocks(page, "python"):
        subprocess.run(
            [sys.executable, "-c", CELL, block], check=True, capture_output=True, cwd=shell["HOME"], env=shell
        )
    for block in blocks(page, "json"):
        json.loads(block)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_limits_let_claude_work(page: Path) -> None:
    commands = "\n".join(blocks(page, "bash"))
    limits = [TOKENS.read(overall or command) for overall, command in LIMIT.findall(commands)]
    assert all(limit > FIRST_REQUEST_TOKENS for limit in limits), limits


def test_the_documentation_is_easy_to_read() -> None:
    found = [sentence for page in PAGES for sentence in prose.sentences(page.read_text())]
    assert prose.passive_share(found) <= 0.3
    assert prose.asides_each(found) <= 0.4
    assert prose.longest_of_nine_in_ten(found) <= 30


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_guide_addresses_its_reader(page: Path) -> None:
    found = list(prose.sentences(page.read_text()))
    assert prose.reader_share(found) >= 0.2
    assert prose.passive_share(found) <= 0.3
    assert prose.asides_each(found) <= 0.4
    assert prose.longest_of_nine_in_ten(found) <= 30


def test_every_option_is_in_the_reference() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "claude_orchestrator", "--help"], capture_output=True, text=True, check=True
    ).stdout
    options = set(re.findall(r"^  (--[a-z-]+)", help_text, re.MULTILINE)) - {"--version"}
    page = (ROOT / "docs" / "options.md").read_text()
    assert {option for option in options if f"`{option}" not in page} == set()


def test_exit_codes_and_stopping_times_are_the_codes() -> None:
    from claude_orchestrator.config.settings import Settings
    from claude_orchestrator.launch.local_process import LADDER

    page = (ROOT / "docs" / "stopping.md").read_text()
    for _, part in LADDER:
        assert f"| {part * Settings().grace_s:.1f} s |" in page


def test_the_faults_page_names_each_test_of_a_fault() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    of_faults = {name for path in (ROOT / "tests" / "faults").glob("*.py") for name in names_of_tests(path)}
    everywhere = {name for path in (ROOT / "tests").rglob("*.py") for name in names_of_tests(path)}
    assert of_faults - named == set()
    assert named - everywhere == set()


def test_each_promise_of_security_has_a_test() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    promises, _, rest = page.partition("## Who could attack, and what holds")
    made = set(re.findall(r"^- \*\*([^*]+?)\.?\*\*", promises, re.MULTILINE))
    made |= set(re.findall(r"^\*\*([^*]+?)\.\*\*", rest, re.MULTILINE)) - {"Limits"}
    _, _, table = page.partition("## The tests of each promise")
    rows = dict(re.findall(r"^\| ([A-Z][^|]*?) \| (`.*`) \|$", table, re.MULTILINE))
    everywhere = {name for path in (ROOT / "tests").rglob("*.py") for name in names_of_tests(path)}
    assert made == set(rows)
    assert all(set(re.findall(r"`(\w+)`", tests)) <= everywhere for tests in rows.values())


def names_of_tests(path: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
