"""A process namespace for a kept process, for the keeper that asks for it. It imports only what C provides.

Its first process is a fork of the keeper. When that dies, the kernel kills everything else in the namespace, and it
dies with the keeper. So nothing is left even if something kills all processes of the program at once.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import posix
import select
from collections.abc import Callable

Libc = Callable[..., int]
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_REC, MS_SLAVE = 0x4000, 0x80000
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
EPERM = 1


def enter(libc: Libc) -> None:
    """Let the next child be the first process of a namespace. Raises OSError where the system does not allow that.

    Without the right to do so, it takes a user namespace too, in which this user keeps its number.
    """
    user, group = posix.geteuid(), posix.getegid()
    if libc("unshare", CLONE_NEWPID) == 0:
        return
    if libc("unshare", CLONE_NEWUSER | CLONE_NEWPID) != 0:
        raise PermissionError(EPERM, "no namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "wb", 0) as file:  # noqa: PTH123
            file.write(text.encode())


def become_first(libc: Libc, others: list[int], failures: int, codes: int) -> None:
    """Be the first process: mount a /proc that shows this namespace, and return in a child of this process.

    It closes `others`. To `failures` it writes why it cannot start, and to `codes` how the child has ended.
    """
    libc("prctl", PR_SET_PDEATHSIG, int(_signal.SIGKILL), 0, 0, 0)
    if keeper_is_gone(failures):  # it died before the signal was set
        posix._exit(255)
    _signal.set_wakeup_fd(-1)
    private = libc("unshare", CLONE_NEWNS) or libc("mount", b"none", b"/", None, MS_REC | MS_SLAVE, None)
    if private or libc("mount", b"proc", b"/proc", b"proc", 0, None):
        posix.write(failures, b"%d namespace" % EPERM)
        posix._exit(255)
    child = posix.fork()
    if child == 0:
        return
    libc("prctl", PR_SET_NAME, b"claude-first\0", 0, 0, 0)
    for fd in (*others, failures):
        posix.close(fd)
    pid, status = 0, 0
    while pid != child:
        pid, status = posix.waitpid(-1, 0)
    posix.write(codes, b"%d" % posix.waitstatus_to_exitcode(status))
    posix._exit(0)


def keeper_is_gone(pipe: int) -> bool:
    """Whether nobody can read from this pipe any more. In a namespace, the number of the parent does not show it."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def code_of(codes: int) -> int:
    """How the process ended: by SIGKILL, if the first process could not say anything."""
    data = posix.read(codes, 16)
    posix.close(codes)
    return int(data) if data else -int(_signal.SIGKILL)
