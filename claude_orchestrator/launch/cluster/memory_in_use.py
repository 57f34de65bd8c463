"""How much memory the instances of a run take on this machine, with everything that they have started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from claude_orchestrator.launch.processes import marked

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
PROC = Path("/proc")


def taken_by_instances(run_mark: str) -> dict[int, int]:
    """The bytes that each instance takes, by its position. Its check counts as its own. Needs /proc."""
    taken: dict[int, int] = {}
    for mark, pids in marked(run_mark).items():
        position = mark.rpartition("/")[2].partition(".")[0]
        if position.isdecimal():
            taken[int(position)] = taken.get(int(position), 0) + sum(map(taken_by, pids))
    return taken


def taken_by(pid: int, proc: Path = PROC) -> int:
    """The bytes that a process takes. Shared memory counts in part, so that sums are right.

    If the kernel does not report the parts, all of it counts. A process that has gone takes nothing.
    """
    folder = proc / str(pid)
    try:
        return _share(folder.joinpath("smaps_rollup").read_bytes().splitlines())
    except (OSError, ValueError):
        pass
    try:
        return int(folder.joinpath("statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _share(lines: Iterable[bytes]) -> int:
    for line in lines:
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no such line")
