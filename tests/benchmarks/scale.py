"""What the orchestrator itself costs with 1, 10, 50 and 200 instances at once: CPU, memory, exactness.

    python -m tests.benchmarks.scale

Instances are small Python processes that speak the CLI's lines. CPU is this process's own; starting Python 200
times is the children's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = """
import asyncio, json, resource, sys
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.launch.local import LocalLauncher, use_pidfd_watcher
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from tests.harness import make_supervisor

count, child = int(sys.argv[1]), sys.argv[2]
use_pidfd_watcher()
settings = Settings(overall_token_budget=10**9, max_parallel=count)
config = parse_config({"instances": [{"name": f"i{n}", "prompt": "x"} for n in range(count)]}, "benchmark")
plan = make_plan(config, settings, workspace="/", claude_bin=child)
async def main():
    supervisor = make_supervisor(plan, settings, LocalLauncher(f"scale-{count}"))
    await supervisor.run()
    assert all(status.state == "completed" for status in supervisor.instances)
    assert supervisor.manager.total_usage == count * 5 * 110, supervisor.manager.total_usage
before = resource.getrusage(resource.RUSAGE_SELF)
asyncio.run(main())
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps([cpu, after.ru_maxrss]))
"""


def main() -> None:
    """Print one JSON line."""
    child = Path(__file__).with_name("children.py")
    wrapper = Path(__file__).with_name("children.sh")
    rows = {}
    for count in (1, 10, 50, 200):
        runs = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", WORKER, str(count), str(wrapper)],
                check=True,
                capture_output=True,
                env={"PATH": "/usr/bin:/bin", "CHILD": str(child), "PYTHON": sys.executable},
            )
            runs.append(json.loads(done.stdout))
        cpu_s = statistics.median(cpu for cpu, _ in runs)
        rows[count] = {
            "cpu_ms_each": round(cpu_s * 1000 / count, 2),
            "peak_mib": round(statistics.median(peak for _, peak in runs) / 1024, 1),
        }
    print(json.dumps({"benchmark": "scale", "instances": rows}))


if __name__ == "__main__":
    main()
