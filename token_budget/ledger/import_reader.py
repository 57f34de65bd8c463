"""Reads an exported ledger: every line is checked before anything is imported. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from token_budget.ledger.records import AttemptRecord, NoteRecord, RunRecord, UsageRecord
from token_budget.models import Usage
from token_budget.portions import Subagent, Terms

VERSION = 4  # 1 had no other_sessions and no workspace, 2 no source, terms and subagents, 3 no account
HEADER = "token-budget"
MAX_COUNT = 2**62  # of one number, and of all numbers of a file together: sums must fit SQLite's 64 bits
MAX_MS = 253_370_764_800_000  # the year 9999 begins: a date in every zone
MAX_LINE_CHARS = 16 * 1024 * 1024
COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True)
class ImportData:
    """What is to be imported; all of it is valid."""

    runs: tuple[RunRecord, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    records: tuple[UsageRecord, ...] = ()
    notes: tuple[NoteRecord, ...] = ()
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def read(lines: Iterable[str], name: str = "import") -> ImportData:
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


class _Reader:
    """Takes lines one after the other; a line's fault is a ValueError."""

    def __init__(self) -> None:
        self.begun = False
        self._found: dict[str, dict[object, Any]] = {kind: {} for kind in _KINDS}
        self._profiles: dict[str, Mapping[str, object]] = {}
        self._tokens = self._nano = 0

    def parcel(self) -> ImportData:
        """All that was taken."""
        runs, attempts, records, notes = (tuple(found.values()) for found in self._found.values())
        return ImportData(runs, attempts, records, notes, self._profiles)

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
            raise ValueError(f"kind {_show(kind)} does not exist in version {VERSION}, which has {known}")

    def _begin(self, kind: object, data: dict[str, object]) -> None:
        if kind != HEADER:
            raise ValueError(_not_header(f"kind {_show(kind)}"))
        version = data.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(f"version {_show(version)} is unknown: this program reads versions 1 to {VERSION}")
        self.begun = True

    def _put(self, kind: str, value: RunRecord | AttemptRecord | UsageRecord | NoteRecord) -> None:
        key: object
        if isinstance(value, UsageRecord):
            attempt = (value.run, value.instance, value.attempt)
            if attempt not in self._found["attempt"]:
                raise ValueError(f"record {_show(value.id)}: no line before it has its attempt {_show(attempt)}")
            if value.id not in self._found[kind]:
                self._add_up(value)
            key = value.id
        else:
            key = (
                value.run
                if isinstance(value, RunRecord)
                else value.key
                if isinstance(value, AttemptRecord)
                else value.id
            )
        if self._found[kind].setdefault(key, value) != value:
            raise ValueError(f"{kind} {_show(key)}: an earlier line has it with other values")

    def _add_up(self, record: UsageRecord) -> None:
        self._tokens += sum(map(abs, record.usage.counts))
        self._nano += abs(record.cost_nano_usd or 0)
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
        raise ValueError(f"{kind}: key {_show(unknown)} does not exist in version {VERSION}")
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


def _texts(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return [_text(one) for one in value]


def _terms(value: object) -> object:
    if not isinstance(value, dict) or not value.keys() <= set(Terms._fields):
        raise ValueError(f"an object with {', '.join(Terms._fields)}")
    return Terms(**{name: str(_text(term)) for name, term in value.items()})


def _subagents(value: object) -> object:
    fields: dict[str, _Field] = {**dict.fromkeys(("id", "type", "parent"), _text), "depth": _whole(1, MAX_COUNT)}
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("a list of objects")
    return [Subagent(**_fields("subagent", one, fields)) for one in value]


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


def _make_attempt(values: dict[str, Any]) -> AttemptRecord:
    sessions, agents = values.pop("other_sessions") or (), values.pop("subagents") or ()
    return AttemptRecord(**values, other_sessions=tuple(sessions), subagents=tuple(agents))


def _make_record(values: dict[str, Any]) -> UsageRecord:
    usage = Usage(*(values.pop(key) for key in COUNTS))
    cost_nano_usd = values.pop("cost_nano")
    divided = {"source": "", "terms": Terms(), "written_for_1h_tokens": 0, "web_searches": 0}
    values.update({name: values[name] or default for name, default in divided.items()})
    return UsageRecord(**values, usage=usage, cost_nano_usd=cost_nano_usd)


def _make_note(values: dict[str, Any]) -> NoteRecord:
    about = values.pop("about")
    return NoteRecord(**values, kind=about)


_TIME, _COUNT = _whole(0, MAX_MS), _whole(-MAX_COUNT, MAX_COUNT)
_PLACE: dict[str, _Field] = {"run": _text, "instance": _text, "attempt": _whole(0, MAX_COUNT)}
_SPAN: dict[str, _Field] = {"started_ms": _TIME, "ended_ms": _maybe(_TIME)}
_RUN: dict[str, _Field] = {
    **dict.fromkeys(("run", "machine", "mode"), _text),
    **_SPAN,
    "budgets": _budgets,
    "exit_code": _maybe(_COUNT),
    "account": _maybe(_text),
}
_ATTEMPT: dict[str, _Field] = {
    **_PLACE,
    **_SPAN,
    "exact": _flag,
    **dict.fromkeys(("session", "command", "base_command", "model", "outcome", "workspace"), _maybe(_text)),
    "other_sessions": _maybe(_texts),
    "verified": _maybe(_flag),
    "subagents": _maybe(_subagents),
}
_RECORD: dict[str, _Field] = {
    "id": _text,
    **_PLACE,
    "at_ms": _TIME,
    "model": _text,
    **dict.fromkeys(COUNTS, _COUNT),
    "cost_nano": _maybe(_COUNT),
    "cost_source": _maybe(_text),
    "source": _maybe(_text),
    "terms": _maybe(_terms),
    "written_for_1h_tokens": _maybe(_COUNT),
    "web_searches": _maybe(_COUNT),
}
_NOTE: dict[str, _Field] = {
    **dict.fromkeys(("id", "run", "about", "text"), _text),
    "at_ms": _TIME,
    "instance": _maybe(_text),
}
_KINDS: dict[
    str, tuple[dict[str, _Field], Callable[[dict[str, Any]], RunRecord | AttemptRecord | UsageRecord | NoteRecord]]
] = {
    "run": (_RUN, lambda values: RunRecord(**{**values, "account": values["account"] or ""})),
    "attempt": (_ATTEMPT, _make_attempt),
    "record": (_RECORD, _make_record),
    "note": (_NOTE, _make_note),
}
