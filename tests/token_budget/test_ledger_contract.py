"""What every ledger does, in a file and on a server: what goes in comes out, once, and many processes agree."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.limits import HUNG_S
from tests.postgres import Postgres
from token_budget.ledger import sql_ledger
from token_budget.ledger.errors import LedgerError
from token_budget.ledger.export_import import apply, export
from token_budget.ledger.import_reader import read
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import (
    HOUR_MS,
    IMPORTED,
    AccountLimit,
    AccountRecord,
    AttemptRecord,
    Heard,
    HoldRequest,
    HoldState,
    InstanceRecord,
    Limit,
    NoteRecord,
    Post,
    Posted,
    Reservation,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.store import LedgerStore
from token_budget.model_weights import ModelWeights
from token_budget.models import Action, Amount, Unit, Usage, Weights
from token_budget.windows import Window

FLAT = Weights()
NOW = "CREATE OR REPLACE FUNCTION token_budget.now_ms() RETURNS BIGINT LANGUAGE sql AS 'SELECT {ms}::bigint'"


@dataclass
class Place:
    """Where the ledgers of a test are, and their clock."""

    place: str
    postgres: Postgres | None = None

    def open(self) -> LedgerStore:
        return open_store(self.place)

    def at(self, ms: int) -> int:
        """From now on it is this time; returns what a caller passes, which a server disregards."""
        if self.postgres is None:
            return ms
        self.postgres.sql(self.place, NOW.format(ms=ms))
        return ms + 10**12


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.processes)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(str(tmp_path / "folder" / "ledger.db"))
    postgres: Postgres = request.getfixturevalue("postgres")
    return Place(postgres.database(), postgres)


@pytest.fixture
def ledger(store: Place) -> Iterator[LedgerStore]:
    ledger = store.open()
    yield ledger
    ledger.close()


def fill(ledger: LedgerStore) -> None:
    ledger.write(
        runs=[RunRecord("r1", "m", 1000)],
        attempts=[
            AttemptRecord("r1", "a", 1, 1000, base_command="/test"),
            AttemptRecord("r1", "b", 1, 1000, base_command="/doc"),
        ],
        records=[
            UsageRecord("r1/a/1/1", "r1", "a", 1, 1000, "opus", Usage(1, 2, 3, 4), 500, "claude"),
            UsageRecord("r1/a/1/2", "r1", "a", 1, 2_000_000, "haiku", Usage(10, 20, 30, 40)),
            UsageRecord("r1/b/1/1", "r1", "b", 1, 3_000_000, "opus", Usage(100), 7, "claude"),
        ],
    )


def test_what_goes_in_comes_out_once(ledger: LedgerStore) -> None:
    fill(ledger)
    fill(ledger)
    assert [record.usage.total_tokens for record in ledger.records()] == [10, 100, 100]
    first, second = ledger.attempts(run="r1")
    assert first.usage == Usage(11, 22, 33, 44) and first.cost_nano_usd == 500 and second.usage == Usage(100)
    assert ledger.totals("r1")["a", 1, "opus"] == (Usage(1, 2, 3, 4), 500, 1)
    assert {row.group: row.usage.total_tokens for row in ledger.sums("command")} == {"/test": 110, "/doc": 100}
    assert {row.group: row.cost_nano_usd for row in ledger.sums("model")} == {"opus": 507, "haiku": None}
    assert [row.start_ms for row in ledger.sums(by_time=True)] == [0, 1_800_000, 2_700_000]
    assert ledger.sums(since_ms=1500, until_ms=2_500_000)[0].usage == Usage(10, 20, 30, 40)
    assert ledger.shared([Limit(0, 1), Limit(2_500_000, 1), Limit(0, 1, Unit.USD)], FLAT, 0).used == [210, 100, 507]
    assert ledger.shared([Limit(0, 1)], Weights.parse("output=5"), 0).used == [210 + 4 * 22]
    by_model = ModelWeights({"haiku": Weights(cache_read=2), "opus": Weights(output=10)}.get)
    assert ledger.shared([Limit(0, 1)], by_model, 0).used == [210 + 40 + 9 * 2]


def test_an_attempt_that_ends_keeps_what_it_had(ledger: LedgerStore) -> None:
    fill(ledger)
    ledger.write(
        attempts=[
            AttemptRecord("r1", "a", 1, 9, session="s", model="opus", ended_ms=5000, outcome="completed", exact=True)
        ],
        runs=[RunRecord("r1", "m", 9, ended_ms=6000, exit_code=0)],
        notes=[NoteRecord("n1", "r1", 1, "adjust", "why", "a")],
    )
    first = ledger.attempts(run="r1")[0]
    assert (first.started_ms, first.base_command, first.session, first.outcome) == (1000, "/test", "s", "completed")
    assert first.exact and first.usage.total_tokens == 110
    assert ledger.runs()[0].ended_ms == 6000 and ledger.runs()[0].started_ms == 1000
    assert ledger.notes()[0].text == "why" and ledger.claim_alerts(["key", "k2"], "r1", 1) == {"key", "k2"}
    assert ledger.claim_alerts(["key", "k3"], "r2", 2) == {"k3"} and ledger.alerts_sent() == {"key", "k2", "k3"}


def reserve(
    ledger: LedgerStore, tokens: int, limit: int, now_ms: int, *, enforce: bool = True, nano: int = 0
) -> Reservation:
    limits = [Limit(0, limit), *([Limit(0, 100, Unit.USD)] if nano else [])]
    return ledger.reserve(HoldRequest("r1", "a", Amount(tokens, nano), 1000, FLAT, enforce), limits, now_ms)


def held_but(run: str, ledger: LedgerStore, now_ms: int, account: str = "") -> Amount:
    return ledger.shared((), FLAT, now_ms, account, run=run).held


def test_holds_are_shared_and_lapse(ledger: LedgerStore, store: Place) -> None:
    fill(ledger)
    first = reserve(ledger, 100, 400, store.at(10))
    assert first.action is Action.ALLOW and first.hold is not None
    now_ms = store.at(1500)
    assert reserve(ledger, 100, 400, now_ms).action is Action.ALLOW  # the first has lapsed by then
    assert reserve(ledger, 100, 400, now_ms) == Reservation(Action.WAIT, None, 0, 210, 100, 0)
    assert reserve(ledger, 191, 400, now_ms) == Reservation(Action.BLOCK, None, 0, 210, 100, 0)
    warned = reserve(ledger, 191, 400, now_ms, enforce=False)
    assert warned.action is Action.WARN and warned.hold is not None
    assert held_but("other", ledger, now_ms) == Amount(291) and held_but("r1", ledger, now_ms) == Amount(0)
    ledger.write(holds=[HoldState(warned.hold, "r1", Amount(0), 0)])
    assert held_but("other", ledger, now_ms) == Amount(100)
    kept = reserve(ledger, 7, 400, now_ms).hold
    assert kept is not None
    ledger.release_run("r1", keep=[kept])
    assert held_but("other", ledger, now_ms) == Amount(7)
    ledger.release_run("r1")
    assert held_but("other", ledger, now_ms) == Amount(0)
    assert reserve(ledger, 1, 400, now_ms, nano=500).action is Action.BLOCK


def test_what_was_sent_is_used_when_nobody_renews_its_hold(ledger: LedgerStore, store: Place) -> None:
    """The API bills it, whatever became of the orchestrator."""
    request = HoldRequest("r1", "a", Amount(100, 7), 1000, FLAT, enforce=True, sent=True)
    limits = [Limit(0, 250), Limit(0, 9, Unit.USD), Limit(501, 250)]
    held = ledger.reserve(request, limits, store.at(500))
    now_ms = store.at(1499)
    assert held.hold is not None and ledger.shared(limits, FLAT, now_ms).used == [0, 0, 0]
    assert held_but("r2", ledger, now_ms) == Amount(100, 7)
    other = HoldRequest("r2", "b", Amount(151), 1000, FLAT, enforce=True)
    assert ledger.reserve(other, limits[:1], now_ms).action is Action.WAIT
    now_ms = store.at(1500)
    assert ledger.shared(limits, FLAT, now_ms).used == [100, 7, 0]  # it was sent before the third limit began
    assert ledger.reserve(other, limits[:1], now_ms) == Reservation(Action.BLOCK, None, 0, 100, 0, 0)
    ledger.write(holds=[HoldState(held.hold, "r1", Amount(60), 1500)], now_ms=now_ms)  # its owner had slept
    assert ledger.shared(limits, FLAT, now_ms, run="r2") == ([0, 0, 0], Amount(60))
    assert ledger.shared(limits, FLAT, store.at(3000)).used == [60, 0, 0]
    ledger.prune(500, 3000)
    assert ledger.shared(limits, FLAT, store.at(3000)).used == [60, 0, 0]
    ledger.prune(501, 3000)
    assert ledger.shared(limits, FLAT, store.at(3000)).used == [0, 0, 0]


def test_a_hold_that_lapsed_while_its_owner_slept_stands_again_and_hurts_nobody(
    ledger: LedgerStore, store: Place
) -> None:
    slept = reserve(ledger, 100, 400, store.at(0))
    now_ms = store.at(2000)
    other = ledger.reserve(HoldRequest("r2", "b", Amount(200), 1000, FLAT, enforce=True), [], now_ms)
    assert slept.hold is not None and other.hold is not None and slept.hold != other.hold
    ledger.write(holds=[HoldState(slept.hold, "r1", Amount(90), 2000)], now_ms=now_ms)
    now_ms = store.at(2500)
    assert held_but("", ledger, now_ms) == Amount(290) and held_but("r1", ledger, now_ms) == Amount(200)
    ledger.write(holds=[HoldState(slept.hold, "r1", Amount(0), 0)])
    assert held_but("", ledger, now_ms) == Amount(200)


def test_the_clock_is_the_servers_or_the_callers(ledger: LedgerStore, store: Place) -> None:
    assert ledger.now_ms(store.at(5_000)) == 5_000


def test_launches_of_an_hour(ledger: LedgerStore, store: Place) -> None:
    assert ledger.claim_launch(2, "r1", store.at(1000)) == 0 and ledger.claim_launch(2, "r2", store.at(2000)) == 0
    assert ledger.claim_launch(2, "r1", store.at(3000)) == HOUR_MS - 2000
    assert ledger.claim_launch(2, "r1", store.at(1000 + HOUR_MS)) == 0


def test_pruning_takes_what_ended_before(ledger: LedgerStore) -> None:
    fill(ledger)
    ledger.write(attempts=[AttemptRecord("r1", "a", 1, 1000, ended_ms=2000)])
    now_ms = 8 * 86_400_000
    assert ledger.prunable(1500, 2000) == (0, 0) and ledger.prune(1500, 2000) == 0  # b may still run
    assert ledger.prunable(1500, now_ms) == (1, 100)
    assert ledger.prune(1500, now_ms) == 1  # b began long ago and never ended
    assert [attempt.instance for attempt in ledger.attempts()] == ["a"] and len(ledger.runs()) == 1
    assert ledger.prune(9000, now_ms) == 2 and not ledger.runs() and not list(ledger.records())


def test_attempts_in_their_order(ledger: LedgerStore) -> None:
    ledger.write(
        attempts=[
            AttemptRecord("r1", "fix[a]", 1, 10, ended_ms=40, outcome="completed", verified=True, base_command="/x"),
            AttemptRecord("r1", "fix[B]", 1, 20, ended_ms=30, outcome="failed", other_sessions=("s",)),
            AttemptRecord("r1", "fixes", 1, 30),
            AttemptRecord("r2", "fix[é]", 1, 5, ended_ms=50, outcome=IMPORTED, workspace="/w"),
        ]
    )
    names = [attempt.instance for attempt in ledger.attempts()]
    assert names == ["fix[é]", "fix[a]", "fix[B]", "fixes"]
    assert [attempt.instance for attempt in ledger.attempts(latest=2)] == ["fix[é]", "fix[a]"]
    assert [attempt.instance for attempt in ledger.attempts(latest=2, imported=False)] == ["fix[a]", "fix[B]"]
    assert [attempt.instance for attempt in ledger.attempts_of_group("fix")] == ["fix[a]", "fix[B]"]
    assert [attempt.instance for attempt in ledger.attempts(since_ms=40)] == ["fix[é]", "fix[a]"]
    assert ledger.attempts(base_command="/x")[0].verified is True
    assert ledger.attempts(instance="fix[B]")[0].other_sessions == ("s",)
    assert [run.run for run in ledger.runs()] == []


def test_instances_are_their_last_attempts(ledger: LedgerStore) -> None:
    ledger.write(
        runs=[RunRecord("r1", "m", 5), RunRecord("r0", "m", 1, mode="block", account="team")],
        attempts=[
            AttemptRecord("r1", "a", 1, 10, model="old", ended_ms=20, outcome="failed", base_command="/x"),
            AttemptRecord("r1", "a", 2, 30, model="new", ended_ms=40, outcome="completed", verified=False),
            AttemptRecord("r1", "b", 1, 15),
        ],
        records=[
            UsageRecord("1", "r1", "a", 1, 12, "m", Usage(1), 3),
            UsageRecord("2", "r1", "a", 2, 32, "m", Usage(2), 4),
            UsageRecord("3", "r1", "gone", 1, 32, "m", Usage(9)),  # of no attempt
        ],
    )
    b = InstanceRecord("r1", "b", None, None, None, None, 15, 0)
    a = InstanceRecord("r1", "a", None, "new", None, "completed", 40, 3, False)
    assert ledger.instances() == [b, a] and ledger.instances(since_ms=15, until_ms=40) == [b]
    assert ledger.costs_of_checked() == {("r1", "a"): 7}
    assert [run.run for run in ledger.runs()] == ["r0", "r1"] and ledger.runs(run="r0")[0].account == "team"
    assert [run.run for run in ledger.runs(since_ms=2)] == ["r1"]


def test_groups_without_a_name_come_first(ledger: LedgerStore) -> None:
    attempts = [AttemptRecord("r", "a", 1, 1, base_command="/a"), AttemptRecord("r", "b", 1, 1)]
    records = [UsageRecord(name, "r", name, 1, 5, "m", Usage(1)) for name in "ab"]
    ledger.write(attempts=attempts, records=records)
    assert [row.groups for row in ledger.sums("command", "instance")] == [(None, "b"), ("/a", "a")]
    assert ledger.sums("model")[0].unpriced_tokens == 2


def test_records_come_in_pages_each_once(ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_ledger, "PAGE", 3)
    names = [f"n{number}" for number in range(10)]
    ledger.write(
        attempts=[AttemptRecord("r", "a", 1, 1)],
        records=[UsageRecord(name, "r", "a", 1, 7 if name < "n5" else 6, "m", Usage(1)) for name in names],
    )
    assert [record.id for record in ledger.records()] == [*names[5:], *names[:5]]
    assert len(list(ledger.records(run="r"))) == 10 and not list(ledger.records(run="x"))


def test_odd_text_and_figures(ledger: LedgerStore) -> None:
    odd = "'; DROP TABLE records; -- \" %s ? {} \n 💥"
    ledger.write(
        attempts=[AttemptRecord(odd, odd, 1, 1, command=f"a\0{odd}")],
        records=[UsageRecord(odd, odd, odd, 1, 1, odd, Usage(2**61, -5))],
        notes=[NoteRecord("n", odd, 1, odd, odd, odd)],
    )
    (record,) = ledger.records(run=odd)
    assert (record.model, record.usage) == (odd, Usage(2**61, -5)) and ledger.notes(run=odd)[0].text == odd
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write(notes=[NoteRecord("n2", "half \ud800", 1, "k", "t")])
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write(attempts=[AttemptRecord("r", "later", 1, 2**63)])
    assert len(ledger.attempts()) == 1 and len(ledger.notes()) == 1  # all of it or nothing, and usable afterwards


# -- accounts --


def test_limits_of_accounts(ledger: LedgerStore) -> None:
    daily, cost = AccountLimit(Window.DAILY, Unit.TOKENS, 5), AccountLimit(Window.MONTHLY, Unit.USD, 7)
    assert ledger.accounts() == [] == ledger.accounts("team") and ledger.remove_limits("team") == 0
    ledger.set_limits("team", [cost, daily], zone="Europe/Berlin")
    ledger.set_limits("Zoe", [daily])
    ledger.set_limits("team", [daily._replace(limit=6)])
    team = AccountRecord("team", "Europe/Berlin", (daily._replace(limit=6), cost))
    assert ledger.accounts() == [AccountRecord("Zoe", "UTC", (daily,)), team] and ledger.accounts("team") == [team]
    assert ledger.remove_limits("team", [(Window.WEEKLY, Unit.USD), (Window.DAILY, Unit.TOKENS)]) == 1
    assert ledger.accounts("team")[0].limits == (cost,)
    assert ledger.remove_limits("team") == 1 and ledger.accounts("team") == []
    ledger.set_limits("team", [daily])
    assert ledger.accounts("team")[0].zone == "UTC"  # nothing of the removed one is left


def test_an_account_counts_only_its_own(ledger: LedgerStore, store: Place) -> None:
    now_ms = store.at(1000)
    names = {"r1": "team", "r2": "team", "r3": "", "r4": "other"}
    ledger.write(
        runs=[RunRecord(run, "m", 1, account=account) for run, account in names.items()],
        attempts=[AttemptRecord(run, "a", 1, 1) for run in names],
        records=[UsageRecord(run, run, "a", 1, 5, "m", Usage(100)) for run in names],
    )
    limits = [Limit(0, 400)]
    assert ledger.shared(limits, FLAT, now_ms, "team").used == [200]
    assert ledger.shared(limits, FLAT, now_ms).used == [400]

    def ask(run: str, tokens: int, account: str, *, sent: bool = False) -> Reservation:
        request = HoldRequest(run, "a", Amount(tokens), 1000, FLAT, enforce=True, sent=sent, account=account)
        return ledger.reserve(request, limits, now_ms)

    assert ask("r4", 250, "other").action is Action.ALLOW  # it takes nothing from the team
    assert ask("r1", 150, "team", sent=True).action is Action.ALLOW
    assert ask("r2", 100, "team") == Reservation(Action.WAIT, None, 0, 200, 150, 150)
    assert ask("r2", 201, "team").action is Action.BLOCK
    assert ask("r3", 1, "").action is Action.BLOCK  # of all runs together
    assert held_but("r2", ledger, now_ms, "team") == Amount(150)
    assert held_but("r2", ledger, now_ms) == Amount(400)
    assert ledger.shared(limits, FLAT, store.at(5000), "team").used == [350]


def test_an_export_keeps_the_account(ledger: LedgerStore, tmp_path: Path) -> None:
    fill(ledger)
    ledger.write(runs=[RunRecord("r2", "m", 9, account="team")])
    lines = list(export(ledger))
    other = open_store(str(tmp_path / "other.db"))
    apply(other, read(lines))
    assert list(export(other)) == lines and other.runs(run="r2")[0].account == "team"
    assert apply(ledger, read(lines)).new_records == 0
    other.close()


# -- many at once --

CLIENT = """
import sys
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import *
from token_budget.model_weights import ModelWeights
from token_budget.models import Action, Amount, Usage, Weights
ledger, me, got = open_store(sys.argv[1]), sys.argv[2], 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    request = HoldRequest(me, str(number), Amount(100), 10**6, Weights(), enforce=True)
    answer = ledger.reserve(request, [Limit(0, int(sys.argv[4]))], 5)
    if answer.action is Action.ALLOW:
        got += 1
        ledger.write(runs=[RunRecord(me, "m", 5)], attempts=[AttemptRecord(me, str(number), 1, 5)],
            records=[UsageRecord(f"{me}/{number}", me, str(number), 1, 5, "m", Usage(100))],
            holds=[HoldState(answer.hold, me, Amount(), 0)])
