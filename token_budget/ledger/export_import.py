"""A ledger as text: JSON lines out and in, with the profiles, and a table (CSV) out.

The first line says the version; each line after it is a run, an attempt, a record, a note or the profiles. A key that
is not there is None. What attempts have used is not said: their records say it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from token_budget.ledger.records import Attempt, Note, Record, Run
from token_budget.ledger.sqlite import Ledger
from token_budget.models import Usage
from token_budget.text import csv_line

VERSION = 1
HEADER = "token-budget"
MAX_COUNT = 2**62  # of one number, and of all numbers of a file together: sums must fit SQLite's 64 bits
MAX_MS = 253_370_764_800_000  # the year 9999 begins: a date in every zone
MAX_LINE_CHARS = 16 * 1024 * 1024
COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
CSV_COLUMNS = (
    *("at", "run", "instance", "attempt", "base_command", "session", "outcome", "model"),
    *(*COUNTS, "total_tokens", "cost_usd", "cost_source", "record"),
)

_Ended = TypeVar("_Ended", Run, Attempt)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be imported; all of it is valid."""

    runs: tuple[Run, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    records: tuple[Record, ...] = ()
    notes: tuple[Note, ...] = ()
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


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
    ledger: Ledger, *, prompts: bool = False, profiles: Mapping[str, object] | None = None
) -> Generator[str, None, None]:
    """The ledger as JSON lines (without line ends), in an order that depends on what is in it alone.

    Without `prompts` of a command only its slash command's name is said. Memory grows with runs and attempts, not with
    records; what is written meanwhile may be missing, but no record is without its attempt.
    """
    yield _line(HEADER, {"version": VERSION})
    for run in ledger.runs():
        yield _line("run", asdict(run))
    written = set()
    for attempt in _attempts(ledger):
        written.add(attempt.key)
        values = asdict(attempt)
        del values["usage"], values["cost_nano"]
        if not prompts:
            values["command"] = _slash_command(attempt.command)
        yield _line("attempt", values)
    for record in ledger.records():
        if (record.run, record.instance, record.attempt) in written:
            counts = dict(zip(COUNTS, record.usage.counts, strict=True))
            yield _line("record", {**{key: getattr(record, key) for key in _RECORD if key not in counts}, **counts})
    for note in ledger.notes():
        values = asdict(note)
        about = values.pop("kind")  # `kind` is the line's own
        yield _line("note", {**values, "about": about})
    if profiles:
        yield _line("profiles", {"profiles": profiles})


def export_csv(ledger: Ledger) -> Generator[str, None, None]:
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
                *(_usd(record.cost_nano), record.cost_source, record.id),
            )
        )


def _attempts(ledger: Ledger) -> list[Attempt]:
    return sorted(ledger.attempts(), key=lambda attempt: (attempt.started_ms, *attempt.key))


def _line(kind: str, values: Mapping[str, object]) -> str:
    return json.dumps({"kind": kind, **{key: value for key, value in values.items() if value is not None}})


def _slash_command(command: str | None) -> str | None:
    """The name of a slash command; what follows it, and any other prompt, is the user's own text."""
    return command.split(None, 1)[0] if command and command.startswith("/") else None


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else Decimal(nano).scaleb(-9)


# -- in --


def read(lines: Iterable[str], name: str = "import") -> Parcel:
    """All that the lines say, checked; raises ValueError `NAME: line 7: …` for the first fault."""
    reader, number = _Reader(), 0  # not enumerate: the last number is wanted after the loop too
    try:
        for line in lines:
            number += 1
            if line.strip():
                reader.take(line)
        if not reader.begun:
            raise ValueError(_not_header("nothing"))
    except UnicodeDecodeError:
        raise ValueError(f"{name}: is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{name}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{name}: line {max(1, number)}: {error}") from None
    return reader.parcel()


def diff(ledger: Ledger | None, parcel: Parcel) -> Diff:
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


def _figures(record: Record) -> tuple[Usage, int | None]:
    return record.usage, record.cost_nano


