"""Placeholders in shell commands: what a value contains is never code."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from claude_orchestrator.config.config import Check, parse_config
from claude_orchestrator.config.placeholders import fill
from claude_orchestrator.config.shell_words import misplaced
from claude_orchestrator.errors import UserError

HOSTILE = ("$(touch owned)", "`touch owned`", "a; touch owned", "a\ntouch owned\n", "' ; touch owned '", "a b  *", "")
SAFE = (
    "printf %s {{item}}",
    "printf %s --x={{item}} > out; cat out",
    "printf '%s' {{item}} # a comment",
    'printf "%s" {{item}}',
    r"printf \"%s {{item}}",
    'x={{item}}; printf %s "$x"',
    "(printf %s {{item}})",
    "printf ${HOME:+%s}{{item}}".replace("${HOME:+%s}", "%s${EMPTY}"),
    "printf %s a#{{item}}",
    'a=$(printf %s {{item}}); printf %s "$a"',
)
UNSAFE = (
    "echo '{{item}}'",
    'echo "{{item}}"',
    'echo "a" "b {{item}}"',
    "echo `ls {{item}}`",
    "echo ok # {{item}}",
    "cat <<END\n{{item}}\nEND",
    "echo $(( {{item}} ))",
    "echo ${x:-{{item}}}",
    'echo "$(echo ")" {{item}}',
    "echo $'{{item}}'",
    "echo 'unclosed {{item}}",
    "echo ok;# {{item}}",
)


@pytest.mark.parametrize("command", SAFE)
@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_one_word_for_a_real_shell(tmp_path: Path, command: str, value: str) -> None:
    assert misplaced(command) is None
    filled = fill(command, lambda one: shlex.quote(value))
    subprocess.run(["sh", "-c", filled], cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    assert not (tmp_path / "owned").exists()


def test_a_value_arrives_whole() -> None:
    for value in HOSTILE:
        filled = fill("printf %s {{item}}", lambda one, value=value: shlex.quote(value))  # type: ignore[misc]
        assert subprocess.run(["sh", "-c", filled], capture_output=True, text=True, check=True).stdout == value


@pytest.mark.parametrize("command", UNSAFE)
def test_a_placeholder_where_quotes_do_not_protect_is_refused(command: str) -> None:
    found = misplaced(command)
    assert found is not None and found.text == "{{item}}"


def test_the_second_of_two_is_named() -> None:
    found = misplaced("echo {{item}} '{{index}}'")
    assert found is not None and found.root == "index"


def check(**values: object) -> Check | None:
    return parse_config({"instances": [{"prompt": "x", "check": values}]}, "test").instances[0].check


def test_a_check_has_defaults() -> None:
    assert check(command=" pytest -q ") == Check("pytest -q", 3, 600.0)
    assert check(command="a\nb", rounds=1, timeout_s="5m") == Check("a\nb", 1, 300.0)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "check: it has no command: add one"),
        ({"command": " "}, "check.command: is empty: expected a shell command"),
        ({"command": 1}, "check.command: expected a string"),
        ({"command": "a\0"}, "check.command: a NUL"),
        ({"command": "x", "rounds": 0}, "check.rounds: expected a"),
        ({"command": "x", "timeout_s": -1}, "check.timeout_s: expected a positive number"),
        ({"command": "x", "round": 1}, "check.round: unknown key; did you mean 'rounds'?"),
        ({"command": "echo '{{item}}'"}, "check.command: {{item}} has to stand outside of quotes"),
    ],
)
def test_faults_of_a_check(values: dict[str, object], why: str) -> None:
    with pytest.raises(UserError) as error:
        check(**values)
    assert f"test: instances[0].{why}" in error.value.lines[0]
