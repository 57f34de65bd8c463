"""Processes that carry an instance's mark: found by their environment and ended, wherever they are.

Claude's tools run in sessions of their own, so neither a signal to the process nor to its group reaches them.
They inherit the environment, and with it the mark.

Run as a program, this file is the guard of a run: it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

MARK_VARIABLE = "CLAUDE_ORCHESTRATOR_MARK"
GUARD_LIMIT_S = 30.0

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


class Guard:
    """A context in which a second process watches over this one: however this dies, a run's processes are ended.

    The guard sleeps on a pipe that only this process holds open. At an orderly end it is told to go; where the pipe
    just closes (SIGKILL, out of memory), it ends everything that carries the run's mark.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guard:
        if sys.platform != "win32":
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, self._run_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},  # without a mark of its own, should this run be another's instance
                cwd="/",
                start_new_session=True,
            )
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.communicate(b".", timeout=5)


def _guard(run_id: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return
    deadline = time.monotonic() + GUARD_LIMIT_S
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:  # one look can miss a process that is just being forked
        pids = [pid for found in marked(run_id).values() for pid in found]
        kill(pids)
        quiet = 0 if pids else quiet + 1
        time.sleep(0.01)


if __name__ == "__main__":
    _guard(sys.argv[1])
