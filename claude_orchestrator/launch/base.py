"""The seam of launching: what a launcher and a launched instance can do, wherever instances run.

It passes whole lines, so a recorded or simulated stream is a launcher too. It knows no budgets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.config.launch_spec import LaunchSpec
from token_budget.named_tuples import NamedTuple


class Capabilities(NamedTuple):
    """What a launcher can do.

    `simulated`: nothing runs and nothing is billed. `fence`: how it finds what an instance left: `none`, `mark` (by the
    environment), `subreaper` (the kernel returns it) or `namespace` (the kernel ends it). `elsewhere`: instances work
    in copies of their folders.
    """

    simulated: bool = False
    fence: str = "none"
    elsewhere: bool = False


class Exit(NamedTuple):
    """How a process ended: its exit code (negative: the signal), the end of its standard error, and how many lines were
    too long to read. `fault` says why its changes cannot be retrieved; empty if they can."""

    code: int | None
    stderr: str = ""
    dropped_lines: int = 0
    fault: str = ""


class Running(Protocol):
    """A launched instance."""

    def output(self) -> AsyncIterator[LineBatch]:
        """Yield its standard output as it arrives, cut into whole lines, until the stream ends."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a JSON message to its standard input; do nothing if that is closed."""

    def close_input(self) -> None:
        """Close its standard input, so that it ends after the turn in progress; a second call does nothing."""

    def stop(self, grace_s: float) -> None:
        """Start to stop it, and return at once. A second call with no grace ends it without further delay."""

    async def wait(self) -> Exit:
        """Wait until it has ended, and everything that it started."""


class Launcher(Protocol):
    """Starts instances."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    async def launch(self, spec: LaunchSpec) -> Running:
        """Start one instance. Raises OSError where that is not possible."""

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> Running:
        """Start a shell command that checks an instance's work; its output has both of its streams.

        It ends with the run, but not with the instance's process. Raises OSError where that is not possible.
        """
