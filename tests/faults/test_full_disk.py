"""A disk that is really full: a small file system of its own, which only root can mount."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.launch.cluster.copies import Copies
from claude_orchestrator.launch.cluster.kept_repositories import KeptRepositories
from claude_orchestrator.launch.cluster.wire import Brought, BundlePart, ChangesPiece, Launch, ShippedWork
from claude_orchestrator.launch.shipping import Work as Shipped
from claude_orchestrator.launch.shipping import pack, take_in
from tests.engine.worktrees.test_worktrees import instance, run_of
from tests.harness import Workplace
from tests.launch.cluster.test_shipping_nodes import Work
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


def a_copy_with_work(work: Work, folder: Path) -> tuple[Copies, Launch]:
    """A copy on a node, in which an instance has changed a file and made one."""
    (spec,) = work.specs(1)
    copies, parcel = (
        Copies(folder, KeptRepositories(folder.parent.parent / "kept")),
        ShippedWork("0", work.base, "orchestrator/run/i0", ""),
    )
    launch = Launch(1, spec, None, "", parcel)

    async def place() -> Launch:
        assert await copies.receive(BundlePart("0", work.base, 0, pack(work.repo, work.base), True)) == ""
        return await copies.place(launch)

    placed = asyncio.run(place())
    Path(placed.folder, "a.txt").write_text("changed")
    Path(placed.folder, "made").write_bytes(os.urandom(100_000))
    return copies, placed


def bring_back(copies: Copies, launch: Launch) -> tuple[Brought | None, bytes]:
    pieces: list[bytes] = []

    async def put(piece: ChangesPiece) -> None:
        pieces.append(piece.data)

    return asyncio.run(copies.bring_back(launch, put)), b"".join(pieces)


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_what_was_changed_on_a_node_whose_disk_is_full_comes_back(tmp_path: Path, small_disk: Mount) -> None:
    """Git gets the room that was reserved for it, and that is there again afterwards."""
    small_disk(tmp_path / "disk", 64 * MB)
    work = Work(tmp_path)
    copies, launch = a_copy_with_work(work, tmp_path / "disk" / "node")
    fill(tmp_path / "disk")
    brought, bundle = bring_back(copies, launch)
    assert brought is not None and brought.fault == ""
    take_in(work.repo.parent / "i0", Shipped(brought.head, brought.commit, bundle))
    assert (work.repo.parent / "i0" / "a.txt").read_text() == "changed"
    assert (work.repo.parent / "i0" / "made").stat().st_size == 100_000
    assert (tmp_path / "disk" / "node" / "reserve").exists()


def test_what_cannot_come_back_from_a_node_stays_there(tmp_path: Path, small_disk: Mount) -> None:
    small_disk(tmp_path / "disk", 16 * MB)  # too small to reserve anything
    copies, launch = a_copy_with_work(Work(tmp_path), tmp_path / "disk" / "node")
    fill(tmp_path / "disk")
    brought, _ = bring_back(copies, launch)
    assert brought is not None and "No space left on device; its files stay there, in " in brought.fault
    kept = Path(brought.fault.rpartition(" in ")[2])
    assert (kept / "a.txt").read_text() == "changed" and kept.parent.parent == tmp_path / "disk"


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
