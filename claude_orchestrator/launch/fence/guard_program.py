"""The program of the guard and of the keepers that it forks. It imports only what C provides, to start fast.

The guard forks a keeper for each request. A keeper starts one process and is the subreaper of all that comes from it:
the kernel gives an orphan to its keeper, whatever the orphan did to its environment, title, group or session. The
keeper therefore needs no search, and `waitpid` reports when nothing is left.

A request is one message on standard input with four descriptors: the standard streams of the process, and a control
socket. The launch itself comes through the control socket: its length in four bytes, then a marshalled tuple. After it,
each byte is a signal for the process, and 0 ends everything. The keeper answers in lines:

    started PID FENCED        FENCED is 1 if the kernel returns orphans to the keeper
    failed ERRNO STEP         STEP is fork, cwd, exec or namespace
    exited CODE               negative: the signal
    ended COUNT LEFT          how many leftovers it ended, and how many it could not

If the control socket closes, nobody reads the process any more, and the keeper ends everything.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum, which takes longer than all of this
import _socket
import marshal
import posix
import select
import sys

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
IGNORED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
RETRY_MS = 5
GIVE_UP_AFTER = 1000  # rounds: about 5 s
DEVNULL = 1  # the guard's own standard output


try:
    import _ctypes

    LIBRARY = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
except (ImportError, OSError):
    LIBRARY = 0


def libc(name: str, *values: object) -> int:
    """Call a function of the C library; 0 if it succeeded."""
    if not LIBRARY:
        return -1
    return int(_ctypes.call_function(_ctypes.dlsym(LIBRARY, name), values))


def prctl(option: int, value: object) -> bool:
    """Call it; returns whether it succeeded."""
    return libc("prctl", option, value, 0, 0, 0) == 0


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child has ended."""
    reading, writing = posix.pipe()
    for fd in (reading, writing):
        posix.set_blocking(fd, False)
    _signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def drain(fd: int) -> None:
    try:
        posix.read(fd, 4096)
    except BlockingIOError:
        return


