"""A graph is killed and resumed until it is done: every step works once, and nothing is counted twice."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.graph_kills import FILES, NAMES, Api, figures, run_killed
from tests.stand_in import StandIn

STEP_CLAUDE = Path(__file__).with_name("step_claude.py")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_step_works_once(tmp_path: Path, seed: int) -> None:
    with StandIn() as api:  # nobody calls it
        data, _ = run_killed(str(STEP_CLAUDE), tmp_path, api, random.Random(seed), most_kills=3)
    assert data["exit_code"] == 0 and {one["status"] for one in data["instances"]} == {"completed"}
    assert Counter((tmp_path / "work.log").read_text().split()) == Counter(NAMES)
    billed = sum(map(int, (tmp_path / "billed.log").read_text().split()))
    assert len(NAMES) * 1000 <= data["totals"]["input_tokens"] <= billed


@pytest.mark.slow
@pytest.mark.real_cli
@pytest.mark.parametrize("meter", ["stream", "api"])
def test_totals_after_kills_have_all_that_is_certain(claude: str, tmp_path: Path, meter: str) -> None:
    """The input and cache tokens of all whole responses, and never more than was billed.

    By stream, those of the responses that claude has read: a kill may come between the API's last byte and claude.
    """
    with Api(tmp_path / "work.log") as api:
        data, killed = run_killed(claude, tmp_path, api, random.Random(5), most_kills=5, meter=meter)
        row = figures(data, api, tmp_path / "work.log", killed)
    assert row["completed"] == row["steps_done_once"] == len(NAMES), row
    assert all(mine <= billed for mine, billed in zip(row["tokens"], row["billed"], strict=True)), row
    certain = row["billed_whole" if meter == "api" else "billed_shown"]
    assert all(row["tokens"][kind] >= certain[kind] for kind in (0, 2, 3)), row
    assert not (row["exact"] and row["tokens"] != row["billed"]), row


@pytest.mark.slow
@pytest.mark.real_cli
def test_map_and_reduce_with_a_kill(claude: str, tmp_path: Path) -> None:
    """Over structured output, in one file, with the real CLI."""
    with Api(tmp_path / "work.log") as api:
        data, killed = run_killed(claude, tmp_path, api, random.Random(3), most_kills=1)
        row = figures(data, api, tmp_path / "work.log", killed)
    assert row["completed"] == row["steps_done_once"] == len(NAMES) and row["exit_code"] == 0
    assert row["tokens"] == row["billed"] or row["cut_responses"]
    asked = "".join(path.read_text() for path in (tmp_path / "home").glob(".claude/projects/*/*.jsonl"))
    for name in FILES:
        assert rf"{{\"item\":\"{name}\",\"status\":\"completed\",\"result\":\"fix-{name} is done\"}}" in asked
    assert "STEP-end join is done docs is done" in asked
