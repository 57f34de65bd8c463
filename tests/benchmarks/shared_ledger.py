"""A ledger on a PostgreSQL server beside one in a file, in the same run: 16 orchestrators that admit 1,000 times each
against one limit, and the history of 1,000,000 records. Both wait for the disk at each admission.

    python -m tests.benchmarks.shared_ledger [RECORDS, 1,000,000] [ADMISSIONS, 1,000]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.ledger import COMMANDS, NOW_MS, fill, fill_store, median_ms
from tests.harness import ROOT
from tests.postgres import Postgres, find_binaries
from token_budget.forecast import forecast
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import AttemptRecord, HoldRequest, HoldState, Limit, RunRecord, UsageRecord
from token_budget.ledger.samples import SampleReader
from token_budget.models import Action, Amount, Usage, Weights
from token_budget.usage.history import history

RECORDS, EACH = 1_000_000, 1_000
ORCHESTRATORS, TOKENS, FITS = 16, 100, 0.8
LEASE_MS = 60_000
FLAT = Weights()


def orchestrate(place: str, run: str, admissions: int, limit: int) -> None:
    """One orchestrator: admit, use and release, one after the other; prints its times when it is told to begin."""
    ledger = open_store(place)
    ledger.write(runs=[RunRecord(run, "m", NOW_MS)], attempts=[AttemptRecord(run, "a", 1, NOW_MS)])
    print("ready", flush=True)
    sys.stdin.readline()
    times_ms, admitted = [], 0
    for number in range(admissions):
        request = HoldRequest(run, "a", Amount(TOKENS), LEASE_MS, FLAT, enforce=True, sent=True)
        start = time.perf_counter()
        answer = ledger.reserve(request, [Limit(0, limit)], now_ms())
        times_ms.append((time.perf_counter() - start) * 1000)
        if answer.action is Action.ALLOW and answer.hold is not None:
            admitted += 1
            record = UsageRecord(f"{run}/a/1/{number}", run, "a", 1, now_ms(), "m", Usage(TOKENS))
            ledger.write(records=[record], holds=[HoldState(answer.hold, run, Amount(), 0)], now_ms=now_ms())
    print(json.dumps({"admitted": admitted, "times_ms": times_ms}), flush=True)
    ledger.close()


def now_ms() -> int:
    return int(time.time() * 1000)


def admissions(place: str, orchestrators: int, each: int) -> dict[str, Any]:
    """What so many orchestrators take at once, and what they have used of a limit for four fifths of it."""
    ledger = open_store(place)
    before = ledger.shared([Limit(0, 1)], FLAT, now_ms()).used[0]
    limit = before + int(orchestrators * each * TOKENS * FITS)
    argv = [sys.executable, "-m", __spec__.name if __spec__ else "tests.benchmarks.shared_ledger", "--orchestrate"]
    started = [
        subprocess.Popen(
            [*argv, place, f"run-{orchestrators}-{number}", str(each), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(orchestrators)
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate()[0]) for process in started]
    took_s = time.perf_counter() - start
    used = ledger.shared([Limit(0, 1)], FLAT, now_ms()).used[0]
    ledger.close()
    times = sorted(ms for answer in answers for ms in answer["times_ms"])
    assert used <= limit, (used, limit)
    return {
        "admissions": len(times),
        "over_the_limit": max(0, used - limit),
        "share_used": round((used - before) / (limit - before), 4),
        "p50_ms": round(statistics.median(times), 2),
        "p99_ms": round(times[int(len(times) * 0.99) - 1], 2),
        "per_s": round(len(times) / took_s),
    }


def reading(place: str) -> dict[str, float]:
    ledger = open_store(place, create=False)
    month = Limit(NOW_MS - 30 * 86_400_000, 10**15)
    found = {
        "history_by_day_ms": median_ms(lambda: history(ledger, ("day",)), 3),
        "history_by_command_ms": median_ms(lambda: history(ledger, ("command",)), 3),
        "forecast_ms": median_ms(
            lambda: forecast(SampleReader(ledger).of(COMMANDS[3], ""), COMMANDS[3], "opus", NOW_MS / 1000)
        ),
        "monthly_limit_ms": median_ms(lambda: ledger.shared([month], FLAT, 0).used),
        "monthly_limit_of_an_account_ms": median_ms(lambda: ledger.shared([month], FLAT, 0, "team").used),
    }
    ledger.close()
    return found


def main() -> None:
    """Print a JSON line for each part."""
    if sys.argv[1:2] == ["--orchestrate"]:
        orchestrate(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    numbers = [int(text.replace(",", "")) for text in sys.argv[1:]]
    records, each = numbers[0] if numbers else RECORDS, numbers[1] if len(numbers) > 1 else EACH
    binaries = find_binaries()
    assert binaries is not None, "no PostgreSQL server"
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(binaries, is_durable=True)
        try:
            places = {"postgres": server.database(), "sqlite": str(Path(folder) / "ledger.db")}
            for name, place in places.items():
                open_store(place).close()
                for orchestrators in (1, ORCHESTRATORS):
                    row = admissions(place, orchestrators, each)
                    head = {"benchmark": "shared_ledger", "store": name, "orchestrators": orchestrators}
                    print(json.dumps({**head, **row, "load": round(os.getloadavg()[0], 1)}), flush=True)
            many = {"postgres": server.database(), "sqlite": str(Path(folder) / "many.db")}
            ledger = open_store(many["postgres"])
            fill_store(ledger, records)
            ledger.close()
            server.sql(many["postgres"], "VACUUM ANALYZE")  # as the server does by itself
            fill(Path(many["sqlite"]), records)
            for name, place in many.items():
                head = {"benchmark": "shared_ledger", "store": name, "records": records}
                print(json.dumps({**head, **reading(place), "load": round(os.getloadavg()[0], 1)}), flush=True)
        finally:
            server.remove()


if __name__ == "__main__":
    main()
