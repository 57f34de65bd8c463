"""The ledger cannot be used during a run: nothing new starts in block mode, and what was counted is written once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync, Sharing
from claude_orchestrator.engine.run_events import RunEvent, UsageRecorded
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from tests.harness import Workplace
from tests.limits import HUNG_S
from tests.postgres import Postgres
from token_budget.ledger.errors import LedgerUnwritableError
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import HoldRequest, Limit, Reservation, RunRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Action, Amount, Usage, Weights
from token_budget.portions import Portion, Spent


def setup(count: int, seconds: float, **budget: Any) -> dict[str, Any]:
    entries = [
        {"name": f"i{n}", "command": "/test", "rehearsal": {"tokens": 4000, "turns": 8, "seconds": seconds}}
        for n in range(count)
    ]
    return {"instances": entries, "budget": {"daily_token_budget": "5M", "enforcement_mode": "block", **budget}}


class Orchestrator:
    """A rehearsed run in a process of its own, and what it says."""

    def __init__(self, place: Workplace, ledger: str, config: dict[str, Any], *args: str) -> None:
        self._place = place
        argv = place.argv("--config", place.config(config), "--rehearse", "--ledger", ledger, "--report", "report.json")
        self.process = subprocess.Popen(
            [*argv, *args], env=place.env, cwd=place.root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        with self._news:
            assert self._news.wait_for(lambda: any(text in line for line in self.lines), HUNG_S), "".join(self.lines)

    def end(self) -> dict[str, Any]:
        """Wait for its end; returns the report."""
        assert self.process.wait(HUNG_S) == 0, "".join(self.lines)
        self._reader.join()
        return self._place.report()

    @property
    def launched(self) -> list[str]:
        """The instances that were launched so far, by the journal."""
        (path,) = self._place.root.glob("out/*/journal.jsonl")
        found = [json.loads(line) for line in path.read_text().splitlines() if '"launched"' in line]
        return [line["instance"] for line in found]

    @property
    def sent(self) -> int:
        """How many requests went to the API so far, by the journal."""
        (path,) = self._place.root.glob("out/*/journal.jsonl")
        return path.read_text().count('"kind":"sent"')


def in_ledger(address: str) -> int:
    ledger = open_store(address)
    try:
        return sum(one.usage.total_tokens for one in ledger.sums())
    finally:
        ledger.close()


@pytest.fixture
def own_server(postgres: Postgres) -> Iterator[Postgres]:
    """The server, which runs again after the test."""
    yield postgres
    postgres.stop()
    postgres.start()


@pytest.mark.slow
@pytest.mark.parametrize("meter", ["stream", "api"])
def test_nothing_starts_while_the_server_is_gone(place: Workplace, own_server: Postgres, meter: str) -> None:
    address = own_server.database()
    run = Orchestrator(place, address, setup(3, 1.5), "--max-parallel", "1", "--meter", meter)
    run.wait_for("i0")
    own_server.stop(crash=True)
    run.wait_for("nothing new starts until it can be used (--ledger-outage continue starts without it)")
    launched = run.launched
    time.sleep(3)  # longer than an instance takes
    assert run.launched == launched and run.process.poll() is None
    own_server.start()
    run.wait_for("it can be used again")
    report = run.end()
    assert report["totals"]["total_tokens"] == 12_000 == in_ledger(address)
    assert len([line for line in run.lines if "the ledger:" in line]) == 2
    ledger = open_store(address)
    assert ledger.shared((), Weights(), 0).held == Amount() and ledger.runs()[0].exit_code == 0
    ledger.close()


@pytest.mark.slow
def test_nothing_starts_while_the_file_cannot_be_used(place: Workplace) -> None:
    file = place.root / "ledger.db"
    SqliteLedger(file).close()
    run = Orchestrator(place, str(file), setup(3, 1.0), "--max-parallel", "1")
    run.wait_for("i0")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("ALTER TABLE records RENAME TO elsewhere")
        run.wait_for("nothing new starts until it can be used")
        launched = run.launched
        time.sleep(2)
        assert run.launched == launched and run.process.poll() is None
        other.execute("ALTER TABLE elsewhere RENAME TO records")
    run.wait_for("it can be used again")
    assert run.end()["totals"]["total_tokens"] == 12_000 == in_ledger(str(file))


@pytest.mark.slow
def test_a_run_may_continue_without_it(place: Workplace, own_server: Postgres) -> None:
    address = own_server.database()
    config = setup(3, 1.0, ledger_outage="continue")
    run = Orchestrator(place, address, config, "--max-parallel", "1")
    run.wait_for("i0")
    own_server.stop(crash=True)
    run.wait_for("daily, weekly and monthly limits count this run alone")
    report = run.end()  # what the ledger lacks is in the run's folder
    own_server.start()
    assert in_ledger(address) < 12_000
    again = place.run("--config", place.config(setup(1, 0.1)), "--rehearse", "--ledger", address)
    assert again.returncode == 0
    assert in_ledger(address) == report["totals"]["total_tokens"] + 4000


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_counts_everything_once(place: Workplace, own_server: Postgres) -> None:
    address = own_server.database()
    run = Orchestrator(place, address, setup(12, 2.0), "--max-parallel", "4", "--meter", "api")
    run.wait_for("i0")
    for _ in range(4):
        time.sleep(0.7)
        own_server.stop(crash=True)
        own_server.start()
    report = run.end()
    assert report["totals"]["total_tokens"] == 48_000 == in_ledger(address)


@pytest.mark.slow
def test_a_server_that_stands_still_stops_nothing_for_ever(place: Workplace, own_server: Postgres) -> None:
    """It accepts connections and answers nothing: the run's end does not wait for it."""
    address = own_server.database()
    run = Orchestrator(place, address, setup(1, 1.0))
    run.wait_for("i0")
    own_server.pause(on=True)
    try:
        began = time.monotonic()
        report = run.end()
        assert time.monotonic() - began < 20
    finally:
        own_server.pause(on=False)
    assert any("the next run adds the records that it lacks" in line for line in run.lines)
    assert place.run("--config", place.config(setup(1, 0.1)), "--rehearse", "--ledger", address).returncode == 0
    assert in_ledger(address) == report["totals"]["total_tokens"] + 4000


