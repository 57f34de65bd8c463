"""The real claude under orchestrators that share an account: the stand-in's own bill never passes its limit."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from tests.harness import Workplace
from tests.limits import HUNG_S
from tests.postgres import Postgres
from tests.stand_in import Call, Reply, StandIn, Text, Tools, claude_env
from token_budget.ledger.opening import open_store
from token_budget.ledger.records import AccountLimit
from token_budget.models import Unit
from token_budget.windows import Window

pytestmark = [pytest.mark.real_cli, pytest.mark.slow]
WORK: Sequence[Reply] = [*[Tools((Call.bash("echo hi"),))] * 8, Text("done")]


def limit(address: str, tokens: int) -> None:
    with closing(open_store(address)) as ledger:
        ledger.set_limits("team", [AccountLimit(Window.DAILY, Unit.TOKENS, tokens)])


def in_ledger(address: str) -> int:
    with closing(open_store(address)) as ledger:
        return sum(one.usage.total_tokens for one in ledger.sums())


@contextlib.contextmanager
def orchestrators(
    place: Workplace, claude: str, api: StandIn, address: str, count: int
) -> Iterator[list[subprocess.Popen[str]]]:
    entries = [{"name": f"i{n}", "command": "greet me", "permission_mode": "bypassPermissions"} for n in range(2)]
    options = ("--ledger", address, "--account", "team", "--meter", "api", "--quiet")
    argv = place.argv("--config", place.config({"instances": entries}), *options, claude=claude)
    env = {**place.env, **claude_env(place.root, api.url), "PATH": place.env["PATH"]}
    started = [subprocess.Popen(argv, env=env, cwd=place.root, stderr=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait(HUNG_S)


def test_not_one_token_beyond_the_limit_of_an_account(claude: str, postgres: Postgres, place: Workplace) -> None:
    address, most = postgres.database(), 60_000
    limit(address, most)
    with StandIn({"greet": WORK}) as api, orchestrators(place, claude, api, address, 3) as started:
        said = [process.communicate(timeout=HUNG_S)[1] for process in started]
        billed = api.billed().total_tokens
    assert billed <= most and billed > most // 2, (billed, said)
    assert in_ledger(address) == billed, said


def test_no_call_goes_out_while_the_ledger_is_gone(claude: str, postgres: Postgres, place: Workplace) -> None:
    address = postgres.database()
    limit(address, 10**7)
    with StandIn({"greet": WORK}) as api, orchestrators(place, claude, api, address, 2) as started:
        deadline = time.monotonic() + HUNG_S
        while len(api.entries) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        postgres.stop(crash=True)
        try:
            time.sleep(2)  # what was admitted before is answered by then
            calls = len(api.entries)
            time.sleep(4)
            assert len(api.entries) == calls < 2 * 2 * 9
        finally:
            postgres.start()
        said = [process.communicate(timeout=HUNG_S)[1] for process in started]
        billed = api.billed().total_tokens
        assert [process.returncode for process in started] == [0, 0], said
    assert in_ledger(address) == billed, said
