"""What Claude Code used before us, from its own transcripts: one count for each response, wherever it was copied to.

Claude Code keeps a session as `projects/SLUG/SESSION.jsonl` and its subagents as `SESSION/subagents/AGENT.jsonl`. A
line stands for a part of a response, so a response's id comes again; a forked session begins with a copy of the other.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from token_budget.ledger.records import FOREVER_MS, IMPORTED, Attempt, Record, Run
from token_budget.ledger.sqlite import Ledger
from token_budget.models import Usage

RUN_PREFIX = "claude:"
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_COUNT = 2**40  # of a response's tokens: what is above is no count
MAX_MS = 253_370_764_800_000  # the year 9999 begins: a date in every zone
SLACK_MS = 60_000  # around an attempt: the time that it was given is not that of its responses
MAX_AHEAD_MS = 86_400_000  # of now: a later time is none
_COMMAND_NAME = re.compile(r"<command-name>/?([^\s<]+)</command-name>")
_NOT_A_PROMPT = ("isMeta", "isSidechain", "isCompactSummary")
_OWN_MARK = "<"  # what the program itself puts where the user's text goes begins with a tag


Spans = Mapping[str, Sequence[tuple[int, int]]]  # of sessions: from and to which moments, in ms


class Price(Protocol):
    """What a response cost in nano-dollars at a moment; None where the model has no price."""

    def __call__(
        self, model: str, usage: Usage, *, written_for_1h_tokens: int = 0, at_ms: int | None = None
    ) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Transcripts:
    """What a folder of transcripts holds, for the ledger, and what was left out of it.

    `skipped_lines` could not be read; `known_responses` are those that our own runs have counted.
    """

    runs: tuple[Run, ...]
    attempts: tuple[Attempt, ...]
    records: tuple[Record, ...]
    skipped_lines: int
    known_responses: int


def known_sessions(ledger: Ledger) -> Spans:
    """The sessions that our own runs had, not those that were imported from transcripts, and when they had them."""
    ends = {run.run: run.ended_ms for run in ledger.runs()}
    spans: dict[str, list[tuple[int, int]]] = {}
    for attempt in ledger.attempts():
        if attempt.session is not None and not attempt.run.startswith(RUN_PREFIX):
            span = (attempt.started_ms, _end_ms(attempt, ends.get(attempt.run)))
            spans.setdefault(attempt.session, []).append(span)
    return spans


def _end_ms(attempt: Attempt, run_ended_ms: int | None) -> int:
    """When an attempt was over: with its run where it has no end itself, but a resumed run has an earlier end too."""
    if attempt.ended_ms is not None:
        return attempt.ended_ms
    return run_ended_ms if run_ended_ms is not None and run_ended_ms >= attempt.started_ms else FOREVER_MS


def read_transcripts(
    folder: Path,
    machine: str,
    price: Price | None = None,
    *,
    known_sessions: Spans | None = None,
    now_ms: int = MAX_MS,
) -> Transcripts:
    """Everything under `folder` (`~/.claude`, its `projects`, or one project) as runs, attempts and records.

    A session is a run, a slash command and what follows it, up to another prompt, an attempt. Responses of a known
    session in one of its spans are left out. Raises ValueError where the folder or a file in it cannot be read; lines
    that make no sense are counted, those of responses after `now_ms` (more than a day after) among them.
    """
    reading = _Reading(known_sessions or {}, now_ms + MAX_AHEAD_MS)
    for path in _files(folder):
        reading.file(path)
    return reading.result(machine, price)


def _files(folder: Path) -> list[Path]:
    """The transcripts; by path, so that the result does not depend on the file system."""
    top = folder / "projects"
    if not top.is_dir():
        top = folder
    try:
        next(top.iterdir(), None)  # rglob is silent about a folder that is not there
        return sorted(path for path in top.rglob("*.jsonl") if path.is_file())
    except OSError as error:
        raise ValueError(f"{top}: expected a folder of Claude Code's transcripts: {error.strerror}") from None


@dataclass(slots=True, eq=False)
class _File:
    """A transcript: `first_ms` is its first line's time, whatever the order of the others."""

    instance: str
    session: str
    first_ms: int | None = None
    last_ms: int = 0