@contextlib.contextmanager
def another_machine() -> Iterator[tuple[str, str, str]]:
    """A network namespace behind a link: its name, its address, and this end of the link."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    name, here, there = (f"{kind}{os.getpid()}" for kind in ("tb", "tba", "tbb"))
    network = f"10.{77 + os.getpid() % 100}.9"
    steps = (
        f"netns add {name}",
        f"link add {here} type veth peer name {there} netns {name}",
        f"addr add {network}.1/24 dev {here}",
        f"link set {here} up",
        f"-n {name} addr add {network}.2/24 dev {there}",
        f"-n {name} link set {there} up",
        f"-n {name} link set lo up",
    )
    try:
        for step in steps:
            if subprocess.run(["ip", *step.split()], check=False, capture_output=True).returncode != 0:
                pytest.skip(f"this machine does not allow: ip {step}")
        yield name, f"{network}.2", here
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_a_link_to_the_server_that_is_cut(place: Workplace, own_server: Postgres) -> None:
    """Nobody closes the connection: the program finds out by itself, and no request goes out meanwhile."""
    with another_machine() as (namespace, ip, link):
        name = own_server.database().partition("@/")[2].partition("?")[0]
        own_server.stop()
        own_server.start(namespace=namespace, listen=ip)
        address = f"postgresql://owner@{ip}/{name}"
        run = Orchestrator(place, address, setup(4, 3.0), "--max-parallel", "2", "--meter", "api")
        run.wait_for("i0")
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        time.sleep(2)  # what was admitted before is answered by then
        sent = run.sent
        run.wait_for("nothing new starts until it can be used")
        assert run.sent == sent > 0
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
        report = run.end()
        assert report["totals"]["total_tokens"] == 16_000 == in_ledger(address)
        own_server.stop()
        own_server.start()


# -- a fault at each step, in this process --


class Faulty(SqliteLedger):
    """A ledger that fails as often as it is asked to, before or after it has done its work."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fails_before = self.fails_after = self.reserves_then_fails = 0

    def write(self, **what: Any) -> int:
        if self.fails_before:
            self.fails_before -= 1
            raise LedgerUnwritableError("gone")
        done = super().write(**what)
        if self.fails_after:
            self.fails_after -= 1
            raise LedgerUnwritableError("gone, nobody knows when")
        return done

    def reserve(self, request: HoldRequest, limits: Any, now_ms: int) -> Reservation:
        done = super().reserve(request, limits, now_ms)
        if self.reserves_then_fails:
            self.reserves_then_fails -= 1
            raise LedgerUnwritableError("gone, nobody knows when")
        return done


