"""The Python API: real runs with the fake claude, and what reaches the caller."""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import claude_orchestrator
from claude_orchestrator import InstanceConfig, UserError, arun, run
from claude_orchestrator.engine.run_events import InstanceEnded, Launched, Message, RunEvent
from tests.harness import FAKE, ROOT, Workplace, alive, content_of
from tests.limits import HUNG_S


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("FAKE_DIR", str(tmp_path))
    return {"workspace": tmp_path, "output_dir": tmp_path / "out", "claude_bin": str(FAKE), "ledger": "off"}


def instance(name: str, scenario: str = "ok", **keys: Any) -> dict[str, Any]:
    return {"name": name, "prompt": "x", "env": {"FAKE_CLAUDE": scenario}, **keys}


def content_appears(path: Path) -> None:
    while not path.exists() or not path.read_text():
        threading.Event().wait(0.01)


def test_a_config_runs_and_comes_back(place: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    events: list[RunEvent] = []
    before = signal.getsignal(signal.SIGINT)
    done = run({"instances": [instance("one"), instance("two")]}, on_event=events.append, **place)
    assert (done.completed, done.exit_code, done["two"].result, done["two"].completed) == (True, 0, "done", True)
    assert done.usage.total_tokens == sum(one.usage.total_tokens for one in done.instances) > 0
    assert done.report["run_id"] == done.id == done.directory.name
    assert (done.directory / "results" / "one.md").read_text() == "done"
    assert sorted(event.status.name for event in events if isinstance(event, InstanceEnded)) == ["one", "two"]
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr() == ("", "")


def test_every_kind_of_config(place: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps({"instances": [instance("one")]}))
    typed = [InstanceConfig("one", "x", env=(("FAKE_CLAUDE", "ok"),))]
    assert run(path, **place)["one"].result == "done"
    assert run(typed, **place)["one"].result == "done"
    assert run("Say hello", **place).result == "done"


def test_typed_objects_are_checked_too(place: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config: instances\[0\].timeout_s"):
        run([InstanceConfig("one", "x", timeout_s=-1)], **place)


def test_a_budget_blocks(place: dict[str, Any]) -> None:
    done = run(
        {"instances": [instance("one"), instance("two", max_tokens_per_command=5000)]},
        command_budget={"two": "1k"},
        budget_enforcement_mode="block",
        **place,
    )
    assert (done.exit_code, done["one"].status, done["two"].status) == (1, "completed", "blocked")
    assert not done["two"].completed
    with pytest.raises(KeyError):
        done["three"]
    with pytest.raises(ValueError, match="2 instances"):
        _ = done.result


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"overal_token_budget": 1}, ["overal_token_budget: no such option; nearest: overall_token_budget"]),
        (
            {"max_parallel": 0, "overall_token_budget": "x"},
            [
                "max_parallel: expected a positive whole number, got 0",
                'overall_token_budget: expected a positive whole number such as 50000, 50k or 1.5M, got "x"',
            ],
        ),
        ({"command_budget": {"/a": -1}}, ["command_budget: expected a positive whole number"]),
        ({"resume": "last"}, ["--resume: no run to resume"]),
    ],
)
def test_bad_options_are_named(place: dict[str, Any], options: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        run({"instances": [instance("one")]}, **place, **options)
    assert [line.startswith(start) for line, start in zip(caught.value.lines, lines, strict=True)] == [True] * len(
        lines
    )


def test_the_name_of_a_config_file_is_no_prompt(place: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^config: 'runs.json' would be a prompt: pass Path\('runs.json'\)"):
        run("runs.json", **place)


def test_an_error_of_on_event_stops_the_run_and_comes_back(place: dict[str, Any]) -> None:
    def fail(event: RunEvent) -> None:
        if isinstance(event, Launched):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run({"instances": [instance("one", "hang")]}, on_event=fail, grace=0, **place)


def test_on_event_is_called_in_the_thread_of_the_caller(place: dict[str, Any]) -> None:
    threads: set[int] = set()
    run("x", on_event=lambda event: threads.add(threading.get_ident()), **place)
    assert threads == {threading.get_ident()}


def test_runs_at_once_and_coroutines_as_observers(place: dict[str, Any]) -> None:
    ended: list[str] = []

    async def note(event: RunEvent) -> None:
        await asyncio.sleep(0)
        ended.extend([event.status.name] if isinstance(event, InstanceEnded) else [])

    async def main() -> list[claude_orchestrator.Run]:
        names = ("a", "b", "c")
        return await asyncio.gather(*(arun({"instances": [instance(name)]}, on_event=note, **place) for name in names))

    runs = asyncio.run(main())
    assert [done.result for done in runs] == ["done"] * 3
    assert len({done.id for done in runs}) == 3
    assert sorted(ended) == ["a", "b", "c"]


def test_a_cancelled_task_stops_the_instances_first(place: dict[str, Any], tmp_path: Path) -> None:
    launched = asyncio.Event()

    async def main() -> None:
        events: list[RunEvent] = []

        def see(event: RunEvent) -> None:
            events.append(event)
            if isinstance(event, Launched):
                launched.set()

        task = asyncio.create_task(arun({"instances": [instance("one", "hang")]}, on_event=see, grace=0, **place))
        await launched.wait()
        await asyncio.to_thread(content_appears, tmp_path / "pids.json")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not any(map(alive, json.loads((tmp_path / "pids.json").read_text())))


def test_dropped_events_are_counted(place: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_orchestrator.api.job.MAX_EVENTS", 1)
    seen: list[RunEvent] = []
    begun = threading.Event()

    def slow(event: RunEvent) -> None:
        seen.append(event)
        if not begun.is_set():
            begun.set()
            job_thread = next(thread for thread in threading.enumerate() if thread.name == "claude-orchestrator")
            job_thread.join()

    run("x", on_event=slow, **place)
    dropped = [event.text for event in seen if isinstance(event, Message) and "dropped" in event.text]
    assert dropped


SCRIPT = """
import os, sys
from claude_orchestrator import run
try:
    run({"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hang"}}]}, claude_bin=sys.argv[1],
        workspace=sys.argv[2], output_dir=sys.argv[2], ledger="off", grace=0)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_script_that_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    place = Workplace(tmp_path)
    argv = [sys.executable, "-c", SCRIPT, str(FAKE), str(tmp_path)]
    env = {**place.env, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        pids = json.loads(content_of(tmp_path / "pids.json", process))
        process.send_signal(number)
        printed, _ = process.communicate(timeout=HUNG_S)
    assert printed == ("interrupted\n" if number == signal.SIGINT else "")
    for _ in range(500):
        if not any(map(alive, pids)):
            break
        threading.Event().wait(0.01)
    assert not any(map(alive, pids))


def test_a_run_from_python_is_resumed_with_the_same_config(place: dict[str, Any]) -> None:
    config = {"instances": [instance("one", "fails-once"), instance("two")]}
    first = run(config, **place)
    again = run(config, resume=first.id, **place)
    assert again.id == first.id
    assert again["two"].result == "done"


def test_the_public_names() -> None:
    assert all(hasattr(claude_orchestrator, name) for name in claude_orchestrator.__all__)
    assert not inspect.ismodule(claude_orchestrator.run)
    with pytest.raises(AttributeError):
        _ = claude_orchestrator.nothing