@dataclass(slots=True, eq=False)
class _Part:
    """A part of a transcript that is one attempt's."""

    file: _File
    session: str
    number: int
    command: str | None
    started_ms: int
    ended_ms: int
    model: str

    @property
    def age(self) -> tuple[int, int, str]:
        """By which of two sessions with the same response was first: a fork begins later, though it has the copy."""
        return self.file.first_ms or 0, self.file.last_ms, self.session


@dataclass(slots=True)
class _Response:
    """A response, from all its lines."""

    model: str
    at_ms: int
    parts: list[_Part] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    written_for_1h_tokens: int = 0


class _Place:
    """Where in a transcript the reading is, and which attempt that belongs to."""

    def __init__(self, file: _File) -> None:
        self.file = file
        self._command: str | None = None
        self._part: _Part | None = None
        self._parts: dict[str, int] = {}  # of each session in the file: old versions mix them

    def prompt(self, line: Mapping[str, object]) -> None:
        """What the user said; a slash command begins an attempt, and so does the first other prompt after it."""
        message = line.get("message")
        if not isinstance(message, dict) or any(line.get(key) for key in _NOT_A_PROMPT):
            return
        text = _prompt_text(message.get("content"))
        found = _COMMAND_NAME.search(text) if text.startswith("<command-") else None
        if text and (found or not text.startswith(_OWN_MARK)):
            command = "/" + _text(found[1]) if found else None
            if command or self._command:
                self._part = None
            self._command = command

    def part(self, session: str, at_ms: int, model: str) -> _Part:
        """The attempt that a response at this place belongs to."""
        part = self._part
        if part is None or part.session != session:
            self._parts[session] = number = self._parts.get(session, 0) + 1
            part = self._part = _Part(self.file, session, number, self._command, at_ms, at_ms, model)
        return part


