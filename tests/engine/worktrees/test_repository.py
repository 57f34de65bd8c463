"""Worktrees on the disk, with real git: what an instance changed is never lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from claude_orchestrator.engine.worktrees.changes import Changes, Worktree, changes_from, figures_of, stem_of
from claude_orchestrator.engine.worktrees.repository import WorktreePath, make, read_record, resolve, save
from claude_orchestrator.launch.git import GitError, git, line
from tests.repositories import sh


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    sh(folder, "git init -q -b main; mkdir sub; echo one > a.txt; echo x > sub/b.txt; git add .; git commit -qm first")
    return folder


def place_of(repo: Path, name: str = "fix", folder: str = "") -> WorktreePath:
    return WorktreePath(str(repo / folder), repo.parent / "run" / "worktrees" / name, f"orchestrator/run/{name}")


def close(place: WorktreePath, worktree: Worktree, *, keep_clean: bool = False) -> tuple[Changes | None, str]:
    return save(place, worktree, place.path.parent.parent / "results" / "fix.patch", keep_clean=keep_clean)


def test_committed_uncommitted_and_new_files_are_in_the_patch(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "echo two >> a.txt; git commit -qam own; rm sub/b.txt; printf 'a\\0b' > bin; ln -s a.txt link")
    sh(worktree.cwd, "echo staged > 'new \"file'; git add 'new \"file'; chmod +x a.txt")
    before = sh(worktree.cwd, "git status --porcelain")
    changes, doubt = close(place, worktree)
    assert changes is not None and not doubt and changes.patch is not None
    assert (changes.files, changes.insertions, changes.deletions) == (5, 3, 1)
    assert sh(worktree.cwd, "git status --porcelain") == before  # the worktree's own index is untouched
    assert Path(changes.patch).stat().st_mode & 0o777 == 0o600
    clone = repo.parent / "clone"
    sh(repo.parent, f"git clone -q repo clone; git -C clone apply --index {changes.patch}")
    assert sh(clone, "git write-tree") == sh(repo, f"git rev-parse {changes.commit}^{{tree}}")
    assert (clone / "bin").read_bytes() == b"a\0b" and os.access(clone / "a.txt", os.X_OK)


def test_a_change_of_the_same_second_and_size_as_the_index_is_in_the_patch(repo: Path) -> None:
    sh(repo, "git config core.trustctime false; git config core.checkStat minimal")
    place = place_of(repo)
    worktree = make(place, None)
    index = line(worktree.path, "rev-parse", "--path-format=absolute", "--git-path", "index")
    sh(worktree.path, f"touch -d @1000000000 a.txt; git update-index --refresh; touch -d @1000000000 {index}")
    sh(worktree.path, "echo two > a.txt; touch -d @1000000000 a.txt")
    changes, _ = close(place, worktree)
    assert changes is not None and (changes.insertions, changes.deletions) == (1, 1)


def test_the_users_settings_change_nothing(repo: Path) -> None:
    sh(
        repo,
        "printf 'a\\r\\nb\\r\\n' > crlf.txt; echo '*.txt diff=upper' > .gitattributes; git add .; git commit -qm crlf",
    )
    for name, value in {
        "core.autocrlf": "true", "core.hooksPath": str(repo / "hooks"), "commit.gpgSign": "true",
        "diff.external": "false", "diff.upper.textconv": "false", "diff.noprefix": "true", "color.ui": "always",
        "diff.renames": "copies", "core.fsmonitor": "false",
    }.items():  # fmt: skip
        sh(repo, f"git config {name} {value}")
    (repo / "hooks").mkdir()
    for hook in ("post-checkout", "pre-commit", "reference-transaction"):
        (repo / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
        (repo / "hooks" / hook).chmod(0o755)
    place = place_of(repo)
    worktree = make(place, None)
    assert (Path(worktree.cwd) / "crlf.txt").read_bytes() == b"a\r\nb\r\n"
    (Path(worktree.cwd) / "a.txt").write_text("changed\n")
    changes, doubt = close(place, worktree)
    assert changes is not None and changes.files == 1 and not doubt and changes.patch is not None
    text = Path(changes.patch).read_text()
    assert text.startswith("diff --git a/a.txt b/a.txt\n") and "\x1b" not in text


def test_a_clean_one_is_removed_unless_it_is_to_be_kept(repo: Path) -> None:
    place = place_of(repo)
    assert close(place, make(place, None), keep_clean=True) == (None, "")
    assert place.path.exists()
    assert close(place, make(place, None)) == (None, "")
    assert not place.path.exists() and sh(repo, "git branch --list 'orchestrator/*'") == ""
    assert len(sh(repo, "git worktree list").splitlines()) == 1


def test_an_empty_commit_is_a_change(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "git commit -q --allow-empty -m note")
    changes, _ = close(place, worktree)
    assert changes is not None and changes.files == 0 and place.path.exists()


def test_the_folder_of_the_instance_is_kept(repo: Path) -> None:
    worktree = make(place_of(repo, folder="sub"), None)
    assert worktree.cwd == f"{worktree.path}/sub" and (Path(worktree.cwd) / "b.txt").exists()
    (repo / "untracked").mkdir()
    worktree = make(place_of(repo, "other", "untracked"), None)
    assert list(Path(worktree.cwd).iterdir()) == []


def test_detached_head_and_other_bases(repo: Path) -> None:
    first = sh(repo, "git rev-parse HEAD")
    sh(repo, "git branch side; echo z > z; git add z; git commit -qm second; git checkout -q --detach")
    second = sh(repo, "git rev-parse HEAD")
    assert make(place_of(repo, "a"), None).base == second
    assert make(place_of(repo, "b"), "side").base == first
    assert make(place_of(repo, "c"), first[:10]).base == first
    for bad in ("nothing", "--all", "HEAD:a.txt"):
        with pytest.raises(GitError, match="no such commit or branch"):
            make(place_of(repo, "d"), bad)
    assert not place_of(repo, "d").path.exists()


def test_a_base_of_ours_has_what_was_not_committed(repo: Path) -> None:
    place = place_of(repo, "plan")
    worktree = make(place, None)
    (Path(worktree.cwd) / "plan.md").write_text("do it\n")
    changes, _ = close(place, worktree)
    assert changes is not None and resolve(str(repo), place.branch) == changes.commit
    after = make(place_of(repo, "do"), place.branch)
    assert (Path(after.cwd) / "plan.md").read_text() == "do it\n" and after.base == changes.commit


def test_no_repository_no_commit_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GitError, match="not a git repository"):
        make(WorktreePath(str(tmp_path), tmp_path / "w", "b"), None)
    sh(tmp_path, "git init -q")
    with pytest.raises(GitError, match="no commit yet"):
        make(WorktreePath(str(tmp_path), tmp_path / "w", "b"), None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed"):
        make(WorktreePath(str(tmp_path), tmp_path / "w", "b"), None)


def test_a_branch_in_the_way(repo: Path) -> None:
    sh(repo, "git branch orchestrator")
    with pytest.raises(GitError, match=r"orchestrator/run/fix"):
        make(place_of(repo), None)
    assert not place_of(repo).path.exists() and read_record(place_of(repo)) is None


def test_a_filter_that_is_not_installed_is_named_and_no_branch_is_left(repo: Path) -> None:
    """A repository with large files in Git LFS, on a machine without it."""
    sh(repo, "echo '*.bin filter=lfs' > .gitattributes; echo pointer > a.bin; git add .; git commit -qm lfs")
    sh(repo, "git config filter.lfs.process 'no-git-lfs filter-process'; git config filter.lfs.required true")
    for _ in range(2):
        with pytest.raises(GitError, match=r"no-git-lfs|smudge filter lfs failed"):
            make(place_of(repo), None)
    assert sh(repo, "git branch --list 'orchestrator/*'") == "" and not place_of(repo).path.exists()


def test_a_repository_inside_the_worktree_is_reported(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "git clone -q . inner; echo y > y")
    changes, doubt = close(place, worktree)
    assert (
        changes is not None
        and "lacks the files of a repository that was created there, inner" in doubt
        and place.path.exists()
    )


def test_a_killed_start_leaves_nothing_that_harms_the_next(repo: Path) -> None:
    """Without its record a worktree was never complete, so no instance has worked in it."""
    place = place_of(repo)
    make(place, None)
    (place.path / "a.txt").unlink()  # as if git was killed while it wrote the files
    place.record.unlink()
    worktree = make(place, None)
    assert (place.path / "a.txt").exists() and close(place, worktree) == (None, "")


def test_a_removed_worktree_comes_back_with_its_work(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    (place.path / "new").write_text("saved\n")
    close(place, worktree)
    shutil.rmtree(place.path)
    sh(repo, "git worktree prune; git branch -qD orchestrator/run/fix")
    assert make(place, None) == worktree and (place.path / "new").read_text() == "saved\n"
    assert make(place, None) == worktree  # and one that is there is found


def test_an_instance_that_removes_its_worktree(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "echo c > c; git add c; git commit -qm c")
    sh(repo, f"git worktree remove --force {worktree.path}")
    changes, doubt = close(place, worktree)
    assert changes is not None and (changes.files, changes.path, doubt) == (1, None, "")
    other = place_of(repo, "other")
    worktree = make(other, None)
    (other.path / ".git").unlink()
    changes, doubt = save(other, worktree, repo.parent / "x.patch", keep_clean=False)
    assert changes is not None and changes.path == str(other.path) and "lost its repository" in doubt


def test_what_git_cannot_add_is_reported_and_the_rest_is_kept(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "mkdir nested; git -C nested init -q; echo y > y")
    changes, doubt = close(place, worktree)
    assert changes is not None and changes.files >= 1 and "nested" in doubt and place.path.exists()


def test_a_file_with_holes_is_left_out_and_named(repo: Path) -> None:
    """It claims a terabyte, which git would read for an hour; the rest is kept."""
    place = place_of(repo)
    known = make(place, None)
    folder = Path(known.path)
    for name in ("*.holes", "sub/b.txt"):
        with (folder / name).open("wb") as file:
            file.truncate(2**40)
    (folder / "new").write_text("work")
    os.mkfifo(folder / "pipe")
    changes, doubt = close(place, known)
    assert changes is not None and changes.files == 1 and (folder / "*.holes").exists()
    assert doubt == "the patch lacks files of more than 1 GiB, *.holes, sub/b.txt"


def test_a_conflict_that_is_not_resolved(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    sh(worktree.cwd, "git checkout -qb other; echo b > a.txt; git commit -qam b; git checkout -q -; echo c > a.txt")
    sh(worktree.cwd, "git commit -qam c; git merge other || true")
    changes, doubt = close(place, worktree)
    assert changes is not None and changes.patch is not None and "<<<<<<<" in Path(changes.patch).read_text()
    assert doubt == ""


def test_a_patch_that_cannot_be_written(repo: Path) -> None:
    place = place_of(repo)
    worktree = make(place, None)
    (place.path / "new").write_text("x\n")
    blocked = repo.parent / "blocked"
    blocked.write_text("")
    changes, doubt = save(place, worktree, blocked / "x.patch", keep_clean=False)
    assert changes is not None and changes.patch is None and changes.files == 1
    assert doubt.startswith("its patch cannot be written: ")


def test_the_environment_of_a_hook_leads_nowhere(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(repo.parent / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repo.parent / "index"))
    assert line(repo, "rev-parse", "--show-toplevel") == str(repo)


def test_figures() -> None:
    assert figures_of(b"3\t1\ta\0-\t-\tb\tc\0" + b"1\t0\td\ne\0") == (3, 4, 1)
    assert figures_of(b"") == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("fix", "fix"), ("fix[a/b]", "fix-a-b-"), ("a..b", "a-.b-"), ("x.lock", "x-lock-"), ("-", "instance-")],
)
def test_names_are_safe_for_git(repo: Path, name: str, stem: str) -> None:
    found = stem_of(name)
    assert found.startswith(stem) and (found == name or len(found) >= len(stem) + 8)
    git(repo, "check-ref-format", f"refs/heads/orchestrator/x/{found}")
    assert stem_of(name, [found.upper()]).casefold() != found.casefold() or found != name


def test_changes_survive_the_journal() -> None:
    changes = Changes("b", "c", "d", None, 1, 2, 3, None)
    assert changes_from(changes._asdict()) == changes and changes_from(None) is None
    assert "commit" not in changes.fields
    faulty: tuple[object, ...] = ([], {"branch": "x"})
    for bad in faulty:
        with pytest.raises((TypeError, KeyError)):
            changes_from(bad)
