"""A ledger as text: JSON lines for export and import, with the profiles, and a CSV table for export.

The first line has the version. Each other line is a run, an attempt, a record, a note or the profiles; a key that is
missing is None. What an attempt has used is the sum of its records.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from token_budget.ledger.import_reader import COUNTS, HEADER, VERSION, ImportData
from token_budget.ledger.records import AttemptRecord, NoteRecord, RunRecord, UsageRecord
from token_budget.ledger.store import LedgerStore
from token_budget.models import Usage
from token_budget.portions import Terms
from token_budget.text import csv_line

CSV_COLUMNS = (
    *("at", "run", "instance", "attempt", "base_command", "session", "outcome", "model"),
    *(*COUNTS, "total_tokens", "cost_usd", "cost_source", "record"),
    *("source", "subagent_type", "subagent_depth", *Terms._fields, "written_for_1h_tokens", "web_searches"),
)

_Ended = TypeVar("_Ended", RunRecord, AttemptRecord)


@dataclass(frozen=True, slots=True)
class Diff:
    """What an import adds to a ledger: `tokens` are those of the new records; `profiles` are all that it brings.

    `other_records` of the known ones are there with other counts or cost.
    """

    new_runs: int
    new_attempts: int
    new_records: int
    known_records: int
    profiles: tuple[str, ...]
    tokens: int
    other_records: int = 0


# -- out --


def export(
    ledger: LedgerStore, *, prompts: bool = False, profiles: Mapping[str, object] | None = None
) -> Generator[str, None, None]:
    """The ledger as JSON lines (without line ends), in an order that depends only on its content.

    Without `prompts`, commands are cut to the names of their slash commands, and workspaces are left out. Memory grows
    with runs and attempts, not with records. What is written meanwhile may be missing, but no record is without its
    attempt.
    """
    yield _line(HEADER, {"version": VERSION})
    yield from map(_run_line, ledger.runs())
    written = set()
    for attempt in _attempts(ledger):
        written.add(attempt.key)
        if not prompts:
            attempt = attempt._replace(command=_slash_command(attempt.command), workspace=None)  # noqa: PLW2901
        yield _attempt_line(attempt)
    for record in ledger.records():
        if (record.run, record.instance, record.attempt) in written:
            yield _record_line(record)
    for note in ledger.notes():
        yield _note_line(note)
    if profiles:
        yield _line("profiles", {"profiles": profiles})


def lines_of(parcel: ImportData) -> Generator[str, None, None]:
    """What `import_reader.read` reads as this parcel."""
    yield _line(HEADER, {"version": VERSION})
    yield from map(_run_line, parcel.runs)
    yield from map(_attempt_line, parcel.attempts)
    yield from map(_record_line, parcel.records)
    yield from map(_note_line, parcel.notes)


def _run_line(run: RunRecord) -> str:
    return _line("run", {**run._asdict(), "account": run.account or None})


def _attempt_line(attempt: AttemptRecord) -> str:
    values = attempt._asdict()
    del values["usage"], values["cost_nano_usd"]
    agents = [agent._asdict() for agent in attempt.subagents]
    return _line(
        "attempt", {**values, "other_sessions": list(attempt.other_sessions) or None, "subagents": agents or None}
    )


def _record_line(record: UsageRecord) -> str:
    values = record._asdict()
    usage, cost = values.pop("usage"), values.pop("cost_nano_usd")
    values["terms"] = {name: term for name, term in record.terms._asdict().items() if term} or None
    for name in ("source", "written_for_1h_tokens", "web_searches"):
        values[name] = values[name] or None
    return _line("record", {**values, "cost_nano": cost, **usage._asdict()})


def _note_line(note: NoteRecord) -> str:
    values = note._asdict()
    about = values.pop("kind")  # `kind` is the line's own
    return _line("note", {**values, "about": about})


def export_csv(ledger: LedgerStore) -> Generator[str, None, None]:
    """A table's lines (without line ends): the column names, then a line for each record with what its attempt was.

    Text that a spreadsheet would take for a formula has a leading apostrophe.
    """
    yield csv_line(CSV_COLUMNS)
    attempts = {attempt.key: attempt for attempt in _attempts(ledger)}
    for record in ledger.records():
        attempt = attempts.get((record.run, record.instance, record.attempt))
        if attempt is None:  # begun after the attempts were read
            continue
        at = datetime.fromtimestamp(record.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        yield csv_line(
            (
                *(at.replace("+00:00", "Z"), *attempt.key, attempt.base_command, attempt.session, attempt.outcome),
                *(record.model, *record.usage.counts, record.usage.total_tokens),
                *(_usd(record.cost_nano_usd), record.cost_source, record.id),
                *_of_source(record, attempt),
            )
        )


def _of_source(record: UsageRecord, attempt: AttemptRecord) -> tuple[str | int | None, ...]:
    agent = next((one for one in attempt.subagents if one.id == record.source), None)
    about = (None, None) if agent is None else (agent.type, agent.depth)
    return (record.source, *about, *record.terms, record.written_for_1h_tokens, record.web_searches)


def _attempts(ledger: LedgerStore) -> list[AttemptRecord]:
    return sorted(ledger.attempts(), key=lambda attempt: (attempt.started_ms, *attempt.key))


def _line(kind: str, values: Mapping[str, object]) -> str:
    return json.dumps({"kind": kind, **{key: value for key, value in values.items() if value is not None}})


def _slash_command(command: str | None) -> str | None:
    """The name of a slash command; what follows it, and any other prompt, is the user's own text."""
    return command.split(None, 1)[0] if command and command.startswith("/") else None


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else Decimal(nano).scaleb(-9)


