"""Which values of the environment count as secrets, and how they leave a text."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.redact import redact, secrets_of


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "github_token", "MY_SECRET", "DB_PASSWORD", "AWS_CREDENTIALS", "BASIC_AUTH"]
)
def test_a_variable_with_a_telling_name_holds_a_secret(name: str) -> None:
    assert secrets_of({name: "long-enough", "HOME": "/home/somebody"}, []) == {"long-enough"}


def test_a_variable_given_to_an_instance_holds_a_secret_whatever_its_name() -> None:
    assert secrets_of({}, [("COLOUR", "ultramarine")]) == {"ultramarine"}


def test_a_short_value_is_no_secret() -> None:
    assert secrets_of({"API_KEY": "1234567"}, [("X", "")]) == frozenset()
    assert secrets_of({"API_KEY": "12345678"}, []) == {"12345678"}


def test_a_secret_is_hidden_line_by_line_and_as_json_writes_it() -> None:
    key = 'first line"\nsecond line'
    secrets = secrets_of({"PRIVATE_KEY": key}, [])
    assert secrets == {key, 'first line"', "second line", 'first line\\"\\nsecond line'}
    assert redact(f"it read second line of {key!s}", secrets) == "it read *** of ***"
    assert redact(r'{"key": "first line\"\nsecond line"}', secrets) == '{"key": "***"}'


def test_the_longest_secret_is_hidden_first() -> None:
    assert redact("password-and-more", frozenset({"password", "password-and-more"})) == "***"


def test_a_text_without_secrets_stays() -> None:
    assert redact("nothing to hide", frozenset({"password"})) == "nothing to hide"
