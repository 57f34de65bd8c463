"""What the driver and a node's agent send each other. Pure.

Both sides have the same version of this package, which is checked before anything starts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.base import Exit
from token_budget.named_tuples import NamedTuple


class Begin(NamedTuple):
    """What an agent begins with. `environ` is added to the node's own environment, and may have keys.

    `private`: claude reads private options from files. `simulated`: instances are simulated.
    `meter` is how the node's gateway begins, if the run counts there. `ships`: repositories travel to the node.
    """

    mark: str
    lease_s: float
    environ: Mapping[str, str]
    private: bool = True
    simulated: bool = False
    meter: object = None
    ships: bool = False


class Begun(NamedTuple):
    """An agent has begun: its first token, what went wrong (empty if nothing did), and the port of its gateway."""

    token_s: float
    fault: str = ""
    port: int = 0


class ForMeter(NamedTuple):
    """A message between the run's meter and the gateway of the node, both ways."""

    message: object


class BundlePart(NamedTuple):
    """A part of a bundle for a store of the node; the last one completes the commit."""

    store: str
    commit: str
    offset: int
    data: bytes
    is_last: bool


class ShippedWork(NamedTuple):
    """What an instance works on: a commit in a store of the node, on a branch, in a folder below its top."""

    store: str
    commit: str
    branch: str
    folder: str


class Brought(NamedTuple):
    """What an instance has done, after the pieces of its bundle: its last commit, and the one that has everything.

    `fault` says why it cannot be had; empty if it can.
    """

    head: str = ""
    commit: str = ""
    fault: str = ""


# -- commands: from the driver to the agent, in order; `id` numbers the launches of an agent --


class Launch(NamedTuple):
    """Start an instance, or with a `check` the shell command that checks its work, in `folder`.

    With a `parcel`, that is in a new copy. A check without one runs in the copy of its instance, if that has one.
    """

    id: int
    spec: LaunchSpec
    check: str | None = None
    folder: str = ""
    parcel: ShippedWork | None = None


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

    @classmethod
    def of(cls, id: int, error: OSError | ValueError) -> NotStarted:
        """What a launcher has raised, for its way to the driver."""
        if isinstance(error, ValueError):
            return cls(id, None, str(error), None)
        filename = None if error.filename is None else str(error.filename)
        return cls(id, error.errno, error.strerror or str(error), filename)

    @property
    def error(self) -> OSError | ValueError:
        """What the driver raises."""
        return ValueError(self.why) if self.errno is None else OSError(self.errno, self.why, self.filename)


class Output(NamedTuple):
    """What an instance has printed. `lines` is None where they are the raw bytes."""

    id: int
    raw: bytes
    lines: bytes | None = None

    @classmethod
    def of(cls, id: int, batch: LineBatch) -> Output:
        """A batch for its way to the driver."""
        return cls(id, batch.raw, None if batch.lines == batch.raw else batch.lines)

    @property
    def batch(self) -> LineBatch:
        """The batch as the launcher had it."""
        return LineBatch(self.raw, self.raw if self.lines is None else self.lines)

    @property
    def size_bytes(self) -> int:
        """About how much it takes."""
        return len(self.raw) + len(self.lines or b"") + 64


class OutputEnded(NamedTuple):
    """An instance prints no more."""

    id: int


class ChangesPiece(NamedTuple):
    """The next piece of the bundle of what an instance has done."""

    id: int
    data: bytes

    @property
    def size_bytes(self) -> int:
        """About how much it takes."""
        return len(self.data) + 64


class Memory(NamedTuple):
    """The memory of the node in bytes: what is free, and what each instance takes, by its position in the plan.

    `disk` is what is free of the disk that has the node's temporary files.
    """

    free: int
    taken: Mapping[int, int]
    disk: int = sys.maxsize


class InstanceEnded(NamedTuple):
    """An instance has ended, and everything that it started. It has `brought` something if it had a parcel."""

    id: int
    exit: Exit
    brought: Brought | None = None


Event = Started | NotStarted | Output | OutputEnded | ChangesPiece | InstanceEnded | ForMeter | Memory


def for_wire(spec: LaunchSpec) -> LaunchSpec:
    """The spec without what only the driver needs, and which may be large."""
    return spec._replace(forecasts={}, late=None, grows=None, item=None, description="", depends_on=())
