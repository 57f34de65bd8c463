"""Items from patterns, files and standard input, with real files and a real git."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from claude_orchestrator.config.item_reading import ItemReader
from claude_orchestrator.config.item_sources import FOR_EACH, MAX_ITEMS, InlineItems
from token_budget.fields import BadValue


def read(workspace: Path, source: object) -> list[object]:
    return list(ItemReader(workspace).read(FOR_EACH.read(source)))


def faults(workspace: Path, source: object) -> list[str]:
    with pytest.raises(BadValue) as error:
        read(workspace, source)
    return [f"{place}: {why}" for place, why in error.value.faults]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.py", "a.py", "gen/c.py", "build/d.py", ".venv/e.py", "no.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "gone.py").symlink_to("nowhere")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], cwd=folder, check=True)


def test_files_without_git(tree: Path) -> None:
    assert read(tree, {"glob": "**/*.py"}) == ["a.py", "b.py", "build/d.py", "gen/c.py"]
    assert read(tree, {"glob": ["*.py", "no.*"], "exclude": "b*"}) == ["a.py", "no.txt"]
    assert read(tree, {"glob": "./**/*.py", "exclude": ["**/gen/**", "b*/**"]}) == ["a.py", "b.py"]


def test_files_that_git_ignores_are_left_out(tree: Path) -> None:
    git(tree, "init", "-q")
    (tree / ".gitignore").write_text("build/\n")
    git(tree, "add", "a.py")
    (tree / "b.py").rename(tree / "ä b.py")
    assert read(tree, {"glob": "**/*.py"}) == ["a.py", "gen/c.py", "ä b.py"]
    (tree / "a.py").unlink()  # in the index, but not in the folder
    assert read(tree, {"glob": "**/*.py"}) == ["gen/c.py", "ä b.py"]
    assert read(tree / "gen", {"glob": "*.py"}) == ["c.py"]
    assert faults(tree, {"glob": "build/*"}) == [
        f".glob: no file of {tree} matches build/* (files that git ignores do not count)"
    ]


def test_a_repository_that_git_cannot_read(tree: Path) -> None:
    (tree / ".git").write_text("gitdir: nowhere")
    assert faults(tree, {"glob": "*.py"})[0].startswith(f".glob: git cannot list the files of {tree}: fatal: ")


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    with open(bytes(tmp_path) + b"/\xff.py", "w"):  # noqa: PTH123  a Path holds no bytes
        pass
    assert "is not UTF-8 text: rename the file" in faults(tmp_path, {"glob": "*.py"})[0]


LINES = {
    "lines": (b"\xef\xbb\xbfa b\r\n\n  \n$(x)\xe2\x80\xa8y\nlast", ["a b", "$(x)\u2028y", "last"]),
    "jsonl": (b'"text"\n\n{"k": [1]}\n7\n', ["text", {"k": [1]}, "7"]),
    "csv": (b'lang,page\r\nde,"a, b"\r\n\r\nfr,"two\nlines"\r\n', [{"lang": "de", "page": "a, b"},
                                                                  {"lang": "fr", "page": "two\nlines"}]),
}  # fmt: skip


@pytest.mark.parametrize("form", LINES)
def test_files_of_items(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, items = LINES[form]
    (tmp_path / "items").write_bytes(raw)
    assert read(tmp_path, {form: "items"}) == items
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert read(tmp_path, {form: "-"}) == items


def test_standard_input_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    reader = ItemReader(tmp_path)
    source = FOR_EACH.read({"lines": "-"})
    assert reader.read(source) == ("a",)
    with pytest.raises(BadValue, match="standard input: only one for_each can read it"):
        reader.read(source)


@pytest.mark.parametrize(
    ("form", "raw", "why"),
    [
        ("lines", b"", "has no items"),
        ("lines", b"\n \n", "has no items"),
        ("lines", b"ok\na\0b\n", "line 2: a NUL or half a surrogate pair cannot be passed to claude"),
        ("lines", b"x" * 1_048_577, "line 1: an item has at most 1,048,576 characters, and this one has 1,048,577"),
        ("lines", b"\xff", "is not UTF-8 text (byte 0)"),
        ("lines", b"x\n" * (MAX_ITEMS + 1), f"expected at most {MAX_ITEMS:,} items, got {MAX_ITEMS + 1:,}"),
        ("jsonl", b'"a"\n{"a": }\n', "line 2: invalid JSON: Expecting value"),
        ("jsonl", b"[" * 100_000, "line 1: invalid JSON: too deeply nested"),
        ("jsonl", b'{"a": 1, "a": 2}\n', 'line 1: invalid JSON: the key "a" appears twice'),
        ("jsonl", b'"x"\n{"a": NaN}\n', "line 2: invalid JSON: NaN is no number"),
        ("jsonl", b'{"a": -1e999}\n', "line 1: invalid JSON: -1e999 is no number"),
        ("jsonl", b"null\n", "line 1: expected a text or an object, got null"),
        ("jsonl", b'{"a": "\\u0000"}\n', "line 1: a NUL or half a surrogate pair cannot be passed to claude"),
        ("csv", b"", "has no items"),
        ("csv", b"\n", "has no items"),
        ("csv", b"lang,page\n", "has no items"),
        ("csv", b"src/a.py,3\nsrc/b.py,4\n", 'the first line must name the columns, but "3" is a number'),
        ("csv", b"a,,b\n1,2,3\n", 'the first line must name the columns, but "" is empty'),
        ("csv", b"a,b,a\n1,2,3\n", 'the first line must name the columns, but "a" appears twice'),
        ("csv", b"a,b\n1,2\n1\n", "line 3: 1 value for 2 columns"),
        ("csv", b'a\n"open\n', "line 2: no CSV: unexpected end of data"),
    ],
)
def test_bad_files(tmp_path: Path, form: str, raw: bytes, why: str) -> None:
    (tmp_path / "items").write_bytes(raw)
    assert faults(tmp_path, {form: "items"})[0].startswith(f".{form}: items: {why}")


def test_missing_files(tmp_path: Path) -> None:
    assert faults(tmp_path, {"lines": "no"}) == [".lines: no: cannot be read: No such file or directory"]
    assert faults(tmp_path, {"csv": "."}) == [".csv: .: cannot be read: Is a directory"]


def test_many_faults_are_cut(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("null\n" * 500)
    found = faults(tmp_path, {"jsonl": "items"})
    assert len(found) == 11 and found[-1] == ".jsonl: items: 490 more lines have faults"


def test_every_combination() -> None:
    source = FOR_EACH.read({"matrix": {"lang": ["de", "fr"], "page": [1, "b"]}})
    assert source == InlineItems(
        ({"lang": "de", "page": 1}, {"lang": "de", "page": "b"}, {"lang": "fr", "page": 1}, {"lang": "fr", "page": "b"})
    )
    with pytest.raises(BadValue, match="expected at most 100,000 items, got 1,000,000"):
        FOR_EACH.read({"matrix": {key: list(range(100)) for key in "abc"}})
