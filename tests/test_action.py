"""The steps of the composite action, run by a shell as a runner runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.limits import HUNG_S

ACTION = (ROOT / "action.yml").read_text()
EXAMPLE = ROOT / ".github" / "examples" / "shared-daily-limit.yml"
RUNNER = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]


def step(name: str) -> tuple[str, dict[str, str]]:
    """The script of a step, and the inputs that its environment has by variable."""
    (text,) = re.findall(rf"^    - name: {name}\n(.*?)(?=^    - |\Z)", ACTION, re.MULTILINE | re.DOTALL)
    head, _, script = text.partition("      run: |")
    lines = script.split("\n")[1:]
    assert all(line.startswith("        ") or not line for line in lines)
    env = dict(re.findall(r"^        ([A-Z_]+): \$\{\{ inputs\.([a-z-]+) \}\}$", head, re.MULTILINE))
    return "\n".join(line[8:] for line in lines), env


def defaults() -> dict[str, str]:
    found = re.findall(r"^  ([a-z-]+):\n    description: .*\n    default: (.*)$", ACTION, re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


class Runner:
    """What a runner gives to a step, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        (tools / "claude").symlink_to(Path(__file__).with_name("fake_claude.py"))
        (tools / "python").symlink_to(sys.executable)
        program = tools / "claude-orchestrator"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m claude_orchestrator "$@"\n')
        program.chmod(0o755)
        self.env = {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "FAKE_DIR": str(folder),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "RUNNER_TEMP": str(folder),
        }

    def run(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        script, env = step(name)
        values = defaults() | {key.replace("_", "-"): value for key, value in inputs.items()}
        (self.folder / "step.sh").write_text(script)
        given = {variable: values[of] for variable, of in env.items()}
        return subprocess.run(
            [*RUNNER, str(self.folder / "step.sh")],
            env=self.env | given,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / "output").read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="a runner has bash")


def test_a_config(runner: Runner) -> None:
    config = {"instances": [{"name": "one", "prompt": "x"}, {"name": "two", "prompt": "y", "fail_on_denied": False}]}
    (runner.folder / "my runs.json").write_text(json.dumps(config))
    done = runner.run("Run", config="my runs.json", options="--max-parallel 1 --log-level 'warning'", ledger="l.db")
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = runner.outputs
    report = json.loads(Path(outputs["report"]).read_text())
    assert int(outputs["tokens"]) == report["totals"]["total_tokens"] > 0 and outputs["exit-code"] == "0"
    assert float(outputs["cost"]) == report["totals"]["cost_usd"] and outputs["answer"] == ""
    assert len(Path(outputs["results"]).read_text().splitlines()) == 2 and (runner.folder / "l.db").exists()
    assert "| <code>two</code> | completed |" in (runner.folder / "summary.md").read_text()
    assert "INFO" not in done.stderr


def test_a_prompt_within_budgets(runner: Runner) -> None:
    done = runner.run("Run", prompt="--help $(touch hacked) `touch hacked`", overall_token_budget="500k")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(runner.outputs["answer"]).read_text() == "done\n" and "done" not in done.stdout.splitlines()
    assert not (runner.folder / "hacked").exists()
    done = runner.run("Run", prompt="x", overall_token_budget="10")
    assert done.returncode == 1 and "::error title=claude-orchestrator::BLOCK MODE" in done.stderr
    assert runner.outputs["exit-code"] == "1" and runner.outputs["tokens"] == "0"


def test_a_bad_config(runner: Runner) -> None:
    done = runner.run("Run", config="none.json", daily_cost_budget="much")
    assert done.returncode == 2 and done.stderr.startswith("::error ")
    assert runner.outputs == {
        "exit-code": "2", "tokens": "", "cost": "", "report": "", "results": "", "answer": ""
    }  # fmt: skip


def test_a_daily_limit_is_shared_by_the_ledger(runner: Runner) -> None:
    (runner.folder / "claude-orchestrator.json").write_text(json.dumps({"instances": [{"name": "one", "prompt": "x"}]}))
    limit = {"daily_token_budget": "1500", "ledger": "ledger/ledger.db"}
    assert runner.run("Run", **limit).returncode == 0
    again = runner.run("Run", **limit)
    assert again.returncode == 1 and "daily budget" in again.stderr


def test_the_key_reaches_claude_and_nothing_else(runner: Runner) -> None:
    fake = runner.folder / "tools" / "claude"
    fake.unlink()
    keep = "os.environ.get('ANTHROPIC_API_KEY', ''), 'API_KEY' in os.environ"
    fake.write_text(
        f"#!{sys.executable}\nimport os, runpy\nopen({str(runner.folder / 'key')!r}, 'w').write(repr(({keep})))\n"
        f"runpy.run_path({str(Path(__file__).with_name('fake_claude.py'))!r}, run_name='__main__')\n"
    )
    fake.chmod(0o755)
    done = runner.run("Run", prompt="x", anthropic_api_key="k-1")
    assert done.returncode == 0, done.stderr
    assert (runner.folder / "key").read_text() == "('k-1', False)"
    assert "k-1" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("inputs", "called"),
    [
        ({}, ["python -m pip install --quiet {root}[gateway,cost]", "npm {npm}@latest"]),
        (
            {"version": "1.2", "claude_version": "none"},
            ["python -m pip install --quiet claude-orchestrator[gateway,cost]==1.2"],
        ),
        ({"claude_version": "2.1.332"}, ["python -m pip install --quiet {root}[gateway,cost]", "npm {npm}@2.1.332"]),
    ],
)
def test_what_is_installed(runner: Runner, inputs: dict[str, str], called: list[str]) -> None:
    """The package managers are stand-ins: a test installs nothing."""
    for name in ("python", "npm"):
        tool = runner.folder / "tools" / name
        tool.unlink(missing_ok=True)
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >> "{runner.folder}/called"\n')
        tool.chmod(0o755)
    assert runner.run("Install", **inputs).returncode == 0
    npm = "install --global --silent --no-fund --no-audit @anthropic-ai/claude-code"
    assert (runner.folder / "called").read_text().splitlines() == [one.format(root=ROOT, npm=npm) for one in called]


def test_each_input_is_used_and_documented() -> None:
    inputs = set(defaults())
    page = (ROOT / "docs" / "ci.md").read_text()
    assert inputs == set(re.findall(r"inputs\.([a-z-]+) \}\}", ACTION))
    outputs = re.findall(r"value: \$\{\{ steps\.run\.outputs\.([a-z-]+) \}\}", ACTION)
    assert {name for name in (*inputs, *outputs) if f"`{name}`" not in page} == set()
    assert EXAMPLE.read_text().partition("\n")[2] in page