def children(parent: int) -> list[int]:
    """The children of a process, dead ones included until they were waited for."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children", "rb", 0) as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return children_by_search(parent)


def children_by_search(parent: int) -> list[int]:
    """The same from all processes that are there."""
    return [int(name) for name in posix.listdir("/proc") if name.isdigit() and parent_of(name) == parent]


def parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def kill(pids: list[int], number: int = _signal.SIGKILL) -> list[int]:
    """Signal each of these children; returns those that this process may not kill.

    What a child had started becomes a child of this process then, and is killed in the next round.
    """
    immune: list[int] = []
    for pid in pids:
        try:
            posix.kill(pid, number)
        except PermissionError:
            immune.append(pid)
        except ProcessLookupError:
            continue
    return immune


def reap() -> tuple[list[tuple[int, int]], bool]:
    """Wait for the children that have ended; returns each with its status, and whether others are left."""
    ended: list[tuple[int, int]] = []
    try:
        while True:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
            if pid == 0:
                return ended, True
            ended.append((pid, status))
    except ChildProcessError:
        return ended, False


class Keeper:
    """Starts one process, and ends all that came from it."""

    def __init__(self, control: int, streams: list[int]) -> None:
        self.fenced = prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_NAME, b"claude-keeper\0")
        posix.dup2(DEVNULL, 0)  # otherwise the guard's requests would have a second reader
        self.control = _socket.socket(fileno=control)
        self.streams = streams
        self.woken = wake_on_child()
        self.pid = 0
        self.codes = -1  # where the first process of a namespace says how the process ended
        self.killed: set[int] = set()
        self.immune: list[int] = []

    def say(self, *words: object) -> None:
        try:
            self.control.send(" ".join(map(str, words)).encode() + b"\n")
        except OSError:
            return  # the orchestrator is gone, and the end of the control socket follows

    def read_launch(self) -> tuple[list[bytes], list[bytes], list[tuple[bytes, bytes]], bytes]:
        """Programs to try in order, arguments, environment and directory. Raises EOFError if nobody waits for it."""
        size = int.from_bytes(self.receive(4), "little")
        launch: tuple[list[bytes], list[bytes], list[tuple[bytes, bytes]], bytes] = marshal.loads(self.receive(size))
        poll = select.poll()
        poll.register(self.control.fileno(), 0)
        if poll.poll(0):  # the other end is closed: the orchestrator has died, or has given up this launch
            raise EOFError
        return launch

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.control.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def start(self) -> bool:
        """Start the process, and report how that went."""
        launch = self.read_launch()
        reading, writing = posix.pipe()
        parent = posix.getpid()
        try:
            if NAMESPACE:
                self.codes, codes = enter_namespace()
            self.pid = posix.fork()
        except OSError as error:
            self.say("failed", error.errno, "fork" if self.codes >= 0 or not NAMESPACE else "namespace")
            return False
        if self.pid == 0:
            if NAMESPACE:
                become_first([self.control.fileno(), reading, *self.streams], writing, codes)
                parent = 1
            become(launch, self.streams, writing, parent)
        for fd in (writing, *self.streams, *([codes] if NAMESPACE else [])):
            posix.close(fd)
        failure = posix.read(reading, 64)
        posix.close(reading)
        if failure:
            self.say("failed", failure.decode())
            return False
        self.say("started", self.program(), int(self.fenced))
        return True

    def program(self) -> int:
        """The process that was asked for: in a namespace it is the child of the first process, which ends with it."""
        return ((children(self.pid) if NAMESPACE else []) or [self.pid])[0]

    def keep(self) -> None:
        """Wait for the process and end what it left."""
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        ending, rounds = False, 0
        while self.reap():
            if ending or not self.pid:
                rounds += 1
                if rounds > GIVE_UP_AFTER:
                    break
                self.end_round()
            for fd, _ in poll.poll(RETRY_MS if rounds else None):
                if fd == self.woken:
                    drain(fd)
                elif not self.obey():
                    ending = True
                    poll.unregister(fd)
        self.say("ended", len(self.killed), len(self.immune))

    def reap(self) -> bool:
        """Note those that have ended; returns whether others are left."""
        ended, others_left = reap()
        for pid, status in ended:
            if pid == self.pid:
                self.pid = 0
                self.say("exited", code_of(self.codes) if NAMESPACE else posix.waitstatus_to_exitcode(status))
        return others_left

    def end_round(self) -> None:
        try:
            found = children(posix.getpid())
        except OSError:
            return  # no file is to be had in the whole system: the next round may get one
        self.killed.update(pid for pid in found if pid != self.pid)
        self.immune = kill(found)

    def obey(self) -> bool:
        """Pass on signals; False when everything is to end."""
        try:
            data = self.control.recv(64)
        except OSError:
            return False
        for number in data:
            if number and self.pid:
                kill([self.program()], number)
        return bool(data) and 0 not in data


def become(
    launch: tuple[list[bytes], list[bytes], list[tuple[bytes, bytes]], bytes],
    streams: list[int],
    failures: int,
    keeper: int,
) -> None:
    """In the new process: become the program that was asked for, or report why not. Never returns."""
    step = "exec"
    try:
        prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() != keeper:  # it died before the signal was set
            return
        programs, argv, environ, cwd = launch
        posix.setsid()
        for number in (*DEFAULTED, _signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD):
            _signal.signal(number, _signal.SIG_DFL)
        for fd, stream in enumerate(streams):
            posix.dup2(stream, fd)
        step = "cwd"
        posix.chdir(cwd)
        step = "exec"
        execute(programs, argv, dict(environ))
    except OSError as error:
        posix.write(failures, f"{error.errno} {step}".encode())
    finally:
        posix._exit(255)


def enter_namespace() -> tuple[int, int]:
    """Let the next child be the first process of a namespace; returns the pipe for the code of its end."""
    import pid_namespace  # type: ignore[import-not-found]  # only where somebody asked for it

    pid_namespace.enter(libc)
    return posix.pipe()


def become_first(others: list[int], failures: int, codes: int) -> None:
    """In the first process of the namespace: stay that, and return in its child."""
    import pid_namespace

    pid_namespace.become_first(libc, others, failures, codes)


def code_of(codes: int) -> int:
    """How the process in the namespace ended."""
    import pid_namespace

    return int(pid_namespace.code_of(codes))


def execute(programs: list[bytes], argv: list[bytes], environ: dict[bytes, bytes]) -> None:
    """Try each program, as a search through PATH does. Raises the OSError that says most."""
    failure: OSError | None = None
    for program in programs:
        try:
            posix.execve(program, argv, environ)
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure or error
        except OSError as error:
            if failure is None or isinstance(failure, (FileNotFoundError, NotADirectoryError)):
                failure = error
    if failure is not None:
        raise failure


def keep(control: int, streams: list[int]) -> None:
    """Be a keeper, in a process of its own. Never returns."""
    code = 1
    try:
        keeper = Keeper(control, streams)
        if keeper.start():
            keeper.keep()
        code = 0
    except EOFError:
        code = 0
    finally:
        posix._exit(code)


class GuardProcess:
    """Forks keepers, and ends what a keeper leaves that was killed."""

    def __init__(self) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_NAME, b"claude-guard\0")
        self.requests = _socket.socket(fileno=0)
        self.woken = wake_on_child()
        self.keepers: set[int] = set()
        self.has_orphans = False

    def serve(self) -> None:
        """Fork a keeper for each request. The end of the requests is the end of the orchestrator."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        serving, rounds = True, 0
        while (self.reap() or serving) and rounds < 2 * GIVE_UP_AFTER:
            rounds += not serving
            if self.has_orphans or rounds > GIVE_UP_AFTER:
                kill([pid for pid in children(posix.getpid()) if pid not in self.keepers])
            for fd, _ in poll.poll(RETRY_MS if self.has_orphans or not serving else None):
                if fd == self.woken:
                    drain(fd)
                elif not self.take_request():
                    serving = False
                    poll.unregister(fd)

    def reap(self) -> bool:
        """Note those that have ended; returns whether others are left."""
        ended, others_left = reap()
        for pid, status in ended:
            if pid in self.keepers:
                self.keepers.remove(pid)
                self.has_orphans |= status != 0  # somebody killed it
        self.has_orphans &= others_left
        return others_left

    def take_request(self) -> bool:
        """Fork a keeper; False if there are no more requests."""
        data, ancillary, _, _ = self.requests.recvmsg(16, _socket.CMSG_SPACE(16), _socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = [int.from_bytes(packed[at : at + 4], sys.byteorder) for _, _, packed in ancillary for at in (0, 4, 8, 12)]
        try:
            pid = posix.fork()
        except OSError as error:
            posix.write(fds[3], f"failed {error.errno} fork\n".encode())
        else:
            if pid == 0:
                posix.close(self.woken)
                self.requests.detach()
                keep(fds[3], fds[:3])
            self.keepers.add(pid)
        for fd in fds:
            posix.close(fd)
        return True


def probe() -> None:
    """Exit with 0 if this system allows the namespaces, otherwise with 1. Never returns."""
    reading, writing = posix.pipe()
    try:
        _, codes = enter_namespace()
        if posix.fork() == 0:
            become_first([reading], posix.dup(1), codes)
            posix.write(writing, b"1")
            posix._exit(0)
        posix.close(writing)
        posix._exit(0 if posix.read(reading, 1) else 1)
    finally:
        posix._exit(1)


NAMESPACE = "namespace" in sys.argv[3:]
DEFAULTED = [number for number in IGNORED if _signal.getsignal(number) != _signal.SIG_IGN]


def main() -> None:
    """Be the guard of a run until the orchestrator ends, however it ends. Never returns."""
    for number in IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
    try:
        GuardProcess().serve()
    finally:
        posix._exit(0)
