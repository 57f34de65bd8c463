"""What the tests share: where the real claude is, and a supervisor run in this process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.harness import Workplace
from tests.postgres import Postgres, find_binaries

# the same examples each time, and no verdict on how fast a busy machine is
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("repeatable")


os.environ.pop("GITHUB_ACTIONS", None)  # the tests of CI set it
for number in (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
):  # a shell's background and nohup ignore them, and so would all children
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
STARTS_PROCESSES = {"claude", "place", "postgres", "rehearsal"}  # fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures start processes."""
    for item in items:
        if STARTS_PROCESSES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("processes")


def find_real_claude() -> str | None:
    """The real CLI: CLAUDE_BIN, else `claude` on PATH."""
    return os.environ.get("CLAUDE_BIN") or shutil.which("claude")


@pytest.fixture(scope="session")
def claude() -> str:
    """The path of the real claude; skips the test where there is none."""
    found = find_real_claude()
    if found is None and os.environ.get("REQUIRE_REAL_CLI"):
        pytest.fail("REQUIRE_REAL_CLI is set and there is no claude")
    if found is None:
        pytest.skip("no claude: npm install @anthropic-ai/claude-code, then name its binary in CLAUDE_BIN")
    return str(Path(found).absolute())


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A folder with a workspace, and a way to run the program there with a fake claude."""
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own; skips the test where none is installed."""
    binaries = find_binaries()
    why = "no psycopg: pip install 'psycopg[binary]'" if find_spec("psycopg") is None else ""
    why = why or ("" if binaries else "no PostgreSQL server: install Debian's postgresql, or put initdb on PATH")
    if why and os.environ.get("REQUIRE_POSTGRES"):
        pytest.fail(f"REQUIRE_POSTGRES is set: {why}")
    if binaries is None or why:
        pytest.skip(why)
    postgres = Postgres(binaries)
    try:
        yield postgres
    finally:
        postgres.remove()
