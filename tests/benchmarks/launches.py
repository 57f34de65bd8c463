"""How fast slots turn around: instances that do nothing, beside GNU parallel on the same command in the same run.

    python -m tests.benchmarks.launches

The command is a shell script that answers at once. CPU is that of the program and of all its children. `next_ms` is
the median time from the result of an instance to the next launch, by the journal. It includes the end of the process.
`mark` is the way of systems without a subreaper. Without GNU parallel, its figures are missing.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from claude_orchestrator.launch.fence_kind import FENCE_VARIABLE

# as every claude does, it has a response; without one, instances that share a prompt cache start one after the other
CLAUDE = """#!/bin/sh
[ "$1" = --version ] && echo '2.1.330 (Claude Code)' && exit
read -r message
echo '{"type":"system","subtype":"init","session_id":"s","model":"m","slash_commands":["test"]}
{"type":"stream_event","event":{"type":"message_start","message":{"id":"'$$'","model":"m","usage":{"input_tokens":9}}}}
{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}}
{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"done","session_id":"s"}'
"""
INSTANCES = 200
ROUNDS = 3


def taken(argv: list[str], env: dict[str, str], given: str = "") -> tuple[float, float]:
    """Seconds on the clock and of CPU that a command takes."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, check=True, input=given, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def next_ms(journal: Path) -> float:
    """The median time from the result of an instance to the launch that its end makes room for."""
    done_at, waits, ended = dict[str, float](), list[float](), ""
    for line in journal.read_text().splitlines():
        record = json.loads(line)
        match record["kind"]:
            case "done":
                done_at[record["instance"]] = record["at"]
            case "end":
                ended = record["instance"]
            case "launch" if ended:
                waits.append((record["at"] - done_at[ended]) * 1000)
                ended = ""
    return round(statistics.median(waits), 1)


def ours(folder: Path, slots: int, fence: str) -> tuple[float, float, float]:
    """Seconds, CPU and `next_ms` of a run."""
    out = folder / f"out-{time.monotonic_ns()}"
    argv = [sys.executable, "-m", "claude_orchestrator", "--config", str(folder / "runs.json"), "--quiet"]
    argv += ["--claude-bin", str(folder / "claude"), "--output-dir", str(out), "--max-parallel", str(slots)]
    env = {**os.environ, "HOME": str(folder), FENCE_VARIABLE: fence}
    wall_s, cpu_s = taken(argv, env)
    (journal,) = out.glob("*/journal.jsonl")
    return wall_s, cpu_s, next_ms(journal)


def main() -> None:
    """Print one JSON line for each number of slots."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claude = folder / "claude"
        claude.write_text(CLAUDE)
        claude.chmod(0o755)
        config = {"instances": [{"name": f"i{n}", "prompt": "x"} for n in range(INSTANCES)]}
        (folder / "runs.json").write_text(json.dumps(config))
        for slots in (8, 64):
            rows: dict[str, list[tuple[float, ...]]] = {"subreaper": [], "mark": [], "parallel": []}
            for _ in range(ROUNDS):
                for fence in ("subreaper", "mark"):
                    rows[fence].append(ours(folder, slots, fence))
                if shutil.which("parallel"):
                    argv = ["parallel", "--will-cite", "-j", str(slots), str(claude)]
                    jobs = "".join(f"{n}\n" for n in range(INSTANCES))
                    rows["parallel"].append(taken(argv, dict(os.environ), jobs))
            figures = {
                kind: {
                    "launches_per_s": round(INSTANCES / statistics.median(row[0] for row in results)),
                    "cpu_s": round(statistics.median(row[1] for row in results), 2),
                    **({"next_ms": statistics.median(row[2] for row in results)} if len(results[0]) > 2 else {}),
                }
                for kind, results in rows.items()
                if results
            }
            print(json.dumps({"benchmark": "launches", "slots": slots, **figures}))


if __name__ == "__main__":
    main()
