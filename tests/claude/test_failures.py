"""What claude's words say of a failure, and which prompts it takes as commands."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.commands import CommandInfo, CommandKind, CommandScope, warning_for
from claude_orchestrator.claude.failures import command_word, is_command_name


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("/test --unit", "/test"),
        ("/test\nmore", "/test"),
        ("/git:sync", "/git:sync"),
        ("/analyze; then tell me", "/analyze;"),
        ("/überprüfen jetzt", "/überprüfen"),
        ("/etc/hosts is text", None),
        ("//two", None),
        ("/", None),
        ("/ a", None),
        (" /test", None),
        ("test /a", None),
        ("", None),
    ],
)
def test_the_word_that_claude_looks_up(prompt: str, word: str | None) -> None:
    assert command_word(prompt) == word


@pytest.mark.parametrize(
    ("word", "is_name"), [("/test", True), ("/git:a-b_c9", True), ("/analyze;", False), ("/überprüfen", False)]
)
def test_words_that_an_old_claude_calls_unknown(word: str, is_name: bool) -> None:
    assert is_command_name(word) is is_name


KNOWN = tuple(
    CommandInfo(name, "", "", None, CommandScope.PROJECT, CommandKind.COMMAND)
    for name in ("/analyze", "/überprüfen", "/test")
)


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("/analyze; then tell me", "/analyze"),
        ("/analyze, please", "/analyze"),
        ("/test. Then more", "/test"),
        ("/überprufen", "/überprüfen"),
        ("/analyse", "/analyze"),
    ],
)
def test_a_warning_names_the_command_that_was_meant(prompt: str, meant: str) -> None:
    warning = warning_for(prompt, KNOWN)
    assert warning is not None and f"did you mean {meant}?" in warning


@pytest.mark.parametrize(
    "prompt", ["/analyze now", "/überprüfen", "/tmp/file.txt has the log", "/mcp__a__b", "/§ 5 of the law", "plain"]
)
def test_no_warning_where_all_is_well_or_nothing_is_near(prompt: str) -> None:
    assert warning_for(prompt, KNOWN) is None
