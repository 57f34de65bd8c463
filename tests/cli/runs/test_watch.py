"""`claude-runs watch` on a terminal: the screen, q, and the end of the run."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.control.rehearsals import Rehearsal, instances, rehearsal
from tests.limits import HUNG_S

pytestmark = pytest.mark.processes
CODE = "from claude_orchestrator.cli.runs.main import main; main()"


class Screen:
    """A terminal with `claude-runs watch` on it."""

    def __init__(self, run: Rehearsal, *args: str, columns: int = 80, lines: int = 24) -> None:
        self.fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        argv = [sys.executable, "-c", CODE, "--output-dir", str(run.runs), "watch", "last", *args]
        env = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(argv, stdin=other, stdout=other, stderr=other, env=env)
        os.close(other)
        self.text = ""

    def read_until(self, text: str) -> None:
        """Read what is printed until this stands in it. Escape sequences are left out."""
        while text not in self.text:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the program has ended
                data = b""
            assert data, self.text
            self.text += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", data.decode("utf-8", "replace"))

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> int:
        code = self.process.wait(timeout=HUNG_S)
        os.close(self.fd)
        return code


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Rehearsal]:
    with rehearsal(tmp_path, instances("one", "two"), "--overall-token-budget", "90k") as found:
        found.connect().close()
        yield found


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40), (200, 50)])
def test_the_screen_of_a_run_is_left_by_q_and_the_run_continues(run: Rehearsal, columns: int, lines: int) -> None:
    screen = Screen(run, columns=columns, lines=lines)
    screen.read_until("rehearsing (running) · q leaves")
    screen.read_until("BUDGET STATUS")
    screen.type(b"q")
    screen.read_until(
        f"The run continues. Watch it again: claude-runs --output-dir {run.runs} watch {run.directory.name}"
    )
    assert screen.end() == 0
    with run.connect() as client:
        assert client.call("status", brief=True)["run"]["state"] == "running"


def test_one_instance_and_the_end_of_the_run(run: Rehearsal) -> None:
    screen = Screen(run, "one")
    screen.read_until("one: running · turn 1/1")
    screen.read_until("── session")
    with run.connect() as client:
        client.call("stop_run", at_once=True)
    screen.read_until(f"Next: claude-runs --output-dir {run.runs} results {run.directory.name}")
    assert screen.end() == 0
