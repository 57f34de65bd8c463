"""Patterns of files, by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.globs import alternatives, matcher

FILES = (
    "a.py",
    "b.txt",
    ".hidden.py",
    "src/a.py",
    "src/deep/er/c.py",
    "src/deep/[x].py",
    "src/.cache/d.py",
    "src/gen/e.py",
    "web/a.ts",
    "web/b.tsx",
    "new\nline.py",
    ".github/w.yml",
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py", "new\nline.py"]),
        ("**/*.py", ["a.py", "src/a.py", "src/deep/er/c.py", "src/deep/[x].py", "src/gen/e.py", "new\nline.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/er/c.py", "src/deep/[x].py", "src/gen/e.py"]),
        ("src/*.py", ["src/a.py"]),
        ("src/**", ["src/a.py", "src/deep/er/c.py", "src/deep/[x].py", "src/gen/e.py"]),
        ("**", [name for name in FILES if not name.startswith(".") and "/." not in name]),
        ("?.py", ["a.py"]),
        ("[ab].*", ["a.py", "b.txt"]),
        ("[!a].*", ["b.txt"]),
        ("src/deep/[[]x].py", ["src/deep/[x].py"]),
        ("web/*.{ts,tsx}", ["web/a.ts", "web/b.tsx"]),
        ("{src,web}/{a,b}.*", ["src/a.py", "web/a.ts", "web/b.tsx"]),
        (".*.py", [".hidden.py"]),
        (".github/*", [".github/w.yml"]),
        ("src/.cache/*", ["src/.cache/d.py"]),
        ("a.py", ["a.py"]),
        ("A.py", []),
        ("a+py", []),
        ("[", []),
    ],
)
def test_what_matches(pattern: str, found: list[str]) -> None:
    fits = matcher([pattern])
    assert [name for name in FILES if fits(name)] == found


def test_what_is_excluded_may_be_hidden() -> None:
    excluded = matcher(["**/gen/**", "**/*.py"], hidden=True)
    assert excluded("src/gen/.x") and excluded(".hidden.py") and excluded("src/.cache/d.py") and not excluded("b.txt")
    assert not matcher([])("a.py")


def test_braces_have_a_bound() -> None:
    assert alternatives("a{b,c}{d,e}") == ["abd", "abe", "acd", "ace"]
    assert len(alternatives("{a,b}" * 40)) <= 1_000 and alternatives("{a}") == ["{a}"]
