"""How fast a partial-message stream is read, counted and logged, beside `cat`, and what memory it takes.

    python -m tests.benchmarks.ingest [--mib 100]

A child process writes the stream as the CLI would. The whole path is measured: pipe, framing, parsing, tally, budget
and log. CPU seconds are this process's own, user and system. Lines differ in the order of their keys and in what they
carry, and each kind of stream is measured; `mb_per_cpu_s` is that of the slower of the two usual orders.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LINE = (
    '{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}},'
    '"session_id":"dc56f1e7-3fc0-4255-8616-74e2466ffc9c","parent_tool_use_id":null,'
    '"uuid":"2c791b18-a099-49c7-a44a-4c644cd33467"}\n'
)
THINKING = '"delta":{"type":"thinking_delta","thinking":"%s"}'
INPUT = '"delta":{"type":"input_json_delta","partial_json":"%s"}'
TEXT = '"delta":{"type":"text_delta","text":"%s"}'
INDEX_FIRST = LINE.replace('"type":"content_block_delta","index":0,', '"index":0,"type":"content_block_delta",')
FIELDS_FIRST = (
    '{"parent_tool_use_id":null,"uuid":"2c791b18-a099-49c7-a44a-4c644cd33467","session_id":"dc56f1e7-3fc0-4255-8616",'
    '"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}}\n'
)
SUBAGENT = LINE.replace("null", '"toolu_01A09q90qw90lq917835lq9"')
KINDS = {  # the lines that follow each other in a stream
    "type_first": (LINE,),
    "index_first": (INDEX_FIRST,),
    "fields_first": (FIELDS_FIRST,),
    "thinking": (LINE.replace(TEXT, THINKING),),
    "tool_input": (INDEX_FIRST.replace(TEXT, INPUT),),
    "subagent": (SUBAGENT,),
    "alternating": (LINE, INDEX_FIRST, SUBAGENT, FIELDS_FIRST),
}
USUAL = ("type_first", "index_first")
WORDS = ("a few ", "words of ", "streamed text, ", "then a longer piece of it ", "def f(x):\\n ", "end. ")
USAGE = (
    '"usage":{"input_tokens":100,"cache_creation_input_tokens":1000,"cache_read_input_tokens":2000,"output_tokens":%d}'
)


def response(number: int, pieces: int, kind: str = "type_first") -> bytes:
    """The lines of one streamed response."""
    lines = KINDS[kind]
    usage = USAGE % 1
    head = '"message":{"id":"msg_%d","model":"claude-opus-4-8","content":[],"stop_reason":null,%s}' % (number, usage)
    start = '{"type":"stream_event","event":{"type":"message_start",%s},"parent_tool_use_id":null}\n' % head
    body = "".join(lines[i % len(lines)] % WORDS[i % len(WORDS)] for i in range(pieces))
    end = (
        '{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"tool_use"},%s},'
        '"parent_tool_use_id":null}\n' % (USAGE % 500)
    )
    return (start + body + end).encode()


def write_stream(path: Path, mib: int, kind: str = "type_first") -> None:
    """A stream of about `mib` MiB, with an init at the start and a result at the end."""
    with path.open("wb") as file:
        file.write(b'{"type":"system","subtype":"init","session_id":"s","model":"m"}\n')
        number = 0
        while file.tell() < mib * 2**20:
            file.write(response(number, 500, kind))
            number += 1
        result = {"type": "result", "subtype": "success", "is_error": False, "num_turns": number, "session_id": "s"}
        model_usage = {
            "inputTokens": 100 * number,
            "outputTokens": 500 * number,
            "cacheCreationInputTokens": 1000 * number,
            "cacheReadInputTokens": 2000 * number,
            "costUSD": 1.0,
        }
        file.write(json.dumps({**result, "modelUsage": {"m": model_usage}}, separators=(",", ":")).encode() + b"\n")


def measure(command: list[str]) -> tuple[float, int]:
    """CPU seconds and peak memory in KiB of one process (not its children's children)."""
    code = (
        "import os,sys,resource,json\n"
        "pid=os.posix_spawn(sys.argv[1],sys.argv[1:],os.environ,"
        "file_actions=[(os.POSIX_SPAWN_OPEN,1,'/dev/null',os.O_WRONLY,0)])\n"
        "_,status,use=os.wait4(pid,0)\n"
        "print(json.dumps([use.ru_utime+use.ru_stime,use.ru_maxrss,status]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    cpu, peak_kib, status = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"{command} failed: {done.stderr}")
    return cpu, peak_kib


WORKER = """
import asyncio, json, resource, sys
from pathlib import Path
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.launch.local import LocalLauncher, use_pidfd_watcher
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.engine.run_dir import RunDirectory
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.run_context import Services
from tests.harness import make_supervisor

stream, folder, claude, out = sys.argv[1:]
use_pidfd_watcher()
settings = Settings(overall_token_budget=10**12)
config = parse_config({"instances": [{"prompt": "x", "env": {"STREAM": stream}}]}, "benchmark")
plan = make_plan(config, settings, workspace="/", claude_bin=claude)
async def main():
    logs = RunDirectory.make(Path(folder), "run", print)
    services = Services(open_log=logs.open_log)
    supervisor = make_supervisor(plan, settings, LocalLauncher("benchmark"), services=services)
    await supervisor.run()
    status = supervisor.instances[0]
    assert status.state == "completed" and status.tally.exact, (status.state, status.reason, status.usage)
    Path(status.log).unlink()
before = resource.getrusage(resource.RUSAGE_SELF)
asyncio.run(main())
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
Path(out).write_text(json.dumps([cpu, after.ru_maxrss]))
"""


def ingest(stream: Path, folder: Path) -> tuple[float, int]:
    """CPU seconds and peak KiB of one orchestrator that reads the stream from a child."""
    fake = folder / "claude"
    fake.write_text('#!/bin/sh\nexec cat "$STREAM"\n')
    fake.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=folder) as logs:
        out = Path(logs) / "out.json"
        subprocess.run([sys.executable, "-c", WORKER, str(stream), logs, str(fake), str(out)], check=True)
        cpu, peak_kib = json.loads(out.read_text())
    return cpu, peak_kib


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        streams = {kind: folder / f"{kind}.jsonl" for kind in KINDS}
        for kind, path in streams.items():
            write_stream(path, args.mib, kind)
        cpu_s: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "cat")}
        for _ in range(args.rounds):  # by turns: the machine's speed changes
            for kind, path in streams.items():
                cpu_s[kind].append(ingest(path, folder)[0])
            cpu_s["cat"].append(measure(["/bin/cat", str(streams["type_first"])])[0])
        size_mb = {kind: path.stat().st_size / 1e6 for kind, path in (*streams.items(), ("cat", streams["type_first"]))}
        mb_per_cpu_s = {kind: round(size_mb[kind] / statistics.median(times)) for kind, times in cpu_s.items()}
        peaks = {}
        for mib in (10, 300):
            write_stream(folder / "size.jsonl", mib)
            peaks[mib] = statistics.median(ingest(folder / "size.jsonl", folder)[1] for _ in range(3))
    print(
        json.dumps(
            {
                "benchmark": "ingest",
                "stream_mb": round(size_mb["type_first"], 1),
                "mb_per_cpu_s": min(mb_per_cpu_s[kind] for kind in USUAL),
                "mb_per_cpu_s_by_kind": mb_per_cpu_s,
                "peak_kib": peaks,
                "peak_growth_kib_10_to_300_mib": peaks[300] - peaks[10],
            }
        )
    )


if __name__ == "__main__":
    main()
