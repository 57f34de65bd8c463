"""What the live screen costs: bytes and redraws on a terminal, and CPU to draw a large run.

    python -m tests.benchmarks.terminal [--instances 60] [--seconds 30]

A rehearsal runs on a pseudo-terminal of 120 by 40 cells, and everything that it writes is read. Beside it stands what
the same redraws would have sent as whole screens. For the CPU, a run of 1,000 instances of which 8 work is drawn in
this process, beside the same run of 12 instances.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.fields import DEFAULT_COLUMNS
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.ui.redraw import update
from claude_orchestrator.ui.screen import ScreenStyle, screen
from tests.ui.test_report import NOW
from tests.views import a_view
from token_budget.text import RenderOptions

WIDTH, HEIGHT = 120, 40
REDRAW = re.compile(rb"\033\[\d+F")
DRAWN = 200
AT_WORK = 8


def a_config(count: int, seconds: float) -> dict[str, Any]:
    """Instances of which every one works for a third of the time, eight at once, with a budget each."""
    return {
        "instances": [
            {
                "name": f"instance-{number}",
                "command": f"/test {number}",
                "max_tokens_per_command": 500_000,
                "rehearsal": {"tokens": 100_000 + number * 1_000, "turns": 12, "seconds": seconds * AT_WORK / count},
            }
            for number in range(count)
        ],
        "budget": {"overall_budget": 1_000_000_000},
    }


def on_a_terminal(count: int, seconds: float) -> tuple[bytes, float]:
    """What a rehearsal writes to a terminal, and for how long it ran."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "claude-orchestrator.json").write_text(json.dumps(a_config(count, seconds)))
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        argv = [sys.executable, "-m", "claude_orchestrator", "--rehearse", "--workspace", name, "--ledger", "off"]
        argv += ["--output-dir", f"{name}/out"]
        environ = {"PATH": os.environ["PATH"], "HOME": name, "TERM": "xterm-256color"}
        begun = time.monotonic()
        process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        chunks = []
        while True:
            select.select([master], [], [], 60)
            try:
                chunk = os.read(master, 1 << 20)
            except OSError:
                break
            chunks.append(chunk)
        os.close(master)
        process.wait(30)
        return b"".join(chunks), time.monotonic() - begun


def cpu_ms(count: int) -> float:
    """The CPU of one redraw in milliseconds, in a run in which eight instances work and half have ended."""
    plan = make_plan(parse_config(a_config(count, 60.0), "x"), Settings(), workspace="/", claude_bin="claude")
    instances = [InstanceStatus(spec) for spec in plan.specs]
    view = a_view(plan, instances, make_manager(plan, Settings()), NOW, 0.0)
    for status in instances[: count // 2]:
        status.begin(0.0)
        status.finish(5.0, 0, "")
    working = instances[count // 2 : count // 2 + AT_WORK]
    for status in working:
        status.begin(1.0)
    snapshots, before = Snapshots(view), list[str]()
    options, style = RenderOptions(WIDTH - 1, color=True), ScreenStyle(DEFAULT_COLUMNS, HEIGHT - 1)
    begun = time.process_time()
    for number in range(DRAWN):
        for status in working:
            status.do(Activity(status.name, Doing.TOOL, f"Bash: make {number}", since=float(number)))
        lines = screen(snapshots.take(10.0 + number / 4), options, style)
        update(before, lines)
        before = lines
    return (time.process_time() - begun) / DRAWN * 1000


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    written, seconds = on_a_terminal(args.instances, args.seconds)
    redraws = len(REDRAW.findall(written))
    whole = redraws * WIDTH * HEIGHT
    figures = {
        "instances": args.instances,
        "seconds": round(seconds, 1),
        "kb_per_min": round(len(written) / seconds * 60 / 1000, 1),
        "kb_per_min_as_whole_screens": round(whole / seconds * 60 / 1000, 1),
        "redraws_per_s": round(redraws / seconds, 2),
        "cpu_ms_per_redraw_12": round(cpu_ms(12), 2),
        "cpu_ms_per_redraw_1000": round(cpu_ms(1_000), 2),
    }
    print(json.dumps({"benchmark": "terminal", **figures}))


if __name__ == "__main__":
    main()
