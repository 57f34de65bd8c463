"""The folder of a local cluster goes with its run, or with the next one if the run was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from claude_orchestrator.launch.cluster.local_folder import local_folder
from tests.harness import ROOT

HOLD = """
from claude_orchestrator.launch.cluster.local_folder import local_folder
with local_folder() as folder:
    (folder / "session").mkdir(parents=True)
    print(folder.parent, flush=True)
    input()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_the_run_and_others_stay(place: Path) -> None:
    for name in ("co-ray-new", "other", "co-ray-abandoned/r"):
        (place / name).mkdir(parents=True)
    (place / "co-ray-abandoned" / "lock").touch()
    (place / "co-ray-file").touch()
    (place / "co-ray-link").symlink_to(place / "other")
    (place / "other" / "lock").touch()
    with local_folder() as folder, local_folder() as second:
        assert folder.parent.stat().st_mode & 0o777 == 0o700 and folder.parent.parent == place
        assert folder.parent.is_dir() and second != folder and not (place / "co-ray-abandoned").exists()
    assert sorted(path.name for path in place.iterdir()) == ["co-ray-file", "co-ray-link", "co-ray-new", "other"]
    assert (place / "other" / "lock").exists()


@pytest.mark.processes
def test_that_of_a_run_that_was_killed_goes_with_the_next_one(place: Path) -> None:
    env = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    argv, pipe = [sys.executable, "-c", HOLD], subprocess.PIPE
    with subprocess.Popen(argv, env=env, text=True, stdin=pipe, stdout=pipe) as run:
        assert run.stdout is not None
        left = Path(run.stdout.readline().strip())
        with local_folder():
            assert (left / "r" / "session").is_dir()  # it is in use
        run.kill()
    with local_folder():
        assert not left.exists()
    assert list(place.iterdir()) == []
