"""Messages between driver and agent, by values: they survive the way, and are no larger than they must be."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.cluster.wire import (
    Brought,
    ChangesPiece,
    InstanceEnded,
    Launch,
    NotStarted,
    Output,
    ShippedWork,
    for_wire,
)
from claude_orchestrator.launch.git import GitError


def test_whole_lines_travel_once_and_others_as_they_are() -> None:
    whole, cut = LineBatch(b"a\nb\n", b"a\nb\n"), LineBatch(b"a\nb", b"a\n")
    assert Output.of(1, whole) == Output(1, b"a\nb\n", None) and Output.of(1, whole).batch == whole
    assert Output.of(1, cut) == Output(1, b"a\nb", b"a\n") and Output.of(1, cut).batch == cut
    assert Output.of(1, whole).size_bytes < Output.of(1, cut).size_bytes + 2


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (FileNotFoundError(2, "No such file", Path("/x/claude")), FileNotFoundError(2, "No such file", "/x/claude")),
        (OSError(errno.EAGAIN, "No room"), BlockingIOError(errno.EAGAIN, "No room")),
        (GitError("its copy cannot be made"), ValueError("its copy cannot be made")),
        (ValueError("embedded null byte"), ValueError("embedded null byte")),
    ],
)
def test_why_an_instance_has_not_started_is_the_same_at_the_driver(
    raised: OSError | ValueError, arrives: OSError | ValueError
) -> None:
    error = pickle.loads(pickle.dumps(NotStarted.of(1, raised))).error
    assert type(error) is type(arrives) and str(error) == str(arrives)


def test_a_spec_with_everything_can_travel() -> None:
    instance = {
        "name": "one",
        "prompt": "x",
        "env": {"A": "b"},
        "node": {"gpu": 1, "//": "why"},
        "check": {"command": "true"},
        "append_system_prompt": "secret",
        "approvals": {"allow": ["Read"], "default": "deny"},
        "subagent_token_budget": {"Explore": 1000},
        "for_each": ["a", "b"],
    }
    config = parse_config({"instances": [instance]}, "test")
    (spec,) = make_plan(config, Settings(), workspace="/", claude_bin="claude").specs
    sent = for_wire(spec)
    assert pickle.loads(pickle.dumps(Launch(1, sent))) == Launch(1, sent)
    assert sent.node == (("gpu", 1.0),) and sent.env == spec.env and sent.private == spec.private
    assert sent.item is None and sent.late is None
    shipped = Launch(1, sent, parcel=ShippedWork("s", "c", "b", "sub/"))
    assert pickle.loads(pickle.dumps(shipped)) == shipped


def test_what_an_instance_has_done_travels_in_pieces_before_its_end() -> None:
    piece, end = ChangesPiece(1, b"12345"), InstanceEnded(1, Exit(0), Brought("head", "commit"))
    assert pickle.loads(pickle.dumps([piece, end])) == [piece, end] and piece.size_bytes > 5
