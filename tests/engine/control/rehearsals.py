"""Rehearsal runs in processes of their own, which the tests of the control socket see and change."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from claude_orchestrator.engine.control.client import ControlClient
from claude_orchestrator.engine.control.socket_place import NAME, NotListening
from claude_orchestrator.engine.journal import records
from tests.limits import HUNG_S
from token_budget.folders import Folder

T = TypeVar("T")


class Rehearsal:
    """A rehearsal in a process of its own."""

    def __init__(self, place: Path, config: dict[str, Any], *options: str) -> None:
        self.runs = place / "runs"
        file = place / "config.json"
        file.write_text(json.dumps(config))
        argv = ["--config", str(file), "--rehearse", "--output-dir", str(self.runs), "--ledger", "off", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "claude_orchestrator", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=place,
        )

    @property
    def directory(self) -> Path:
        """The run's directory, once it is there."""
        return until(lambda: next(iter(self.runs.glob("*/")), None))

    def connect(self) -> ControlClient:
        """A connection, once the run listens."""
        until((self.directory / NAME).exists)

        def client() -> ControlClient | None:
            with Folder.open(self.directory) as folder, contextlib.suppress(NotListening):
                return ControlClient(folder, HUNG_S)
            return None

        return until(client)

    def journal(self) -> list[dict[str, Any]]:
        """The records so far."""
        found = records((self.directory / "journal.jsonl").read_bytes())
        return [record for record in found if record is not None]

    def wait(self) -> tuple[int, str]:
        """Its exit code and all that it printed."""
        output, _ = self.process.communicate(timeout=HUNG_S)
        return self.process.returncode, output


@contextlib.contextmanager
def rehearsal(place: Path, config: dict[str, Any], *options: str) -> Iterator[Rehearsal]:
    """A rehearsal that is ended with the context."""
    run = Rehearsal(place, config, *options)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.communicate()


def until(find: Callable[[], T | None]) -> T:
    """What `find` returns as soon as it is something."""
    deadline = time.monotonic() + HUNG_S
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def instances(*names: str, seconds: float = 600.0, tokens: int = 1000, **more: Any) -> dict[str, Any]:
    """A config of rehearsed instances that take long."""
    entries = [{"name": name, "prompt": f"do {name}", "max_tokens_per_command": tokens} for name in names]
    return {"rehearsal": {"seconds": seconds, "tokens": tokens}, "instances": entries, **more}
