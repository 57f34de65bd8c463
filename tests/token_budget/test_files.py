"""The one writer of files and the one lock: whole or not at all, links and modes stay, one program at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.limits import HUNG_S
from token_budget.files import locked, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_and_a_link_to_it_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "report.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("report.json")
    with target.open() as reader:
        write_atomically(link, [b"new ", b"content"])
        assert reader.read() == "old"
    assert target.read_text() == "new content" and link.is_symlink() and mode(target) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "report.json"]


def test_a_new_file_gets_the_mode_that_is_asked_for_less_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "open", [b"x"])
        write_atomically(tmp_path / "private", [b"x"], mode=0o600)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "open"), mode(tmp_path / "private")) == (0o640, 0o600)


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", [b"x"])
    assert (tmp_path / "target").read_text() == "x" and (tmp_path / "link").is_symlink()


def test_what_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(RuntimeError):
        write_atomically(file, chunks())
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    for bad in (tmp_path / "none" / "file", file / "below", tmp_path / ("x" * 250)):
        with pytest.raises(OSError, match=r"No such file|Not a directory|File name too long"):
            write_atomically(bad, [b"x"])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "loop", [b"x"])
    assert (tmp_path / "loop").is_symlink() and file.read_text() == "old"


def test_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, [b"one ", b"two"])
    reader.join(10)
    assert found == [b"one two"] and stat.S_ISFIFO(pipe.stat().st_mode)
    write_atomically(Path(os.devnull), [b"x"])


HOLDER = """
import sys
from pathlib import Path
from token_budget.files import locked
with locked(Path(sys.argv[1]), 5):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_one_program_at_a_time(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(TimeoutError, match="another program locks the folder"), locked(tmp_path, 0.05):
        pass
    holder.stdin.write("\n")
    holder.stdin.flush()
    with locked(tmp_path, 10):
        pass
    assert holder.wait(HUNG_S) == 0
    holder.stdin.close()
    holder.stdout.close()


def test_a_folder_that_is_not_there_needs_no_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "none", 0.05):
        assert not (tmp_path / "none").exists()
