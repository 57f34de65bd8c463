"""What a node keeps of repositories stays within bounds, and is its user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claude_orchestrator.launch.cluster.kept_repositories import MOST_COMMITS, MOST_REPOSITORIES, KeptRepositories
from claude_orchestrator.launch.shipping import pack, snapshot, unpack
from tests.repositories import sh

pytestmark = pytest.mark.processes


class Repository:
    """One that changes, and a store that it has travelled to."""

    def __init__(self, folder: Path) -> None:
        self.at_home, self._store = folder / "home", folder / "store"
        self.at_home.mkdir()
        sh(self.at_home, "git init -q -b main; echo one > a; git add .; git commit -qm first")
        self.commits: list[str] = []

    def travel(self, size: int = 10) -> Path:
        (self.at_home / "a").write_bytes(os.urandom(size))
        self.commits.append(snapshot(self.at_home))
        return unpack(pack(self.at_home, self.commits[-1]), self._store, self.commits[-1])


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def test_nothing_is_lent_before_anything_was_kept(tmp_path: Path) -> None:
    kept = KeptRepositories(tmp_path / "kept")
    assert kept.lend("one", tmp_path / "place") == []
    kept.drop("one")
    assert not list(tmp_path.iterdir())


def test_the_repositories_that_were_used_last_stay(repository: Repository, tmp_path: Path) -> None:
    kept, place = KeptRepositories(tmp_path / "kept"), repository.travel()
    for number in range(MOST_REPOSITORIES):
        kept.keep(f"r{number}", place)
        os.utime(tmp_path / "kept" / f"r{number}.git", (number, number))
    assert kept.lend("r0", tmp_path / "lent") == repository.commits
    kept.keep("more", place)
    assert len(names(tmp_path / "kept")) == MOST_REPOSITORIES and "r1" not in names(tmp_path / "kept")
    small = KeptRepositories(tmp_path / "kept", most_bytes=1)
    small.keep("more", place)
    assert names(tmp_path / "kept") == [] and sh(tmp_path / "lent", "git cat-file -t " + repository.commits[0])


def test_of_a_repository_the_latest_commits_stay(repository: Repository, tmp_path: Path) -> None:
    kept = KeptRepositories(tmp_path / "kept")
    place = repository.travel()
    kept.keep("one", place)
    make = 'GIT_COMMITTER_DATE="@$((2000000000 + n)) +0000" git commit-tree -m $n $tree'
    keep = "git update-ref refs/claude-orchestrator/shipped/$made $made; echo $made"
    loop = f"for n in $(seq {MOST_COMMITS}); do made=$({make}); {keep}; done"
    made = sh(place, f"tree=$(git rev-parse {repository.commits[0]}^{{tree}}); {loop}").split()
    kept.keep("one", place)
    assert kept.lend("one", tmp_path / "lent") == made[::-1]


def test_a_folder_that_others_can_enter_is_not_used(repository: Repository, tmp_path: Path) -> None:
    folder, place = tmp_path / "kept", repository.travel()
    folder.mkdir(mode=0o755)
    kept = KeptRepositories(folder)
    kept.keep("one", place)
    assert names(folder) == []
    folder.chmod(0o700)
    kept.keep("one", place)
    folder.chmod(0o750)
    assert kept.lend("one", tmp_path / "lent") == [] and names(folder) == ["one"]
    folder.chmod(0o700)
    assert kept.lend("one", tmp_path / "lent") == repository.commits
