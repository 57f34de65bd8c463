"""What the driver and a node's agent send each other. Pure.

Both sides have the same version of this package, which is checked before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claude_orchestrator.claude.stream import Batch
from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.launch.base import Exit
from token_budget.named_tuples import NamedTuple


class Begin(NamedTuple):
    """What an agent begins with. `environ` is added to the node's own environment, and may have keys.

    `private`: claude reads private options from files. `simulated`: instances are simulated.
    `meter` is how the node's gateway begins, if the run counts there.
    """

    mark: str
    lease_s: float
    environ: Mapping[str, str]
    private: bool = True
    simulated: bool = False
    meter: object = None


class Begun(NamedTuple):
    """An agent has begun: its first token, what went wrong (empty if nothing did), and the port of its gateway."""

    token_s: float
    fault: str = ""
    port: int = 0


class ForMeter(NamedTuple):
    """A message between the run's meter and the gateway of the node, both ways."""

    message: object


# -- commands: from the driver to the agent, in order; `id` numbers the launches of an agent --


class Launch(NamedTuple):
    """Start an instance, or with a `check` the shell command that checks its work, in `folder`."""

    id: int
    spec: LaunchSpec
    check: str | None = None
    folder: str = ""


class Send(NamedTuple):
    """Write a message to its standard input."""

    id: int
    message: Mapping[str, Any]


class CloseInput(NamedTuple):
    """Close its standard input."""

    id: int


class Stop(NamedTuple):
    """Stop it."""

    id: int
    grace_s: float


Command = Launch | Send | CloseInput | Stop | ForMeter


# -- events: from the agent to the driver, in order --


class Started(NamedTuple):
    """A launch has succeeded."""

    id: int


class NotStarted(NamedTuple):
    """A launch has failed; without an `errno`, an argument was unusable."""

    id: int
    errno: int | None
    why: str
    filename: str | None


class Output(NamedTuple):
    """What an instance has printed. `lines` is None where they are the raw bytes."""

    id: int
    raw: bytes
    lines: bytes | None = None

    @classmethod
    def of(cls, id: int, batch: Batch) -> Output:
        """A batch for its way to the driver."""
        return cls(id, batch.raw, None if batch.lines == batch.raw else batch.lines)

    @property
    def batch(self) -> Batch:
        """The batch as the launcher had it."""
        return Batch(self.raw, self.raw if self.lines is None else self.lines)

    @property
    def size_bytes(self) -> int:
        """About how much it takes."""
        return len(self.raw) + len(self.lines or b"") + 64


class OutputEnded(NamedTuple):
    """An instance prints no more."""

    id: int


class Ended(NamedTuple):
    """An instance has ended, and everything that it started."""

    id: int
    exit: Exit


Event = Started | NotStarted | Output | OutputEnded | Ended | ForMeter


def for_wire(spec: LaunchSpec) -> LaunchSpec:
    """The spec without what only the driver needs, and which may be large."""
    return spec._replace(forecasts={}, late=None, grows=None, item=None, description="", depends_on=())
