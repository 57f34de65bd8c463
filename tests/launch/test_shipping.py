"""A repository goes to another machine, and an instance's work comes back, with real git."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from claude_orchestrator.launch.git import GitError, line
from claude_orchestrator.launch.shipping import check_out, check_size, collect, pack, snapshot, take_in, unpack
from tests.repositories import sh

pytestmark = pytest.mark.processes


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    sh(folder, "git init -q -b main; mkdir sub; echo one > a.txt; echo x > sub/b.txt; echo '*.log' > .gitignore")
    sh(folder, "git add .; git commit -qm first")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def refs(folder: Path) -> str:
    return sh(folder, "git for-each-ref --format='%(refname)'")


def test_what_is_not_committed_travels_too_and_nothing_changes_at_home(repo: Path, store: Path) -> None:
    sh(repo, "echo two >> a.txt; git add a.txt; rm sub/b.txt; printf 'a\\0b' > bin; ln -s a.txt link; chmod +x bin")
    sh(repo, "echo no > x.log")
    before = sh(repo, "git status --porcelain"), sh(repo, "git rev-parse HEAD"), refs(repo)
    commit = snapshot(repo / "sub")
    assert snapshot(repo) == commit  # the same content is the same shipment
    bundle = pack(repo, commit)
    assert (sh(repo, "git status --porcelain"), sh(repo, "git rev-parse HEAD"), refs(repo)) == before
    copy = store / "one"
    check_out(unpack(bundle, store, commit), copy, commit, "orchestrator/run/one")
    assert (copy / "a.txt").read_text() == "one\ntwo\n" and (copy / "bin").read_bytes() == b"a\0b"
    assert os.access(copy / "bin", os.X_OK) and (copy / "link").is_symlink()
    assert not (copy / "sub").exists() and not (copy / "x.log").exists()
    assert sh(copy, "git log --format=%s") == "What was not committed\nfirst"
    assert sh(copy, "git branch --show-current") == "orchestrator/run/one"


def test_all_committed_is_the_commit_itself(repo: Path) -> None:
    assert snapshot(repo) == sh(repo, "git rev-parse HEAD")


def test_a_change_of_the_same_second_and_size_as_the_commit_travels_too(repo: Path) -> None:
    sh(repo, "git config core.trustctime false; git config core.checkStat minimal; touch -d @1000000000 a.txt")
    sh(
        repo,
        "git update-index --refresh; touch -d @1000000000 .git/index; echo two > a.txt; touch -d @1000000000 a.txt",
    )
    assert line(repo, "show", f"{snapshot(repo)}:a.txt") == "two"


def home(repo: Path) -> Path:
    """The worktree at home of an instance whose copy works elsewhere."""
    sh(repo, "git worktree add -q -b orchestrator/run/one ../home HEAD")
    return repo.parent / "home"


def test_the_work_comes_back_committed_and_not(repo: Path, store: Path) -> None:
    at_home, copy, commit = home(repo), store / "one", snapshot(repo)
    check_out(unpack(pack(repo, commit), store, commit), copy, commit, "orchestrator/run/one")
    sh(copy, "echo two >> a.txt; git commit -qam own; rm sub/b.txt; printf 'a\\0b' > bin; mkdir new; echo n > new/n")
    work = collect(copy, commit)
    assert work.head == sh(copy, "git rev-parse HEAD") != work.commit
    take_in(at_home, work)
    assert sh(at_home, "git log --format=%s") == "own\nfirst"
    assert sh(at_home, "git status --porcelain") == sh(copy, "git status --porcelain")
    assert (at_home / "bin").read_bytes() == b"a\0b" and (at_home / "new" / "n").read_text() == "n\n"
    assert "claude-orchestrator/" not in refs(repo)
    assert sh(repo, "git status --porcelain") == ""


def test_the_work_comes_back_while_another_worktree_is_made(repo: Path, store: Path) -> None:
    at_home, copy, commit = home(repo), store / "one", snapshot(repo)
    check_out(unpack(pack(repo, commit), store, commit), copy, commit, "orchestrator/run/one")
    sh(copy, "echo two >> a.txt")
    sh(repo, f"git worktree add -q {repo}-other")
    head = repo / ".git" / "worktrees" / f"{repo.name}-other" / "HEAD"
    whole = head.read_text()
    head.write_text("0" * 40 + "\n")  # as git does at first
    finishing = threading.Timer(0.5, head.write_text, (whole,))
    finishing.start()
    take_in(at_home, collect(copy, commit))
    finishing.join()
    assert sh(at_home, "git status --porcelain") == "M a.txt"


def test_a_second_attempt_begins_where_the_first_ended_and_only_what_is_new_travels(repo: Path, store: Path) -> None:
    (repo / "large").write_bytes(os.urandom(200_000))
    sh(repo, "git add large; git commit -qm large")
    at_home, commit = home(repo), snapshot(repo)
    store_there = unpack(pack(repo, commit), store, commit)
    check_out(store_there, store / "one", commit, "orchestrator/run/one")
    sh(store / "one", "echo open > open.txt")
    take_in(at_home, collect(store / "one", commit))
    second = snapshot(at_home)
    bundle = pack(at_home, second, [commit])
    assert second != commit and 0 < len(bundle) < 2_000 and pack(at_home, second, [second]) == b""
    check_out(unpack(bundle, store, second), store / "one", second, "orchestrator/run/one")
    assert (store / "one" / "open.txt").read_text() == "open\n"


def test_nothing_done_is_nothing_to_bring_back(repo: Path, store: Path) -> None:
    at_home, commit = home(repo), snapshot(repo)
    check_out(unpack(pack(repo, commit), store, commit), store / "one", commit, "b")
    work = collect(store / "one", commit)
    assert work.bundle == b"" and work.commit == commit
    take_in(at_home, work)
    assert sh(at_home, "git status --porcelain") == ""


def test_what_goes_wrong_is_one_line(repo: Path, store: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(GitError, match="not a git repository"):
        snapshot(empty)
    sh(empty, "git init -q")
    with pytest.raises(GitError, match="no commit yet"):
        snapshot(empty)
    commit = snapshot(repo)
    with pytest.raises(GitError, match="has not arrived"):
        unpack(b"", store, commit)
    with pytest.raises(GitError):
        unpack(b"no bundle", store, commit)
    sh(repo, "echo x > new")
    later = snapshot(repo)
    with pytest.raises(GitError):  # it needs a commit that the store lacks
        unpack(pack(repo, later, [commit]), store, later)
    with pytest.raises(GitError, match=r"takes 0\.0 MiB, and at most 0\.0 MiB travel: clone it"):
        pack(repo, commit, max_bytes=10)
    assert refs(repo) == "refs/heads/main"


def test_a_repository_that_is_too_large_is_found_before_it_is_packed(repo: Path) -> None:
    (repo / "large").write_bytes(os.urandom(3 * 1024**2))
    commit = snapshot(repo)
    check_size(repo)  # what is committed
    sh(repo, "git add .; git commit -qm large; printf x >> large; git commit -qam more")  # two large ones in the disk
    objects = sh(repo, "git count-objects")
    with pytest.raises(
        GitError, match=r"takes 3\.0 MiB, and at most 2\.0 MiB travel: clone it at the same path on every"
    ):
        check_size(repo, commit, 2 * 1024**2)
    check_size(repo, max_bytes=4 * 1024**2)  # on its way, the second one takes little
    assert sh(repo, "git count-objects") == objects and refs(repo) == "refs/heads/main"


def test_a_repository_inside_of_a_worktree_is_found(repo: Path) -> None:
    sh(repo, "git worktree add -q ../other; echo y > ../other/y")
    commit = snapshot(repo.parent / "other")
    assert line(repo, "show", f"{commit}:y") == "y"
