"""How long `--help` and `--dry-run` take, beside the bare import of click in the same interpreter.

    python -m tests.benchmarks.startup

`--dry-run` asks the claude for its version; here that is a shell script, so that it is our own time that is shown.
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


def main() -> None:
    """Print one JSON line: medians in ms of runs that take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fake = folder / "claude"
        fake.write_text("#!/bin/sh\necho '2.1.330 (Claude Code)'\n")
        fake.chmod(0o755)
        config = folder / "runs.json"
        config.write_text(json.dumps({"instances": [{"name": f"i{n}", "command": f"/test {n}"} for n in range(5)]}))
        module = [sys.executable, "-m", "claude_orchestrator"]
        commands = {
            "import_click": [sys.executable, "-c", "import click"],
            "help": [*module, "--help"],
            "dry_run": [*module, "--dry-run", "--config", str(config), "--claude-bin", str(fake)],
        }
        times: dict[str, list[float]] = {key: [] for key in commands}
        for _ in range(21):
            for key, argv in commands.items():
                begun = time.perf_counter()
                subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": name})
                times[key].append((time.perf_counter() - begun) * 1000)
    medians = {f"{key}_ms": round(statistics.median(values), 1) for key, values in times.items()}
    base = medians["import_click_ms"]
    ratios = {f"{key}_ratio": round(medians[f"{key}_ms"] / base, 2) for key in ("help", "dry_run")}
    print(json.dumps({"benchmark": "startup", **medians, **ratios}))


if __name__ == "__main__":
    main()
