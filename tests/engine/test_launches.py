"""The limit on launches in an hour, which all runs share."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.launches import Launches
from claude_orchestrator.engine.run_context import NoSharedLimits, Services
from claude_orchestrator.engine.state import State
from claude_orchestrator.launch.simulated import SimulatedLauncher
from tests.harness import Watcher, make_supervisor
from tests.limits import HUNG_S
from token_budget.ledger.records import HOUR_MS
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Hold


def test_launches_of_one_run() -> None:
    launches = Launches()
    assert [launches.claim(2, 0), launches.claim(2, 1_000)] == [0, 0]
    assert launches.claim(2, 5_000) == HOUR_MS - 5_000
    assert launches.claim(3, 5_000) == 0
    assert launches.claim(2, HOUR_MS) == 1_000  # a limit that is lower than before
    assert launches.claim(2, HOUR_MS + 5_000) == 0


def test_launches_of_all_runs(tmp_path: Path) -> None:
    first, second = (SqliteLedger(tmp_path / "ledger.db") for _ in range(2))
    assert [first.claim_launch(2, "a", 10_000), second.claim_launch(2, "b", 11_000)] == [0, 0]
    assert first.claim_launch(2, "a", 15_000) == second.claim_launch(2, "b", 15_000) == HOUR_MS - 5_000
    assert second.claim_launch(2, "b", 10_000 + HOUR_MS) == 0
    assert first.claim_launch(1, "a", 20 * HOUR_MS) == 0
    assert first.claim_launch(1, "a", HOUR_MS * 2) == 0  # what a wrong clock has left does not count
    first.close()
    second.close()


def test_no_more_launches_than_the_limit_whoever_asks(tmp_path: Path) -> None:
    def ask(number: int) -> int:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        try:
            return sum(ledger.claim_launch(25, str(number), 1_000_000 + turn) == 0 for turn in range(10))
        finally:
            ledger.close()

    SqliteLedger(tmp_path / "ledger.db").close()
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(8))) == 25


class Rate(NoSharedLimits):
    """Shared limits in whose hour launches become free one by one."""

    def __init__(self, *waits_s: float) -> None:
        self.waits_s = list(waits_s)
        self.released_holds = 0

    async def claim_launch(self, most: int) -> float:
        assert most == 7
        return self.waits_s.pop(0)

    def released(self, hold: Hold) -> None:
        self.released_holds += 1


def test_an_instance_waits_until_a_launch_is_free() -> None:
    entry = {"prompt": "x", "rehearsal": {"seconds": 0.01}}
    config = parse_config({"instances": [{"name": "one", **entry}, {"name": "two", **entry}]}, "x")
    settings = Settings(max_launches_per_hour=7, overall_token_budget=1_000_000)
    plan = make_plan(config, settings, workspace="/", claude_bin="claude")
    rate, watcher, bus = Rate(0.0, 0.05, 0.05, 0.0), Watcher(), Bus()
    bus.attach(watcher)
    supervisor = make_supervisor(plan, settings, SimulatedLauncher(), bus=bus, services=Services(shared=rate))
    asyncio.run(asyncio.wait_for(supervisor.run(), HUNG_S))
    assert [status.state for status in supervisor.instances] == [State.COMPLETED] * 2 and rate.waits_s == []
    waiting = [text for text in watcher.messages if "waits" in text]
    assert waiting == ["INFO: two waits: launch rate: all 7 launches of an hour are taken"]
    assert rate.released_holds == 4 and all(budget.held == 0 for budget in supervisor.manager.budgets)


@pytest.mark.parametrize("ledger", [True, False])
def test_a_run_within_the_limit(tmp_path: Path, ledger: bool) -> None:
    (tmp_path / "claude-orchestrator.json").write_text(
        json.dumps({"instances": [{"name": "one", "prompt": "x", "rehearsal": {"seconds": 0.05}}]})
    )
    file = tmp_path / "ledger.db"
    argv = [sys.executable, "-m", "claude_orchestrator", "--rehearse", "--workspace", str(tmp_path)]
    argv += ["--output-dir", str(tmp_path / "out"), "--max-launches-per-hour", "3", "--ledger"]
    done = subprocess.run([*argv, str(file) if ledger else "off"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    if ledger:
        past = SqliteLedger(file)
        now_ms = round(time.time() * 1000)
        assert [past.claim_launch(2, "b", now_ms) == 0 for _ in range(2)] == [True, False]  # the run has taken one
        past.close()
