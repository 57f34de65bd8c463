"""A ledger on a PostgreSQL server, from the command line: runs write it, and every command reads it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Workplace
from tests.limits import HUNG_S
from tests.postgres import Postgres
from token_budget.ledger.opening import open_store
from token_budget.ledger.postgres_schema import MIGRATIONS
from token_budget.ledger.records import AttemptRecord, Limit
from token_budget.models import Weights

GRANT_ALL = "GRANT ALL ON ALL TABLES IN SCHEMA token_budget TO carol"
SETUP: dict[str, Any] = {
    "instances": [{"name": f"i{n}", "command": "/test", "rehearsal": {"tokens": 1000, "seconds": 0.1}} for n in (1, 2)]
}


@pytest.fixture
def address(postgres: Postgres) -> str:
    return postgres.database()


def rehearse(place: Workplace, ledger: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    config = place.config(SETUP)
    return place.run("--config", config, "--rehearse", "--ledger", ledger, "--report", "report.json", *args, **env)


def token_budget(place: Workplace, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "token_budget", *args]
    return subprocess.run(argv, env={**place.env, **env}, cwd=place.root, capture_output=True, text=True, check=False)


def test_a_run_writes_it_and_history_reads_it(place: Workplace, address: str) -> None:
    dry = rehearse(place, address, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert token_budget(place, "--ledger", address, "history").stderr == f"ERROR: {address}: no ledger yet: " + (
        "the first run creates it\n"
    )
    done = rehearse(place, address, "--daily-token-budget", "5k", "--budget-enforcement-mode", "block")
    assert done.returncode == 0, done.stderr
    assert place.report()["budgets"]["windows"]["daily"]["used"] == 2000
    history = token_budget(place, "--ledger", address, "history", "--by", "command", "--json")
    assert json.loads(history.stdout)[0]["total_tokens"] == 2000, history
    for args in (("run", "last"), ("forecast", "/test"), ("plot", "use.svg"), ("export", "use.jsonl"), ("backtest",)):
        read = token_budget(place, *args, TOKEN_BUDGET_LEDGER=address)
        assert read.returncode == 0, (args, read.stderr)
    assert token_budget(place, "--ledger", address, "import", "use.jsonl").stdout.startswith("added 0 runs")
    assert token_budget(place, "--ledger", "other.db", "import", "use.jsonl").stdout.startswith("added 1 run,")
    pruned = token_budget(place, "--ledger", address, "prune", "--before", "2020-01-01", "--yes")
    assert pruned.stdout.startswith("removed 0 attempts"), pruned


@pytest.mark.slow
def test_the_config_can_name_it(place: Workplace, address: str) -> None:
    config = place.config({"instances": [{"name": "one", "command": "/test"}], "budget": {"ledger": address}})
    assert place.run("--config", config).returncode == 0
    assert place.run("--config", config, "--ledger", "other.db").returncode == 0  # an option comes first
    assert place.run("--config", config, "--rehearse").returncode == 0  # a rehearsal is in no ledger that it finds
    ledger = open_store(address)
    (run,) = ledger.runs()
    assert run.exit_code == 0
    ledger.close()
    assert place.run("--resume", run.run).returncode == 0  # it finds the ledger of its start
    config = place.config({"instances": [{"command": "/test"}], "budget": {"ledger": "here.db"}})
    assert place.run("--config", config).returncode == 0 and (place.workspace / "here.db").exists()


# -- bad input: one line, exit code 2, nothing started --


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("ledger", 5, "budget.ledger: expected a string, got 5"),
        ("ledger", "", "--ledger: is empty"),
        ("ledger", "postgresql://u:hunter2@h/d", "--ledger: a password in the address"),
        ("ledger", "PostgreSQL://u:hunter2@h/d", "--ledger: a password in the address"),
        ("ledger", "mysql://u:hunter2@h/d", "--ledger: expected a file, or an address that begins with postgresql://"),
        ("account", "a b", "budget.account: expected the name of an account"),
        ("ledger_outage", "maybe", "budget.ledger_outage: expected one of wait, continue"),
    ],
)
def test_keys_of_the_config_that_cannot_be(place: Workplace, key: str, value: object, why: str) -> None:
    config = place.config({"instances": [{"command": "/test"}], "budget": {key: value}})
    done = place.run("--config", config)
    assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "hunter2" not in done.stderr


def test_an_account_needs_a_ledger(place: Workplace) -> None:
    for args, why in (
        (("--ledger", "off"), "--account: needs the ledger, which is off"),
        (("--rehearse",), "--account: a rehearsal has no ledger"),
    ):
        done = place.run("/test", "--account", "team", *args)
        assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1, done.stderr


def refused(place: Workplace, ledger: str, **env: str) -> str:
    """What a run says that must not start."""
    done = place.run("/test", "--ledger", ledger, **env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert not (place.root / "pids.json").exists() and not list(place.root.glob("out/*/journal*"))
    return done.stderr


def test_a_password_is_refused_and_nowhere_repeated(place: Workplace) -> None:
    said = refused(place, "postgresql://me:hunter2@localhost/ledger")
    assert "PGPASSWORD" in said and "service" in said and "hunter2" not in said
    read = token_budget(place, "--ledger", "postgresql:///x?password=hunter2", "history")
    assert read.returncode == 2 and "PGPASSWORD" in read.stderr and "hunter2" not in read.stderr
    assert not [path for path in place.root.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_wrong_addresses(place: Workplace, postgres: Postgres, closed_port: int) -> None:
    assert "refused" in refused(place, f"postgresql://127.0.0.1:{closed_port}/ledger")
    assert 'database "nowhere" does not exist' in refused(place, postgres.address("nowhere"))
    assert 'role "nobody"' in refused(place, postgres.address("postgres", user="nobody"))
    assert "invalid" in refused(place, "postgresql://localhost/x?colour=red")
    assert "not found" in refused(place, "postgresql:///?service=none")


@pytest.mark.slow
def test_a_server_that_never_answers(place: Workplace) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        said = refused(place, f"postgresql://127.0.0.1:{silent.getsockname()[1]}/ledger")
        assert "timeout" in said and time.monotonic() - began < 20


def test_no_psycopg(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "psycopg.py").write_text("raise ImportError('hidden')\n")
    path = os.pathsep.join((str(tmp_path / "hide"), str(ROOT)))
    said = refused(place, "postgresql://localhost/x", PYTHONPATH=path)
    assert said == "ERROR: --ledger: postgresql://localhost/x: a ledger on a server needs the extra " + (
        "claude-orchestrator[postgres]\n"
    )


def test_a_database_that_is_read_only(place: Workplace, postgres: Postgres, address: str) -> None:
    open_store(address).close()
    name = address.partition("@/")[2].partition("?")[0]
    postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "the database is read-only" in refused(place, address)
    assert token_budget(place, "--ledger", address, "history").returncode == 0


def test_older_and_newer_schemas(place: Workplace, postgres: Postgres, address: str) -> None:
    open_store(address).close()
    postgres.sql(address, "DELETE FROM token_budget.migrations WHERE version > 1")
    said = refused(place, address)
    assert "older version of this program (schema 1)" in said and f"token-budget migrate --to {address}" in said
    postgres.sql(address, f"INSERT INTO token_budget.migrations VALUES ({len(MIGRATIONS) + 1}, 0)")
    assert f"newer version of this program (schema {len(MIGRATIONS) + 1})" in refused(place, address)
    assert token_budget(place, "--ledger", address, "history").returncode == 2


# -- accounts, in a file and on a server --


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, place: Workplace) -> str:
    if request.param == "sqlite":
        return str(place.root / "ledger.db")
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.database()


def test_all_who_charge_an_account_keep_to_its_limits(place: Workplace, ledger: str) -> None:
    charged = ("--account", "team")
    none = rehearse(place, ledger, *charged)
    assert none.returncode == 2 and none.stderr == (
        "ERROR: --account: team has no limits in the ledger: token-budget limit set team daily=2M\n"
    )
    said = token_budget(place, "--ledger", ledger, "limit", "set", "team", "daily=4500", "monthly-cost=50")
    assert "daily" in said.stdout and "4,500" in said.stdout and "$50.00" in said.stdout, said
    assert rehearse(place, ledger, *charged).returncode == 0
    assert place.report()["budgets"]["windows"]["daily"] | {"percentage": 0} == {
        **place.report()["budgets"]["windows"]["daily"],
        "limit": 4500,
        "used": 2000,
        "percentage": 0,
    }
    assert rehearse(place, ledger, *charged, "--daily-token-budget", "1M").returncode == 0
    third = rehearse(place, ledger, *charged)
    assert third.returncode == 1 and "daily (team) budget: used 4,000" in third.stderr, third.stderr
    assert rehearse(place, ledger).returncode == 0  # without an account, nobody limits it
    listed = token_budget(place, "--ledger", ledger, "limit", "list", "--json")
    daily, cost = json.loads(listed.stdout)
    assert daily == {"account": "team", "limit": "daily", "most": 4500, "used": 4000, "zone": "UTC"}
    assert cost["most"] == 50.0
    warned = rehearse(place, ledger, *charged, "--budget-enforcement-mode", "warn")
    assert warned.returncode == 2 and "warn mode is not possible" in warned.stderr
    shown = rehearse(place, ledger, *charged, "--dry-run")
    assert shown.returncode == 0 and "account team" in shown.stdout and "daily (team)" in shown.stdout
    gone = token_budget(place, "--ledger", ledger, "limit", "remove", "team")
    assert gone.stdout == "removed 2 of the limits of team\n"
    assert rehearse(place, ledger, *charged).returncode == 2


def test_limits_that_cannot_be(place: Workplace) -> None:
    for args, why in (
        (("set", "team", "hourly=5"), "expected daily, weekly"),
        (("set", "team", "daily"), "expected LIMIT=N such as daily=2M"),
        (("set", "team", "daily=none"), "daily: expected a positive whole number"),
        (("set", "team", "daily=1", "daily=2"), "a limit is there twice"),
        (("set", "a b", "daily=1"), "ACCOUNT: expected the name of an account"),
        (("set", "team", "daily=1", "--zone", "Mars"), "time zone 'Mars'"),
        (("list", "team"), "no ledger yet"),
    ):
        done = token_budget(place, "--ledger", "l.db", "limit", *args)
        assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1, done
    assert token_budget(place, "--ledger", "l.db", "limit", "set", "other", "weekly=5k").returncode == 0
    done = token_budget(place, "--ledger", "l.db", "limit", "remove", "team")
    assert done.returncode == 2 and "team has no limits in l.db" in done.stderr
    assert token_budget(place, "--ledger", "l.db", "limit", "remove", "other", "daily").stdout.startswith("removed 0")


# -- migrate --


def test_a_file_moves_to_a_server_again_and_again(place: Workplace, address: str) -> None:
    assert rehearse(place, "old.db").returncode == 0
    assert token_budget(place, "--ledger", "old.db", "limit", "set", "team", "daily=1M").returncode == 0
    move = ("migrate", "--from", "old.db", "--to", address)
    first = token_budget(place, *move)
    assert first.returncode == 0, first
    assert "added 1 run, 2 attempts, " in first.stdout and "1 account" in first.stdout
    assert first.stdout.endswith("the sums of both are the same\n")
    assert rehearse(place, "old.db").returncode == 0
    assert "added 1 run, 2 attempts, " in token_budget(place, *move).stdout
    assert "added 0 runs, 0 attempts, 0 records, 0 accounts" in token_budget(place, *move).stdout
    exports = [token_budget(place, "--ledger", one, "export", "--prompts").stdout for one in ("old.db", address)]
    assert exports[0] == exports[1] and exports[0].count('"kind": "run"') == 2
    back = token_budget(place, "migrate", "--from", address, "--to", "new.db")
    assert back.returncode == 0 and "added 2 runs" in back.stdout


def test_a_copy_that_differs_is_reported(place: Workplace, postgres: Postgres, address: str) -> None:
    assert rehearse(place, "old.db").returncode == 0
    move = ("migrate", "--from", "old.db", "--to", address)
    assert token_budget(place, *move).returncode == 0
    postgres.sql(address, "UPDATE token_budget.quarters SET output = output + 1 WHERE output > 0")
    done = token_budget(place, *move)
    assert done.returncode == 2 and "the sums of 1 run differ, for example " in done.stderr


def test_a_server_s_ledger_is_brought_up_to_date(place: Workplace, postgres: Postgres, address: str) -> None:
    made = token_budget(place, "migrate", "--to", address)
    assert (made.returncode, made.stdout) == (0, f"{address}: schema {len(MIGRATIONS)}\n"), made
    postgres.sql(
        address,
        "DROP SCHEMA token_budget CASCADE",
        "CREATE SCHEMA token_budget",
        "SET search_path TO token_budget, pg_temp",
        "CREATE TABLE migrations (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)",
        MIGRATIONS[0],
        "INSERT INTO migrations VALUES (1, 0)",
        "INSERT INTO runs VALUES ('r', 'm', 1, NULL, 'warn', '{}', NULL)",
    )
    assert "older version" in refused(place, address)
    done = token_budget(place, "migrate", "--to", address)
    assert done.stdout == f"{address}: schema {len(MIGRATIONS)} instead of 1\n", done
    ledger = open_store(address)
    assert ledger.runs()[0].account == ""
    ledger.close()
    for args, why in (
        (("--to", "file.db"), "expected the address of a server"),
        (("--from", "a.db", "--to", "a.db"), "name the same ledger"),
        (("--from", "a.db", "--to", "b.db"), "a.db: no ledger yet"),
    ):
        done = token_budget(place, "migrate", *args)
        assert done.returncode == 2 and why in done.stderr, done


# -- roles --


def test_the_documented_roles_have_least_privilege(place: Workplace, postgres: Postgres, address: str) -> None:
    """Writers can run and add to history, and cannot change it; readers can read."""
    from psycopg.errors import InsufficientPrivilege

    (grants,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "shared-ledger.md").read_text(), re.DOTALL)
    assert token_budget(place, "migrate", "--to", address).returncode == 0
    assert token_budget(place, "--ledger", address, "limit", "set", "team", "daily=1M").returncode == 0
    postgres.sql(
        address, grants, "CREATE ROLE ann LOGIN IN ROLE ledger_writers", "CREATE ROLE bob LOGIN IN ROLE ledger_readers"
    )
    ann, bob = (address.replace("owner@", f"{name}@") for name in ("ann", "bob"))
    assert "the role bob may only read it" in refused(place, bob)
    for _ in range(2):
        done = rehearse(place, ann, "--account", "team", "--max-launches-per-hour", "50")
        assert done.returncode == 0 and "the ledger" not in done.stderr, done.stderr
    assert json.loads(token_budget(place, "--ledger", ann, "limit", "list", "--json").stdout)[0]["used"] == 4000
    forbidden = (
        "UPDATE token_budget.records SET output = 0",
        "DELETE FROM token_budget.records",
        "UPDATE token_budget.attempts SET output = 0",
        "UPDATE token_budget.quarters SET output = 0",
        "DELETE FROM token_budget.quarters",
        "DELETE FROM token_budget.runs",
        "UPDATE token_budget.runs SET account = 'other'",
        "UPDATE token_budget.limits SET most = 1",
        "INSERT INTO token_budget.limits VALUES ('x', 'daily', 'tokens', 1)",
        "TRUNCATE token_budget.records",
        "ALTER TABLE token_budget.records DISABLE TRIGGER ALL",
        "CREATE TABLE token_budget.mine (x INT)",
    )
    for statement in forbidden:
        with pytest.raises(InsufficientPrivilege):
            postgres.sql(ann, statement)
    for args in (("limit", "set", "team", "daily=2M"), ("prune", "--before", "2999-01-01", "--yes")):
        done = token_budget(place, "--ledger", ann, *args)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert token_budget(place, "--ledger", bob, "history").returncode == 0


def test_a_password_comes_from_the_environment_a_file_or_a_service(
    place: Workplace, postgres: Postgres, address: str
) -> None:
    postgres.require_password("carol", "hunter2hunter2")
    open_store(address).close()
    postgres.sql(address, "GRANT ALL ON SCHEMA token_budget TO carol", GRANT_ALL)
    as_carol = address.replace("owner@", "carol@")
    assert "no password supplied" in refused(place, as_carol)
    wrong = refused(place, as_carol, PGPASSWORD="hunter3hunter3")
    assert "password authentication failed" in wrong and "hunter" not in wrong
    passwords, services = place.root / "passwords", place.root / "services"
    passwords.write_text("*:*:*:carol:hunter2hunter2\n")
    name = address.partition("@/")[2].partition("?")[0]
    services.write_text(f"[team]\nhost={postgres.folder}\ndbname={name}\nuser=carol\npassword=hunter2hunter2\n")
    for file in (passwords, services):
        file.chmod(0o600)
    for ledger, env in (
        (as_carol, {"PGPASSWORD": "hunter2hunter2"}),
        (as_carol, {"PGPASSFILE": str(passwords)}),
        ("postgresql:///?service=team", {"PGSERVICEFILE": str(services)}),
    ):
        done = rehearse(place, ledger, **env)
        assert done.returncode == 0, done.stderr
        assert "hunter" not in done.stdout + done.stderr
    written = [path for path in place.root.rglob("*") if path.is_file() and path not in (passwords, services)]
    assert written and not [path for path in written if b"hunter2" in path.read_bytes()]


def test_a_table_of_ones_own_does_not_divert_the_sums(postgres: Postgres, address: str) -> None:
    """The trigger runs with its owner's rights: it must not find the tables of somebody else's session."""
    ledger = open_store(address)
    ledger.write(attempts=[AttemptRecord("r", "a", 1, 1)])
    (key,) = postgres.sql(address, "SELECT key FROM token_budget.attempts")[0]
    postgres.sql(
        address,
        "CREATE TEMP TABLE quarters (LIKE token_budget.quarters INCLUDING ALL)",
        f"INSERT INTO token_budget.records VALUES ('x', {key}, 5, 'm', 7, 0, 0, 0, NULL)",
    )
    assert ledger.shared([Limit(0, 1)], Weights(), 0).used == [7]
    ledger.close()


@pytest.mark.slow
def test_orchestrators_at_once_never_pass_the_limit_of_their_account(place: Workplace, address: str) -> None:
    """Each of them has a gateway, as machines have; the requests of all together stay below the limit."""
    assert token_budget(place, "--ledger", address, "limit", "set", "team", "daily=60k").returncode == 0
    work = {"tokens": 8000, "turns": 8, "seconds": 1.0}
    entries = [
        {"name": f"i{n}", "command": "/test", "rehearsal": work, "max_tokens_per_command": 9000} for n in range(4)
    ]
    config = place.config({"instances": entries})
    argv = place.argv("--config", config, "--rehearse", "--meter", "api", "--ledger", address, "--account", "team")
    started = [
        subprocess.Popen(argv, env=place.env, cwd=place.root, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=HUNG_S)[1] for process in started]
    assert {process.returncode for process in started} <= {0, 1}, said
    listed = token_budget(place, "--ledger", address, "limit", "list", "--json")
    used = json.loads(listed.stdout)[0]["used"]
    assert 0.6 * 60_000 <= used <= 60_000, (used, said)
