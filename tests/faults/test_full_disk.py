"""A disk that is really full: a small file system of its own, which only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.worktrees.test_worktrees import instance, run_of
from tests.harness import Workplace
from tests.repositories import sh

MB = 1024 * 1024
Mount = Callable[[Path, int], None]


@pytest.fixture
def small_disk() -> Iterator[Mount]:
    """Mounts an empty file system of so many bytes at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, size_bytes: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        options = f"size={size_bytes},mode=700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
        mounted.append(folder)

    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: Path, size_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(folder)], check=True)


def start_repository(workspace: Path) -> None:
    sh(workspace, "git init -q -b main; echo one > a.txt; git add .; git commit -qm first")


def fills(big: str) -> dict[str, Any]:
    """An instance that does its work, and then writes a large file."""
    return instance(check={"command": f"echo precious > work; {big}; true", "rounds": 1})


ALL_OF_IT = "dd if=/dev/zero of=big bs=64k 2> dd.log"
MOST_OF_IT = "head -c 4000000 /dev/urandom > big"  # the patch is larger


def the_line(stderr: str, *parts: str) -> str:
    """The only line with all of these."""
    (found,) = [line for line in stderr.splitlines() if all(part in line for part in parts)]
    return found


def test_an_instance_fills_the_disk_of_its_worktree(place: Workplace, small_disk: Mount) -> None:
    start_repository(place.workspace)
    out = place.root / "out"
    small_disk(out, 8 * MB)
    config = place.config({"instances": [fills(ALL_OF_IT), {"name": "two", "prompt": "x"}]})
    done = place.run("--config", config, "--report", "report.json", "--max-parallel", "1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    run = run_of(place)
    said = the_line(done.stderr, "one: its changes cannot be saved", "No space left on device", "stays in")
    assert said.endswith(
        f"its work stays in {run / 'worktrees' / 'one'}, and --resume {run.name} --output-dir {out} tries again"
    )
    the_line(done.stderr, "the journal cannot be written (No space left on device)")
    assert {one["status"] for one in place.report()["instances"]} == {"completed"}
    assert (run / "worktrees" / "one" / "work").read_text() == "precious\n"
    grow(out, 64 * MB)
    (run / "worktrees" / "one" / "big").unlink()
    again = place.run("--resume", "last", "--report", "report.json")
    assert again.returncode == 0, again.stderr
    assert "+precious" in (run / "results" / "one.patch").read_text()


def test_the_patch_is_written_by_the_next_start_without_another_attempt(place: Workplace, small_disk: Mount) -> None:
    start_repository(place.workspace)
    out = place.root / "out"
    small_disk(out, 6 * MB)
    done = place.run("--config", place.config({"instances": [fills(MOST_OF_IT)]}), "--report", "report.json")
    assert done.returncode == 1
    the_line(done.stderr, "one: its patch cannot be written", "is the disk full?", "tries again")
    assert f"--resume {run_of(place).name}" in done.stdout.splitlines()[-1]
    before = place.report()
    changes = before["instances"][0]["changes"]
    assert changes["patch"] is None and changes["files"] == 2
    grow(out, 64 * MB)
    again = place.run("--resume", "last", "--report", "report.json")
    after = place.report()
    assert again.returncode == 0 and after["totals"] == before["totals"]
    assert "+precious" in Path(after["instances"][0]["changes"]["patch"]).read_text()


def test_the_repository_is_on_the_full_disk_too(place: Workplace, small_disk: Mount) -> None:
    disk = place.root / "disk"
    small_disk(disk, 8 * MB)
    work = disk / "work"
    work.mkdir()
    start_repository(work)
    config = place.config({"instances": [fills(ALL_OF_IT)]})
    own = ("--workspace", str(work), "--output-dir", str(disk / "out"))
    done = place.run("--config", config, *own)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    the_line(done.stderr, "one: its changes cannot be saved", "No space left on device")
    (run,) = (disk / "out").iterdir()
    assert (run / "worktrees" / "one" / "work").read_text() == "precious\n"
    grow(disk, 64 * MB)
    assert sh(work, "git status --porcelain; git fsck --no-dangling") == ""  # the repository is as it was
    assert place.run("--resume", run.name, *own).returncode == 0
    assert "+precious" in (run / "results" / "one.patch").read_text(errors="replace")


def test_a_full_disk_refuses_the_run_before_the_start(place: Workplace, small_disk: Mount) -> None:
    start_repository(place.workspace)
    small_disk(place.root / "out", MB)
    sh(place.root, "dd if=/dev/zero of=out/filler bs=4k 2> /dev/null || true")
    done = place.run("--config", place.config({"instances": [instance()]}))
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    the_line(done.stderr, "worktree: one worktree would take", "0 MiB are free")
