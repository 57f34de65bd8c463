"""Run folders and logs: private, never through a link, and no reason to end a run."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.run_dir import LogFile, RunDirectory, new_run_id
from claude_orchestrator.errors import UserError


def spec(name: str) -> LaunchSpec:
    config = parse_config({"instances": [{"name": name, "prompt": "x"}]}, "x")
    return make_plan(config, Settings(), workspace="/", claude_bin="claude").specs[0]


def test_logs_are_private_and_hold_the_bytes_as_they_came(tmp_path: Path) -> None:
    folder = RunDirectory.make(tmp_path / "runs", "run", print)
    log = folder.open_log(spec("../../etc/passwd *"), 1)
    assert log is not None and Path(log.path) == tmp_path / "runs" / "run" / "001-etc-passwd.jsonl"
    log.write(b'{"half":')
    log.write(b"\xff\n")
    log.close()
    log.close()
    assert Path(log.path).read_bytes() == b'{"half":\xff\n'
    assert stat.S_IMODE(Path(log.path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "runs" / "run").stat().st_mode) == 0o700


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    said: list[str] = []
    folder = RunDirectory.make(tmp_path, "run", said.append)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run" / "001-one.jsonl").symlink_to(tmp_path / "victim")
    assert folder.open_log(spec("one"), 1) is None and len(said) == 1
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    folder = RunDirectory.make(tmp_path, "run", said.append)
    logs = [LogFile(folder, Path("/dev/full"), os.open("/dev/full", os.O_WRONLY)) for _ in range(2)]
    for _ in range(3):
        for log in logs:
            log.write(b"line\n")
    assert said == ["logs cannot be written (No space left on device): the run continues without them"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output-dir"):
        RunDirectory.make(tmp_path / "file" / "runs", "run", print)


def test_run_ids_are_in_the_order_of_time() -> None:
    first, second = (new_run_id(datetime(2026, 11, 23, 16, minute)) for minute in (0, 1))
    assert first < second and first.startswith("20261123-160000-")
