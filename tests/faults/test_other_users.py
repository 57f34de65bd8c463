"""Other users of the machine: what they planted is refused, and never run, read or written through."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_orchestrator.engine.journal import NAME, decode, encode
from tests.faults.test_not_files import CLAUDE_RUNS
from tests.harness import FAKE, Workplace
from tests.limits import HUNG_S
from tests.repositories import sh
from token_budget.files import write_atomically
from token_budget.folders import Folder, check_file
from token_budget.ledger.errors import LedgerUnwritableError
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.owned import NotOursError, open_to_write

BOB = 61001
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no owners")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can play a second user")


def shared(path: Path) -> Path:
    """A folder as /tmp is."""
    path.mkdir()
    path.chmod(0o1777)
    return path


def of_bob(path: Path) -> Path:
    os.chown(path, BOB, BOB, follow_symlinks=False)
    return path


def bobs_link(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return of_bob(link)


def finished_run(place: Workplace, out: Path) -> Path:
    """A run in a folder; its journal names a claude that another user could have written."""
    assert place.run("/test", "--output-dir", str(out), FAKE_CLAUDE="tells-all").returncode == 1
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


def newer_run_of_bob(own: Path) -> Path:
    """A run beside another one, with the same journal."""
    theirs = own.with_name("20991231-235959-abcdef")
    theirs.mkdir()
    (theirs / NAME).write_bytes((own / NAME).read_bytes())
    return of_bob(theirs)


# -- folders and files of a run --


def made_by_bob(root: Path) -> Path:
    return of_bob(shared(root / "runs"))


def behind_a_link_of_bob(root: Path) -> Path:
    (root / "real").mkdir(mode=0o700)
    return bobs_link(root / "link", root / "real")


def below_a_link_of_bob(root: Path) -> Path:
    (root / "real" / "runs").mkdir(mode=0o700, parents=True)
    return bobs_link(root / "link", root / "real") / "runs"


def open_to_everybody(root: Path) -> Path:
    (root / "runs").mkdir()
    (root / "runs").chmod(0o777)
    return root / "runs"


def below_what_is_open_to_everybody(root: Path) -> Path:
    return open_to_everybody(root) / "mine"


def open_to_a_group(root: Path) -> Path:
    (root / "runs").mkdir()
    os.chown(root / "runs", -1, BOB)
    (root / "runs").chmod(0o770)
    return root / "runs"


@as_root
@pytest.mark.parametrize(
    "make",
    [
        made_by_bob,
        behind_a_link_of_bob,
        below_a_link_of_bob,
        open_to_everybody,
        below_what_is_open_to_everybody,
        open_to_a_group,
    ],
)
def test_a_folder_that_others_made_or_can_change_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(NotOursError, match=f"{tmp_path}.*: name another place"):
        Folder.open(make(tmp_path), create=True, may_be_shared=True)


@as_root
def test_a_program_says_whose_the_folder_is_and_starts_nothing(place: Workplace) -> None:
    folder = made_by_bob(place.root)
    for more in ((), ("--resume", "last"), ("--resume", "x"), ("--dry-run",)):
        done = place.run("/test", "--output-dir", str(folder), *more)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"{folder} belongs to user {BOB}: name another place, or have it removed" in done.stderr
    assert list(folder.iterdir()) == []


def test_own_folders_and_links_are_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("real")
    with Folder.open(tmp_path / "link" / "runs", create=True) as folder, folder.folder("run", new=True) as run:
        os.close(run.file("file", os.O_WRONLY | os.O_CREAT))
        with pytest.raises(FileExistsError):
            folder.folder("run", new=True)
    assert (tmp_path / "real" / "runs" / "run" / "file").stat().st_mode & 0o777 == 0o600
    with Folder.open(shared(tmp_path / "tmp"), may_be_shared=True) as folder:
        folder.folder("run", new=True).close()


def test_what_is_in_the_way_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "victim").chmod(0o600)
    (tmp_path / "link").symlink_to("victim")
    os.link(tmp_path / "victim", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "open").touch()
    (tmp_path / "open").chmod(0o666)
    with Folder.open(tmp_path) as folder:
        for name in ("link", "hard", "pipe", "open"):
            with pytest.raises(OSError, match=r"symbolic|hard link|no regular|No such device|can write"):
                folder.file(name, os.O_WRONLY | os.O_CREAT)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_folder_that_is_exchanged_after_it_was_opened_changes_nothing(tmp_path: Path) -> None:
    with Folder.open(tmp_path / "run", create=True) as folder:
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "other").mkdir()
        (tmp_path / "run").symlink_to("other")
        os.close(folder.file("log", os.O_WRONLY | os.O_CREAT))
    assert (tmp_path / "moved" / "log").exists() and not (tmp_path / "other" / "log").exists()


# -- runs that are resumed --


@as_root
@pytest.mark.parametrize("planted", ["folder", "journal", "mode of the journal"])
def test_another_users_run_is_not_resumed(place: Workplace, planted: str) -> None:
    out = shared(place.root / "shared")
    run = finished_run(place, out)
    if planted == "mode of the journal":
        (run / NAME).chmod(0o666)
    else:
        of_bob(run if planted == "folder" else run / NAME)
    for which in ("last", run.name):
        done = place.run("/test", "--output-dir", str(out), "--resume", which)
        assert done.returncode == 2 and f"{run}" in done.stderr and "name another place" in done.stderr, done.stderr


@as_root
def test_resume_last_passes_over_the_runs_of_others(place: Workplace) -> None:
    """Else anybody could keep it from working, in a folder that all can write to."""
    out = shared(place.root / "shared")
    theirs = newer_run_of_bob(finished_run(place, out))
    done = place.run("/test", "--output-dir", str(out), "--resume", "last", "--dry-run")
    assert done.returncode == 0 and f"skipped: {theirs} belongs to user {BOB}" in done.stderr


def test_what_a_journal_says_is_never_run(place: Workplace) -> None:
    run, proof = finished_run(place, place.root / "out"), place.root / "proof"
    evil = place.root / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {proof}\n")
    evil.chmod(0o755)
    first, _, rest = (run / NAME).read_bytes().partition(b"\n")
    header = decode(first)
    assert header is not None
    (run / NAME).write_bytes(encode({**header, "claude_bin": str(evil)}) + rest)
    (place.root / "bin").mkdir()
    (place.root / "bin" / "claude").symlink_to(FAKE)
    path = f"{place.root / 'bin'}:{os.environ['PATH']}"
    done = place.run("/test", "--resume", "last", claude=None, PATH=path)
    assert done.returncode == 0 and not proof.exists(), done.stderr
    assert f"that run used {evil}, and this one uses {place.root / 'bin' / 'claude'}: name another" in done.stderr


@as_root
def test_claude_runs_passes_over_the_runs_of_others(place: Workplace) -> None:
    out = shared(place.root / "shared")
    own = finished_run(place, out)
    theirs = newer_run_of_bob(own)

    def claude_runs(*args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", CLAUDE_RUNS, "--output-dir", str(out), *args]
        return subprocess.run(argv, capture_output=True, text=True, env=place.env, check=False, timeout=HUNG_S)

    assert own.name in claude_runs("list").stdout and theirs.name not in claude_runs("list").stdout
    assert claude_runs("show", "last").returncode == 0
    refused = claude_runs("show", theirs.name)
    assert refused.returncode == 2 and f"{theirs} belongs to user {BOB}" in refused.stderr


# -- what is found without being named --


@as_root
@pytest.mark.parametrize("planted", ["file", "link"])
def test_a_config_of_another_user_is_not_found_by_itself(place: Workplace, planted: str) -> None:
    """In /tmp anybody can leave one, and its check would run there as whoever comes by."""
    proof = place.root / "proof"
    data = {"instances": [{"name": "x", "prompt": "hi", "check": {"command": f"touch {proof}"}}]}
    place.workspace.rmdir()
    shared(place.workspace)
    config = place.workspace / "claude-orchestrator.json"
    if planted == "link":
        place.config(data, "own.json")
        bobs_link(config, place.root / "own.json")
    else:
        config.write_text(json.dumps(data))
        of_bob(config)
    done = place.run()
    assert done.returncode == 2 and not proof.exists()
    assert f"{config} belongs to user {BOB}: name it with --config" in done.stderr
    assert place.run("--config", str(config)).returncode == 0 and proof.exists()
    os.chown(place.workspace, BOB, BOB)  # a container that runs as root in a user's folder
    if planted == "file":
        assert place.run("--dry-run").returncode == 0


@as_root
def test_profiles_of_another_user_are_refused(place: Workplace) -> None:
    place.workspace.rmdir()
    shared(place.workspace)
    profiles = place.workspace / "claude-orchestrator-profiles.json"
    profiles.write_text(json.dumps({"profiles": {"small": {"overall_token_budget": 10**9}}}))
    of_bob(profiles)
    done = place.run("/test", "--budget-profile", "small")
    assert done.returncode == 2 and f"--budget-profile: {profiles} belongs to user {BOB}" in done.stderr


@as_root
def test_another_user_cannot_lock_a_repository_that_he_can_read(place: Workplace) -> None:
    """A lock needs no more than permission to read a folder. Worktrees waited ten minutes for it."""
    sh(place.workspace, "git init -q; git commit -q --allow-empty -m first")
    holder = subprocess.Popen(["flock", str(place.workspace / ".git"), "sleep", "60"], start_new_session=True)
    try:
        data = {"instances": [{"name": "x", "prompt": "hi", "worktree": True}]}
        begun = time.monotonic()
        assert place.run("--config", place.config(data)).returncode == 0
        assert time.monotonic() - begun < 30
        (own,) = (place.workspace / ".git").glob("claude-orchestrator-*")
        assert stat.S_IMODE(own.stat().st_mode) == 0o700  # so that nobody else can open it
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


# -- reports and the ledger --


@as_root
@pytest.mark.parametrize("option", ["report", "junit", "results", "graph"])
def test_reports_never_follow_a_link_of_another_user(place: Workplace, option: str) -> None:
    tmp, victim = shared(place.root / "tmp"), place.root / "victim"
    victim.write_text("precious")
    link = bobs_link(tmp / "x.mmd", victim)
    done = place.run("/test", f"--{option}", str(link), *(["--dry-run"] if option == "graph" else []))
    assert done.returncode == 2 and f"{link} is a link of user {BOB}" in done.stderr
    assert victim.read_text() == "precious" and link.is_symlink()
    assert not (place.root / "pids.json").exists()


@as_root
def test_a_link_that_comes_during_the_run_is_not_followed_either(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "theirs").mkdir()
    for link in (bobs_link(tmp_path / "file", victim), bobs_link(tmp_path / "folder", tmp_path) / "victim"):
        with pytest.raises(NotOursError, match="is a link of"):
            write_atomically(link, [b"x"])
        with pytest.raises(NotOursError, match="is a link of"):
            open_to_write(link, os.O_TRUNC)
    assert victim.read_text() == "precious"


@as_root
def test_no_report_goes_into_another_users_pipe_or_file(tmp_path: Path) -> None:
    tmp = shared(tmp_path / "tmp")
    os.mkfifo(tmp / "pipe")
    of_bob(tmp / "pipe")
    (tmp / "file").touch()
    (tmp / "file").chmod(0o666)
    of_bob(tmp / "file")
    with pytest.raises(NotOursError, match="no file"):
        write_atomically(tmp / "pipe", [b"x"])
    with pytest.raises(NotOursError, match="belongs to"):
        open_to_write(tmp / "file", os.O_APPEND)
    write_atomically(tmp / "file", [b"x"], mode=0o600)  # replaced, not written into
    assert (tmp / "file").stat().st_uid == 0 and (tmp / "file").stat().st_mode & 0o777 == 0o600


def test_a_hard_link_in_a_shared_folder_is_not_written_through(tmp_path: Path) -> None:
    tmp, victim = shared(tmp_path / "tmp"), tmp_path / "victim"
    victim.write_text("precious")
    os.link(victim, tmp / "x")
    with pytest.raises(NotOursError, match="hard link"):
        open_to_write(tmp / "x", os.O_TRUNC)
    write_atomically(tmp / "x", [b"new"])
    assert victim.read_text() == "precious" and (tmp / "x").read_text() == "new"


def test_own_links_and_devices_stay_usable(place: Workplace) -> None:
    (place.root / "link.json").symlink_to("report.json")
    assert place.run("/test", "--report", str(place.root / "link.json")).returncode == 0
    assert (place.root / "link.json").is_symlink() and place.report()["exit_code"] == 0
    done = place.run("/test", "--quiet", "--report", "/dev/stdout", "--junit", "/dev/null")
    assert done.returncode == 0 and json.loads(done.stdout[: done.stdout.rindex("}") + 1])["exit_code"] == 0


@as_root
@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db-journal"])
def test_a_ledger_that_another_user_made_is_refused(tmp_path: Path, name: str) -> None:
    tmp = shared(tmp_path / "tmp")
    if name != "ledger.db":
        SqliteLedger(tmp / "ledger.db").close()
    (tmp / name).touch()
    of_bob(tmp / name)
    with pytest.raises(LedgerUnwritableError, match=f"{name} belongs to user {BOB}"):
        SqliteLedger(tmp / "ledger.db")


@as_root
def test_a_ledger_behind_another_users_link_is_refused(tmp_path: Path) -> None:
    SqliteLedger(tmp_path / "mine.db").close()
    tmp = shared(tmp_path / "tmp")
    with pytest.raises(LedgerUnwritableError, match="is a link of"):
        SqliteLedger(bobs_link(tmp / "ledger.db", tmp_path / "mine.db"))
    check_file(tmp_path / "mine.db")


@as_root
@pytest.mark.parametrize("planted", ["folder", "file", "hard link"])
def test_changes_are_not_applied_through_what_another_user_put_there(place: Workplace, planted: str) -> None:
    sh(place.workspace, "git init -q; git commit -q --allow-empty -m first")
    work = "mkdir sub; echo work > sub/new; echo work > top"
    data = {"instances": [{"name": "x", "prompt": "hi", "worktree": True, "check": {"command": work}}]}
    assert place.run("--config", place.config(data)).returncode == 0
    place.workspace.chmod(0o1777)
    (place.root / "victims").mkdir()
    victim = place.root / "victims" / "top"
    victim.write_text("precious")
    if planted == "folder":
        bobs_link(place.workspace / "sub", place.root / "victims")
    elif planted == "file":
        bobs_link(place.workspace / "top", victim)
    else:
        (place.workspace / "top").hardlink_to(victim)
    done = place.run("--apply", "last")
    assert done.returncode == 1 and "its changes conflict with the files of the workspace" in done.stderr
    assert victim.read_text() == "precious" and [path.name for path in (place.root / "victims").iterdir()] == ["top"]
