"""Import of Claude Code's own transcripts: each response once, whatever number of files it was copied to.

Claude Code keeps a session as `projects/SLUG/SESSION.jsonl` and its subagents in files below `SESSION/subagents`. A
line stands for a part of a response, so that an id repeats. A forked session begins with a copy of another one. Each
line names its session and its agent; a file's name decides only where the lines do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from token_budget.api_usage import read_usage
from token_budget.ledger.records import FOREVER_MS, AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.responses import RUN_PREFIX, AttemptPart, Price, Responses, Source
from token_budget.ledger.store import LedgerStore
from token_budget.ledger.transcript_files import find_files, open_if_there, read_objects
from token_budget.named_tuples import NamedTuple
from token_budget.timestamps import unix_s

MAX_COUNT = 2**40  # tokens of one response: a larger number is no count
MAX_MS = 253_370_764_800_000  # the year 9999 begins: a date in every zone
SLACK_MS = 60_000  # around an attempt: its recorded times are not those of its responses
MAX_AHEAD_MS = 86_400_000  # of now: a later time is wrong
_COMMAND_NAME = re.compile(r"<command-name>/?([^\s<]+)</command-name>")
_NOT_A_PROMPT = ("isMeta", "isSidechain", "isCompactSummary")
_OWN_MARK = "<"  # text that the program itself puts in place of the user's begins with a tag


Spans = Mapping[str, Sequence[tuple[int, int]]]  # of sessions: from when to when, in ms


class Transcripts(NamedTuple):
    """What a folder of transcripts holds, for the ledger, and what was left out of it.

    `skipped_lines` could not be read. `known_responses` were counted by runs of the orchestrator.
    """

    runs: tuple[RunRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    records: tuple[UsageRecord, ...]
    skipped_lines: int
    known_responses: int


def known_sessions(ledger: LedgerStore) -> Spans:
    """The sessions of the orchestrator's runs, and when each was in use; imported sessions are not among them."""
    ends = {run.run: run.ended_ms for run in ledger.runs()}
    spans: dict[str, list[tuple[int, int]]] = {}
    for attempt in ledger.attempts():
        if attempt.run.startswith(RUN_PREFIX):
            continue
        span = (attempt.started_ms, _end_ms(attempt, ends.get(attempt.run)))
        for session in {attempt.session, *attempt.other_sessions} - {None}:
            spans.setdefault(str(session), []).append(span)
    return spans


def _end_ms(attempt: AttemptRecord, run_ended_ms: int | None) -> int:
    """When an attempt ended; without an end of its own it ended with its run, unless that run was resumed since."""
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

    A session is a run. A slash command and what follows it, up to another prompt, is an attempt. Responses of a known
    session within one of its spans are left out. Raises ValueError where the folder or a file in it cannot be read.
    Unreadable lines are counted, and so are responses that are dated more than a day after `now_ms`.
    """
    reading = _Reading(known_sessions or {}, now_ms + MAX_AHEAD_MS)
    for path in _files(folder):
        reading.read_file(path)
    runs, attempts, records = reading.responses.result(machine, price)
    return Transcripts(runs, attempts, records, reading.skipped_lines, reading.responses.known)


def _files(folder: Path) -> list[Path]:
    top = folder / "projects"
    if not top.is_dir():
        top = folder
    try:
        if not top.is_dir():
            next(top.iterdir())  # raises the reason
        return find_files(top, ".jsonl")
    except OSError as error:
        raise ValueError(f"{top}: expected a folder of Claude Code's transcripts: {error.strerror}") from None


class _Cursor:
    """The position in a transcript, and the attempt that a response there belongs to."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._command: str | None = None
        self._part: AttemptPart | None = None
        self._counts: dict[tuple[str, str], int] = {}  # parts by session and instance: old versions mix sessions

    def prompt(self, line: Mapping[str, object]) -> None:
        """Note what the user wrote: a slash command begins an attempt, and so does the first other prompt after it."""
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

    def part(self, line: Mapping[str, object], at_ms: int, model: str) -> AttemptPart:
        """The attempt that this response belongs to."""
        session = _text(line.get("sessionId") or self.source.session)
        instance = self._instance(line, session)
        part = self._part
        if part is None or (part.session, part.instance) != (session, instance):
            self._counts[session, instance] = number = self._counts.get((session, instance), 0) + 1
            part = self._part = AttemptPart(self.source, session, instance, number, self._command, at_ms, at_ms, model)
        return part

    def _instance(self, line: Mapping[str, object], session: str) -> str:
        """`main`, `agent-ID` of a subagent, or the file that holds a part of another file's session."""
        if self.source.is_agent:
            agent = line.get("agentId")
            return f"agent-{_text(agent)}" if agent else self.source.name
        return "main" if session == self.source.name else f"main in {self.source.name}"


