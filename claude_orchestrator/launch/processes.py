"""Processes that carry an instance's mark: found by their environment and ended, wherever they are.

Claude's tools run in sessions of their own, so neither a signal to the process nor to its group reaches them.
They inherit the environment, and with it the mark.

Run as a program, this file is the guard of a run: it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import IO

MARK_VARIABLE = "CLAUDE_ORCHESTRATOR_MARK"
END_LIMIT_S = 30.0

_PREFIX = f"{MARK_VARIABLE}=".encode()


def marked(run_mark: str) -> dict[str, list[int]]:
    """The ids of all other processes that carry a mark of this run (`RUN/INSTANCE`), by mark. Unmarked processes that
    such a process started count as marked."""
    if sys.platform == "linux":
        return _marked_in_proc(run_mark.encode())
    if sys.platform == "win32":
        return {}
    return _marked_by_ps(run_mark.encode())


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each. Processes that are gone are skipped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)


def freeze(pids: Iterable[int]) -> None:
    """Send SIGSTOP to each. A frozen process starts nothing more, and its children can still be found by their
    parent."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform != "win32":
                os.kill(pid, signal.SIGSTOP)


def end_run(run_mark: str) -> int:
    """End every process that carries a mark of this run; returns how many there were."""
    deadline = time.monotonic() + END_LIMIT_S
    frozen: set[int] = set()
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:  # one look can miss a process that is just being forked
        pids = {pid for found in marked(run_mark).values() for pid in found}
        if not pids <= frozen:  # an unmarked child of one that is killed before it is seen is found by nobody
            freeze(pids - frozen)
            frozen |= pids
            continue
        kill(pids)
        quiet = 0 if pids else quiet + 1
        time.sleep(0.01)
    return len(frozen)


def _marked_in_proc(run_mark: bytes) -> dict[str, list[int]]:
    marks: dict[int, str] = {}
    unmarked: list[int] = []
    own = str(os.getpid())
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process costs more than the look-up
        if not name.isdigit() or name == own:
            continue
        mark = _mark_in(_proc_file(name, "environ"), run_mark, b"\0")
        if mark is not None:
            marks[int(name)] = mark
        else:
            unmarked.append(int(name))
    if marks:
        _add_descendants(marks, {pid: _parent_in_proc(pid) for pid in unmarked})
    return _by_mark(marks)


def _proc_file(pid: int | str, name: str) -> bytes:
    """Empty where the process is gone or another user's."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # that is no process that has gone
            raise
        return b""


def _parent_in_proc(pid: int) -> int:
    fields = _proc_file(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _add_descendants(marks: dict[int, str], parents: dict[int, int]) -> None:
    """Give the descendants of a marked process its mark, unless they show one of their own."""
    for begin in parents:
        pid, line = begin, dict[int, str]()
        while pid in parents and pid not in marks and pid not in line:
            line[pid] = ""
            pid = parents[pid]
        if pid in marks:
            marks.update(dict.fromkeys(line, marks[pid]))


def _by_mark(marks: dict[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for pid, mark in marks.items():
        found.setdefault(mark, []).append(pid)
    return found


def _marked_by_ps(run_mark: bytes) -> dict[str, list[int]]:
    """`ps -E` shows the environment of one's own processes (macOS)."""
    marks: dict[int, str] = {}
    parents: dict[int, int] = {}
    try:
        listing = subprocess.run(
            ["/bin/ps", "-axEww", "-o", "pid=,ppid=,command="], capture_output=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    for line in listing.splitlines():
        fields = line.split(None, 2)
        if len(fields) < 3 or not fields[0].isdigit() or not fields[1].isdigit() or int(fields[0]) == os.getpid():
            continue
        mark = _mark_in(line, run_mark, b" ")
        if mark is not None:
            marks[int(fields[0])] = mark
        else:
            parents[int(fields[0])] = int(fields[1])
    _add_descendants(marks, parents)
    return _by_mark(marks)


def _mark_in(environ: bytes, run_mark: bytes, end: bytes) -> str | None:
    start = environ.find(_PREFIX + run_mark + b"/")
    if start < 0 or (start > 0 and environ[start - 1 : start] != end):
        return None
    return environ[start + len(_PREFIX) :].split(end, 1)[0].decode("ascii", "replace")


class MarkGuard:
    """A context in which a second process watches over this one: however this dies, a run's processes are ended.

    The guard sleeps on a pipe that only this process holds open. At an orderly end, this process dismisses it. If the
    pipe just closes (SIGKILL, out of memory), the guard ends everything that carries the run's mark.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the second process. Raises OSError where that is not possible."""
        if sys.platform != "win32":
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, self._run_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},  # without a mark of its own, should this run be another's instance
                cwd="/",
                start_new_session=True,
            )

    def revive(self) -> None:
        """Start another guard in place of one that has ended. Raises OSError where that is not possible."""
        self.start()

    def end_of_guard(self) -> IO[bytes] | None:
        """A pipe that becomes readable when the guard itself has ended; None where there is none."""
        return self._process.stdout if self._process is not None else None

    def __enter__(self) -> MarkGuard:
        self.start()
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
    end_run(run_id)


if __name__ == "__main__":
    _guard(sys.argv[1])
