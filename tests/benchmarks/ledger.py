"""A ledger of 1,000,000 records: its history by day and a forecast, beside one bare scan of the same rows; and what a
recorded delta costs the event loop and the ledger's own thread, beside the same rows in transactions of their own.

    python -m tests.benchmarks.ledger [RECORDS, 1,000,000]
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync
from claude_orchestrator.engine.run_events import UsageRecorded
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.forecast import forecast
from token_budget.ledger.records import AttemptRecord, Limit, RunRecord, UsageRecord
from token_budget.ledger.samples import SampleReader
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.store import LedgerStore
from token_budget.models import Usage, Weights
from token_budget.usage.history import history

RECORDS = 1_000_000
BY_ATTEMPT, BY_RUN = 20, 200  # records
DAYS = 365
NOW_MS = 1_764_000_000_000
COMMANDS = tuple(f"/command-{number}" for number in range(30))
DELTAS, INSTANCES = 50_000, 16


def parcels(records: int) -> Iterator[tuple[RunRecord, list[AttemptRecord], list[UsageRecord]]]:
    """Runs spread over a year, each of some attempts."""
    random, step_ms = Random(0), DAYS * 86_400_000 // records
    for first in range(0, records, BY_RUN):
        run, at_ms = f"run-{first}", NOW_MS - (records - first) * step_ms
        attempts, found = [], []
        for place in range(0, BY_RUN, BY_ATTEMPT):
            command, instance = random.choice(COMMANDS), f"i{place}"
            start_ms = at_ms + place * step_ms
            end_ms = start_ms + BY_ATTEMPT * step_ms
            attempts.append(
                AttemptRecord(
                    run, instance, 1, start_ms, None, command, command, "opus", end_ms, "completed", exact=True
                )
            )
            for number in range(BY_ATTEMPT):
                usage = Usage(random.randrange(500), random.randrange(2000), random.randrange(900), 9000)
                place_ms = start_ms + number * step_ms
                found.append(
                    UsageRecord(f"{run}/{instance}/1/{number}", run, instance, 1, place_ms, "opus", usage, 9, "claude")
                )
        yield RunRecord(run, "machine", at_ms, at_ms + BY_RUN * step_ms, exit_code=0), attempts, found


def fill(path: Path, records: int) -> None:
    """A ledger with so many records; without syncs, which nobody needs here."""
    ledger = SqliteLedger(path)
    ledger._file.db.execute("PRAGMA synchronous = OFF")
    fill_store(ledger, records)
    ledger.close()


def fill_store(ledger: LedgerStore, records: int) -> None:
    """Write so many records."""
    runs: list[RunRecord] = []
    attempts: list[AttemptRecord] = []
    found: list[UsageRecord] = []
    for run, more_attempts, more in parcels(records):
        runs.append(run)
        attempts += more_attempts
        found += more
        if len(found) >= 50_000:
            ledger.write(runs=runs, attempts=attempts, records=found)
            runs, attempts, found = [], [], []
    ledger.write(runs=runs, attempts=attempts, records=found)


def median_ms(work: Callable[[], object], times: int = 5) -> float:
    spans = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spans.append(time.perf_counter() - start)
    return round(statistics.median(spans) * 1000, 1)


def reading(path: Path) -> dict[str, float]:
    ledger = SqliteLedger(path, create=False)
    bare = sqlite3.connect(path)
    month = Limit(NOW_MS - 30 * 86_400_000, 10**15)
    found = {
        "history_by_day_ms": median_ms(lambda: history(ledger, ("day",))),
        "history_by_command_ms": median_ms(lambda: history(ledger, ("command",)), 3),
        "history_by_day_of_30_days_ms": median_ms(lambda: history(ledger, ("day",), since_ms=month.since_ms)),
        "forecast_ms": median_ms(
            lambda: forecast(SampleReader(ledger).of(COMMANDS[3], ""), COMMANDS[3], "opus", NOW_MS / 1000)
        ),
        "monthly_limit_ms": median_ms(lambda: ledger.shared([month], Weights(), 0).used),
        "bare_scan_ms": median_ms(
            lambda: bare.execute("SELECT at_ms / 86400000, sum(input + output) FROM records GROUP BY 1").fetchall()
        ),
    }
    bare.close()
    ledger.close()
    return found


async def recording(path: Path) -> dict[str, float]:
    """Deltas of instances that all run at once, written in batches as a run does."""
    settings = Settings()
    config = parse_config({"instances": [{"name": f"i{n}", "prompt": "x"} for n in range(INSTANCES)]}, "benchmark")
    plan = make_plan(config, settings, workspace="/", claude_bin="claude")
    instances = tuple(map(InstanceStatus, plan.specs))
    run = RunRecord("run", "machine", NOW_MS)
    ledger = LedgerSync(SqliteLedger(path), run, make_manager(plan, settings), Weights(), Bus())
    await ledger.begin()
    for status in instances:
        status.begin(0.0)
        status.attempt.meter()
    on_loop_s, flushed_s, batches = 0.0, 0.0, 0
    for number in range(DELTAS):
        status = instances[number % INSTANCES]
        status.apply(ApiUsage(f"message-{number}", Usage(100, 50), whole=True))
        start = time.perf_counter()
        delta = status.attempt.costs.take_delta(Weights())
        assert delta is not None
        ledger.observe(UsageRecorded(status, delta))
        on_loop_s += time.perf_counter() - start
        if number % 1000 == 999:  # what a run has in a second
            start = time.perf_counter()
            await ledger.flush()
            flushed_s += time.perf_counter() - start
            batches += 1
    await ledger.end(0)
    return {
        "delta_on_the_loop_us": round(on_loop_s / DELTAS * 1e6, 2),
        "delta_with_its_share_of_the_writing_us": round((on_loop_s + flushed_s) / DELTAS * 1e6, 2),
        "batch_ms": round(flushed_s / batches * 1000, 2),
    }


def one_by_one(path: Path) -> float:
    """The same deltas, each in a transaction of its own, in microseconds."""
    ledger, count = SqliteLedger(path), 500
    ledger.write(runs=[RunRecord("run", "m", 1)], attempts=[AttemptRecord("run", "a", 1, 1)])
    start = time.perf_counter()
    for number in range(count):
        ledger.write(records=[UsageRecord(f"run/a/1/{number}", "run", "a", 1, NOW_MS, "m", Usage(100, 50))])
    took_s = time.perf_counter() - start
    ledger.close()
    return round(took_s / count * 1e6, 1)


def main() -> None:
    """Print one JSON line."""
    records = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else RECORDS
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        start = time.perf_counter()
        fill(place / "many.db", records)
        filled_s = round(time.perf_counter() - start, 1)
        size_mib = round((place / "many.db").stat().st_size / 2**20)
        row = {"records": records, "filled_s": filled_s, "size_mib": size_mib, **reading(place / "many.db")}
        row |= asyncio.run(recording(place / "deltas.db"))
        row["delta_in_its_own_transaction_us"] = one_by_one(place / "single.db")
    print(json.dumps({"benchmark": "ledger", **row}))


if __name__ == "__main__":
    main()
