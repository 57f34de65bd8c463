"""The ledger on a PostgreSQL server: its tables, its faults, its clock, and clients that stand still."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.accounts import Charged
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync, Sharing
from tests.postgres import Postgres
from token_budget.ledger.errors import LedgerError, LedgerUnwritableError
from token_budget.ledger.opening import open_store, upgrade
from token_budget.ledger.postgres_schema import MIGRATIONS
from token_budget.ledger.records import (
    AccountLimit,
    AccountRecord,
    AttemptRecord,
    HoldRequest,
    Limit,
    NoteRecord,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.sqlite_schema import MIGRATIONS as OF_SQLITE
from token_budget.models import Action, Amount, Unit, Usage, Weights
from token_budget.windows import Window, to_ms

FLAT = Weights()
TABLES = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'token_budget' ORDER BY 1, ordinal_position
"""
REST = (
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'token_budget' ORDER BY 1",
    "SELECT proname, prosrc, prosecdef, proconfig FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE nspname = 'token_budget' ORDER BY 1",
    "SELECT conname, pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace"
    " WHERE nspname = 'token_budget' ORDER BY 1",
    "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
)
END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid != pg_backend_pid()"
)


@pytest.fixture
def address(postgres: Postgres) -> str:
    return postgres.database()


def schema(postgres: Postgres, address: str) -> list[Any]:
    return [postgres.sql(address, query) for query in (TABLES, *REST)]


def made_of(postgres: Postgres, version: int) -> str:
    """A ledger as the first migrations left it."""
    address = postgres.database()
    postgres.sql(
        address,
        "CREATE SCHEMA token_budget",
        "SET search_path TO token_budget, pg_temp",
        "CREATE TABLE migrations (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)",
        *MIGRATIONS[:version],
        *(f"INSERT INTO migrations VALUES ({number + 1}, 0)" for number in range(version)),
    )
    return address


# -- tables --


def test_a_fresh_schema_is_all_migrations_one_after_the_other(postgres: Postgres, address: str) -> None:
    open_store(address).close()
    step_by_step = made_of(postgres, len(MIGRATIONS))
    assert upgrade(step_by_step)[0] == len(MIGRATIONS)
    assert schema(postgres, step_by_step) == schema(postgres, address)
    assert postgres.sql(address, "SELECT count(*) FROM token_budget.migrations") == [(len(MIGRATIONS),)]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_every_earlier_schema_can_be_brought_up_to_date(postgres: Postgres, address: str, version: int) -> None:
    open_store(address).close()
    older = made_of(postgres, version)
    run = "INSERT INTO token_budget.runs (run, machine, started_ms, mode, budgets) VALUES ('r', 'm', 1, 'warn', '{}')"
    postgres.sql(older, run)
    with pytest.raises(LedgerError, match="older version"):
        open_store(older, create=False)
    assert upgrade(older) == (version, len(MIGRATIONS)) and upgrade(older) == (len(MIGRATIONS), len(MIGRATIONS))
    assert schema(postgres, older) == schema(postgres, address)
    with closing(open_store(older)) as ledger:
        assert [run.run for run in ledger.runs()] == ["r"]


