"""Keeps each instance's answer in the run's directory, and reads it back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from claude_orchestrator.engine.file_names import file_stems
from claude_orchestrator.engine.results.answers import Answer, clipped
from claude_orchestrator.engine.run_events import Answered, RunEvent
from token_budget.files import write_atomically
from token_budget.folders import make_folder

FOLDER = "results"
MAX_ANSWER_BYTES = 256 * 1024 * 1024  # more than a line of the stream can have


class AnswerFiles:
    """An observer that writes `results/NAME.md`, and `results/NAME.json` where there is structured output.

    The results of earlier turns are in `results/turns/`. A file is there before the journal says that the work is
    done, so a run that is killed and resumed still has it. What cannot be written is kept in memory, cut.
    `turns` has the number of turns of each instance by its name; `add` takes more.
    """

    def __init__(self, directory: Path, turns: Mapping[str, int], complain: Callable[[str], None]) -> None:
        self.folder = directory / FOLDER
        self._stems = dict(file_stems(turns))
        self._turns = dict(turns)
        self._complain: Callable[[str], None] | None = complain
        self._unwritten: dict[str, dict[int, Answered]] = {}

    def add(self, turns: Mapping[str, int]) -> None:
        """Add instances. Their names contain characters that no file name has, so they clash with no other."""
        self._stems.update(file_stems(turns))
        self._turns.update(turns)

    def observe(self, event: RunEvent) -> None:
        """Keep an answer."""
        if isinstance(event, Answered):
            self._unwritten.get(event.instance, {}).pop(event.turn, None)
            try:
                self._write(event)
            except OSError as error:
                self._failed(event, error)

    def _write(self, event: Answered) -> None:
        is_last = event.turn == event.turns
        path = self._text_file(event.instance) if is_last else self._turn_file(event.instance, event.turn)
        make_folder(path.parent)
        structured = path.with_name(f"{self._stems[event.instance]}.json")
        if is_last and event.structured_output is None:
            structured.unlink(missing_ok=True)  # of an answer that this one replaces
        elif is_last:
            _write(structured, json.dumps(event.structured_output, indent=2) + "\n")
        _write(path, event.text)

    def _failed(self, event: Answered, error: OSError) -> None:
        kept = Answered(event.instance, event.turn, event.turns, clipped(event.text)[0], event.structured_output)
        self._unwritten.setdefault(event.instance, {})[event.turn] = kept
        if self._complain is not None:
            why = error.strerror or error
            self._complain(f"{self.folder}: answers cannot be written ({why}): the run continues without these files")
        self._complain = None

    def answer(self, name: str) -> Answer:
        """What an instance has answered, in this start of the run or an earlier one."""
        path, kept = self._text_file(name), self._unwritten.get(name, {})
        last = next((event for event in kept.values() if event.turn == event.turns), None)
        earlier = self._earlier(name, kept)
        if last is not None:
            return Answer(last.text, last.structured_output, earlier)
        text = _read(path)
        if text is None:
            return Answer(earlier=earlier)
        structured = path.with_name(f"{self._stems[name]}.json")
        json_text, output = _read(structured), None
        with contextlib.suppress(ValueError, RecursionError):
            output = None if json_text is None else json.loads(json_text)
        return Answer(text, output, earlier, str(path), None if output is None else str(structured))

    def file_of(self, name: str) -> str | None:
        """The file with the answer of an instance, relative to the run's directory; None if there is none yet."""
        path = self._text_file(name)
        return f"{FOLDER}/{path.name}" if path.is_file() else None

    def keep_list(self, group: str, text: str) -> str:
        """Keep the results of a group in a file; returns its path. Raises OSError."""
        path = self.folder / f"{file_stems([group])[group]}.json"
        make_folder(path.parent)
        _write(path, text + "\n")
        return str(path)

    def _earlier(self, name: str, kept: dict[int, Answered]) -> tuple[str, ...]:
        """The results of the turns before the last; those without text, such as /clear, are left out."""
        turns = range(1, self._turns[name])
        texts = [kept[turn].text if turn in kept else _read(self._turn_file(name, turn)) for turn in turns]
        return tuple(text for text in texts if text)

    def _text_file(self, name: str) -> Path:
        return self.folder / f"{self._stems[name]}.md"

    def _turn_file(self, name: str, turn: int) -> Path:
        return self.folder / "turns" / f"{self._stems[name]}.{turn}.md"


def _write(path: Path, text: str) -> None:
    write_atomically(path, [text.encode("utf-8", "replace")], mode=0o600, durable=False)


def _read(path: Path) -> str | None:
    from token_budget.usage.json_file import JsonFileError, read_bytes  # only where another start has written it

    try:
        return read_bytes(path, MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, JsonFileError):  # an instance can have put a pipe in its place
        return None
