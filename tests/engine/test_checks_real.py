"""Checks and worktrees with the real CLI and the stand-in API: every token of every round is on the budgets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness import ROOT, Workplace, run_real
from tests.limits import HUNG_S
from tests.repositories import sh
from tests.stand_in import Call, Reply, StandIn, Text, Tools, claude_env

FIXES: list[Reply] = [
    Tools((Call.bash("echo 1 > count"),)), Text("first try"),
    Tools((Call.bash("echo 2 > count"),)), Text("second try"),
    Tools((Call.bash("echo 3 > count"),)), Text("third try"),
]  # fmt: skip


@pytest.mark.real_cli
def test_a_check_that_fails_twice_and_then_passes(claude: str, tmp_path: Path) -> None:
    check = {"command": 'echo "count is $(cat count)"; [ "$(cat count)" = 3 ]', "rounds": 3}
    one = {"name": "one", "prompt": "please count", "allowed_tools": ["Bash"], "check": check}
    script = {"please count": FIXES[:2], "count is 1": FIXES[2:4], "count is 2": FIXES[4:]}
    # a conversation's replies are counted from its last message that has a marker
    with StandIn(script) as api:
        outcome = run_real({"instances": [one]}, api, claude, tmp_path)
        status = outcome.only
        assert (status.state, status.verified, status.check_rounds) == ("completed", True, 3), status.reason
        assert status.usage == api.billed() and status.exact


@pytest.mark.slow
@pytest.mark.real_cli
def test_eight_worktrees_at_once_whose_changes_are_applied(claude: str, place: Workplace) -> None:
    sh(place.workspace, "git init -q; echo one > a.txt; git add .; git commit -qm first")
    names = [f"n{number}" for number in range(8)]
    script: dict[str, list[Reply]] = {
        f"write {name}!": [Tools((Call.bash(f"echo {name} > file-{name}"),)), Text("done")] for name in names
    }
    instances = [
        {"name": name, "prompt": f"write {name}!", "allowed_tools": ["Bash"], "worktree": True,
         "check": {"command": f"grep -q {name} file-{name}", "rounds": 1}}
        for name in names
    ]  # fmt: skip
    with StandIn(script) as api:
        env = {**place.env, **claude_env(place.root, api.url), "PATH": place.env["PATH"]}
        argv = place.argv("--config", place.config({"instances": instances}), "--report", "report.json", claude=claude)
        done = subprocess.run(
            argv, env=env, cwd=place.root, capture_output=True, text=True, timeout=HUNG_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report = place.report()
        assert report["totals"]["total_tokens"] == api.billed().total_tokens
    assert [entry["changes"]["files"] for entry in report["instances"]] == [1] * 8
    assert place.run("--apply", "last").returncode == 0
    assert [(place.workspace / f"file-{name}").read_text() for name in names] == [f"{name}\n" for name in names]


def test_the_example_is_rehearsed(place: Workplace) -> None:
    done = place.run(
        "--config", str(ROOT / "configs" / "fix-until-green.json"), "--rehearse", "--report", "report.json"
    )
    assert done.returncode == 0, done.stderr
    assert [entry["verified"] for entry in place.report()["instances"]] == [True, True]
    assert done.stdout.count("run its command") + done.stderr.count("run its command") == 2
    assert json.loads((ROOT / "configs" / "fix-until-green.json").read_text())["instances"][0]["worktree"] is True
