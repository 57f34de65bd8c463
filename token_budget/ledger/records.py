"""What a ledger holds, and what it is asked and answers. Pure.

All times are milliseconds since 1970 in UTC, costs nano-dollars.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from token_budget.models import Action, Unit, Usage

FOREVER_MS = 2**62
WEIGHTS_KEY = "token weights"
IMPORTED = "imported"  # the outcome of what no orchestrator ran: no instance of ours


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the orchestrator; `budgets` is JSON text of its limits, and of its weights under `WEIGHTS_KEY`."""

    run: str
    machine: str
    started_ms: int
    ended_ms: int | None = None
    mode: str = "warn"
    budgets: str = "{}"
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at an instance, with what it has used by its records so far. `outcome` is None until it has ended."""

    run: str
    instance: str
    attempt: int
    started_ms: int
    session: str | None = None
    command: str | None = None
    base_command: str | None = None
    model: str | None = None
    ended_ms: int | None = None
    outcome: str | None = None
    exact: bool = False
    usage: Usage = field(default_factory=Usage)
    cost_nano: int | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from all others."""
        return self.run, self.instance, self.attempt


@dataclass(frozen=True, slots=True)
class Instance:
    """All attempts at an instance as one: what the last was and when it ended (or began, where it goes on)."""

    run: str
    base_command: str | None
    model: str | None
    outcome: str | None
    at_ms: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Record:
    """What a model has used for an attempt since its record before. `cost_source` is `claude` or `prices`.

    A count can be negative where an earlier record had named another model; the sums are right.
    """

    id: str
    run: str
    instance: str
    attempt: int
    at_ms: int
    model: str
    usage: Usage
    cost_nano: int | None = None
    cost_source: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a run did besides using tokens, e.g. an adjustment, with its reason."""

    id: str
    run: str
    at_ms: int
    kind: str
    text: str
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, in its unit, on what all runs together use from a moment on."""

    since_ms: int
    limit: int
    unit: Unit = Unit.TOKENS


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a reservation: its hold, or the place of the limit that was in the way with its figures.

    `held` is what all hold of it, `held_elsewhere` what other runs do.
    """

    action: Action
    hold: int | None = None
    limit: int = 0
    used: int = 0
    held: int = 0
    held_elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Sum:
    """What was used by one group of records; `start_ms` is its quarter of an hour where they are grouped by time."""

    start_ms: int | None
    group: str | None
    usage: Usage
    cost_nano: int | None
    unpriced_tokens: int
