"""What is left after SIGKILL of our processes at random moments, with daemons that hide from a search for marks.

    python -m tests.benchmarks.kills [ROUNDS] [SEED]
    CLAUDE_ORCHESTRATOR_FENCE=namespace python -m tests.benchmarks.kills

Each instance calls its API every 20 ms, which is a line in a file here, and starts the daemons that this machine has:
perl with another title, redis-server, nginx, ssh-agent, and a shell without an environment. A round kills some of our
processes at a random moment after the start, or after an instance has begun to work, then the orchestrator. After 2 s
it counts the processes that are left, and the calls since. This program is a subreaper too, so that no process can
leave its tree: the counts are exact.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LIMIT_S, LATEST_S = 2.0, 1.5
INSTANCES = 3
CLAUDE = r"""#!/bin/sh
[ "$1" = --version ] && { echo '2.1.330 (Claude Code)'; exit; }
read -r turn
echo '{"type":"system","subtype":"init","session_id":"s","model":"m"}'
has() { command -v "$1" >/dev/null; }
has perl && perl -e 'use POSIX; exit if fork; POSIX::setsid(); exit if fork; $0 = "a daemon"; close STDOUT; sleep 300'
own=$(mktemp -d "$CALLS/XXXXXX")
has redis-server && redis-server --daemonize yes --port 0 --unixsocket "$own/r" --save "" --dir "$own" >/dev/null
has ssh-agent && ssh-agent >/dev/null
echo 'pid nginx.pid; events {} http { access_log off; server { listen unix:nginx.sock; } }' > "$own/nginx.conf"
has nginx && nginx -p "$own" -c nginx.conf -e /dev/null 2>/dev/null
env -i /bin/sh -c 'setsid /bin/sh -c "sleep 300 & sleep 300" >/dev/null 2>&1 </dev/null &'
while :; do echo call >> "$CALLS/calls"; sleep 0.02; done
"""
KINDS = {
    "orchestrator": ("orchestrator",),
    "guard": ("guard",),
    "keepers": ("keepers",),
    "orchestrator and guard": ("orchestrator", "guard"),
    "first processes": ("first",),
    "guard and keepers": ("guard", "keepers"),
    "all": ("orchestrator", "guard", "keepers", "first"),
}


def become_subreaper() -> None:
    """Let every orphan of this process's tree come back to it (Linux)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def tree() -> dict[int, str]:
    """The living descendants of this process, with their short names."""
    parents, names = dict[int, int](), dict[int, str]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            if fields[0] != "Z":
                parents[int(path.parent.name)], names[int(path.parent.name)] = int(fields[1]), name
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return {pid: names[pid] for pid in found - {os.getpid()}}


def our_processes(orchestrator: int, processes: Mapping[int, str]) -> dict[str, list[int]]:
    """The processes of ours in a tree, by what they are."""
    named = {"guard": "claude-guard", "keepers": "claude-keeper", "first": "claude-first"}
    ours = {kind: [pid for pid, name in processes.items() if name == comm] for kind, comm in named.items()}
    return {"orchestrator": [orchestrator], **ours}


def start(folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """An orchestrator with instances that call and start daemons."""
    claude = folder / "claude"
    claude.write_text(CLAUDE)
    claude.chmod(0o755)
    config = folder / "runs.json"
    config.write_text(json.dumps({"instances": [{"name": f"i{n}", "prompt": "x"} for n in range(INSTANCES)]}))
    argv = [sys.executable, "-m", "claude_orchestrator", "--config", str(config), "--claude-bin", str(claude)]
    argv += ["--output-dir", str(folder / "out"), "--ledger", "off", "--quiet"]
    environ = {**os.environ, "CALLS": str(folder), "HOME": str(folder), **env}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(argv, env=environ, cwd=folder, stdin=quiet, stdout=quiet, stderr=quiet)


class Left(NamedTuple):
    """What a kill leaves: the names of processes, the calls after 2 s, and the seconds until nothing was left.

    `at_work`: an instance had started its daemons by then.
    """

    names: list[str]
    calls: int
    seconds: float
    at_work: bool


def left_after(kinds: tuple[str, ...], delay_s: float, env: Mapping[str, str], *, from_work: bool) -> Left:
    """What is left after one kill, so long after the start or (`from_work`) after an instance has begun to work."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        orchestrator = start(folder, env)
        while from_work and not (folder / "calls").exists():
            time.sleep(0.01)
        time.sleep(delay_s)
        at_work = (folder / "calls").exists()
        ours = our_processes(orchestrator.pid, tree())
        for pid in (pid for kind in kinds for pid in ours[kind]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "orchestrator" not in kinds:
            time.sleep(0.1)
        orchestrator.kill()
        orchestrator.wait()
        begun = time.monotonic()
        while (left := tree()) and time.monotonic() - begun < LIMIT_S:
            time.sleep(0.005)
        seconds = time.monotonic() - begun
        calls = folder / "calls"
        before = calls.stat().st_size if calls.exists() else 0
        time.sleep(0.1 if left else 0)
        after = calls.stat().st_size if calls.exists() else 0
        clean_up()
    return Left(sorted(left.values()), (after - before) // len("call\n"), seconds, at_work)


def clean_up() -> None:
    """End what a round has left."""
    while left := tree():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    """Print one JSON line for each kind of kill."""
    rounds, seed = (int(text) for text in (*sys.argv[1:], "200", "1")[:2])
    become_subreaper()
    chance = random.Random(seed)
    done: dict[str, list[Left]] = collections.defaultdict(list)
    for number in range(rounds):
        kind = list(KINDS)[number % len(KINDS)]
        from_work = number // len(KINDS) % 2 == 1
        done[kind].append(left_after(KINDS[kind], chance.uniform(0.0, LATEST_S), {}, from_work=from_work))
    for kind, results in done.items():
        figures = {
            "killed": kind,
            "rounds": len(results),
            "with_daemons": sum(one.at_work for one in results),
            "rounds_with_processes_left": sum(bool(one.names) for one in results),
            "left": dict(collections.Counter(name for one in results for name in one.names)),
            "calls_after_2_s": sum(one.calls for one in results),
            "longest_s": round(max(one.seconds for one in results), 3),
        }
        print(json.dumps({"benchmark": "kills", "user": os.geteuid(), **figures}))


if __name__ == "__main__":
    main()
