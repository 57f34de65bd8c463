"""Which tool calls a rule matches: what it allows has to be sure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.claude.permission_rules import Call, Rule, allowing, denying, exactly, read_rule

BASH_ALLOWED = [
    ("Bash", "anything; at all"),
    ("Bash(*)", "rm -rf x"),
    ("Bash(npm test)", "npm test"),
    ("Bash(npm test *)", "npm test"),
    ("Bash(npm test *)", "npm test --watch a b"),
    ("Bash(npm test:*)", "npm test x"),
    ("Bash(git log*)", "git log --oneline"),
    ("*", "ls"),
]
BASH_NOT_ALLOWED = [
    ("Bash(npm test *)", "npm testx"),
    ("Bash(npm test *)", "npm test; rm -rf /"),
    ("Bash(npm test *)", "npm test && rm -rf /"),
    ("Bash(npm test *)", "npm test | sh"),
    ("Bash(npm test *)", "npm test $(rm x)"),
    ("Bash(npm test *)", "npm test `rm x`"),
    ("Bash(npm test *)", "npm test > /etc/passwd"),
    ("Bash(npm test *)", "npm test\nrm x"),
    ("Bash(npm test *)", "npm test & rm x"),
    ("Bash(npm test *)", "sudo npm test"),
    ("Bash(npm test)", "npm test x"),
    ("Read", "ls"),
]


def bash(command: str) -> Call:
    return Call("Bash", {"command": command}, "/w")


@pytest.mark.parametrize(("rule", "command"), BASH_ALLOWED)
def test_commands_that_a_rule_allows(rule: str, command: str) -> None:
    assert allowing([read_rule(rule)], bash(command)) == read_rule(rule)


@pytest.mark.parametrize(("rule", "command"), BASH_NOT_ALLOWED)
def test_commands_that_a_rule_does_not_allow(rule: str, command: str) -> None:
    assert allowing([read_rule(rule)], bash(command)) is None


@pytest.mark.parametrize(
    "command", ["rm -rf x", "true; rm x", "a && rm x", "echo $(rm x)", "ls | rm x", "(rm x)", "`rm x`", "a\nrm x"]
)
def test_a_denial_finds_a_command_among_others(command: str) -> None:
    assert denying([read_rule("Bash(rm *)")], bash(command)) is not None


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        ("Write(src/*)", "/w/src/a.py", True),
        ("Write(src/*)", "src/sub/a.py", True),
        ("Write(src/*)", "src/../secret", False),
        ("Write(src/*)", "/w/src/../../etc/passwd", False),
        ("Write(/w/*)", "/w/x", True),
        ("Write(src/*)", "/other/src/a.py", False),
        ("Edit(src/*)", "src/a.py", False),
    ],
)
def test_paths_are_compared_after_they_are_resolved(rule: str, path: str, allowed: bool) -> None:
    call = Call("Write", {"file_path": path, "content": "x"}, "/w")
    assert (allowing([read_rule(rule)], call) is not None) is allowed


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("Write(secret/*)", "src/../secret/x"),
        ("Write(secret/*)", "/w/secret/x"),
        ("Write(/etc/*)", "../etc/passwd"),
        ("Write(src/../*)", "src/../x"),  # as claude gave it
    ],
)
def test_a_denial_sees_a_path_however_it_is_written(rule: str, path: str) -> None:
    call = Call("Write", {"file_path": path}, "/w")
    assert denying([read_rule("Write(docs/*)"), read_rule(rule)], call) == read_rule(rule)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("WebFetch(https://docs.example/*)", True),
        ("WebFetch(https://other.example/*)", False),
        ("Web*", True),
        ("WebSearch", False),
        ("Read(https://docs.example/*)", False),
    ],
)
def test_other_subjects_are_compared_as_they_are(rule: str, matches: bool) -> None:
    call = Call("WebFetch", {"url": "https://docs.example/a"}, "/w")
    expected = read_rule(rule) if matches else None
    assert allowing([read_rule(rule)], call) == expected
    assert denying([read_rule(rule)], call) == expected


@pytest.mark.parametrize("given", [{}, {"command": 7}, {"command": ["npm test"]}])
def test_an_odd_input_matches_no_pattern_that_allows_and_every_one_that_denies(given: dict[str, Any]) -> None:
    call = Call("Bash", given, "/w")
    assert allowing([read_rule("Bash(npm *)")], call) is None
    assert denying([read_rule("Bash(npm *)")], call) is not None


def test_the_rule_of_one_call_has_no_wildcards() -> None:
    rule = exactly(bash("ls *; x"))
    assert rule == Rule("Bash", "ls *; x", exact=True)
    assert allowing([rule], bash("ls *; x")) is rule
    assert allowing([rule], bash("ls a; x")) is None
    assert str(exactly(Call("mcp__db__query", {"q": 1}, "/w"))) == "mcp__db__query"


@given(st.text(), st.sampled_from([";", "&&", "|", "\n", "`", "$(", ">", "<", "&"]), st.text())
def test_no_joined_command_is_ever_allowed_by_a_pattern(before: str, join: str, after: str) -> None:
    assert allowing([read_rule("Bash(npm test *)")], bash(f"npm test {before}{join}{after} x")) is None