class _Reading:
    """Reads one file after the other."""

    def __init__(self, known_sessions: Spans, latest_ms: int) -> None:
        self.responses = Responses()
        self.skipped_lines = 0
        self._known = known_sessions
        self._latest_ms = latest_ms

    def read_file(self, path: Path) -> None:
        """Take a file's responses. Raises ValueError where it cannot be read."""
        cursor = _Cursor(_source(path))
        try:
            with open_if_there(path) as file:  # Claude Code deletes old ones
                for data in read_objects(file) if file is not None else ():
                    try:
                        if data is None:
                            raise ValueError("unreadable")
                        self._line(data, cursor)
                    except ValueError:
                        self.skipped_lines += 1
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None

    def _line(self, data: dict[str, object], cursor: _Cursor) -> None:
        kind, at_ms = data.get("type"), _at_ms(data.get("timestamp"))
        if at_ms is not None and at_ms <= self._latest_ms:
            cursor.source.saw(at_ms)
        if kind == "user":
            cursor.prompt(data)
        elif kind == "assistant":
            message = data.get("message")
            if not isinstance(message, dict) or at_ms is None or at_ms > self._latest_ms:
                raise ValueError("a response without message or time")
            if message.get("model") != "<synthetic>":  # the program's own words
                self._response(data, message, at_ms, cursor)

    def _response(self, line: dict[str, object], message: dict[str, object], at_ms: int, cursor: _Cursor) -> None:
        stated = message.get("usage")
        if not isinstance(stated, dict):
            raise ValueError("a response without usage")
        top = {key: value for key, value in stated.items() if key != "iterations"}
        if not read_usage(top).readable:
            raise ValueError("a response with invalid counts")
        usage = read_usage(stated)
        if max(max(part.usage.counts) for part in usage.parts()) > MAX_COUNT:
            raise ValueError("a response with invalid counts")
        model = _text(message["model"]) if message.get("model") is not None else ""
        names = [_text(name) if name else "" for name in (message.get("id"), line.get("requestId"), line.get("uuid"))]
        if not any(names):
            raise ValueError("a response without an id")
        session = _text(line.get("sessionId") or cursor.source.session)
        is_known = any(first - SLACK_MS <= at_ms <= last + SLACK_MS for first, last in self._known.get(session, ()))
        part = None if is_known else cursor.part(line, at_ms, model)
        self.responses.add(names, usage, at_ms, model, part)


def _source(path: Path) -> Source:
    """What a file's place says of its lines: whether a subagent wrote them, and in which session."""
    folders = path.parts[:-1]
    if "subagents" in folders:
        place = len(folders) - 1 - folders[::-1].index("subagents")
        return Source(path.stem, folders[place - 1] if place else path.stem, is_agent=True)
    return Source(path.stem, path.stem, is_agent=path.stem.startswith("agent-"))


def _prompt_text(content: object) -> str:
    """The text of a user's line; empty where it holds a tool's result."""
    if isinstance(content, str):
        return content.lstrip()
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if any(block.get("type") == "tool_result" for block in blocks):
        return ""
    return next((text.lstrip() for block in blocks if isinstance(text := block.get("text"), str)), "")


def _text(value: object) -> str:
    """A name. Raises ValueError for what is none, and for text that a database cannot hold."""
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    value.encode()  # half a surrogate pair is a ValueError
    return value


def _at_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    at_s = unix_s(value)
    if at_s is None or not 0 <= (at_ms := round(at_s * 1000)) <= MAX_MS:
        raise ValueError("not a time that a ledger can hold")
    return at_ms
