"""What a ledger holds, and what it is asked and answers. Pure.

All times are milliseconds since 1970 in UTC, costs nano-dollars.
"""

from __future__ import annotations

from token_budget.model_weights import TokenWeights
from token_budget.models import NO_USAGE, Action, Amount, Unit, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import UNKNOWN, Subagent, Terms
from token_budget.windows import Window

FOREVER_MS = 2**62
HOUR_MS = 3_600_000
MAY_RUN_MS = 7 * 86_400_000  # an attempt without an end is taken for running so long
QUARTER_MS = 900_000  # every zone's offset is a multiple of a quarter of an hour
UTC_ZONE = "UTC"
WEIGHTS_KEY = "token weights"  # in the budgets of a run that an earlier version recorded
IMPORTED = "imported"  # the outcome of an attempt that no orchestrator ran


class RunRecord(NamedTuple):
    """A run of the orchestrator; `budgets` is JSON text, which `run_budgets` writes and reads.

    `account` is whom its use is charged to, or empty.
    """

    run: str
    machine: str
    started_ms: int
    ended_ms: int | None = None
    mode: str = "warn"
    budgets: str = "{}"
    exit_code: int | None = None
    account: str = ""


class AttemptRecord(NamedTuple):
    """An attempt at an instance, with what it has used by its records so far. `outcome` is None until it has ended.

    `other_sessions` are the sessions beside `session` whose use was counted here: those before a `/clear`, and those
    of a claude that a tool of the instance has started. `verified` is what the instance's check said last.
    `subagents` are those that the records name as their source.
    """

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
    usage: Usage = NO_USAGE
    cost_nano_usd: int | None = None
    other_sessions: tuple[str, ...] = ()
    workspace: str | None = None
    verified: bool | None = None
    subagents: tuple[Subagent, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies it in the ledger."""
        return self.run, self.instance, self.attempt


class InstanceRecord(NamedTuple):
    """All attempts at an instance as one: what the last was, and when it ended (or began, if it is running)."""

    run: str
    instance: str
    base_command: str | None
    model: str | None
    workspace: str | None
    outcome: str | None
    at_ms: int
    tokens: int
    verified: bool | None = None


class UsageRecord(NamedTuple):
    """What a model has used for an attempt since the previous record. `cost_source` is `claude` or `prices`.

    A count can be negative where an earlier record had named another model or source; the sums are right. `source` is
    who asked, as `token_budget.portions` has it. `terms` are those of the price, and `written_for_1h_tokens` the cache
    writes that live an hour.
    """

    id: str
    run: str
    instance: str
    attempt: int
    at_ms: int
    model: str
    usage: Usage
    cost_nano_usd: int | None = None
    cost_source: str | None = None
    source: str = UNKNOWN
    terms: Terms = Terms()
    written_for_1h_tokens: int = 0
    web_searches: int = 0


class NoteRecord(NamedTuple):
    """Something that a run did besides using tokens, e.g. an adjustment, with its reason."""

    id: str
    run: str
    at_ms: int
    kind: str
    text: str
    instance: str | None = None


class Limit(NamedTuple):
    """A limit, in its unit, on what all runs together use from a moment on."""

    since_ms: int
    limit: int
    unit: Unit = Unit.TOKENS


class HoldRequest(NamedTuple):
    """An amount to be held for an instance of a run, for `lease_ms` unless it is renewed.

    With `enforce` it is held only where every limit has room; without it always. `sent`: it is for something that is
    billed whatever becomes of the run. If nobody renews it, it counts as used. With an `account`, the limits count only
    what runs of this account use and hold.
    """

    run: str
    instance: str
    amount: Amount
    lease_ms: int
    weights: TokenWeights
    enforce: bool
    sent: bool = False
    account: str = ""


class Post(NamedTuple):
    """What a run tells other runs about a topic, for `lifetime_ms`. Topics are digests: they name no key."""

    topic: str
    run: str
    at_ms: int
    lifetime_ms: int
    text: str


class Heard(NamedTuple):
    """What another run has posted, and how long ago."""

    age_ms: int
    text: str


class Posted(NamedTuple):
    """The answer to a post: the number of the latest post on the topic, and what others have posted before it.

    The post itself was entered only if there are no such `others`, or if it was unconditional.
    """

    seen: int
    others: tuple[Heard, ...] = ()


class HoldState(NamedTuple):
    """What is left of a hold, and how long it stands from now on; a lease of 0 releases it."""

    key: int
    run: str
    amount: Amount
    lease_ms: int
    account: str = ""


class Reservation(NamedTuple):
    """The answer to a hold request: the hold's key, or the index of the limit that has no room, with its figures.

    `held` is what all runs hold that the limit counts, and `held_elsewhere` the part of the other runs.
    """

    action: Action
    hold: int | None = None
    limit_index: int = 0
    used: int = 0
    held: int = 0
    held_elsewhere: int = 0


class Shared(NamedTuple):
    """What runs have used of each of some limits, in its unit, and what they hold now."""

    used: list[int]
    held: Amount


class UsageSum(NamedTuple):
    """What one group of records used, by the values that the records are grouped by.

    `start_ms` is its quarter of an hour where they are grouped by time. `unpriced_tokens` have no cost.
    """

    start_ms: int | None
    groups: tuple[str | None, ...]
    usage: Usage
    cost_nano_usd: int | None
    unpriced_tokens: int

    @property
    def group(self) -> str | None:
        """The first of the values."""
        return self.groups[0] if self.groups else None


class AccountLimit(NamedTuple):
    """What all runs that charge an account may use in a window, in its unit."""

    window: Window
    unit: Unit
    limit: int


class AccountRecord(NamedTuple):
    """An account: its limits, and the zone (an IANA name) in which its days begin."""

    account: str
    zone: str = UTC_ZONE
    limits: tuple[AccountLimit, ...] = ()
