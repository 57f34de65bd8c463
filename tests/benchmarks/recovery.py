"""What a crash costs: processes that outlive a SIGKILL, the journal's price for each event, and a resume's start.

    python -m tests.benchmarks.recovery

Each figure stands beside its reference of the same run: killing the same number of processes directly; writing the
same bytes without a journal; planning the same run without resuming it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine import journal
from claude_orchestrator.engine.journal_records import turns_digest
from token_budget.folders import Folder

# an instance with a tool in a session of its own
CLAUDE = """#!/bin/sh
[ "$1" = --version ] && { echo "2.1.330 (Claude Code)"; exit; }
read turn
setsid sleep 600 &
echo $! $$ > "$PIDS/$$.tmp"
mv "$PIDS/$$.tmp" "$PIDS/$$.pid"
echo '{"type":"system","subtype":"init","session_id":"s","model":"m"}'
exec sleep 600
"""
EVENTS = 50_000
INSTANCES = 10_000
ROUNDS = 3


def gone(pid: int) -> bool:
    """Dead, or dead and not yet waited for by its parent."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def until_gone(pids: list[int], begun: float) -> float:
    while not all(map(gone, pids)):
        time.sleep(0.001)
    return (time.perf_counter() - begun) * 1000


def deaths(folder: Path, count: int) -> tuple[float, float]:
    """Milliseconds from the orchestrator's SIGKILL to the last death; and from as many direct kills to theirs."""
    pids_dir = folder / f"pids-{time.monotonic_ns()}"
    pids_dir.mkdir()
    config = folder / "runs.json"
    config.write_text(json.dumps({"instances": [{"name": f"i{n}", "prompt": "x"} for n in range(count)]}))
    argv = [
        sys.executable,
        "-m",
        "claude_orchestrator",
        "--config",
        str(config),
        "--max-parallel",
        str(count),
        "--quiet",
    ]
    argv += ["--claude-bin", str(folder / "claude"), "--output-dir", str(folder / "out"), "--workspace", str(folder)]
    process = subprocess.Popen(argv, env={**os.environ, "PIDS": str(pids_dir)}, stdout=subprocess.DEVNULL)
    while len(list(pids_dir.glob("*.pid"))) < count:
        time.sleep(0.01)
    pids = [int(pid) for path in pids_dir.glob("*.pid") for pid in path.read_text().split()]
    time.sleep(0.2)
    begun = time.perf_counter()
    process.send_signal(signal.SIGKILL)
    ours = until_gone(pids, begun)
    process.wait()
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(2 * count)]
    begun = time.perf_counter()
    for sleeper in sleepers:
        sleeper.kill()
    reference = until_gone([sleeper.pid for sleeper in sleepers], begun)
    for sleeper in sleepers:
        sleeper.wait()
    return ours, reference


def event_cost(folder: Path) -> tuple[float, float, float]:
    """Microseconds for a `usage` record; for the same bytes by write(2) alone; milliseconds for an fsync after it."""
    fields = {"instance": "integration-tests", "attempt": 1, "usage": (123_456, 7_890, 12_345, 2_345_678)}
    fd = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    records = journal.Journal(fd, print)
    begun = time.perf_counter()
    for _ in range(EVENTS):
        records.write("usage", **fields, cost_usd=1.25)
    ours = (time.perf_counter() - begun) / EVENTS * 1e6
    line = journal.encode({"n": 12345, "kind": "usage", "at": time.time(), **fields, "cost_usd": 1.25})
    begun = time.perf_counter()
    for _ in range(EVENTS):
        os.write(fd, line)
    reference = (time.perf_counter() - begun) / EVENTS * 1e6

    async def synced() -> float:
        begun = time.perf_counter()
        for _ in range(20):
            records.write("usage", **fields, cost_usd=1.25)
            await records.sync()
        return (time.perf_counter() - begun) / 20 * 1000

    sync_ms = asyncio.run(synced())
    records.close()
    return ours, reference, sync_ms


def resume_time(folder: Path) -> tuple[float, float]:
    """Seconds to resume a run of 10,000 instances, all but one completed (a rehearsal, a journal of 120,001 lines);
    and to dry-run its config anew."""
    last = {"name": "last", "prompt": "x", "rehearsal": {"seconds": 0.01}}
    data = {"instances": [*({"name": f"i{n}", "prompt": f"do {n}"} for n in range(INSTANCES - 1)), last]}
    config = folder / "many.json"
    config.write_text(json.dumps(data))
    plan = make_plan(parse_config(data, "x"), Settings(), workspace=str(folder), claude_bin="claude")
    run_folder = folder / "out" / "20260101-000000-aaaaaa"
    run_folder.mkdir(parents=True)
    records = journal.create(Folder.open(run_folder), print)
    entries = [
        {"name": spec.name, "base_command": None, "turns": turns_digest(spec, run_folder.name)} for spec in plan.specs
    ]
    start = {"run": run_folder.name, "number": 1, "rehearsal": True, "source": str(config), "config": str(config)}
    where = {"workspace": str(folder), "claude_bin": "claude", "settings": {}, "single": {}}
    records.write("run", **start, **where, instances=entries)
    for spec in plan.specs[:-1]:
        own = {"instance": spec.name, "attempt": 1}
        records.write("launch", **own, hold=1000, session=None, turns_done=0, goes_on=False)
        for response in range(1, 11):
            records.write("usage", **own, usage=(100 * response, 50 * response, 0, 2000 * response), cost_usd=None)
        done = {"models": ["m"], "model_turns": 10, "tools": {}, "permission_denials": [], "bad_lines": 0, "log": None}
        end = {"state": "completed", "reason": "", "usage": (1000, 500, 0, 20_000), "exact": True, "cost_usd": None}
        records.write("end", **own, **end, seconds=60.0, done=done, session="s", turns_done=1, exit_code=0)
    records.close()
    program = [
        sys.executable,
        "-m",
        "claude_orchestrator",
        "--rehearse",
        "--quiet",
        "--output-dir",
        str(folder / "out"),
    ]

    def timed(*args: str) -> float:
        begun = time.perf_counter()
        subprocess.run([*program, *args], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    first = timed("--resume", run_folder.name)  # runs the one that is left
    again = statistics.median(timed("--resume", run_folder.name) for _ in range(ROUNDS))
    assert first < 60
    return again, statistics.median(timed("--dry-run", "--config", str(config)) for _ in range(ROUNDS))


def main() -> None:
    """Print one JSON line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claude = folder / "claude"
        claude.write_text(CLAUDE)
        claude.chmod(0o755)
        kills = {}
        for count in (1, 16, 64):
            rounds = [deaths(folder, count) for _ in range(ROUNDS)]
            ours, reference = (statistics.median(values) for values in zip(*rounds, strict=True))
            kills[count] = {"last_death_ms": round(ours, 1), "direct_kills_ms": round(reference, 1)}
        event_us, write_us, sync_ms = event_cost(folder)
        resume_s, plan_s = resume_time(folder)
    figures = {
        "instances": kills,
        "journal_event_us": round(event_us, 1),
        "write_alone_us": round(write_us, 1),
        "journal_fsync_ms": round(sync_ms, 2),
        "resume_10000_s": round(resume_s, 2),
        "dry_run_10000_s": round(plan_s, 2),
    }
    print(json.dumps({"benchmark": "recovery", **figures}))


if __name__ == "__main__":
    main()