class _Reading:
    """All files' responses as they are read."""

    def __init__(self, known_sessions: Spans, latest_ms: int) -> None:
        self._known = known_sessions
        self._latest_ms = latest_ms
        self._responses: dict[str, _Response] = {}
        self._known_ids: set[str] = set()
        self._skipped_lines = 0

    def file(self, path: Path) -> None:
        """Take a file's responses."""
        is_subagent = path.parent.name == "subagents"
        file = _File(path.stem if is_subagent else "main", path.parent.parent.name if is_subagent else path.stem)
        place = _Place(file)
        try:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:  # Claude Code deletes old ones
                for line in _lines(lines):
                    try:
                        self._line(json.loads(line), place)
                    except (ValueError, RecursionError):
                        self._skipped_lines += 1
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None

    def _line(self, data: object, place: _Place) -> None:
        if not isinstance(data, dict):
            raise ValueError("not an object")
        kind, at_ms = data.get("type"), _at_ms(data.get("timestamp"))
        file = place.file
        if at_ms is not None and at_ms <= self._latest_ms:
            file.first_ms = at_ms if file.first_ms is None else file.first_ms
            file.last_ms = max(file.last_ms, at_ms)
        if kind == "user":
            place.prompt(data)
        elif kind == "assistant":
            message = data.get("message")
            if not isinstance(message, dict) or at_ms is None or at_ms > self._latest_ms:
                raise ValueError("a response without message or time")
            if message.get("model") != "<synthetic>":  # the program's own words
                self._response(message, at_ms, _text(data.get("sessionId") or file.session), place)

    def _response(self, message: dict[str, object], at_ms: int, session: str, place: _Place) -> None:
        name, model, said = _text(message.get("id")), _text(message.get("model")), message.get("usage")
        if not isinstance(said, dict):
            raise ValueError("a response without usage")
        usage = Usage(
            _count(said.get("input_tokens")),
            _count(said.get("output_tokens")),
            _count(said.get("cache_creation_input_tokens")),
            _count(said.get("cache_read_input_tokens")),
        )
        by_lifetime = said.get("cache_creation")
        for_1h = _count(by_lifetime.get("ephemeral_1h_input_tokens")) if isinstance(by_lifetime, dict) else 0
        if any(first - SLACK_MS <= at_ms <= last + SLACK_MS for first, last in self._known.get(session, ())):
            self._known_ids.add(name)
            return
        part = place.part(session, at_ms, model)
        part.ended_ms = max(part.ended_ms, at_ms)
        response = self._responses.setdefault(name, _Response(model, at_ms))
        if part not in response.parts:
            response.parts.append(part)
        response.at_ms = min(response.at_ms, at_ms)
        response.usage |= usage
        response.written_for_1h_tokens = max(response.written_for_1h_tokens, for_1h)

    def result(self, machine: str, price: Price | None) -> Transcripts:
        """Everything that was read, each response at the session that was first."""
        runs: dict[str, Run] = {}
        attempts: dict[tuple[str, str, int], Attempt] = {}
        records = []
        for name, response in self._responses.items():
            if name in self._known_ids:
                continue
            part = min(response.parts, key=lambda part: part.age)
            key = (RUN_PREFIX + part.session, part.file.instance, part.number)
            records.append(_record(name, response, key, price))
            run = runs.get(key[0], Run(key[0], machine, part.started_ms, part.ended_ms))
            span = (min(run.started_ms, part.started_ms), max(run.ended_ms or 0, part.ended_ms))
            runs[key[0]] = replace(run, started_ms=span[0], ended_ms=span[1])
            if key not in attempts:
                attempts[key] = _attempt(key, part)
        return Transcripts(
            tuple(runs.values()),
            tuple(attempts.values()),
            tuple(records),
            self._skipped_lines,
            len(self._known_ids),
        )


def _attempt(key: tuple[str, str, int], part: _Part) -> Attempt:
    """A command's arguments are the user's own text and stay out."""
    return Attempt(
        *key,
        started_ms=part.started_ms,
        session=part.session,
        command=part.command,
        base_command=part.command,
        model=part.model,
        ended_ms=part.ended_ms,
        outcome=IMPORTED,
    )


def _record(name: str, response: _Response, key: tuple[str, str, int], price: Price | None) -> Record:
    cost = None
    if price is not None:
        for_1h, at_ms = response.written_for_1h_tokens, response.at_ms
        cost = price(response.model, response.usage, written_for_1h_tokens=for_1h, at_ms=at_ms)
    return Record(
        RUN_PREFIX + name,
        *key,
        at_ms=response.at_ms,
        model=response.model,
        usage=response.usage,
        cost_nano=cost,
        cost_source=None if cost is None else "prices",
    )


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The file's lines that are not blank; one that is too long is `b""`, which is no JSON either."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield b""
        elif line.strip():
            yield line


def _prompt_text(content: object) -> str:
    """The text of a user's line; nothing where it brings a tool's result."""
    if isinstance(content, str):
        return content.lstrip()
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if any(block.get("type") == "tool_result" for block in blocks):
        return ""
    return next((text.lstrip() for block in blocks if isinstance(text := block.get("text"), str)), "")


def _text(value: object) -> str:
    """A name; ValueError where it is none that a database can hold."""
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    value.encode()  # halves of surrogate pairs are a ValueError
    return value


def _count(value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_COUNT:  # bool is an int too
        raise ValueError("not a count")
    return value


def _at_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    moment = datetime.fromisoformat(value)
    at_ms = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= at_ms <= MAX_MS:
        raise ValueError("not a time of ours")
    return at_ms
