"""Budget profiles: named sets of limits in JSON files of the project and of the user, which can extend each other.

A file is `{"profiles": {NAME: {"extends": NAME, KEY: VALUE, …}}}`; keys that begin with `//` are comments. Wherever
several files are asked for, the first wins: the project's before the user's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from token_budget.fields import (
    PROFILE_FIELDS,
    TOKENS,
    BadValue,
    expected,
    forbidden_character,
    is_comment,
    show_json,
)
from token_budget.files import locked, write_atomically
from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes
from token_budget.usage.nearest import nearest

PROJECT_FILE = "claude-orchestrator-profiles.json"
USER_FILE = "profiles.json"
MAX_FILE_BYTES = 1024 * 1024
MAX_MARGIN = 100
LOCKED_S = 10.0  # for a writer to wait for others
FIELDS = {field.key: field for field in PROFILE_FIELDS}


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile with what it inherits. `values` are checked: costs are in nano-dollars, weights are Weights.

    `origins` has `command_budgets[KEY]` for each command.
    """

    name: str
    values: Mapping[str, Any]
    origins: Mapping[str, str]


class Listed(NamedTuple):
    """A profile as it stands in a file; `extends` is None where it says nothing usable."""

    name: str
    file: Path
    extends: str | None


def load(name: str, files: Sequence[Path]) -> Profile:
    """The profile `name` with all that it extends; missing files are fine, and only those needed are read.

    Raises ValueError with a line for each fault found.
    """
    shelf = _Shelf(files)
    index = shelf.find(name)
    if index is None:
        looked = ", ".join(str(file) for file in files)
        raise ValueError(f"unknown profile {show_json(name)}{_nearest(name, shelf.names())} (looked in {looked})")
    faults: list[str] = []
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for place, said in reversed(_chain(shelf, (index, name), faults).items()):
        origin = f"profile {_plain(place[1])} ({shelf.label(place[0])})"
        for key, value in said.items():
            if isinstance(value, dict):
                before = values.get(key)
                values[key] = {**before, **value} if isinstance(before, dict) else value
                origins.update((f"{key}[{command}]", origin) for command in value)
            else:
                values[key], origins[key] = value, origin
    if faults:
        raise ValueError("\n".join(faults))
    return Profile(name, values, origins)


def names(files: Sequence[Path]) -> list[Listed]:
    """Every profile of every file, by name, the one that counts first. Raises ValueError for a damaged file."""
    listed = [
        Listed(name, file, _extends(data)) for file in files for name, data in _profiles(file, _document(file)).items()
    ]
    return sorted(listed, key=lambda profile: profile.name)


def describe(profile: Profile) -> list[str]:
    """A line for each value, aligned: `key  value  (origin)`."""
    rows: list[tuple[str, str, str]] = []
    for key, field in FIELDS.items():
        if key not in profile.values:
            continue
        value, kind = profile.values[key], field.kind.element or field.kind
        items = sorted(value.items()) if isinstance(value, dict) else [("", value)]
        for command, item in items:
            path = f"{key}[{command}]" if command else key
            shown = f"{item:,}" if kind is TOKENS else kind.show(item)
            rows.append((_plain(path), shown, f"({profile.origins[path]})"))
    if not rows:
        return [f"profile {_plain(profile.name)} sets nothing"]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows]


def stored(file: Path) -> dict[str, object]:
    """A file's profiles as they stand in it, without comments. Raises ValueError for a damaged or wrong one."""
    profiles = _profiles(file, _document(file))
    check(profiles, file)
    return {name: _without_comments(data) for name, data in profiles.items()}


def check(profiles: Mapping[str, object], file: Path) -> None:
    """Raises ValueError with a line for each name and value that could not be saved; `file` is where they are from."""
    faults: list[str] = []
    for name, values in profiles.items():
        if not name.strip() or name != name.strip() or forbidden_character(name) or name.startswith(("-", "//", "$")):
            expected = "one line of text that does not begin with -, // or $"
            faults.append(f"profile name: expected {expected}, got {show_json(name)}")
        _checked(values, _where(file, name), faults)
    if faults:
        raise ValueError("\n".join(faults))


def save(file: Path, name: str, values: Mapping[str, object], files: Sequence[Path] = ()) -> bool:
    """Write a profile into a file, in place of one of that name; returns whether there was one.

    `values` as in the file, `extends` included: it is looked for in `files` (the first wins, `file` among them).
    Everything else in the file stays, comments too. Raises ValueError when the name or a value is wrong, when `load`
    would refuse the profile, when the file is damaged or cannot be written; the file is then as it was.
    """
    check({name: dict(values)}, file)
    with _alone(file):
        document = _document(file)
        is_there = name in _profiles(file, document)
        _put(document, {name: values})
        shelf = _Shelf(_with(files, file), {file: _profiles(file, document)})
        faults: list[str] = []
        _chain(shelf, (shelf.files.index(file), name), faults)
        if faults:
            raise ValueError("\n".join(faults))
        _write(file, document)
    return is_there


