"""A graph of twelve steps whose orchestrator is killed at random moments, and resumed until it is done.

    python -m tests.faults.graph_kills --claude PATH --kills 20 [--meter api]

Each step has a tool write its name into a file, and then answers. One line of JSON for each run has the figures: how
often each step worked, and the run's tokens beside those that the API has billed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness import ROOT
from tests.limits import HUNG_S
from tests.stand_in import Call, Reply, StandIn, Text, Tools, _texts, claude_env
from token_budget import Usage

FILES = ["a.py", "b.py", "c.py", "d.py", "e.py", "f.py"]
SCHEMA = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string"}}},
    "required": ["files"],
}


def graph() -> dict[str, Any]:
    """Twelve steps: one that lists files, one for each file, some that join them, and one beside them."""
    map_step = {"name": "fix", "prompt": "STEP-fix-{{item}} {{results.plan.files}}"}
    steps: list[dict[str, Any]] = [
        {"name": "plan", "prompt": "STEP-plan", "json_schema": SCHEMA},
        {**map_step, "for_each": {"result_of": "plan", "path": "files"}},
        {"name": "lint", "prompt": "STEP-lint {{results.plan}}", "depends_on": ["plan"]},
        {"name": "join", "prompt": "STEP-join {{results.fix}}", "depends_on": ["fix", "lint"]},
        {"name": "docs", "prompt": "STEP-docs"},
        {"name": "end", "prompt": "STEP-end {{results.join}} {{results.docs}}", "depends_on": ["join", "docs"]},
        {"name": "tell", "prompt": "STEP-tell {{results.end}}", "depends_on": ["end"], "run_if": "always"},
    ]
    return {"instances": [{**step, "permission_mode": "bypassPermissions"} for step in steps]}


NAMES = ["plan", *(f"fix-{name}" for name in FILES), "lint", "join", "docs", "end", "tell"]


class Api(StandIn):
    """An API whose model works as a real one would: it uses the tool until the session shows that the work is done.

    A kill may come between the call of a tool and its work, or between that and its result in the session.
    """

    def __init__(self, work: Path) -> None:
        super().__init__()
        self._work = work
        self._in_sessions: set[int] = set()  # the numbers of responses that a later request has had in its session

    def choose(self, messages: list[dict[str, Any]]) -> tuple[str, int, Reply]:
        """The name of the step, how much of it is done, and the reply."""
        self._in_sessions |= {int(number) for number in re.findall(r'"toolu_(\d+)_', json.dumps(messages))}
        asked = [text for message in messages if message["role"] == "user" for text in _texts(message["content"])]
        name = next((found[1] for text in reversed(asked) if (found := re.search(r"STEP-(\S+)", text))), "")
        said = json.dumps([message["content"] for message in messages if message["role"] == "user"])
        if not name:
            return name, 0, Text()
        if f"worked: {name}" not in said:
            once = f"sleep 0.1; grep -qsx {name} {self._work} || echo {name} >> {self._work}; echo worked: {name}"
            return name, 0, Tools((Call.bash(once),), delay_s=0.02)
        if name == "plan" and "tructured output provided" not in said:
            return name, 1, Tools((Call("StructuredOutput", {"files": FILES}),), delay_s=0.02)
        return name, 2, Text(f"{name} is done", delay_s=0.05)

    def shown(self) -> Usage:
        """What was billed for the responses that claude is known to have read: those in a session, and final ones."""
        whole = [entry for entry in self.entries if entry.finished]
        final = {entry.marker: entry.index for entry in whole}
        known = self._in_sessions | {*final.values()}
        return sum((entry.total for entry in whole if entry.index in known), Usage())


def run_killed(
    claude: str, folder: Path, api: StandIn, chance: random.Random, most_kills: int, meter: str = "stream"
) -> tuple[dict[str, Any], int]:
    """Start the run; kill and resume it so many times, if it lasts; then let it end.

    A moment is so many further lines of the journal and a part of a second. Returns the report and the kills.
    """
    home, workspace = folder / "home", folder / "workspace"
    home.mkdir()
    workspace.mkdir()
    config, report, out = folder / "graph.json", folder / "report.json", folder / "out"
    config.write_text(json.dumps(graph()))
    base = [sys.executable, "-m", "claude_orchestrator", "--output-dir", str(out), "--quiet", "--report", str(report)]
    base += ["--claude-bin", claude, "--meter", meter]
    first = ["--config", str(config), "--workspace", str(workspace), "--max-parallel", "4"]
    env = {**claude_env(home, api.url), "PYTHONPATH": str(ROOT), "WORK_LOG": str(folder / "work.log")}
    for kills in range(most_kills + 1):
        known = lines_in(out)
        argv = [*base, "--resume", "last"] if known else [*base, *first]
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kills < most_kills:
            upto = known + chance.randrange(2, 45)
            while process.poll() is None and lines_in(out) < upto:
                time.sleep(0.005)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.3))
        if kills == most_kills or process.poll() is not None:
            process.wait(HUNG_S)
            break
        process.kill()
        process.wait()
    data: dict[str, Any] = json.loads(report.read_text())
    return data, kills


def lines_in(out: Path) -> int:
    """How many lines the journal has."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/journal.jsonl"))


def figures(data: dict[str, Any], api: Api, work: Path, kills: int) -> dict[str, Any]:
    """What the run did, beside what the API has seen."""
    did = Counter(work.read_text().split())
    with api.lock:
        cut = [entry for entry in api.entries if entry.status == 200 and not entry.finished]
        whole, shown = sum((entry.total for entry in api.entries if entry.finished), Usage()), api.shown()
    billed, usage = api.billed(), data["totals"]
    mine = [usage[f"{key}_tokens"] for key in ("input", "output", "cache_creation_input", "cache_read_input")]
    return {
        "kills": kills,
        "steps": len(NAMES),
        "exit_code": data["exit_code"],
        "completed": sum(one["status"] == "completed" for one in data["instances"]),
        "steps_done_once": sum(did[name] == 1 for name in NAMES),
        "steps_done": dict(sorted(did.items())),
        "tokens": mine,
        "billed": list(_in_order(billed)),
        "billed_whole": list(_in_order(whole)),
        "billed_shown": list(_in_order(shown)),
        "cut_responses": len(cut),
        "exact": usage["exact"],
        "attempts": sum(one["attempts"] for one in data["instances"]),
    }


def _in_order(usage: Usage) -> tuple[int, ...]:
    """The counts in the order of the report's."""
    return usage.input_tokens, usage.output_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens


def main() -> None:
    """Print one JSON line for each round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--claude", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--meter", default="stream", choices=["stream", "api"])
    given = parser.parse_args()
    chance = random.Random(given.seed)
    kills = 0
    while kills < given.kills:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with Api(folder / "work.log") as api:
                begun = time.monotonic()
                data, killed = run_killed(given.claude, folder, api, chance, min(6, given.kills - kills), given.meter)
                row = figures(data, api, folder / "work.log", killed)
                print(json.dumps({**row, "seconds": round(time.monotonic() - begun, 1)}), flush=True)
                kills += max(1, killed)


if __name__ == "__main__":
    main()
