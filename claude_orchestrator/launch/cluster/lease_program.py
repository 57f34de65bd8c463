"""Ends everything that a run has on a node once the node's lease has ended, or once the node's agent has ended.

This program runs outside Ray's processes. It reads frames from standard input: eight bytes, which are the time at
which the lease ends, by the clock of `boot_s`. A frame that is not a number says that the work on this node is done.
At the end of the lease it kills the agent. The keepers of the fence end all instances then. What still carries the
run's mark is ended here. It needs nothing but the standard library and `processes.py`.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import signal
import struct
import sys
import time

FRAME = struct.Struct("=d")
LONGEST_POLL_S = 0.25  # the machine may sleep meanwhile
DONE = math.nan


def boot_s() -> float:
    """Seconds of a clock that nobody can set and that continues while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class AgentProcess:
    """The agent's process. Where the kernel has process descriptors, a reused number cannot be mistaken for it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            self._fd = os.pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL, also to a stopped process."""
        with contextlib.suppress(OSError):
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            else:
                os.kill(self._pid, signal.SIGKILL)


def wait_for_end(requests: int) -> bool:
    """Wait until the lease ends or the agent does; False if the work is done."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    ends_at_s, data = math.inf, b""
    while (left_s := ends_at_s - boot_s()) > 0:
        if not poll.poll(1000 * min(left_s, LONGEST_POLL_S)):
            continue
        piece = os.read(requests, 4096)
        if not piece:
            return True
        data += piece
        for (value,) in FRAME.iter_unpack(data[: len(data) - len(data) % FRAME.size]):
            if math.isnan(value):
                return False
            ends_at_s = value
        data = data[len(data) - len(data) % FRAME.size :]
    return True


def main(mark: str, folder: str, agent: AgentProcess) -> None:
    """Watch until the end. `folder` has the private files of the run on this node, and is removed."""
    from processes import end_run  # type: ignore[import-not-found]  # beside this file's package, by its path

    if wait_for_end(0):
        agent.kill()
        end_run(mark)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.path.insert(0, sys.argv[1])
    agent = AgentProcess(int(sys.argv[4]))  # before the fork: the agent waits for this process meanwhile
    if os.fork():  # when a worker of Ray exits, it kills its children
        os._exit(0)
    main(sys.argv[2], sys.argv[3], agent)
