"""What a ledger store does, in a file or on a server. `opening.py` opens one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from token_budget.ledger.records import (
    FOREVER_MS,
    AccountLimit,
    AccountRecord,
    AttemptRecord,
    HoldRequest,
    HoldState,
    InstanceRecord,
    Limit,
    NoteRecord,
    Post,
    Posted,
    Reservation,
    RunRecord,
    Shared,
    UsageRecord,
    UsageSum,
)
from token_budget.model_weights import TokenWeights
from token_budget.models import Unit, Usage
from token_budget.windows import Window

GroupBy = Literal["command", "model", "run", "instance", "workspace"]


class LedgerStore(Protocol):
    """An append-only record of what was used, which many orchestrators share, with the holds of those that run.

    Records are known by their ids: writing one again adds nothing. Every method raises LedgerError, and a later call
    may succeed. With a server, its clock judges leases, and the `now_ms` that callers pass has no effect.
    """

    @property
    def name(self) -> str:
        """What messages call it: its file or address."""

    def now_ms(self, now_ms: int) -> int:
        """The time that this ledger judges by: its server's, or the caller's where it has no server."""

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that for other writers or a server, also in a wait that has begun in another thread."""

    def close(self) -> None:
        """Close the ledger. Nothing else is called after this."""

    # -- writing --

    def write(
        self,
        *,
        runs: Iterable[RunRecord] = (),
        attempts: Iterable[AttemptRecord] = (),
        records: Iterable[UsageRecord] = (),
        notes: Iterable[NoteRecord] = (),
        holds: Collection[HoldState] = (),
        now_ms: int = 0,
    ) -> int:
        """Write all of it or nothing, durably; returns how many usage records were new. Leases begin at `now_ms`.

        A known run or attempt gets its later values; an attempt's `usage` and `cost_nano_usd` come from its records
        alone.
        """

    def reserve(self, request: HoldRequest, limits: Sequence[Limit], now_ms: int) -> Reservation:
        """Check every limit and hold the amount, in one atomic step.

        Where the request enforces limits: BLOCK if it can never fit, WAIT if only holds of others keep it out.
        Otherwise everything is held, and WARN names the first limit that does not fit.
        """

    def release_run(self, run: str, *, keep: Collection[int] = ()) -> None:
        """Release whatever a run holds, except the holds to keep, once its records have what those were for."""

    def claim_alerts(self, keys: Iterable[str], run: str, at_ms: int) -> set[str]:
        """Claim alerts. Only one run can claim each. Returns the keys that nobody had claimed."""

    def claim_launch(self, most: int, run: str, now_ms: int) -> int:
        """Claim one of `most` launches in an hour, in one atomic step.

        Returns 0, or if all are taken the milliseconds until one is free again.
        """

    def post(self, post: Post, seen: int | None) -> Posted:
        """Tell other runs something about a topic, in one atomic step.

        With `seen`, it is entered only if no other run has posted there after that number; without, always. Posts
        need not outlive a crash of the machine.
        """

    def forget_posts(self, now_ms: int) -> None:
        """Delete the posts on all topics that have expired; `post` does so for its own topic."""

    def prune(self, before_ms: int, now_ms: int) -> int:
        """Delete what ended before a moment; returns how many usage records that were.

        An attempt without an end is old if it began before that moment and more than MAY_RUN_MS ago.
        """

    # -- accounts --

    def accounts(self, account: str | None = None) -> list[AccountRecord]:
        """The accounts that have limits by their names, or the one that is named."""

    def set_limits(self, account: str, limits: Iterable[AccountLimit], *, zone: str | None = None) -> None:
        """Set limits of an account, and the zone in which its days begin; others that it has stay."""

    def remove_limits(self, account: str, limits: Iterable[tuple[Window, Unit]] = ()) -> int:
        """Remove these limits of an account, or all if none is named; returns how many there were."""

    # -- reading --

    def prunable(self, before_ms: int, now_ms: int) -> tuple[int, int]:
        """How many attempts `prune` would delete, and the tokens that they used."""

    def shared(
        self, limits: Sequence[Limit], weights: TokenWeights, now_ms: int, account: str = "", *, run: str = ""
    ) -> Shared:
        """What all runs, or those of an account, have used of each limit since its beginning, and what they hold now.
        The use includes what crashed runs had sent. The holds leave out one `run`."""

    def totals(self, run: str) -> dict[tuple[str, int, str], tuple[Usage, int | None, int]]:
        """What is recorded of a run, by instance, attempt and model: usage, cost, number of records."""

    def sums(
        self, *by: GroupBy, since_ms: int = 0, until_ms: int = FOREVER_MS, by_time: bool = False
    ) -> list[UsageSum]:
        """What was used from a moment up to another, in groups, and with `by_time` by quarters of an hour."""

    def runs(self, *, since_ms: int = 0, run: str | None = None) -> list[RunRecord]:
        """Runs by their start, or the one that is named."""

    def attempts(
        self,
        *,
        run: str | None = None,
        base_command: str | None = None,
        instance: str | None = None,
        since_ms: int = 0,
        latest: int = -1,
        imported: bool = True,
    ) -> list[AttemptRecord]:
        """Attempts by their start, at most the `latest` of those that ended last; without `imported`, only those that
        an orchestrator ran."""

    def attempts_of_group(self, group: str, *, latest: int = -1) -> list[AttemptRecord]:
        """Attempts of the instances named `GROUP[…]` that an orchestrator ran, as `attempts` has them."""

    def costs_of_checked(self) -> dict[tuple[str, str], int]:
        """What each instance with a check has cost in all its attempts, in nano-dollars, by run and name."""

    def instances(self, *, since_ms: int = 0, until_ms: int = FOREVER_MS) -> list[InstanceRecord]:
        """The instances that orchestrators ran, by the moment at which each ended, from a moment up to another."""

    def records(self, *, run: str | None = None) -> Iterator[UsageRecord]:
        """Usage records by time, of one run or of all."""

    def notes(self, *, run: str | None = None) -> list[NoteRecord]:
        """Notes by time, of one run or of all."""

    def alerts_sent(self) -> set[str]:
        """The keys of all alerts that were ever claimed."""
