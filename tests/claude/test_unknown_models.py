"""Models that claude does not know: what it says of them, and that each is reported once."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.events import ModelFacts, Result
from claude_orchestrator.claude.line_events import parse_line
from claude_orchestrator.claude.unknown_models import unrecognized_models
from claude_orchestrator.engine.unknown_models import UnknownModels
from tests.claude.test_tally import line

SIGNAL = '[claude-code:unrecognized_model] {"model":"my-model","query_source":"main"}'


@pytest.mark.parametrize(
    ("stderr", "models"),
    [
        ("", []),
        (f"before\n{SIGNAL}\nafter {SIGNAL}", ["my-model"]),
        ("[claude-code:unrecognized_model] {broken", []),
        (f"[claude-code:unrecognized_model] {{broken}}\n{SIGNAL}", ["my-model"]),
        ('[claude-code:unrecognized_model] {"a":' + "[" * 9000 + "}", []),
        ("[claude-code:unrecognized_model] {}", []),
        ('[claude-code:unrecognized_model] {"model": 5}', []),
        ('[claude-code:unrecognized_model] {"model": ""}', []),
    ],
)
def test_what_standard_error_says(stderr: str, models: list[str]) -> None:
    assert unrecognized_models(stderr) == models


def test_what_its_costs_are_based_on() -> None:
    """2.1.197 says nothing of that."""
    known = {"canonicalModel": "claude-opus-5-5", "provider": "firstParty", "costBasis": "list"}
    guess = {"canonicalModel": "own", "provider": 5, "costBasis": "unknown"}
    event = parse_line(line({"type": "result", "modelUsage": {"a": known, "b": guess, "c": {}, "d": "text"}}))
    assert isinstance(event, Result) and event.model_usage is not None
    assert event.model_usage.facts == (
        ModelFacts("a", "claude-opus-5-5", "firstParty", "list"),
        ModelFacts("b", "own", "", "unknown"),
        ModelFacts("c"),
        ModelFacts("d"),
    )
    assert event.model_usage.guessed == ("own",)


def test_each_model_is_reported_once() -> None:
    said: list[str] = []
    unknown = UnknownModels(said.append)
    unknown.no_price("one")
    unknown.guessed(["one[1m]", "two\x1b", "two\x1b"])
    unknown.guessed(["two\x1b"])
    assert len(said) == 2 and said[0].startswith("no price is known for the model one: ")
    assert said[1].startswith("claude knows no price for the model two") and said[1].isprintable()
