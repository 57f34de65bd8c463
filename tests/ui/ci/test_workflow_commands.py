"""What the log of GitHub Actions gets: annotations, groups, and no commands of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.ui.ci.workflow_commands import annotation, group, plain


@pytest.mark.parametrize(
    ("level", "text", "line"),
    [
        ("ERROR", "it broke", "::error title=claude-orchestrator::it broke"),
        ("WARNING", "80 % used: a, b", "::warning title=claude-orchestrator::80 %25 used: a, b"),
        ("INFO", "one: completed", "INFO: one: completed"),
        ("ERROR", "a\r\n::add-mask::b", "::error title=claude-orchestrator::a\\x0d\\x0a::add-mask::b"),
        ("WARNING", "x ##[error]y", "::warning title=claude-orchestrator::x ## [error]y"),
        ("INFO", "x ##[set-env]y", "INFO: x ## [set-env]y"),
    ],
)
def test_annotations(level: str, text: str, line: str) -> None:
    assert annotation(level, text) == line


def test_a_group() -> None:
    assert list(group(["1/2 done, 50 %", "one", "::endgroup::"])) == [
        "::group::1/2 done, 50 %25",
        "one",
        ": :endgroup::",
        "::endgroup::",
    ]


@given(st.text().map(lambda text: text.replace("\n", " ")))
def test_no_text_is_a_command(text: str) -> None:
    for line in (text, f"::{text}", f" \t::{text}", f"{text}##[{text}"):
        assert not plain(line).lstrip().startswith("::") and "##[" not in plain(line)
        assert "\n" not in annotation("ERROR", line) and "##[" not in annotation("INFO", line)


def run_in_a_workflow(tmp_path: Path, config: Mapping[str, object], *args: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "claude-orchestrator.json").write_text(json.dumps(config))
    argv = [sys.executable, "-m", "claude_orchestrator", "--rehearse", "--workspace", str(tmp_path), *args]
    argv += ["--ledger", "off", "--output-dir", str(tmp_path / "out")]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "FORCE_COLOR": "1",
    }
    return subprocess.run(argv, capture_output=True, text=True, env=environ, check=False)


BLOCKED = {
    "instances": [
        {"name": "::stop-commands::x", "prompt": "x", "rehearsal": {"tokens": 900, "seconds": 0.6}},
        {"name": "two ##[error]", "prompt": "x", "max_tokens_per_command": 5_000},
    ],
    "budget": {"overall_budget": 2_000, "enforcement_mode": "block"},
}


def test_a_run_in_a_workflow(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n")
    done = run_in_a_workflow(tmp_path, BLOCKED, "--status-report-interval", "0.2")
    assert done.returncode == 1
    both = done.stdout + done.stderr
    commands = [line.split("::")[1].split()[0] for line in both.splitlines() if line.lstrip().startswith("::")]
    assert {*commands} <= {"error", "warning", "group", "endgroup"} and "error" in commands
    assert commands.count("group") == commands.count("endgroup") >= 1
    assert "##[" not in both and "\033" not in both
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("before\n### claude-orchestrator: REHEARSAL · 1/2 done · 1 blocked")


def test_a_bad_config_is_an_annotation(tmp_path: Path) -> None:
    done = run_in_a_workflow(tmp_path, {"instances": []})
    assert done.returncode == 2 and done.stderr.startswith("::error title=claude-orchestrator::")


def test_a_full_summary_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_bytes(b"x" * 1024 * 1024)
    done = run_in_a_workflow(tmp_path, {"instances": [{"name": "one", "prompt": "x", "rehearsal": {"seconds": 0.1}}]})
    assert done.returncode == 0
    assert "GITHUB_STEP_SUMMARY: " in done.stderr and "there is no room left in it" in done.stderr
    assert (tmp_path / "summary.md").stat().st_size == 1024 * 1024


def test_a_summary_in_a_file_and_on_standard_output(tmp_path: Path) -> None:
    config: dict[str, object] = {"instances": [{"name": "one", "prompt": "x", "rehearsal": {"seconds": 0.1}}]}
    done = run_in_a_workflow(tmp_path, config, "--summary", str(tmp_path / "mine.md"))
    assert done.returncode == 0 and (tmp_path / "mine.md").read_text().startswith("### claude-orchestrator: ")
    done = run_in_a_workflow(tmp_path, config, "--summary", "-")
    assert done.stdout.startswith("### claude-orchestrator: ") and "| <code>one</code> | completed |" in done.stdout
    done = run_in_a_workflow(tmp_path, config, "--summary", "-", "--report", "-")
    assert done.returncode == 2 and "only one of them can have standard output" in done.stderr
