"""What starting the program costs, beside the bare import of click in the same interpreter.

    python -m tests.benchmarks.startup

It prints the medians of runs that take turns: CPU time with that of all children, and time on the clock, both in ms.
The stand-in for claude is a shell script that answers at once. So nearly all of the time is the program's own.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 21
FAKE_CLAUDE = """#!/bin/sh
[ "$1" = --version ] && echo '2.1.330 (Claude Code)' && exit
read -r message
echo '{"type":"system","subtype":"init","session_id":"s","model":"m","slash_commands":["test"]}'
echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"done","session_id":"s"}'
"""


def cpu_and_wall_ms(argv: list[str], home: str) -> tuple[float, float]:
    """What one command takes: CPU of it and its children, and time on the clock."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**environ, "HOME": home}
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu * 1000, wall * 1000


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands to compare."""
    fake = folder / "claude"
    fake.write_text(FAKE_CLAUDE)
    fake.chmod(0o755)
    (folder / ".claude" / "commands").mkdir(parents=True)
    (folder / ".claude" / "commands" / "test.md").write_text("Run the tests")
    config = folder / "runs.json"
    config.write_text(json.dumps({"instances": [{"name": f"i{n}", "command": f"/test {n}"} for n in range(5)]}))
    module = [sys.executable, "-m", "claude_orchestrator"]
    with_claude = [*module, "--claude-bin", str(fake), "--workspace", str(folder)]
    return {
        "import_click": [sys.executable, "-c", "import click"],
        "help": [*module, "--help"],
        "dry_run": [*with_claude, "--dry-run", "--config", str(config)],
        "run": [*with_claude, "/test", "--quiet"],
    }


def main() -> None:
    """Print one JSON line."""
    with tempfile.TemporaryDirectory() as name:
        argvs = commands(Path(name))
        for argv in argvs.values():
            cpu_and_wall_ms(argv, name)
        times: dict[str, list[tuple[float, float]]] = {key: [] for key in argvs}
        for _ in range(TURNS):
            for key, argv in argvs.items():
                times[key].append(cpu_and_wall_ms(argv, name))
    figures: dict[str, float] = {}
    for part, kind in enumerate(("cpu", "wall")):
        medians = {key: statistics.median(pair[part] for pair in pairs) for key, pairs in times.items()}
        figures |= {f"{key}_{kind}_ms": round(median, 1) for key, median in medians.items()}
        base = medians.pop("import_click")
        figures |= {f"{key}_{kind}_ratio": round(median / base, 2) for key, median in medians.items()}
    print(json.dumps({"benchmark": "startup", **figures}))


if __name__ == "__main__":
    main()
