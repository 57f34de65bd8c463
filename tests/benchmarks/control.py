"""The control socket: from a request to its effect, and what the socket costs a run. Run as a module.

The effect of a change is its event at a second reader. References of the same run: an answer that changes nothing, and
a rehearsal without a socket.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from claude_orchestrator.engine.control.client import ControlClient
from tests.engine.control.rehearsals import Rehearsal, instances, until

REQUESTS = 300
AT_WORK = 20


def main() -> None:
    print(f"{AT_WORK} rehearsed instances at work, {REQUESTS} requests each")
    with tempfile.TemporaryDirectory() as place:
        config = instances(*(f"i{number}" for number in range(AT_WORK)), seconds=3600)
        run = Rehearsal(Path(place), config, "--max-parallel", str(AT_WORK), "--overall-token-budget", "1M")
        try:
            with run.connect() as client, run.connect() as reader:
                until(lambda: client.call("status", brief=True)["totals"]["states"].get("running") == AT_WORK)
                _show("answer: status, brief", [_answer(client) for _ in range(REQUESTS)])
                _show("answer: status, whole", [_answer(client, brief=False) for _ in range(REQUESTS)])
                _show("change of a limit to its event", _effects(client, reader))
        finally:
            run.process.kill()
            run.process.communicate()
    with_socket, without = (_cpu_s(*options) for options in ((), ("--no-control",)))
    print(f"CPU of a rehearsal of 50 instances: {with_socket:.2f} s, without a socket {without:.2f} s")


def _answer(client: ControlClient, *, brief: bool = True) -> float:
    began = time.perf_counter()
    client.call("status", brief=brief)
    return time.perf_counter() - began


def _effects(client: ControlClient, reader: ControlClient) -> list[float]:
    events = reader.follow()
    next(events)
    found = []
    for number in range(REQUESTS):
        began = time.perf_counter()
        client.call("set_limit", budget="overall", limit=1_000_000 + number)
        while not _is_change(next(events), number):
            pass
        found.append(time.perf_counter() - began)
    return found


def _is_change(told: Any, number: int) -> bool:
    return told is not None and told.data.get("kind") == "steered" and f"{1_000_000 + number:,}" in told.data["text"]


def _show(what: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{what:32} p50 {cuts[49] * 1000:6.2f} ms  p99 {cuts[98] * 1000:6.2f} ms  (target: p99 10 ms)")


def _cpu_s(*options: str) -> float:
    """The CPU time of a whole rehearsal: the least of three."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as place:
            config = instances(*(f"i{number}" for number in range(50)), seconds=1.0)
            run = Rehearsal(Path(place), config, "--max-parallel", "50", *options)
            assert run.process.stdout is not None
            run.process.stdout.read()
            _, _, used = os.wait4(run.process.pid, 0)
            run.process.returncode = 0
            times.append(used.ru_utime + used.ru_stime)
    return min(times)


if __name__ == "__main__":
    main()