def apply(ledger: Ledger, parcel: Parcel) -> Diff:
    """Add to the ledger what it does not have, in one transaction; profiles are the caller's to save.

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


def _there(ledger: Ledger | None, parcel: Parcel) -> tuple[dict[str, Run], dict[tuple[str, str, int], Attempt]]:
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


class _Reader:
    """Takes lines one after the other; a line's fault is a ValueError."""

    def __init__(self) -> None:
        self.begun = False
        self._found: dict[str, dict[object, Any]] = {kind: {} for kind in _KINDS}
        self._profiles: dict[str, Mapping[str, object]] = {}
        self._tokens = self._nano = 0

    def parcel(self) -> Parcel:
        """All that was taken."""
        runs, attempts, records, notes = (tuple(found.values()) for found in self._found.values())
        return Parcel(runs, attempts, records, notes, self._profiles)

    def take(self, line: str) -> None:
        """Read and check one line."""
        data = _object(line)
        kind = data.pop("kind", None)
        if not self.begun:
            self._begin(kind, data)
        elif kind == "profiles":
            profiles = _fields("profiles", data, {"profiles": _profiles})["profiles"]
            self._profiles.update(profiles)
        elif isinstance(kind, str) and kind in _KINDS:
            fields, make = _KINDS[kind]
            self._put(kind, make(_fields(kind, data, fields)))
        else:
            known = ", ".join((*_KINDS, "profiles"))
            raise ValueError(f"kind {_show(kind)} is none that version {VERSION} has ({known})")

    def _begin(self, kind: object, data: dict[str, object]) -> None:
        if kind != HEADER:
            raise ValueError(_not_header(f"kind {_show(kind)}"))
        version = data.get("version")
        if type(version) is not int or version != VERSION:
            raise ValueError(f"version {_show(version)} is not one that this program reads (it reads {VERSION})")
        self.begun = True

    def _put(self, kind: str, value: Run | Attempt | Record | Note) -> None:
        key: object
        if isinstance(value, Record):
            attempt = (value.run, value.instance, value.attempt)
            if attempt not in self._found["attempt"]:
                raise ValueError(f"record {_show(value.id)}: no line before it has its attempt {_show(attempt)}")
            if value.id not in self._found[kind]:
                self._add_up(value)
            key = value.id
        else:
            key = value.run if isinstance(value, Run) else value.key if isinstance(value, Attempt) else value.id
        if self._found[kind].setdefault(key, value) != value:
            raise ValueError(f"{kind} {_show(key)}: is on a line before with other values")

    def _add_up(self, record: Record) -> None:
        self._tokens += sum(map(abs, record.usage.counts))
        self._nano += abs(record.cost_nano or 0)
        if max(self._tokens, self._nano) > MAX_COUNT:
            raise ValueError(f"record {_show(record.id)}: all counts or costs until here are more than {MAX_COUNT}")


def _not_header(got: str) -> str:
    return f'expected {{"kind": "{HEADER}", "version": {VERSION}}} as the first line, got {got}'


def _object(line: str) -> dict[str, object]:
    if len(line) > MAX_LINE_CHARS:
        raise ValueError(f"is longer than {MAX_LINE_CHARS} characters")
    try:
        data = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"is not JSON: {_show(line.strip())}") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {_show(data)}")
    return data


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


_Field = Callable[[object], object]


def _fields(kind: str, data: Mapping[str, object], fields: Mapping[str, _Field]) -> dict[str, Any]:
    unknown = next((key for key in data if key not in fields), None)
    if unknown is not None:
        raise ValueError(f"{kind}: key {_show(unknown)} is none that version {VERSION} has")
    values: dict[str, Any] = {}
    for key, check in fields.items():
        try:
            values[key] = check(data.get(key))
        except ValueError as error:
            got = _show(data[key]) if key in data else "nothing"
            raise ValueError(f"{kind}: {key}: expected {error}, got {got}") from None
    return values


def _text(value: object) -> object:
    if not isinstance(value, str) or not _is_unicode(value):
        raise ValueError("text")
    return value


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it, which no database can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(least: int, most: int) -> _Field:
    def check(value: object) -> object:
        if type(value) is not int or not least <= value <= most:  # bool is an int too
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _budgets(value: object) -> object:
    try:
        if isinstance(json.loads(str(_text(value))), dict):
            return value
    except (ValueError, RecursionError):
        pass
    raise ValueError("the text of a JSON object")


def _profiles(value: object) -> object:
    if not isinstance(value, dict) or not all(isinstance(profile, dict) for profile in value.values()):
        raise ValueError("an object with an object for each profile")
    return value


def _maybe(check: _Field) -> _Field:
    return lambda value: None if value is None else check(value)


def _make_record(values: dict[str, Any]) -> Record:
    usage = Usage(*(values.pop(key) for key in COUNTS))
    return Record(**values, usage=usage)


def _make_note(values: dict[str, Any]) -> Note:
    about = values.pop("about")
    return Note(**values, kind=about)


_TIME, _COUNT = _whole(0, MAX_MS), _whole(-MAX_COUNT, MAX_COUNT)
_PLACE: dict[str, _Field] = {"run": _text, "instance": _text, "attempt": _whole(0, MAX_COUNT)}
_SPAN: dict[str, _Field] = {"started_ms": _TIME, "ended_ms": _maybe(_TIME)}
_RUN: dict[str, _Field] = {
    **dict.fromkeys(("run", "machine", "mode"), _text),
    **_SPAN,
    "budgets": _budgets,
    "exit_code": _maybe(_COUNT),
}
_ATTEMPT: dict[str, _Field] = {
    **_PLACE,
    **_SPAN,
    "exact": _flag,
    **dict.fromkeys(("session", "command", "base_command", "model", "outcome"), _maybe(_text)),
}
_RECORD: dict[str, _Field] = {
    "id": _text,
    **_PLACE,
    "at_ms": _TIME,
    "model": _text,
    **dict.fromkeys(COUNTS, _COUNT),
    "cost_nano": _maybe(_COUNT),
    "cost_source": _maybe(_text),
}
_NOTE: dict[str, _Field] = {
    **dict.fromkeys(("id", "run", "about", "text"), _text),
    "at_ms": _TIME,
    "instance": _maybe(_text),
}
_KINDS: dict[str, tuple[dict[str, _Field], Callable[[dict[str, Any]], Run | Attempt | Record | Note]]] = {
    "run": (_RUN, lambda values: Run(**values)),
    "attempt": (_ATTEMPT, lambda values: Attempt(**values)),
    "record": (_RECORD, _make_record),
    "note": (_NOTE, _make_note),
}
