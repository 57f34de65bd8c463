"""Answers on standard output and as lines of JSON."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claude_orchestrator.engine.results.answers import printed
from claude_orchestrator.engine.results.line_writer import LineWriter
from tests.harness import FAKE, Workplace
from tests.limits import HUNG_S

ONE = {"name": "one", "command": "/test"}
TWO = {"instances": [ONE, {"name": "two", "prompt": "Say hi", "env": {"FAKE_CLAUDE": "invalid_request"}}]}
KEYS = (
    "run_id name group item index status reason result structured_output session_id usage cost_usd duration_s changes "
    "verified check_rounds"
)


def test_a_prompt_prints_its_answer_and_nothing_else(place: Workplace) -> None:
    done = place.run("Say hello")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Total: 1,050 tokens" in done.stderr and "INSTANCE" in done.stderr
    first = done.stderr.splitlines()[0]
    assert " INFO: run " in first and "logs in " in first and "answers in " in first
    assert "Continue" not in done.stderr


def test_the_built_in_prompt_prints_its_answer_too(place: Workplace) -> None:
    assert place.run().stdout == "done\n"


def test_a_prompt_from_standard_input(place: Workplace) -> None:
    argv = place.argv("-")
    done = subprocess.run(argv, input=b"Say hello\n", env=place.env, cwd=place.root, capture_output=True, check=False)
    assert done.stdout == b"done\n"
    assert json.loads((place.root / "turns.json").read_text()) == ["Say hello"]
    for bad, why in ((b"\xff", b"not UTF-8 text (byte 0)"), (b" \n", b"is empty")):
        done = subprocess.run(argv, input=bad, env=place.env, cwd=place.root, capture_output=True, check=False)
        assert done.returncode == 2 and done.stderr.startswith(b"ERROR: PROMPT: ") and why in done.stderr


def test_a_failed_prompt_prints_nothing_and_how_to_continue(place: Workplace) -> None:
    done = place.run("Say hello", FAKE_CLAUDE="invalid_request")
    assert (done.returncode, done.stdout) == (1, "")
    (run,) = (place.root / "out").iterdir()
    command = (
        f"claude-orchestrator --resume {run.name} --output-dir {place.root / 'out'} --claude-bin {FAKE} 'Say hello'"
    )
    assert f"Continue what did not complete: {command}" in done.stderr.splitlines()
    again = place.run("--resume", run.name, "Say hello")
    assert (again.returncode, again.stdout) == (0, "done\n")


def test_answers_under_their_names(place: Workplace) -> None:
    done = place.run("--config", place.config({"instances": [ONE, {"name": "b", "prompt": "x"}]}), "--print-results")
    assert done.stdout == "# one\n\ndone\n\n# b\n\ndone\n" and "Total: " in done.stderr
    assert printed([("a", None), ("b", "x\n")], with_names=True) == "# a\n\n\n# b\n\nx\n"


def test_result_lines_on_standard_output(place: Workplace) -> None:
    done = place.run("--config", place.config(TWO), "--results", "-")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["name"]: (line["status"], line["result"]) for line in lines} == {
        "one": ("completed", "done"),
        "two": ("failed", None),
    }
    for line in lines:
        assert " ".join(line) == KEYS and line["usage"]["total_tokens"] > 0
    assert "Total: " in done.stderr and "Continue what did not complete: claude-orchestrator --resume " in done.stderr


def test_result_lines_in_a_file_are_added_to_by_a_resumed_run(place: Workplace) -> None:
    args = ("--config", place.config(TWO), "--results", "results.jsonl")
    place.run(*args)
    file = place.root / "results.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    place.run(*args, "--resume", "last")
    assert sorted(json.loads(line)["name"] for line in file.read_text().splitlines()) == ["one", "two", "two"]
    place.run(*args)
    assert len(file.read_text().splitlines()) == 2


def test_the_report_on_standard_output(place: Workplace) -> None:
    done = place.run("--config", place.config(TWO), "--report", "-")
    assert [entry["result"] for entry in json.loads(done.stdout)["instances"]] == ["done", None]
    assert "Total: " in done.stderr and not (place.root / "-").exists()


def test_the_junit_report_can_be_printed(place: Workplace) -> None:
    done = place.run("--config", place.config(TWO), "--junit", "-")
    assert done.stdout.startswith("<?xml") and done.stdout.rstrip().endswith("</testsuites>")
    assert not (place.root / "-").exists()


def test_a_schema_that_is_missing_is_named_by_its_option(place: Workplace) -> None:
    done = place.run("hi", "--json-schema", "none.json", "--dry-run")
    assert (done.returncode, done.stderr.split("none.json: ")[0]) == (2, "ERROR: --json-schema: ")


@pytest.mark.parametrize("args", [("--results", "-"), ("--report", "-"), ("--print-results",), ("hi",)])
def test_a_reader_that_leaves_does_not_end_the_run(place: Workplace, args: tuple[str, ...]) -> None:
    setup = () if args == ("hi",) else ("--config", place.config({"instances": [ONE, {**ONE, "name": "two"}]}))
    argv = place.argv(*setup, *args, "--junit", "junit.xml")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=HUNG_S) == 0 and (place.root / "junit.xml").exists(), errors
    assert (b"the reader has closed the pipe" in errors) is (args == ("--results", "-")) and b"Traceback" not in errors


def test_only_one_of_them_has_standard_output(place: Workplace) -> None:
    done = place.run("hi", "--results", "-", "--report", "-", "--dry-run")
    assert done.returncode == 2
    assert done.stderr == "ERROR: --results - and --report -: only one of them can have standard output\n"


def test_a_results_file_that_cannot_be_written(place: Workplace) -> None:
    done = place.run("hi", "--results", "missing/r.jsonl")
    assert done.returncode == 2 and done.stderr.startswith("ERROR: --results: missing/r.jsonl: cannot be written: ")
    assert not (place.root / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_loses_no_answer(place: Workplace) -> None:
    done = place.run("hi", "--results", "/dev/full")
    assert done.returncode == 1 and done.stdout == "done\n"
    assert "ERROR: --results: /dev/full: cannot be written: No space left on device" in done.stderr
    (answer,) = place.root.glob("out/*/results/prompt.md")
    assert answer.read_text() == "done"


def test_a_file_ends_with_a_whole_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the last line fits in part."""
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from claude_orchestrator.engine.results.line_writer import LineWriter;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "writer = LineWriter(Path(sys.argv[1]));"
        "[writer.put(lambda: b'x' * 299 + b'\\n') for _ in range(5)];"
        "sys.exit(str(writer.close()))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "r"], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr and (tmp_path / "r").read_bytes() == (b"x" * 299 + b"\n") * 3


def test_large_lines_are_whole(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "r")
    for _ in range(3):
        writer.put(lambda: b"y" * 1_000_000 + b"\n")
    assert writer.close() is None and (tmp_path / "r").stat().st_size == 3_000_003
