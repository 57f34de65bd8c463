"""What a start imports: a module that it does not need is not loaded again by accident."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.benchmarks.startup import commands

LIST_MODULES = """
import gc, os, sys
before = set(sys.modules)
try:
    from claude_orchestrator.__main__ import main
    main()
finally:
    with open(os.environ["MODULES"], "w") as file:
        print(*(set(sys.modules) - before), f"gc.isenabled={gc.isenabled()}", sep="\\n", file=file)
"""
# for one option, or one kind of file or ledger
SELDOM = "csv difflib http.client psycopg secrets statistics urllib.request xml.sax zoneinfo"
ELSEWHERE = "base64 platformdirs queue random tempfile"  # of other systems, of seldom used settings, or of a run
OF_A_RUN = "asyncio claude_orchestrator.claude.events claude_orchestrator.engine.controller hashlib ssl"
OF_A_PLAN = "claude_orchestrator.config.config decimal sqlite3 subprocess token_budget.alerts"
OF_SOME_RUNS = """
    claude_orchestrator.claude.permission_rules
    claude_orchestrator.engine.continuing
    claude_orchestrator.cli.without_run
    claude_orchestrator.cli.runs.completion
    claude_orchestrator.config.expansion
    claude_orchestrator.config.for_each
    claude_orchestrator.config.graph
    claude_orchestrator.config.item_reading
    claude_orchestrator.config.items
    claude_orchestrator.config.reader
    claude_orchestrator.engine.check_runner
    claude_orchestrator.engine.growth
    claude_orchestrator.engine.in_flight
    claude_orchestrator.engine.journal_history
    claude_orchestrator.engine.low_budget
    claude_orchestrator.engine.metering
    claude_orchestrator.engine.ports
    claude_orchestrator.engine.rate_limits
    claude_orchestrator.engine.results.line_writer
    claude_orchestrator.engine.results.report_json
    claude_orchestrator.engine.results.upstream
    claude_orchestrator.engine.resume
    claude_orchestrator.engine.sessions
    claude_orchestrator.engine.sharing.cache_report
    claude_orchestrator.engine.verification
    claude_orchestrator.engine.worktrees.keeper
    claude_orchestrator.gateway.attempt
    claude_orchestrator.gateway.bedrock
    claude_orchestrator.launch.git
    claude_orchestrator.ui.ci.workflow_commands
    claude_orchestrator.ui.redraw
    dataclasses
    decimal
    hashlib
    random
    shlex
    shutil
    token_budget.ledger.accounts
    token_budget.ledger.database
    token_budget.ledger.store
    token_budget.trials
"""
OF_ITS_KIND = (
    "claude_orchestrator.cli.graph_view claude_orchestrator.engine.worktrees.start_checks "
    "claude_orchestrator.engine.control.connection claude_orchestrator.engine.control.run_control "
    "claude_orchestrator.gateway.server claude_orchestrator.launch.simulated"
)


@pytest.mark.parametrize(
    ("start", "unneeded"),
    [
        ("help", f"{SELDOM} {OF_ITS_KIND} {ELSEWHERE} {OF_A_RUN} {OF_A_PLAN} dataclasses"),
        ("dry_run", f"{SELDOM} {OF_ITS_KIND} {ELSEWHERE} {OF_A_RUN} dataclasses decimal"),
        ("run", f"{SELDOM} {OF_ITS_KIND} {OF_SOME_RUNS}"),
    ],
)
def test_a_start_imports_only_what_it_needs(tmp_path: Path, start: str, unneeded: str) -> None:
    started = commands(tmp_path)
    python, _, _, *arguments = started[start]
    subprocess.run(
        started["run"], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, check=True
    )  # a ledger
    modules = tmp_path / "modules"
    environ = {**os.environ, "HOME": str(tmp_path), "MODULES": str(modules)}
    done = subprocess.run([python, "-c", LIST_MODULES, *arguments], env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(modules.read_text().split())
    assert loaded & set(unneeded.split()) == set()
    assert f"gc.isenabled={start == 'run'}" in loaded