def save_all(file: Path, profiles: Mapping[str, Mapping[str, object]]) -> None:
    """Write several profiles at once, all or none, as `save` does but whatever they extend."""
    check(profiles, file)
    with _alone(file):
        document = _document(file)
        _profiles(file, document)  # refuses what is damaged
        _put(document, profiles)
        _write(file, document)


def delete(file: Path, name: str, files: Sequence[Path] = ()) -> None:
    """Take a profile out of a file; `files` (the first wins, `file` among them) are searched for what extends it.

    Raises ValueError when there is no such profile or another one extends it; the file is then as it was.
    """
    with _alone(file, make_folder=False):
        document = _document(file)
        own = _profiles(file, document)
        if name not in own:
            raise ValueError(f"{file}: unknown profile {show_json(name)}{_nearest(name, own)}")
        users = _users(_Shelf(_with(files, file)), file, name)
        if users:
            raise ValueError(f"{file}: profile {show_json(name)} cannot be deleted: extended by {', '.join(users)}")
        profiles = document["profiles"]
        assert isinstance(profiles, dict)
        del profiles[name]
        _write(file, document)


def _with(files: Sequence[Path], file: Path) -> Sequence[Path]:
    return files if file in files else [*files, file]


def _users(shelf: _Shelf, file: Path, name: str) -> list[str]:
    """The profiles that extend that one of this file."""
    target = shelf.files.index(file)
    return [
        f"{show_json(user)} of {other}"
        for index, other in enumerate(shelf.files)
        for user, data in shelf.profiles(index).items()
        if _extends(data) == name and shelf.find(name, index + 1 if user == name else 0) == target
    ]


def from_run(overall_used_tokens: int, by_command: Mapping[str, int], margin: float = 0.25) -> dict[str, object]:
    """Limits that a run with this use keeps, as values for `save`: use plus margin, rounded up to two digits.

    `margin` is a share (0.25: a quarter more). What was not used gets no limit, as a limit is never zero.
    """
    if not 0 <= margin <= MAX_MARGIN:
        raise ValueError(f"margin: expected a number from 0 to {MAX_MARGIN} (0.25: a quarter more), got {margin}")
    factor = 1 + Fraction(str(margin))  # as it was written: 0.1 is a tenth
    commands = {key: _rounded_up(math.ceil(used * factor)) for key, used in sorted(by_command.items()) if used > 0}
    values: dict[str, object] = {}
    if overall_used_tokens > 0:
        values["overall_budget"] = _rounded_up(math.ceil(overall_used_tokens * factor))
    if commands:
        values["command_budgets"] = commands
    return values


def _rounded_up(number: int) -> int:
    """The next number of at most two digits that are not trailing zeros."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit


# -- inheritance --

_Place = tuple[int, str]  # the file's number and the profile's name


class _Shelf:
    """The profiles of several files, each read when it is first asked for; `known` need not be."""

    def __init__(self, files: Sequence[Path], known: Mapping[Path, dict[str, object]] | None = None) -> None:
        self.files = tuple(files)
        self._read = {self.files.index(file): profiles for file, profiles in (known or {}).items()}

    def profiles(self, index: int) -> dict[str, object]:
        """The profiles of one file, unchecked."""
        if index not in self._read:
            self._read[index] = _profiles(self.files[index], _document(self.files[index]))
        return self._read[index]

    def find(self, name: str, start: int = 0) -> int | None:
        """The first file from `start` on that has this profile."""
        return next((i for i in range(start, len(self.files)) if name in self.profiles(i)), None)

    def names(self) -> list[str]:
        """All names, each once."""
        return sorted({name for index in range(len(self.files)) for name in self.profiles(index)})

    def label(self, index: int) -> str:
        """The file's name, with its folder where another file has the same name."""
        file = self.files[index]
        return file.name if [other.name for other in self.files].count(file.name) == 1 else str(file)


def _chain(shelf: _Shelf, start: _Place, faults: list[str]) -> dict[_Place, dict[str, object]]:
    """The checked values of a profile, of the one that it extends, and so on."""
    chain: dict[_Place, dict[str, object]] = {}
    place: _Place | None = start
    while place is not None:
        index, name = place
        data = shelf.profiles(index)[name]
        where = _where(shelf.files[index], name)
        chain[place] = _checked(data, where, faults)
        target = _extends(data)
        place = None
        if target is not None:
            try:
                found = shelf.find(target, index + 1 if target == name else 0)
                known = shelf.names() if found is None else []
            except ValueError as error:
                faults.append(str(error))
                break
            path = " extends ".join(_plain(step) for step in (*(step for _, step in chain), target))
            if found is not None and (found, target) not in chain:
                place = found, target
            elif found is not None or target == name:
                faults.append(f"{where}.extends: profiles extend each other: {path}")
            else:
                faults.append(f"{where}.extends: unknown profile {show_json(target)}{_nearest(target, known)}")
    return chain


