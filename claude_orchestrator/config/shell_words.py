"""Where placeholders may stand in a shell command, in which each value becomes one quoted word. Pure."""

from __future__ import annotations

import re

from claude_orchestrator.config.placeholders import Placeholder, parse

# what a piece of plain text may hold besides words: an escape, a quoted text, an expansion, a comment
_TOKEN = re.compile(
    r"""(?P<escape>\\.)|(?P<single>'[^']*')|(?P<double>"(?:\\.|[^"\\])*")|(?P<name>\$\{\w+\})"""
    r"""|(?P<open>['"`]|<<|\$\(\(|\$\{|\$['"])|(?P<comment>(?:^|(?<=[\s;&|()<>]))\#)""",
    re.DOTALL | re.VERBOSE,
)
_MARK = "\ue000"  # stands for a placeholder; a private character, which is a word's character for the shell


def misplaced(command: str) -> Placeholder | None:
    """The first placeholder that stands where the quotes around its value would not protect it; None if none does.

    That is inside quotes, backquotes, comments, here-documents and arithmetic, and after anything too complex to
    follow.
    """
    found: list[Placeholder] = []
    text = ""
    for piece in parse(command):
        if isinstance(piece, Placeholder):
            found.append(piece)
            text += _MARK
        else:
            text += piece.replace(_MARK, "_")
    place = 0
    while (match := _TOKEN.search(text, place)) is not None:
        start, end = match.span()
        if match["comment"]:
            end = len(text) if (line_end := text.find("\n", start)) < 0 else line_end
        elif match["open"]:
            end = len(text)
        elif match["double"] and re.search(r"[`]|\$[({]", match["double"]):
            end = len(text)  # commands and quotes of their own inside
        if _MARK in text[start:end]:
            return found[text[: text.index(_MARK, start)].count(_MARK)]
        place = end
    return None