print(got)
"""


def test_16_processes_never_admit_more_than_the_limit(tmp_path: Path) -> None:
    admit_with_16_processes(str(tmp_path / "ledger.db"))


@pytest.mark.slow
def test_16_processes_never_admit_more_than_the_limit_of_a_server(postgres: Postgres) -> None:
    admit_with_16_processes(postgres.database())


def admit_with_16_processes(place: str) -> None:
    """1,000 admissions; the first 600 fit."""
    ledger = open_store(place)
    clients = 16
    argv = [sys.executable, "-c", CLIENT, place]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [
        subprocess.Popen([*argv, f"run{number}", "63", "60000"], **pipes)  # type: ignore[call-overload]
        for number in range(clients)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    admitted = sum(int(process.communicate(timeout=HUNG_S)[0]) for process in started)
    assert admitted == 600 and all(process.returncode == 0 for process in started)
    assert ledger.shared([Limit(0, 1)], FLAT, 0).used == [60_000]
    ledger.close()


def test_a_post_is_entered_unless_others_were_first(store: Place) -> None:
    one, two = store.open(), store.open()

    def post(ledger: LedgerStore, run: str, seen: int | None, *, at_ms: int = 1_000, topic: str = "t") -> Posted:
        return ledger.post(Post(topic, run, store.at(at_ms), 500, f"{run} {at_ms}"), seen)

    assert post(one, "a", 0) == Posted(1)
    assert post(two, "b", 0, at_ms=1_200) == Posted(1, (Heard(200, "a 1000"),))
    assert post(two, "b", 1) == Posted(2)
    assert post(one, "a", 2) == Posted(3)  # its own are no others'
    assert post(two, "b", 0, topic="other") == Posted(4)
    assert post(two, "b", None) == Posted(5)
    assert post(one, "a", 3, at_ms=1_501) == Posted(6)  # what has expired is gone
    one.release_run("a")
    assert post(two, "b", 6, at_ms=1_502) == Posted(7)
    assert post(one, "a", 0, at_ms=1_600) == Posted(7, (Heard(98, "b 1502"),))  # those of a run stay till they expire
    one.forget_posts(store.at(2_001))
    assert post(one, "c", 0, at_ms=2_001) == Posted(7, (Heard(499, "b 1502"),))
    assert post(one, "c", 0, topic="other", at_ms=2_001) == Posted(8)
    one.forget_posts(store.at(5_000))
    assert post(two, "b", 0, at_ms=5_000) == Posted(9)
    assert not list(two.records())
    one.close()
    two.close()
