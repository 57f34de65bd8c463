"""What a fan-out of 10,000 items costs: its dry run, and a rehearsed run beside one of 100.

    python -m tests.benchmarks.fan_out

The dry run is measured from the start of the process to its end, with plain prompts and with slash commands; its
reference is a dry run of one instance. Simulated instances take one response and no time, so that what is left of a
run is the orchestrator's own work; its reference is the same run of 100.
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

ITEMS = 10_000


def measured(folder: Path, *args: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of the program."""
    before = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "claude_orchestrator", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, use = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return time.monotonic() - before, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024


def config(folder: Path, kind: str, count: int) -> str:
    """A config with one instance for each of `count` items."""
    text = {"prompt": "Fix {{item}} now."} if kind == "plain" else {"command": "/fix {{item}}"}
    items = [f"src/package{number % 100}/module{number}.py" for number in range(count)]
    data = {
        "instances": [{"name": "fix", **text, "for_each": items}],
        "rehearsal": {"turns": 1, "tokens": 100, "seconds": 0.001},
    }
    path = folder / f"{kind}-{count}.json"
    path.write_text(json.dumps(data))
    return str(path)


def main() -> None:
    """Print JSON lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("plain", "slash"):
            row: dict[str, object] = {"benchmark": "fan_out dry run", "prompts": kind}
            for count in (1, ITEMS):
                runs = [
                    measured(folder, "--config", config(folder, kind, count), "--dry-run", "--rehearse")
                    for _ in range(3)
                ]
                seconds, cpu, peak = (statistics.median(part) for part in zip(*runs, strict=True))
                row[str(count)] = {"s": round(seconds, 2), "cpu_s": round(cpu, 2), "peak_mib": round(peak, 1)}
            print(json.dumps(row), flush=True)
        for kind in ("plain", "slash"):
            row = {"benchmark": "fan_out rehearsed run", "prompts": kind}
            one = measured(folder, "--config", config(folder, kind, 1), "--rehearse")
            for count in (100, ITEMS):
                _, cpu, peak = measured(
                    folder, "--config", config(folder, kind, count), "--rehearse", "--max-parallel", "64"
                )
                each_ms = (cpu - one[1]) * 1000 / count
                row[str(count)] = {"cpu_ms_each": round(each_ms, 2), "peak_mib": round(peak, 1)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