# -- in --


def diff(ledger: LedgerStore | None, parcel: ImportData) -> Diff:
    """What `apply` would add to the ledger, or to one that is not there yet; changes nothing."""
    runs, attempts = _there(ledger, parcel)
    ids = {record.id for record in parcel.records}
    known = {record.id: _figures(record) for record in ledger.records() if record.id in ids} if ledger else {}
    new = {record.id: record for record in parcel.records if record.id not in known}
    return Diff(
        new_runs=len({run.run for run in parcel.runs} - runs.keys()),
        new_attempts=len({attempt.key for attempt in parcel.attempts} - attempts.keys()),
        new_records=len(new),
        known_records=len(parcel.records) - len(new),
        profiles=tuple(parcel.profiles),
        tokens=sum(record.usage.total_tokens for record in new.values()),
        other_records=sum(known.get(record.id, _figures(record)) != _figures(record) for record in parcel.records),
    )


def _figures(record: UsageRecord) -> tuple[Usage, int | None]:
    return record.usage, record.cost_nano_usd


def apply(ledger: LedgerStore, parcel: ImportData) -> Diff:
    """Add to the ledger what it does not have, in one transaction; the caller saves the profiles.

    A run or attempt that is there stays as it is, unless the parcel knows a later end of it.
    """
    told = diff(ledger, parcel)
    runs, attempts = _there(ledger, parcel)
    new = ledger.write(
        runs=[run for run in parcel.runs if _is_news(run, runs.get(run.run))],
        attempts=[attempt for attempt in parcel.attempts if _is_news(attempt, attempts.get(attempt.key))],
        records=parcel.records,
        notes=parcel.notes,
    )
    return replace(told, new_records=new, known_records=len(parcel.records) - new)


def _there(
    ledger: LedgerStore | None, parcel: ImportData
) -> tuple[dict[str, RunRecord], dict[tuple[str, str, int], AttemptRecord]]:
    """The parcel's runs and attempts as far as the ledger has them."""
    if ledger is None:
        return {}, {}
    named = {run.run for run in parcel.runs} | {attempt.run for attempt in parcel.attempts}
    runs = {run.run: run for run in ledger.runs() if run.run in named}
    return runs, {attempt.key: attempt for attempt in ledger.attempts() if attempt.run in named}


def _is_news(said: _Ended, there: _Ended | None) -> bool:
    if there is None:
        return True
    return said.ended_ms is not None and (there.ended_ms is None or said.ended_ms > there.ended_ms)
