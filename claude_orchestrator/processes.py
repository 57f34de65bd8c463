"""Processes that carry an instance's mark: found by their environment and ended, wherever they are.

Claude's tools run in sessions of their own, so neither a signal to the process nor to its group reaches them.
They inherit the environment, and with it the mark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from claude_orchestrator.plan import MARK_VARIABLE

_PREFIX = f"{MARK_VARIABLE}=".encode()


def marked(run_mark: str) -> dict[str, list[int]]:
    """The ids of all other processes that carry a mark of this run (`RUN/INSTANCE`), by mark."""
    if sys.platform == "linux":
        return _marked_in_proc(run_mark.encode())
    if sys.platform == "win32":
        return {}
    return _marked_by_ps(run_mark.encode())


def kill(pids: list[int]) -> None:
    """SIGKILL to each; those that are gone already are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)


def _marked_in_proc(run_mark: bytes) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    own = str(os.getpid())
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process costs more than the look-up
        if not name.isdigit() or name == own:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                environ = file.read()
        except OSError:
            continue
        mark = _mark_in(environ, run_mark, b"\0")
        if mark is not None:
            found.setdefault(mark, []).append(int(name))
    return found


def _marked_by_ps(run_mark: bytes) -> dict[str, list[int]]:
    """`ps -E` shows the environment of one's own processes (macOS)."""
    found: dict[str, list[int]] = {}
    try:
        listing = subprocess.run(
            ["/bin/ps", "-axEww", "-o", "pid=,command="], capture_output=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return found
    for line in listing.splitlines():
        mark = _mark_in(line, run_mark, b" ")
        pid = line.split(None, 1)[0] if line.strip() else b""
        if mark is not None and pid.isdigit() and int(pid) != os.getpid():
            found.setdefault(mark, []).append(int(pid))
    return found


def _mark_in(environ: bytes, run_mark: bytes, end: bytes) -> str | None:
    start = environ.find(_PREFIX + run_mark + b"/")
    if start < 0 or (start > 0 and environ[start - 1 : start] != end):
        return None
    return environ[start + len(_PREFIX) :].split(end, 1)[0].decode("ascii", "replace")


def is_executable(path: Path) -> bool:
    """Whether this is a file that may be run."""
    return path.is_file() and os.access(path, os.X_OK)
