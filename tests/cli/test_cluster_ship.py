"""`--cluster-workspace ship`: the repository travels to nodes of Ray, and what instances do there comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import FAKE, Workplace
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY, ray_nodes
from tests.repositories import sh
from tests.stand_in import Call, Script, StandIn, Text, Tools, claude_env

ITEMS = ("a", "b", "c", "d")
SHIP = ("--cluster-workspace", "ship")
# the first attempt at d ends in the middle of its work
EDITS = {
    item: f"cat open > got.{item}; echo {item} >> list.{item}; rm -f old.{item}; pwd > where.{item}" for item in ITEMS
}
EDITS["d"] = f"if [ -e began ]; then {EDITS['d']}; else echo began > began; kill -9 $PPID; sleep 9; fi"
SCRIPT: Script = {
    **{f"edit {item}": [Tools((Call.bash(EDITS[item]),)), Text("All done.")] for item in ITEMS},
    "You were interrupted": [Tools((Call.bash(EDITS["d"]),)), Text("All done.")],
}


def repository(folder: Path) -> Path:
    """A repository with a change that is not committed."""
    folder.mkdir(exist_ok=True)
    sh(folder, "git init -q -b main; for x in a b c d; do echo 0 > list.$x; echo x > old.$x; done; echo closed > open")
    sh(folder, "git add .; git commit -qm first; echo opened > open")
    return folder


def test_ship_without_a_cluster_and_without_a_repository_is_refused(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    config = place.config({"instances": [{"name": "one", "prompt": "x"}]})
    done = place.run("--config", config, *SHIP)
    assert done.returncode == 2 and "ERROR: --cluster-workspace ship: needs --cluster" in done.stderr
    done = place.run("--config", config, *SHIP, "--cluster", "local")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.count("ERROR") == 1
    assert f"--cluster-workspace ship: {place.workspace}: not a git repository" in done.stderr


@WITH_RAY
@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_warns_of_no_change_that_travels(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    repository(place.workspace)
    config = place.config({"instances": [{"name": "one", "prompt": "x"}]})
    before = sh(place.workspace, "git count-objects")
    argv = place.argv("--config", config, *SHIP, "--cluster", "local", "--dry-run", claude=str(FAKE))
    env = {**place.env, "ANTHROPIC_API_KEY": "dummy"}
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=HUNG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "The repository travels to each node" in done.stdout
    assert "uncommitted" not in done.stdout + done.stderr
    assert "worktree:  one, which begins with HEAD and all that is not committed" in done.stdout
    assert sh(place.workspace, "git count-objects") == before


@WITH_RAY
@pytest.mark.slow
@pytest.mark.real_cli
def test_the_real_cli_edits_files_on_two_nodes_and_its_changes_are_applied(claude: str, tmp_path: Path) -> None:
    home, workspace = tmp_path / "home", repository(tmp_path / "work")
    home.mkdir()
    one = {"name": "edit", "for_each": list(ITEMS), "prompt": "edit {{item}}", "permission_mode": "bypassPermissions"}
    (tmp_path / "runs.json").write_text(json.dumps({"instances": [one]}))
    program = [sys.executable, "-m", "claude_orchestrator", "--output-dir", str(tmp_path / "out")]
    with StandIn(SCRIPT) as api, ray_nodes(2) as nodes:
        env = {**claude_env(home, api.url), "ANTHROPIC_API_KEY": "dummy", **nodes.env}
        own = ["--workspace", str(workspace), "--claude-bin", claude, "--ledger", "off", "--retries", "1"]
        files = ["--config", str(tmp_path / "runs.json"), "--report", str(tmp_path / "report.json")]
        argv = [*program, *own, *files, *SHIP, "--cluster", nodes.address]
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=HUNG_S, check=False)
        (kept,) = Path(nodes.folder, "state", "claude-orchestrator", "shipped").iterdir()  # of both nodes
        assert sh(kept, "git for-each-ref")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    # 2.1.197 finds a session in the folder of another node no more, so it begins a new one
    assert sorted(instance["attempts"] for instance in report["instances"]) in ([1, 1, 1, 2], [1, 1, 1, 3])
    assert sh(workspace, "git status --porcelain") == "M open"
    applied = [*program, "--apply", "last"]
    done = subprocess.run(applied, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=HUNG_S, check=False)
    assert done.returncode == 0, done.stderr
    for item in ITEMS:
        assert (workspace / f"list.{item}").read_text() == f"0\n{item}\n"
        assert (workspace / f"got.{item}").read_text() == "opened\n" and not (workspace / f"old.{item}").exists()
    assert (workspace / "began").exists()  # what the first attempt did
    where = {Path((workspace / f"where.{item}").read_text().strip()).parent for item in ITEMS}
    assert len(where) == 2 and not any(path.exists() for path in where)  # each node had a folder, and none is left