class Bench:
    """A LedgerSync in block mode with a faulty ledger."""

    def __init__(self, tmp_path: Path, *, mode: str = "block", continues: bool = False) -> None:
        settings = Settings(daily_token_budget=1000, budget_enforcement_mode=mode)
        config = parse_config({"instances": [{"name": "one", "prompt": "x"}]}, "test")
        plan = make_plan(config, settings, workspace="/", claude_bin="claude")
        self.manager = make_manager(plan, settings)
        self.status = InstanceStatus(plan.specs[0])
        self.status.begin(0.0)
        self.path = tmp_path / "ledger.db"
        self.store = Faulty(self.path)
        self.events: list[RunEvent] = []
        bus = Bus()
        bus.attach(self)
        run = RunRecord("run", "m", 1)
        self.sync = LedgerSync(self.store, run, self.manager, Weights(), bus, Sharing(continues=continues))

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    def use(self, tokens: int) -> None:
        delta = UsageDelta(Amount(tokens), {Portion("m"): PortionDelta(Spent(Usage(tokens)), 0)}, None)
        self.manager.record(None, Amount(tokens))
        self.sync.observe(UsageRecorded(self.status, delta))

    @property
    def recorded(self) -> list[int]:
        reader = SqliteLedger(self.path)
        try:
            return [record.usage.total_tokens for record in reader.records()]
        finally:
            reader.close()


def test_a_write_of_which_nobody_knows_whether_it_succeeded_counts_once(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.sync.begin()
        for before, after in ((0, 1), (1, 0), (0, 2), (2, 1)):
            bench.store.fails_before, bench.store.fails_after = before, after
            bench.use(10)
            await bench.sync.flush()  # fails
            bench.use(3)
            while bench.sync.unusable:
                await bench.sync.flush(check=True)
        assert sum(bench.recorded) == 52 and len(bench.recorded) == 8
        await bench.sync.end(0)
        assert sum(bench.recorded) == 52

    asyncio.run(main())


def test_what_the_end_cannot_write_is_kept_and_counts_once(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        folder = tmp_path / "out" / "run"
        folder.mkdir(mode=0o700, parents=True)
        await bench.sync.begin()
        bench.store.fails_after = 1
        bench.use(10)
        await bench.sync.flush()  # it is in the ledger, but nobody knows
        bench.use(3)
        bench.store.fails_before = 9
        await bench.sync.end(0, directory=folder)
        assert bench.recorded == [10]
        later = Bench(tmp_path)
        await later.sync.begin(output_dir=tmp_path / "out")
        assert bench.recorded == [10, 3]
        await later.sync.end(0)

    asyncio.run(main())


def test_a_run_that_could_not_enter_enters_later(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.store.fails_before = 2
        await bench.sync.begin()
        hold = bench.manager.hold(bench.manager.windows, Amount(10))
        assert (await bench.sync.admit("one", hold)).action is Action.WAIT
        bench.use(10)
        await bench.sync.flush(check=True)
        assert bench.sync.unusable and not bench.recorded
        await bench.sync.flush(check=True)
        assert not bench.sync.unusable and bench.recorded == [10] and bench.store.runs()[0].run == "run"
        assert (await bench.sync.admit("one", hold)).action is Action.ALLOW
        await bench.sync.end(0)

    asyncio.run(main())


def test_a_reservation_that_may_have_succeeded_leaves_no_hold(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.sync.begin()
        kept = bench.manager.hold(bench.manager.windows, Amount(5))
        assert (await bench.sync.admit("one", kept)).action is Action.ALLOW
        bench.store.reserves_then_fails = 1
        hold = bench.manager.hold(bench.manager.windows, Amount(100))
        waits = await bench.sync.admit("one", hold, sent=True)
        assert (waits.action, waits.reason) == (Action.WAIT, "the ledger cannot be used: gone, nobody knows when")
        now_ms = bench.sync.now_ms()
        assert bench.store.shared((), Weights(), now_ms).held == Amount(105)  # it has succeeded
        assert await bench.sync.claim_launch(5) == 1.0
        await bench.sync.flush(check=True)
        assert bench.store.shared((), Weights(), now_ms).held == Amount(5) and await bench.sync.claim_launch(5) == 0
        await bench.sync.end(0)

    asyncio.run(main())


@pytest.mark.parametrize(("mode", "continues"), [("block", True), ("warn", False)])
def test_others_continue_without_it(tmp_path: Path, mode: str, continues: bool) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, mode=mode, continues=continues)
        await bench.sync.begin()
        bench.store.fails_before = 1
        hold = bench.manager.hold(bench.manager.windows, Amount(10))
        assert (await bench.sync.admit("one", hold)).action is Action.ALLOW
        assert (await bench.sync.admit("one", hold)).action is Action.ALLOW and bench.sync.unusable == ""
        assert await bench.sync.claim_alerts(["a"]) == {"a"} and await bench.sync.claim_launch(1) == 0
        assert bench.store.shared([Limit(0, 1)], Weights(), 0).used == [0]
        await bench.sync.end(0)

    asyncio.run(main())
