"""Instances in worktrees, from the command line: created, kept, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Workplace, content_of
from tests.repositories import sh

WRITES = 'echo "$NAME" > "new-$NAME"'  # as a check: the fake claude changes nothing itself


@pytest.fixture
def repo(place: Workplace) -> Workplace:
    sh(
        place.workspace,
        "git init -q -b main; mkdir sub; echo one > a.txt; echo x > sub/b; git add .; git commit -qm first",
    )
    return place


def instance(name: str = "one", **fields: Any) -> dict[str, Any]:
    check = {"command": WRITES, "rounds": 1}
    return {"name": name, "prompt": "x", "worktree": True, "check": check, "env": {"NAME": name}, **fields}


def run_of(place: Workplace) -> Path:
    (run,) = (place.root / "out").iterdir()
    return run


def test_changes_are_in_reports_and_result_lines(repo: Workplace) -> None:
    config = repo.config({"instances": [instance(cwd="sub"), instance("clean", check=None)]})
    done = repo.run("--config", config, "--report", "report.json", "--results", "results.jsonl")
    assert done.returncode == 0, done.stderr
    run = run_of(repo)
    command = f"claude-orchestrator --apply {run.name} --output-dir {run.parent}"
    assert f"\nChanges: 1 file in 1 worktree. Apply them: {command}\n" in done.stdout
    one, clean = repo.report()["instances"]
    assert one["changes"] == {
        "branch": f"orchestrator/{run.name}/one",
        "base": sh(repo.workspace, "git rev-parse HEAD"),
        "path": str(run / "worktrees" / "one"),
        "files": 1,
        "insertions": 1,
        "deletions": 0,
        "patch": str(run / "results" / "one.patch"),
    }
    assert clean["changes"] is None and not (run / "worktrees" / "clean").exists()
    assert "+one" in (run / "results" / "one.patch").read_text().splitlines()
    assert (run / "worktrees" / "one" / "sub" / "new-one").exists()
    refs = "git for-each-ref --format='%(refname:short)' refs/heads refs/orchestrator-changes"  # each is unambiguous
    name = f"{run.name}/one"
    assert sh(repo.workspace, refs).split() == ["main", f"orchestrator/{name}", f"orchestrator-changes/{name}"]
    lines = [json.loads(line) for line in (repo.root / "results.jsonl").read_text().splitlines()]
    assert {line["name"]: line["changes"] for line in lines} == {"one": one["changes"], "clean": None}
    assert sh(repo.workspace, "git status --porcelain") == ""


def test_claude_works_in_the_worktree_and_finds_its_files(repo: Workplace) -> None:
    (repo.workspace / "servers.json").write_text('{"mcpServers": {}}')
    config = repo.config({"instances": [instance(mcp_config="servers.json", check=None)]})
    assert repo.run("--config", config, "--keep-worktrees", FAKE_CLAUDE="echo").returncode == 0
    path = run_of(repo) / "worktrees" / "one"
    assert (repo.root / "cwd.txt").read_text() == str(path) and path.exists()
    argv = json.loads((repo.root / "argv.json").read_text())
    assert f"--mcp-config={repo.workspace}/servers.json" in argv and not any("worktree" in arg for arg in argv)


def test_many_at_once(repo: Workplace) -> None:
    names = [f"n{number}" for number in range(8)]
    config = repo.config({"instances": [instance(name) for name in names]})
    done = repo.run("--config", config, "--report", "report.json")
    assert done.returncode == 0, done.stdout
    assert [entry["changes"]["files"] for entry in repo.report()["instances"]] == [1] * 8
    assert len(sh(repo.workspace, "git branch --list 'orchestrator/*'").splitlines()) == 8


def test_a_failed_attempt_keeps_its_work_and_the_next_continues_there(repo: Workplace) -> None:
    one = instance(check={"command": 'echo x >> grown; [ -e "$FAKE_DIR/go" ]', "rounds": 1})
    config = repo.config({"instances": [one]})
    assert repo.run("--config", config, "--report", "report.json").returncode == 1
    first = repo.report()["instances"][0]["changes"]
    assert first["insertions"] == 1
    (repo.root / "go").touch()
    assert repo.run("--resume", "last", "--report", "report.json").returncode == 0
    assert repo.report()["instances"][0]["changes"] == {**first, "insertions": 2}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["check", "made", "saved"])
def test_killed_at_any_moment_nothing_is_lost(repo: Workplace, moment: str) -> None:
    waits = 'echo work > work; echo $$ > "$FAKE_DIR/pid"; [ -e "$FAKE_DIR/go" ] || exec sleep 600'
    config = repo.config({"instances": [instance(check={"command": waits, "rounds": 1})]})
    process = subprocess.Popen(repo.argv("--config", config), env=repo.env, cwd=repo.root, stdout=-3, stderr=-3)
    content_of(repo.root / "pid", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = run_of(repo)
    journal = run / "journal.jsonl"
    if moment == "saved":  # the instance had completed, and its changes were not kept yet
        (repo.root / "go").touch()
        assert repo.run("--resume", "last").returncode == 0
        lines = journal.read_bytes().splitlines(keepends=True)
        last = max(number for number, line in enumerate(lines) if b'"kind":"check"' in line)
        journal.write_bytes(b"".join(lines[: last + 1]))
        (run / "results" / "one.patch").unlink()
    assert (run / "worktrees" / "one" / "work").exists()
    (repo.root / "go").touch()
    done = repo.run("--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    changes = repo.report()["instances"][0]["changes"]
    assert changes["files"] == 1 and "+work" in Path(changes["patch"]).read_text()
    again = repo.run("--resume", "last", "--report", "report.json")
    assert again.returncode == 0 and repo.report()["instances"][0]["changes"] == changes


def test_a_signal_still_saves_the_changes(repo: Workplace) -> None:
    waits = 'echo work > work; echo $$ > "$FAKE_DIR/pid"; exec sleep 600'
    config = repo.config({"instances": [instance(check={"command": waits})]})
    process = subprocess.Popen(
        repo.argv("--config", config), env=repo.env, cwd=repo.root, stdout=-3, stderr=-3, start_new_session=True
    )
    content_of(repo.root / "pid", process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert "+work" in (run_of(repo) / "results" / "one.patch").read_text()


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("No space left on device", "No space left on device"),
        ("error: unable to write file a.txt", "unable to write file a.txt: is the disk full?"),
    ],
)
def test_what_cannot_be_made_fails_that_instance_in_one_line(repo: Workplace, says: str, why: str) -> None:
    """As a full disk does; the others go on."""
    filter = f"git config filter.bad.smudge 'echo {says} >&2; false'; git config filter.bad.required true"
    sh(repo.workspace, f"echo 'a.txt filter=bad' > .gitattributes; git add .; git commit -qm f; {filter}")
    config = repo.config({"instances": [instance(), {"name": "two", "prompt": "x"}]})
    done = repo.run("--config", config, "--report", "report.json")
    one, two = repo.report()["instances"]
    assert done.returncode == 1 and (one["status"], two["status"]) == ("failed", "completed")
    assert one["reason"] == f"cannot be launched: worktree: {why}"
    assert not (run_of(repo) / "worktrees" / "one").exists()
    assert len(sh(repo.workspace, "git worktree list").splitlines()) == 1


# -- before the start --


def refused(place: Workplace, *instances: dict[str, Any], **env: str) -> str:
    config = place.config({"instances": list(instances)})
    for mode in ((), ("--dry-run",)):
        done = place.run("--config", config, *mode, **env)
        assert done.returncode == 2, done.stdout
    assert not (place.root / "out").exists()
    return done.stderr


@pytest.mark.slow
def test_no_repository(place: Workplace) -> None:
    assert f"ERROR: one: worktree: {place.workspace}: not a git repository" in refused(place, instance())
    sh(place.workspace, "git init -q")
    assert "the repository has no commit yet: commit something first" in refused(place, instance())
    bare = place.workspace / "bare"
    sh(place.workspace, "git init -q --bare bare")
    assert "must be run in a work tree" in refused(place, instance(cwd=str(bare)))


@pytest.mark.slow
def test_bases_names_and_branches(repo: Workplace) -> None:
    assert "base: nothing: no such commit or branch" in refused(repo, instance(base="nothing"))
    two = [instance("a", worktree="x"), instance("b", worktree="x")]
    assert "b: worktree: x also belongs to a" in refused(repo, *two)
    assert "--worktree in extra_args" in refused(repo, instance(extra_args=["--worktree"]))
    assert "GIT_DIR is set" in refused(repo, instance(), GIT_DIR="x")
    sh(repo.workspace, "git branch orchestrator")
    assert "a branch has the name orchestrator" in refused(repo, instance())


def test_no_git(repo: Workplace) -> None:
    (repo.root / "bin").mkdir()
    assert "git is not installed" in refused(repo, instance(), PATH=str(repo.root / "bin"))


def test_warnings(repo: Workplace) -> None:
    (repo.workspace / "new").write_text("")
    writers = [{"name": f"w{n}", "prompt": "x", "permission_mode": "acceptEdits"} for n in range(5)]
    config = repo.config({"instances": [instance(), *writers]})
    text = repo.run("--config", config, "--dry-run").stdout
    assert "worktrees begin without the uncommitted changes of 1 file" in text
    assert "WARNING: w0, w1, w2 and 2 more can change files in" in text
    assert "worktree:  one, which begins with HEAD" in text
    assert "can change files in" not in repo.run("--config", config, "--dry-run", "--max-parallel", "1").stdout


def test_submodules_are_named_as_empty(repo: Workplace) -> None:
    sh(repo.workspace, f"git update-index --add --cacheinfo 160000,{'1234567890' * 4},lib/one; git commit -qm link")
    text = repo.run("--config", repo.config({"instances": [instance()]}), "--dry-run").stdout
    assert f"WARNING: {repo.workspace}: submodules are empty folders in worktrees: lib/one" in text


def test_a_rehearsal_makes_none(place: Workplace) -> None:
    config = place.config({"instances": [instance()], "rehearsal": {"seconds": 0.05}})
    assert place.run("--config", config, "--rehearse").returncode == 0


# -- a worktree that begins with the work of another instance --


def test_a_base_can_be_the_branch_of_a_dependency(repo: Workplace) -> None:
    check = {"command": "test -e new-plan && cat {{results.plan}}", "rounds": 1}
    after = instance("do", base="{{branch.plan}}", depends_on=["plan"], check=check)
    clean = {"name": "look", "prompt": "x", "worktree": True}
    late = instance("late", base="{{branch.look}}", depends_on=["look"])
    sh(repo.workspace, "echo d > done; git add .; git commit -qm done")  # the answer of the fake claude is `done`
    config = repo.config({"instances": [instance("plan"), after, clean, late]})
    done = repo.run("--config", config, "--report", "report.json")
    assert done.returncode == 0, done.stdout
    plan, do, look, last = repo.report()["instances"]
    assert do["verified"] and look["changes"] is None and do["changes"] is None
    assert plan["changes"]["files"] == last["changes"]["files"] == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"base": "{{branch.plan.x}}"}, "a branch has no parts: write {{branch.plan}}"),
        ({"base": "{{branch.none}}"}, "none has no worktree, and so no branch"),
        ({"worktree": "{{branch.plan}}"}, "it belongs to base"),
        ({"base": "{{branch.plam}}"}, "no instance or group has this name"),
    ],
)
def test_faults_of_a_branch(repo: Workplace, fields: dict[str, Any], why: str) -> None:
    none = {"name": "none", "prompt": "x"}
    assert why in refused(repo, instance("plan"), none, instance("do", depends_on=["plan", "none"], **fields))
