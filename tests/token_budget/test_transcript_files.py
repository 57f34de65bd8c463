"""Files of JSON Lines as other programs leave them: links, loops, and lines that were cut, spliced or overwritten."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget.ledger import transcript_files
from token_budget.ledger.transcript_files import find_files, open_if_there, read_objects


def record(number: int) -> bytes:
    return json.dumps({"type": "assistant", "message": {"type": "message", "id": number, "usage": {"a": {}}}}).encode()


def numbers(raw: bytes) -> list[int | None]:
    """The numbers of the records that were found, None for each unreadable piece."""
    found: list[int | None] = []
    for data in read_objects(io.BytesIO(raw)):
        message = data and data.get("message")
        found.append(message["id"] if isinstance(message, dict) else None)
    return found


ONE, TWO = record(1), record(2)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (ONE + b"\n" + TWO, [1, 2]),
        (ONE + TWO + b"\n", [1, 2]),
        (ONE + b" " + TWO + b"\r\n", [1, 2]),
        (b"\0" * 300 + ONE + b"\n", [1]),
        (ONE + b"\0" * 300 + TWO + b"\0\n", [1, 2]),
        (ONE[:40] + TWO + b"\n", [None, 2]),
        (ONE[:12] + TWO + b"\n", [None, 2]),  # cut within a text
        (ONE + TWO[:50] + b"\n" + TWO, [None, 1, 2]),
        (ONE + b"}}" + b"\n", [None]),  # as the end of another object: nobody knows which
        (b"x" + ONE + b"\n\n \n\0\0\n", [None, 1]),
        (b'{"a": [' * 20 + ONE, [None, 1]),
        (b'{"a": [' * 5_000 + ONE, [None]),  # too deep to look for long
        (b"[1]\nnull\n5\n", [None, None, None]),
        (b"", []),
    ],
)
def test_whole_records_are_found_wherever_they_stand(raw: bytes, found: list[int | None]) -> None:
    assert numbers(raw) == found


def test_a_part_of_a_cut_record_is_no_record() -> None:
    outer = b'{"type": "progress", "data": ' + ONE + b', "more'
    assert numbers(outer) == [None] and numbers(outer + TWO) == [None, 2]


def test_bytes_that_are_not_utf_8_become_replacement_characters() -> None:
    (data,) = read_objects(io.BytesIO(b'{"type": "user", "text": "a\xff\xfeb"}\n'))
    assert data == {"type": "user", "text": "a\ufffd\ufffdb"}


def test_a_line_that_is_too_long_is_one_unreadable_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_files, "MAX_LINE_BYTES", len(ONE) + 1)
    assert numbers(ONE + b"\n" + ONE + b"   \n" + TWO) == [1, None, 2]


@pytest.mark.slow
def test_a_damaged_line_takes_time_by_its_length_alone() -> None:
    """Each start of an object could be read to the end of the line: a minute for this one."""
    assert numbers(b'{"a": {"b": "' * 20_000 + b"\n" + ONE) == [None, 1]
    assert numbers(b'{"a":1,"b":[' + b'{"a":1},' * 200_000 + b"\n" + ONE) == [None, 1]


@given(st.lists(st.sampled_from([ONE, TWO, ONE[:30], TWO[:-1], b"\0\0", b"\n", b"{", b'"', b"\xff"]), max_size=12))
def test_damage_never_raises_and_never_invents(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    found = numbers(raw)
    assert found.count(1) <= raw.count(ONE) and found.count(2) <= raw.count(TWO)


# -- files --


def names(top: Path) -> list[str]:
    return [path.relative_to(top).as_posix() for path in find_files(top, ".jsonl")]


def test_files_are_found_through_links_once_and_without_loops(tmp_path: Path) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    for path in (top / "b" / "one.jsonl", top / "c" / "other.txt", elsewhere / "d" / "two.jsonl"):
        path.parent.mkdir(parents=True)
        path.write_text("x")
    (elsewhere / "three.jsonl").write_text("x")
    (top / "a").symlink_to(top / "b")  # before the real one in the order of names
    (top / "b" / "up").symlink_to(top)
    (top / "linked").symlink_to(elsewhere)
    (top / "again").symlink_to(elsewhere / "d")
    (top / "file.jsonl").symlink_to(elsewhere / "three.jsonl")
    (top / "gone.jsonl").symlink_to(tmp_path / "nothing")
    (top / "self").symlink_to(top / "self")
    assert names(top) == ["again/two.jsonl", "b/one.jsonl", "file.jsonl"]
    assert find_files(top / "again", ".jsonl") == [top / "again" / "two.jsonl"]


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert names(tmp_path) == []


def test_a_file_that_was_deleted_meanwhile_is_empty(tmp_path: Path) -> None:
    with open_if_there(tmp_path / "none.jsonl") as file:
        assert file is None
