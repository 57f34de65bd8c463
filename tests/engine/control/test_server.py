"""The control socket: who may connect, what it endures, and events to several readers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claude_orchestrator.engine.control.client import AnsweredError, ControlClient, Notification
from claude_orchestrator.engine.control.rpc import MAX_LINE_BYTES
from claude_orchestrator.engine.control.server import MAX_CONNECTIONS
from claude_orchestrator.engine.control.socket_place import NAME, NotListening, listen
from tests.engine.control.rehearsals import Rehearsal, instances, rehearsal, until
from tests.limits import HUNG_S
from token_budget.folders import Folder

pytestmark = [pytest.mark.processes, pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")]
OTHER_UID = 65_534


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """A run that no test changes."""
    with rehearsal(tmp_path_factory.mktemp("run"), instances("one")) as found:
        found.connect().close()
        yield found


def raw(run: Rehearsal) -> socket.socket:
    """A connection on which a test writes what it likes."""
    connected = socket.socket(socket.AF_UNIX)
    with Folder.open(run.directory) as folder:
        connected.connect(folder.short_path(NAME, 100))
    connected.settimeout(HUNG_S)
    return connected


def answer(connected: socket.socket) -> dict[str, object]:
    with connected.makefile("rb") as file:
        found: dict[str, object] = json.loads(file.readline())
    return found


def test_only_the_owner_can_open_the_socket(run: Rehearsal) -> None:
    status = (run.directory / NAME).stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_answer_even_if_the_modes_let_them_in(run: Rehearsal) -> None:
    connect = f"import os, socket; os.setuid({OTHER_UID}); s = socket.socket(socket.AF_UNIX)\n"
    place = run.directory
    opened = [place, *place.parents][: len(place.parents) - 1]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    try:
        for path in opened:
            path.chmod(modes[path] | 0o011)
        (place / NAME).chmod(0o666)
        code = (
            f"{connect}s.connect({str(place / NAME)!r})\ns.settimeout(60)\n"
            "try:\n    s.sendall(b'x\\n'); print(s.recv(9))\nexcept OSError as e: print(b'')\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HUNG_S, check=False)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
        (place / NAME).chmod(0o600)
    assert (done.stdout.strip(), done.stderr) == ("b''", "")
    with run.connect() as client:
        assert client.call("status", brief=True)["run"]["state"] == "running"


def test_a_line_that_is_too_long_gets_an_error_and_the_end(run: Rehearsal) -> None:
    with raw(run) as connected:
        with contextlib.suppress(OSError):
            connected.sendall(b"x" * (MAX_LINE_BYTES * 4) + b"\n")
        with contextlib.suppress(ConnectionResetError):
            assert "at most 65,536 bytes" in str(answer(connected))
            assert connected.recv(1) == b""


UNKNOWN = b'{"jsonrpc":"2.0","method":"x","id":1}\n'


@pytest.mark.parametrize("data", [b"\n\n", b"{}\n", b"\x00\xff\n", UNKNOWN, b"[1]\n"])
def test_malformed_requests_leave_the_connection_usable(run: Rehearsal, data: bytes) -> None:
    with raw(run) as connected, connected.makefile("rb") as file:
        connected.sendall(data + b'{"jsonrpc":"2.0","id":"last","method":"status","params":{"brief":true}}\n')
        while (found := json.loads(file.readline())).get("id") != "last":
            assert "error" in found
        assert found["result"]["run"]["state"] == "running"


def test_five_hundred_connections_leave_the_run_reachable(run: Rehearsal) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(500):
            connected = opened.enter_context(raw(run))
        assert f"{MAX_CONNECTIONS} connections are open already" in str(answer(connected))

    def reached() -> str | None:
        with run.connect() as client, contextlib.suppress(AnsweredError, OSError):
            return str(client.call("status", brief=True)["run"]["state"])
        return None

    assert until(reached) == "running"


def all_of(client: ControlClient) -> list[Notification]:
    return [told for told in client.follow() if told is not None]


def test_two_readers_get_the_same_events_and_one_that_never_reads_holds_up_nobody(tmp_path: Path) -> None:
    config = instances(*(f"i{number}" for number in range(6)), seconds=1.5)
    with rehearsal(tmp_path, config, "--max-parallel", "2") as run:
        run.connect().close()
        with raw(run) as lazy:
            lazy.sendall(b'{"jsonrpc":"2.0","id":1,"method":"events","params":{}}\n')
            with run.connect() as one, run.connect() as two, ThreadPoolExecutor(2) as readers:
                seen = list(readers.map(all_of, (one, two)))
        assert run.wait()[0] == 0
    for told in seen:
        assert told[0].kind == "snapshot"
        events = [each for each in told if each.kind == "event"]
        numbers = [each.data["number"] for each in events]
        first = told[0].data["number"]
        assert numbers == list(range(first + 1, first + 1 + len(numbers)))
        assert "run_ended" in [each.data["kind"] for each in events[-3:]]
    first, second = ({told.data["number"]: told.data for told in each if told.kind == "event"} for each in seen)
    assert all(first[number] == second[number] for number in first.keys() & second.keys())


def test_a_reader_that_returns_misses_nothing(run: Rehearsal) -> None:
    with run.connect() as client:
        first = next(client.follow())
        assert isinstance(first, Notification)
    with run.connect() as client:
        client.quiet_after(0.2)
        again = next(client.follow(first.data["number"], first.data["source"]))
        assert again is None or again.kind == "event"
        other = next(client.follow(first.data["number"], "another/1"))
        while other is None or other.kind != "snapshot":
            other = next(client.follow(first.data["number"], "another/1"))


def test_a_socket_whose_orchestrator_was_killed_is_recognised_and_replaced(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one")) as run:
        run.connect().close()
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        with Folder.open(run.directory) as folder:
            with pytest.raises(NotListening) as error:
                ControlClient(folder)
            assert error.value.is_stale
            listen(folder).close()
        (run.directory / NAME).unlink()
        with Folder.open(run.directory) as folder, pytest.raises(NotListening) as error:
            ControlClient(folder)
        assert not error.value.is_stale


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100) / ("y" * 100)
    place.mkdir(parents=True)
    with rehearsal(place, instances("one")) as run, run.connect() as client:
        assert client.call("status", brief=True)["run"]["id"] == run.directory.name
