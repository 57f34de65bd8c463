"""A ledger on a PostgreSQL server, from the command line: runs write it, and every command reads it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Workplace
from tests.postgres import Cluster
from token_budget.ledger.opening import open_store
from token_budget.ledger.postgres_schema import MIGRATIONS

SETUP: dict[str, Any] = {
    "instances": [{"name": f"i{n}", "command": "/test", "rehearsal": {"tokens": 1000, "seconds": 0.1}} for n in (1, 2)]
}


@pytest.fixture
def address(cluster: Cluster) -> str:
    return cluster.database()


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


def test_wrong_addresses(place: Workplace, cluster: Cluster, closed_port: int) -> None:
    assert "refused" in refused(place, f"postgresql://127.0.0.1:{closed_port}/ledger")
    assert 'database "nowhere" does not exist' in refused(place, cluster.address("nowhere"))
    assert 'role "nobody"' in refused(place, cluster.address("postgres", user="nobody"))
    assert "invalid" in refused(place, "postgresql://localhost/x?colour=red")
    assert "not found" in refused(place, "postgresql:///?service=none")


def test_no_psycopg(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "psycopg.py").write_text("raise ImportError('hidden')\n")
    path = os.pathsep.join((str(tmp_path / "hide"), str(ROOT)))
    said = refused(place, "postgresql://localhost/x", PYTHONPATH=path)
    assert said == "ERROR: --ledger: postgresql://localhost/x: a ledger on a server needs the extra " + (
        "claude-orchestrator[postgres]\n"
    )


def test_a_database_that_is_read_only(place: Workplace, cluster: Cluster, address: str) -> None:
    open_store(address).close()
    name = address.partition("@/")[2].partition("?")[0]
    cluster.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "the database is read-only" in refused(place, address)
    assert token_budget(place, "--ledger", address, "history").returncode == 0


def test_older_and_newer_schemas(place: Workplace, cluster: Cluster, address: str) -> None:
    open_store(address).close()
    cluster.sql(address, "DELETE FROM token_budget.migrations WHERE version > 1")
    said = refused(place, address)
    assert "older version of this program (schema 1)" in said and f"token-budget migrate --to {address}" in said
    cluster.sql(address, f"INSERT INTO token_budget.migrations VALUES ({len(MIGRATIONS) + 1}, 0)")
    assert f"newer version of this program (schema {len(MIGRATIONS) + 1})" in refused(place, address)
    assert token_budget(place, "--ledger", address, "history").returncode == 2
