"""Where state lives, and how that of earlier versions gets there: once, whole, and never from under a run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from tests.harness import ROOT
from tests.limits import HUNG_S
from token_budget import places
from token_budget.ledger.records import RunRecord
from token_budget.ledger.sqlite import SqliteLedger

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
SHM = Path("/dev/shm")  # another file system than that of temporary files


class User:
    """A user's folders, with what an earlier version left in one of them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, state: Path | None = None) -> None:
        self.old = root / "config" / places.APP
        self.new = (state or root / "state") / places.APP
        monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        monkeypatch.setenv("XDG_STATE_HOME", str(self.new.parent))
        self.lines: list[str] = []
        run = self.old / "runs" / "run-1"
        run.mkdir(parents=True)
        (run / "journal.jsonl").write_text("a line\n")
        self.open().close()

    def open(self) -> SqliteLedger:
        """The old ledger, with a run in it."""
        ledger = SqliteLedger(self.old / "ledger.db")
        ledger.write(runs=[RunRecord("run-1", "host", 1)])
        return ledger

    def ledger(self, *, move: bool = True) -> Path:
        return places.ledger_file(self.lines.append, move=move)

    def runs(self) -> Path:
        return places.runs_dir(self.lines.append)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    return User(tmp_path, monkeypatch)


def runs_in(file: Path) -> list[str]:
    ledger = SqliteLedger(file, create=False)
    found = [run.run for run in ledger.runs()]
    ledger.close()
    return found


def test_a_new_user_has_state_and_profiles_in_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert places.ledger_file(print) == tmp_path / ".local/state/claude-orchestrator/ledger.db"
    assert places.runs_dir(print) == tmp_path / ".local/state/claude-orchestrator/runs"
    assert places.profiles_file() == tmp_path / ".config/claude-orchestrator/profiles.json"
    assert list(tmp_path.iterdir()) == []


def test_old_state_is_moved_once_and_profiles_stay(user: User) -> None:
    (user.old / "profiles.json").write_text("{}")
    for _ in range(2):
        assert (user.ledger(), user.runs()) == (user.new / "ledger.db", user.new / "runs")
    assert user.lines == [f"moved {user.old}/{name} to {user.new}/{name}" for name in ("ledger.db", "runs")]
    assert [path.name for path in user.old.iterdir()] == ["profiles.json"]
    assert runs_in(user.new / "ledger.db") == ["run-1"]
    assert (user.new / "runs" / "run-1" / "journal.jsonl").read_text() == "a line\n"


def test_what_only_looks_moves_nothing(user: User) -> None:
    assert user.ledger(move=False) == user.old / "ledger.db" and not user.lines and not user.new.exists()


def test_new_state_is_never_replaced(user: User) -> None:
    user.new.mkdir(parents=True)
    SqliteLedger(user.new / "ledger.db").close()
    assert user.ledger() == user.new / "ledger.db" and runs_in(user.ledger()) == [] and not user.lines
    assert runs_in(user.old / "ledger.db") == ["run-1"]


def test_a_log_that_a_killed_run_left_moves_into_the_ledger(user: User) -> None:
    code = "import os, sys; from token_budget.ledger.sqlite import *; from token_budget.ledger.records import *"
    code += "; SqliteLedger(sys.argv[1]).write(runs=[RunRecord('run-2', 'host', 2)]); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(user.old / "ledger.db")], cwd=ROOT, check=True)
    assert (user.old / "ledger.db-wal").stat().st_size > 0
    assert runs_in(user.ledger()) == ["run-1", "run-2"] and not list(user.old.glob("ledger.db*"))


def test_a_ledger_that_is_open_stays(user: User) -> None:
    ledger = user.open()
    assert user.ledger() == user.old / "ledger.db"
    ledger.write(runs=[RunRecord("run-2", "host", 2)])
    ledger.close()
    new, reason = user.new / "ledger.db", "a run is using it"
    assert user.lines == [f"{user.old}/ledger.db stays in use until it can be moved to {new}: {reason}"]
    assert user.ledger() == new and runs_in(new) == ["run-1", "run-2"]


def test_the_folder_of_a_run_in_progress_stays(user: User) -> None:
    with (user.old / "runs" / "run-1" / "journal.jsonl").open("a") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert user.runs() == user.old / "runs" and user.lines[0].endswith(": a run is using it")
    assert user.runs() == user.new / "runs"


def test_what_cannot_be_moved_stays_in_use(user: User) -> None:
    user.new.parent.write_text("a file")
    assert (user.ledger(), user.runs()) == (user.old / "ledger.db", user.old / "runs")
    assert [line.rpartition(": ")[2] for line in user.lines] == ["Not a directory"] * 2
    assert runs_in(user.ledger()) == ["run-1"]


def test_a_linked_ledger_stays_where_the_link_leads(user: User) -> None:
    (user.old / "ledger.db").rename(user.old.parent / "mine.db")
    (user.old / "ledger.db").symlink_to("../mine.db")
    assert runs_in(user.ledger()) == ["run-1"] and (user.new / "ledger.db").is_symlink()


def test_many_that_start_at_once_move_it_once(user: User) -> None:
    code = "from token_budget import places; print(places.ledger_file(lambda line: print(line)))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    lines = "".join(process.communicate(timeout=HUNG_S)[0] for process in started).splitlines()
    assert sorted(lines) == sorted(
        [f"moved {user.old}/ledger.db to {user.new}/ledger.db", *[f"{user.new}/ledger.db"] * 6]
    )
    assert runs_in(user.new / "ledger.db") == ["run-1"]


@pytest.mark.skipif(not SHM.is_dir(), reason="no second file system")
class TestAcrossFileSystems:
    @pytest.fixture
    def user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
        if SHM.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("one file system")
        state = SHM / f"test-places-{os.getpid()}-{tmp_path.name}"
        return User(tmp_path, monkeypatch, state)

    @pytest.fixture(autouse=True)
    def _clean(self, user: User) -> object:
        yield
        subprocess.run(["rm", "-rf", str(user.new.parent)], check=True)

    def test_state_is_copied_whole(self, user: User) -> None:
        assert runs_in(user.ledger()) == ["run-1"]
        assert (user.runs() / "run-1" / "journal.jsonl").read_text() == "a line\n"
        assert list(user.old.iterdir()) == [] and len(user.lines) == 2
        assert sorted(path.name for path in user.new.iterdir()) == ["ledger.db", "runs"]

    def test_a_copy_that_fails_half_way_leaves_the_old_place_in_use(self, user: User) -> None:
        os.mkfifo(user.old / "runs" / "pipe")  # what no copy can be made of
        assert user.runs() == user.old / "runs" and list(user.new.iterdir()) == []
        assert (user.old / "runs" / "run-1" / "journal.jsonl").read_text() == "a line\n"
        assert "stays in use: it cannot be moved" in user.lines[0] and user.lines[0].isprintable()


@pytest.mark.parametrize("base", [None, "", " ", "/somewhere", "relative"])
def test_on_linux_the_folders_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch, base: str | None) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
        if base is not None:
            monkeypatch.setenv(variable, base)
    assert places.state_dir() == Path(platformdirs.user_state_dir(places.APP, appauthor=False))
    assert places.config_dir() == Path(platformdirs.user_config_dir(places.APP, appauthor=False, roaming=True))