def _extends(data: object) -> str | None:
    target = data.get("extends") if isinstance(data, dict) else None
    return target if isinstance(target, str) else None


# -- values --


def _checked(data: object, where: str, faults: list[str]) -> dict[str, object]:
    """The values of one profile that are there and not null, without `extends`."""
    if not isinstance(data, dict):
        faults.append(f"{where}: {expected('an object', data)}")
        return {}
    values: dict[str, object] = {}
    for key, value in data.items():
        if is_comment(key) or value is None:
            continue
        if key == "extends":
            if not isinstance(value, str):
                faults.append(f"{where}.extends: {expected('the name of a profile', value)}")
        elif key not in FIELDS:
            faults.append(f"{where}.{_plain(key)}: unknown key{_nearest(key, ['extends', *FIELDS])}")
        else:
            try:
                values[key] = FIELDS[key].kind.read(value)
            except BadValue as error:
                faults += [
                    f"{where}.{key}: {place.lstrip('.')}: {why}" if place else f"{where}.{key}: {why}"
                    for place, why in error.faults
                ]
    return values


# -- files --


class _Comment(str):
    """A comment's key: equal to itself only, so that comments under the same key all stay."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {show_json(key)} appears twice in one object")
        result[_Comment(key) if key.startswith("//") else key] = value
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a number that can be used")
    return number


def _document(file: Path) -> dict[str, object]:
    """The whole of a file, {} where there is none. Raises ValueError when it is not one JSON object."""
    try:
        document = parse_json(read_bytes(file, MAX_FILE_BYTES), file.name, _unique_keys, _finite)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{file}: cannot read the profiles: {error.strerror or error}") from None
    except JsonFileError as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file}: {expected('an object', document)}")
    return document


def _profiles(file: Path, document: Mapping[str, object]) -> dict[str, object]:
    """The profiles of a file's document, unchecked. Raises ValueError when that is not what it holds."""
    faults = [
        f"{file}: {_plain(key)}: unknown key{_nearest(key, ['profiles'])}"
        for key in document
        if key != "profiles" and not is_comment(key)
    ]
    profiles = document.get("profiles")
    if profiles is not None and not isinstance(profiles, dict):
        faults.append(f"{file}: profiles: {expected('an object of name: profile', profiles)}")
    if faults:
        raise ValueError("\n".join(faults))
    return {k: data for k, data in profiles.items() if not is_comment(k)} if isinstance(profiles, dict) else {}


def _without_comments(data: object) -> object:
    if not isinstance(data, dict):
        return data
    return {key: _without_comments(value) for key, value in data.items() if not is_comment(key)}


def _merged(old: object, new: Mapping[str, object]) -> dict[str, object]:
    """The new object with the old one's comments, in the old one's order."""
    kept = old if isinstance(old, dict) else {}
    merged = {
        key: value if is_comment(key) else new[key] for key, value in kept.items() if is_comment(key) or key in new
    }
    for key, value in new.items():
        merged[key] = _merged(kept.get(key), value) if isinstance(value, Mapping) else value
    return merged


def _put(document: dict[str, object], profiles: Mapping[str, Mapping[str, object]]) -> None:
    """Put profiles into a file's document, which is sound, in place of those of their names."""
    there = document["profiles"] = document.get("profiles") or {}
    assert isinstance(there, dict)
    for name, values in profiles.items():
        there[name] = _merged(there.get(name), values)


@contextlib.contextmanager
def _alone(file: Path, *, make_folder: bool = True) -> Iterator[None]:
    """Keep other programs from changing this folder's profiles meanwhile. Raises ValueError after LOCKED_S."""
    folder = Path(os.path.realpath(file)).parent
    if make_folder:
        with contextlib.suppress(OSError):  # reading the file gives the reason
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder, LOCKED_S):
            yield
    except TimeoutError:
        raise ValueError(f"{file}: cannot write the profiles: another program locks the folder") from None


def _write(file: Path, document: Mapping[str, object]) -> None:
    """Replace a file in one step, or create it for its owner only; a symbolic link stays one."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    raw = text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes its JSON escape
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{file}: the file would be larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        write_atomically(file, [raw], mode=0o600)
    except OSError as error:
        raise ValueError(f"{file}: cannot write the profiles: {error.strerror or error}") from None


# -- words --


def _where(file: Path, name: str) -> str:
    return f"{file}: profiles.{_plain(name)}"


def _plain(text: str) -> str:
    """The text on one line, with what could drive a terminal escaped."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant, else at what there is."""
    known = sorted(known)
    near = nearest(name, known)
    if near:
        return f"; did you mean {' or '.join(show_json(one) for one in near)}?"
    return (
        f"; known: {', '.join(map(_plain, known[:20]))}{', ...' if len(known) > 20 else ''}"
        if known
        else "; none known"
    )
