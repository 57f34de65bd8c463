"""From the arrival of the line that passes a budget to the interrupt written, with 16 instances streaming.

    python -m tests.benchmarks.latency

Also as the instance sees it: from its own write of that line to its read of the interrupt (two pipes and the
scheduling of 17 processes on the machine's cores included). `orchestrator_cpu` is the part of the first that is
work: the rest is waiting for a core. `machine` is the limit, measured in the same run: how late a process that does
nothing but sleep for a millisecond is woken.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.local import LocalLauncher, use_pidfd_watcher
from claude_orchestrator.launch.local_process import LocalRunning
from tests.harness import make_supervisor

INSTANCES, ROUNDS = 16, 20
SLEEPER = """
import json, sys, threading, time
late, stop = [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    begun = time.perf_counter()
    time.sleep(0.001)
    late.append((time.perf_counter() - begun - 0.001) * 1000)
print(json.dumps(late))
"""
ours_ms: list[float] = []
cpu_ms: list[float] = []
seen_ms: list[float] = []


class TimedRunning(LocalRunning):
    """Notes when the crossing line came and when the interrupt was written."""

    arrived = cpu_before = 0.0

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if b'"msg_cross"' in data:
            self.arrived, self.cpu_before = time.perf_counter(), time.thread_time()
        super().pipe_data_received(fd, data)

    def send(self, message: Mapping[str, Any]) -> None:
        super().send(message)
        if message.get("request_id") == "stop" and self.arrived:
            ours_ms.append((time.perf_counter() - self.arrived) * 1000)
            cpu_ms.append((time.thread_time() - self.cpu_before) * 1000)

    async def wait(self) -> Exit:
        ended = await super().wait()
        seen_ms.append(float(ended.stderr))
        return ended


class TimedLauncher(LocalLauncher):
    """A local launcher of timed instances."""

    def running(self, mark: str, end_all: Callable[[LocalRunning], Awaitable[None]]) -> LocalRunning:
        return TimedRunning(mark, end_all)


async def one_round(number: int, claude: Path) -> None:
    instances = [
        {"name": f"i{n}", "prompt": "x", "max_tokens_per_command": 100_000, "env": {"CROSS_AFTER": str(20 + n)}}
        for n in range(INSTANCES)
    ]
    config = parse_config({"instances": instances}, "benchmark")
    settings = Settings(budget_enforcement_mode="block", max_parallel=INSTANCES)
    plan = make_plan(config, settings, workspace="/", claude_bin=str(claude))
    supervisor = make_supervisor(plan, settings, TimedLauncher(f"latency-{number}"))
    await supervisor.run()
    assert all(status.state == "stopped" for status in supervisor.instances)


def main() -> None:
    """Print one JSON line."""
    use_pidfd_watcher()
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with tempfile.TemporaryDirectory() as folder:
        claude = Path(folder, "claude")
        claude.write_text(f"#!/bin/sh\nexec {sys.executable} -S {Path(__file__).with_name('children.py')}\n")
        claude.chmod(0o755)
        for number in range(ROUNDS):
            asyncio.run(one_round(number, claude))
    late_ms = json.loads(sleeper.communicate()[0])
    figures = {
        f"{name}_{label}_ms": round(value, 3)
        for name, values in (
            ("orchestrator", ours_ms),
            ("orchestrator_cpu", cpu_ms),
            ("instance", seen_ms),
            ("machine", late_ms),
        )
        for label, value in (
            ("p50", statistics.median(values)),
            ("p99", statistics.quantiles(values, n=100)[98]),
            ("max", max(values)),
        )
    }
    print(json.dumps({"benchmark": "latency", "instances": INSTANCES, "crossings": len(ours_ms), **figures}))


if __name__ == "__main__":
    main()