def test_both_databases_have_the_same_tables_and_columns(postgres: Postgres, address: str, tmp_path: Path) -> None:
    open_store(address).close()
    SqliteLedger(tmp_path / "ledger.db").close()
    theirs: dict[str, set[str]] = {}
    for table, column, *_ in postgres.sql(address, TABLES):
        theirs.setdefault(table, set()).add(column)
    del theirs["migrations"]  # SQLite has a number for that
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        named = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        ours = {table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")} for (table,) in named.fetchall()}
    assert ours == theirs and len(OF_SQLITE) > len(MIGRATIONS)


def test_programs_that_make_it_at_once_make_it_once(postgres: Postgres, address: str) -> None:
    faults: list[BaseException] = []

    def make() -> None:
        try:
            open_store(address).close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and postgres.sql(address, "SELECT count(*) FROM token_budget.migrations") == [(len(MIGRATIONS),)]


# -- faults --


def test_a_connection_that_ended_meanwhile_is_opened_again(postgres: Postgres, address: str) -> None:
    with closing(open_store(address)) as ledger:
        postgres.sql(address, END)
        assert ledger.runs() == []
        postgres.sql(address, END)
        ledger.write(runs=[RunRecord("r", "m", 1)])
        assert len(ledger.runs()) == 1


def test_a_transaction_does_not_continue_on_another_connection(postgres: Postgres, address: str) -> None:
    """The rest of it would be outside of the transaction, and without its lock."""

    def notes() -> Any:
        yield NoteRecord("1", "r", 1, "k", "t")
        postgres.sql(address, END)
        yield NoteRecord("2", "r", 1, "k", "t")

    with closing(open_store(address)) as ledger:
        with pytest.raises(LedgerUnwritableError, match="cannot be written"):
            ledger.write(runs=[RunRecord("r", "m", 1)], notes=notes())
        assert ledger.runs() == [] and ledger.notes() == []
        ledger.write(runs=[RunRecord("r", "m", 1)])


def test_schemas_of_other_versions_are_noticed_when_a_connection_is_opened_again(
    postgres: Postgres, address: str
) -> None:
    with closing(open_store(address)) as ledger:
        postgres.sql(address, "INSERT INTO token_budget.migrations VALUES (99, 0)")
        postgres.sql(address, END)
        with pytest.raises(LedgerError, match="newer version"):
            ledger.runs()


def test_a_statement_has_a_timeout(postgres: Postgres, address: str) -> None:
    open_store(address).close()
    with closing(open_store(f"{address}&options=-c%20lock_timeout%3D300ms")) as ledger:
        import psycopg

        with psycopg.connect(address) as other:
            other.execute("LOCK TABLE token_budget.runs")
            began = time.monotonic()
            with pytest.raises(LedgerUnwritableError, match="lock timeout"):
                ledger.write(runs=[RunRecord("r", "m", 1)])
            assert time.monotonic() - began < 10
        ledger.write(runs=[RunRecord("r", "m", 1)])
    (timeout,) = postgres.sql(f"{address}&options=-c%20search_path%3Dtoken_budget", "SHOW statement_timeout")[0]
    assert timeout == "0"  # of others
    with closing(open_store(address)) as ledger:
        assert ledger._db.row("SHOW statement_timeout")[0] == "1min"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_client_that_stands_still_with_the_lock_of_its_account_holds_up_nobody_for_long(address: str) -> None:
    """The server ends its transaction."""
    quick = f"{address}&options=-c%20idle_in_transaction_session_timeout%3D1s"
    with closing(open_store(quick)) as still, closing(open_store(address)) as other:
        alone = still._db.transaction([""], alone=True)  # type: ignore[attr-defined]
        with pytest.raises(LedgerUnwritableError, match="idle-in-transaction timeout"), alone:
            began = time.monotonic()
            request = HoldRequest("r", "a", Amount(1), 1000, FLAT, enforce=True)
            assert other.reserve(request, [Limit(0, 5)], 0).action is Action.ALLOW
            assert time.monotonic() - began < 20
            still.runs()


def test_a_database_of_another_encoding_is_refused(postgres: Postgres) -> None:
    postgres.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(LedgerError, match="has the encoding LATIN1: a ledger needs UTF8"):
        open_store(postgres.address("latin"))


def test_a_server_that_becomes_read_only_is_left_for_another(postgres: Postgres, address: str) -> None:
    """With several hosts in the address, the next connection finds the one that takes writes."""
    with closing(open_store(address)) as ledger:
        name = address.partition("@/")[2].partition("?")[0]
        postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        postgres.sql(address, "SET default_transaction_read_only = off", END)
        with pytest.raises(LedgerUnwritableError, match="read-only transaction"):
            ledger.write(runs=[RunRecord("r", "m", 1)])
        postgres.sql("postgres", f"ALTER DATABASE {name} RESET default_transaction_read_only")
        ledger.write(runs=[RunRecord("r", "m", 1)])  # on a new connection


# -- the clock --


def test_a_day_is_the_server_s_whatever_this_machine_s_clock_says(postgres: Postgres, address: str) -> None:
    """A machine that is two days ahead finds what others have used today, and does not begin a day of its own."""
    settings = Settings(daily_token_budget=1000, budget_enforcement_mode="block")
    config = parse_config({"instances": [{"name": "one", "prompt": "x"}]}, "test")
    plan = make_plan(config, settings, workspace="/", claude_bin="claude")
    team = AccountRecord("team", "UTC", (AccountLimit(Window.DAILY, Unit.TOKENS, 1000),))

    async def main() -> None:
        manager = make_manager(plan, settings._replace(account="team"))
        ledger = open_store(address)
        at_ms = ledger.now_ms(0)
        assert abs(at_ms - to_ms(datetime.now())) < 60_000
        ledger.set_limits("team", team.limits)
        ledger.write(
            runs=[RunRecord("other", "m", at_ms, account="team")],
            attempts=[AttemptRecord("other", "a", 1, at_ms)],
            records=[UsageRecord("1", "other", "a", 1, at_ms, "m", Usage(900))],
        )
        run = RunRecord("run", "m", 1, account="team")
        sharing = Sharing(Charged(team), now=lambda: datetime.now() + timedelta(days=2))
        sync = LedgerSync(ledger, run, manager, FLAT, Bus(), sharing)
        await sync.begin()
        assert abs(sync.now_ms() - ledger.now_ms(0)) < 60_000
        hold = manager.hold(manager.windows, Amount(101))
        decision = await sync.admit("one", hold)
        assert decision.action is Action.BLOCK and "used 900 + estimate 101 > limit 1,000" in decision.reason
        ledger.set_limits("team", [team.limits[0]._replace(limit=2000)])  # somebody raises it during the run
        await sync.flush(check=True)
        (budget,) = manager.windows
        assert budget.limit == 2000 and budget.used == 900
        assert (await sync.admit("one", hold)).action is Action.ALLOW
        await sync.end(0)

    asyncio.run(main())
