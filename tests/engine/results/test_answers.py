"""Answers: their files, their names, and what reports say of them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.engine.file_names import file_stems
from claude_orchestrator.engine.results.answer_files import AnswerFiles
from claude_orchestrator.engine.results.answers import Answer, clipped, printed, report_fields, result_row
from claude_orchestrator.engine.run_events import Answered
from tests.claude.test_tally import INIT, final, result, start
from tests.engine.test_state import an_instance, feed
from tests.harness import Workplace

FAST = {"seconds": 0.01, "turns": 1}


def run_of(place: Workplace) -> Path:
    (path,) = (place.root / "out").iterdir()
    return path


def rehearse(place: Workplace, *instances: dict[str, Any], args: tuple[str, ...] = ()) -> None:
    config = place.config({"instances": instances, "rehearsal": FAST})
    done = place.run("--rehearse", "--config", config, "--report", "report.json", *args)
    assert done.returncode == 0, done.stderr


def test_answers_are_kept_and_reported(place: Workplace) -> None:
    config = place.config({"instances": [{"name": "one", "command": "/test"}, {"name": "two", "prompt": "Say hi"}]})
    done = place.run("--config", config, "--report", "report.json", "--junit", "junit.xml")
    assert done.returncode == 0, done.stderr
    first, second = place.report()["instances"]
    file = run_of(place) / "results" / "one.md"
    assert file.read_text() == first["result"] == "done" and first["result_file"] == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert second["result"] == "done" and second["structured_output"] is None and second["turn_results"] == []
    assert not list(file.parent.glob("*.json"))
    case = ElementTree.parse(place.root / "junit.xml").getroot()[0][0]
    assert case.findtext("system-out") == "1050 tokens\n\ndone"


def test_what_failed_has_no_answer_and_its_reason_in_the_body(place: Workplace) -> None:
    entry = {"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "invalid_request"}}
    done = place.run("--config", place.config({"instances": [entry]}), "--report", "report.json", "--junit", "j.xml")
    assert done.returncode == 1
    (one,) = place.report()["instances"]
    assert one["result"] is None and one["result_file"] is None and "API Error" in one["reason"]
    failure = ElementTree.parse(place.root / "j.xml").getroot()[0][0].find("failure")
    assert failure is not None and failure.text == one["reason"]


def test_answers_of_earlier_turns(place: Workplace) -> None:
    entry = {"name": "one", "command": "/test", "pre_commands": ["first", "second"]}
    place.run("--config", place.config({"instances": [entry]}), "--report", "report.json")
    (one,) = place.report()["instances"]
    assert one["turn_results"] == ["done", "done"] and one["result"] == "done"


def test_a_resumed_run_still_has_the_answers(place: Workplace) -> None:
    one, two = {"name": "one", "prompt": "a"}, {"name": "two", "prompt": "b"}
    failing = {**two, "env": {"FAKE_CLAUDE": "crash"}}
    assert place.run("--config", place.config({"instances": [one, failing]})).returncode == 1
    config = place.config({"instances": [one, two]})
    done = place.run("--config", config, "--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert [entry["result"] for entry in place.report()["instances"]] == ["done", "done"]
    assert [entry["attempts"] for entry in place.report()["instances"]] == [1, 2]


# -- names --

HOSTILE = [
    "../../etc/passwd",
    "a b",
    "a/b",
    "A",
    "a",
    "..",
    ".",
    "con",
    "é" * 300,
    "x\0y",
    "turns",
    "a-0f0f0f0f",
    "a.1",
]


def test_hostile_names_are_safe_and_different() -> None:
    stems = file_stems(HOSTILE)
    assert len({stem.casefold() for stem in stems.values()}) == len(HOSTILE)
    assert stems["turns"] == "turns" and stems["../../etc/passwd"].startswith("etc-passwd-")
    for stem in stems.values():
        assert stem.isascii() and not set("/\\\0: ") & set(stem) and not stem.startswith(".") and len(stem) < 100


@given(st.lists(st.text(max_size=20), unique=True, max_size=8))
def test_no_two_instances_share_a_file(names: list[str]) -> None:
    stems = file_stems(names)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)


# -- files --


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    files = AnswerFiles(tmp_path, {"a": 2}, pytest.fail)
    files.observe(Answered("a", 1, 2, "first"))
    files.observe(Answered("a", 2, 2, "x" * 1_000_000 + "é\r\n\ud800", {"k": [1, "é"]}))
    again = AnswerFiles(tmp_path, {"a": 2, "b": 1}, pytest.fail)
    answer = again.answer("a")
    assert answer.text == "x" * 1_000_000 + "é\r\n?" and answer.earlier == ("first",)
    assert answer.structured_output == {"k": [1, "é"]} and again.answer("b") == Answer()
    assert json.loads((tmp_path / "results" / "a.json").read_text()) == {"k": [1, "é"]}
    again.observe(Answered("a", 2, 2, "other"))
    assert again.answer("a") == Answer("other", None, ("first",), str(tmp_path / "results" / "a.md"))


def test_answers_that_cannot_be_written_are_still_reported(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    complaints: list[str] = []
    files = AnswerFiles(tmp_path, {"a": 1, "b": 1}, complaints.append)
    files.observe(Answered("a", 1, 1, "text", {"k": 1}))
    files.observe(Answered("b", 1, 1, "more"))
    assert files.answer("a") == Answer("text", {"k": 1}) and files.answer("b").text == "more"
    assert len(complaints) == 1 and "answers cannot be written" in complaints[0]


def test_long_answers_are_cut_in_the_report() -> None:
    long = report_fields(Answer("é" * 40_000, file="a.md"))
    assert long["result"] == "é" * 32_768 and long["result_truncated"] is True
    assert "result_truncated" not in report_fields(Answer("short"))
    assert clipped("aé", 2) == ("a", True)


def test_answers_as_text_for_standard_output() -> None:
    answers = [("one", "first"), ("two", "second\n"), ("three", None)]
    assert printed(answers[:1], with_names=False) == "first\n"
    assert printed(answers, with_names=True) == "# one\n\nfirst\n\n# two\n\nsecond\n\n# three\n\n"


def test_a_line_of_results_has_the_documented_keys() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), result(5, 1))
    status.finish(1.0, 0, "")
    row = result_row("run-1", status, Answer("text", {"a": 1}))
    assert (row["run_id"], row["name"], row["status"], row["result"]) == ("run-1", "one", "completed", "text")
    assert row["structured_output"] == {"a": 1} and row["duration_s"] == 1.0 and row["usage"]["total_tokens"] == 6
    assert (row["group"], row["item"], row["changes"]) == (None, None, None)
