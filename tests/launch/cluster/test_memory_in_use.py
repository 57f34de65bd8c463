"""What real processes take."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from claude_orchestrator.launch.cluster.memory_in_use import PAGE_BYTES, taken_by, taken_by_instances
from claude_orchestrator.launch.processes import MARK_VARIABLE

MIB = 1024 * 1024
# takes so many MiB, has a child that takes as many, and says when both have them
TAKES = """
import os, subprocess, sys
size = int(sys.argv[1])
block = b"x" * (size << 20)
if len(sys.argv) == 2:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[0], str(size), "child"], stdin=0)
print("ready", flush=True)
sys.stdin.read()
""".replace("sys.argv[0]", "open('/proc/self/cmdline').read().split(chr(0))[2]")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_instance_takes_what_it_and_its_children_take() -> None:
    mark = uuid.uuid4().hex
    argv = [sys.executable, "-c", TAKES]
    processes = []
    try:
        for name, size in (("0", "30"), ("1", "50"), ("1.check", "20")):
            env = {**os.environ, MARK_VARIABLE: f"{mark}/{name}"}
            pipe = subprocess.PIPE
            process = subprocess.Popen([*argv, size], env=env, stdin=pipe, stdout=pipe)
            processes.append(process)
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        taken = taken_by_instances(mark)
    finally:
        for process in processes:
            process.communicate()
    assert taken.keys() == {0, 1}
    assert 60 * MIB < taken[0] < 100 * MIB and 140 * MIB < taken[1] < 220 * MIB
    assert taken_by_instances(mark) == {}


def test_a_kernel_that_knows_no_shares_has_all_of_it_counted(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    assert taken_by(7, tmp_path) == 0
    (tmp_path / "7" / "statm").write_text("900 12 3 0 0 0 0")
    assert taken_by(7, tmp_path) == 12 * PAGE_BYTES
    (tmp_path / "7" / "smaps_rollup").write_text("Rss: 9 kB\n")
    assert taken_by(7, tmp_path) == 12 * PAGE_BYTES
    (tmp_path / "7" / "smaps_rollup").write_text("Rss: 9 kB\nPss:   7 kB\nPss_Dirty: 1 kB\n")
    assert taken_by(7, tmp_path) == 7 * 1024
