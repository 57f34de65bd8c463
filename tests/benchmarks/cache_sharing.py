"""What a fleet writes to the prompt cache, with the real CLI and an API that caches as documented.

CLAUDE_BIN=claude python -m tests.benchmarks.cache_sharing [--instances 6] [--parallel 32] [--first-byte 1.0]

Each row is the whole program on a config of that many instances, once with `--share-cache off` and once with `auto`.
`shared` counts how often a prefix was written that another instance could have read. `added` is the wall time that
sharing adds, beside the time until the first response began.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.prompt_cache import BILLING_BLOCK, CachingApi
from tests.stand_in import Call, Reply, Script, Text, Tools, claude_env

PLACES = ("folder", "worktrees", "subagents")
METERS = ("stream", "api")


class Measured(NamedTuple):
    """One run: its calls, tokens, cost in nano-dollars, repeated writes, and seconds."""

    calls: int
    written: int
    read: int
    nano: int
    repeated: int
    wall_s: float
    first_s: float


def script(place: str) -> Script:
    """What the API answers: a text, or first a subagent whose answer is a text."""
    if place != "subagents":
        return {"do it": [Text("Done.", output=20)]}
    replies: list[Reply] = [Tools((Call.agent("sub task"),)), Text("Done.", output=20)]
    return {"do it": replies, "sub task": [Text("Found.", output=20)]}


def prepare(root: Path, place: str, instances: int) -> Path:
    """A repository with a config; returns the config."""
    work = root / "work"
    work.mkdir()
    (work / "README").write_text("A small repository.\n")
    git = ["git", "-C", str(work), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *args], check=True)
    more = {"worktree": True} if place == "worktrees" else {"allowed_tools": ["Agent"]}
    entries = [{"name": f"i{number}", "prompt": f"do it {number}", **more} for number in range(instances)]
    config = root / "runs.json"
    config.write_text(json.dumps({"instances": entries}))
    return config


def system_of(body: dict[str, Any]) -> str:
    """The system prompt of a request, without the billing block."""
    return "".join(block["text"] for block in body["system"] if not block["text"].startswith(BILLING_BLOCK))


def repeated_writes(api: CachingApi, shared: set[bytes]) -> int:
    """How often a shared prefix was written again."""
    return sum(api.cache.writes[digest] - 1 for digest in shared if digest in api.cache.writes)


def measure(
    claude: str, place: str, options: argparse.Namespace, meter: str, share: str
) -> tuple[Measured, CachingApi]:
    """Run the program once."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        CachingApi(script(place), first_byte_s=options.first_byte) as api,
    ):
        config = prepare(Path(root), place, options.instances)
        argv = [sys.executable, "-m", "claude_orchestrator", "--config", str(config), "--workspace", f"{root}/work"]
        argv += ["--output-dir", f"{root}/out", "--ledger", "off", "--claude-bin", claude, "--quiet"]
        argv += ["--meter", meter, "--share-cache", share, "--max-parallel", str(options.parallel)]
        begin = time.monotonic()
        done = subprocess.run(
            argv, env=claude_env(Path(root), api.url), capture_output=True, text=True, timeout=600, check=False
        )
        wall_s = time.monotonic() - begin
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        total = api.billed()
        first = min(api.begun_at.values()) - begin
        measured = Measured(
            calls=len(api.entries),
            written=total.cache_creation_input_tokens,
            read=total.cache_read_input_tokens,
            nano=api.billed_nano(),
            repeated=0,
            wall_s=wall_s,
            first_s=first,
        )
    return measured, api


def compare(claude: str, place: str, options: argparse.Namespace, meter: str) -> None:
    """Print both runs of a row."""
    off, _ = measure(claude, place, options, meter, "off")
    auto, api = measure(claude, place, options, meter, "auto")
    shared = {digest for digest in api.cache.writes if api.cache.reads[digest] and api.cache.writes[digest] > 0}
    common = [digest for digest in shared if api.cache.reads[digest] + api.cache.writes[digest] >= options.instances]
    repeated = repeated_writes(api, set(common))
    saved = 1 - auto.nano / off.nano
    print(
        f"{place:<10} {meter:<7} {off.calls:>5} {auto.calls:>5} {off.written:>9,} {auto.written:>9,} {off.read:>9,} "
        f"{auto.read:>9,} {off.nano / 1e9:>8.4f} {auto.nano / 1e9:>8.4f} {saved:>6.0%} {repeated:>7} "
        f"{off.wall_s:>6.1f} {auto.wall_s:>6.1f} {auto.wall_s - off.wall_s:>+6.1f} {auto.first_s:>6.1f}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=6)
    parser.add_argument("--parallel", type=int, default=32)
    parser.add_argument("--first-byte", type=float, default=1.0)
    parser.add_argument("--places", nargs="*", default=PLACES)
    parser.add_argument("--meters", nargs="*", default=METERS)
    options = parser.parse_args()
    claude = os.environ["CLAUDE_BIN"]
    version = subprocess.run([claude, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version}: {options.instances} instances, {options.first_byte:g} s to the first byte; off, then auto")
    print(
        f"{'place':<10} {'meter':<7} {'calls':>11} {'tokens written':>19} {'tokens read':>19} {'cost in USD':>17} "
        f"{'saved':>6} {'repeats':>7} {'wall in s':>13} {'added':>6} {'first':>6}"
    )
    for meter in options.meters:
        for place in options.places:
            compare(claude, place, options, meter)


if __name__ == "__main__":
    main()
