"""Names in a width: cut in the middle, or where they are alike."""

from __future__ import annotations

import pytest

from claude_orchestrator.ui.names import fitted_names


@pytest.mark.parametrize(
    ("names", "width", "shown"),
    [
        (["one", "two"], 5, ["one  ", "two  "]),
        (["analyse-everything", "b"], 9, ["anal…hing", "b        "]),
        (["module-1-of-many", "module-2-of-many"], 9, ["mod…1…any", "mod…2…any"]),
        (["a-long-name-1", "a-long-name-2"], 10, ["a-lon…me-1", "a-lon…me-2"]),  # the usual way tells them apart
        (["same-name-here", "same-name-here"], 7, ["sam…ere", "sam…ere"]),
        (["module-alpha-beta-x", "module-gamma-delt-x"], 9, ["modu…ta-x", "modu…lt-x"]),
        (["long-1234567890-end", "long-0987654321-end"], 9, ["long…-end", "long…-end"]),  # there is no room
        (["module-1-of-many", "module-12-of-many", "short"], 10, None),
        (["模块-1-很长的名字很长", "模块-2-很长的名字很长"], 12, None),
    ],
)
def test_names_fit_and_can_be_told_apart(names: list[str], width: int, shown: list[str] | None) -> None:
    found = fitted_names(names, width, "…")
    if shown is not None:
        assert [one.rstrip() for one in found] == [one.rstrip() for one in shown]
    else:
        assert len(set(found)) == len(names)


def test_ellipses_can_be_ascii() -> None:
    found = fitted_names(["module-1-of-many-things", "module-2-of-many-things"], 13, "...")
    assert len(set(found)) == 2 and all(len(one) == 13 and one.isascii() for one in found)
