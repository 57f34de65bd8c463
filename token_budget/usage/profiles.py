"""Budget profiles: named sets of limits in JSON files of the project and of the user, which can extend each other.

A file is `{"profiles": {NAME: {"extends": NAME, KEY: VALUE, …}}}`. Keys that begin with `//` are comments. Where there
are several files, the first wins: the project's before the user's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from token_budget.fields import TOKENS, forbidden_character, show_json
from token_budget.named_tuples import NamedTuple
from token_budget.usage.profile_chain import FIELDS, ProfileFiles, chain_of, checked, extended_by
from token_budget.usage.profile_files import (
    alone_in_folder,
    did_you_mean,
    place_in,
    plain,
    profiles_in,
    put_profiles,
    read_document,
    without_comments,
    write_document,
)

PROJECT_FILE = "claude-orchestrator-profiles.json"
MAX_MARGIN = 100


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile with what it inherits. `values` are checked: costs are in nano-dollars, weights are Weights.

    `origins` has `command_budgets[KEY]` for each command.
    """

    name: str
    values: Mapping[str, Any]
    origins: Mapping[str, str]


class StoredProfile(NamedTuple):
    """A profile as its file has it; `extends` is None where it names no profile."""

    name: str
    file: Path
    extends: str | None


def load(name: str, files: Sequence[Path]) -> Profile:
    """The profile `name` with all that it extends. Files may be missing, and it reads only those that it needs.

    Raises ValueError with a line for each fault found.
    """
    sources = ProfileFiles(files)
    index = sources.find(name)
    if index is None:
        looked = ", ".join(str(file) for file in files)
        raise ValueError(f"unknown profile {show_json(name)}{did_you_mean(name, sources.names())} (looked in {looked})")
    faults: list[str] = []
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for place, given in reversed(chain_of(sources, (index, name), faults).items()):
        origin = f"profile {plain(place[1])} ({sources.label(place[0])})"
        for key, value in given.items():
            if isinstance(value, dict):
                before = values.get(key)
                values[key] = {**before, **value} if isinstance(before, dict) else value
                origins.update((f"{key}[{command}]", origin) for command in value)
            else:
                values[key], origins[key] = value, origin
    if faults:
        raise ValueError("\n".join(faults))
    return Profile(name, values, origins)


def names(files: Sequence[Path]) -> list[StoredProfile]:
    """Every profile of every file by name, of equal names the effective one first. Raises ValueError for a bad file."""
    listed = [
        StoredProfile(name, file, extended_by(data))
        for file in files
        for name, data in profiles_in(file, read_document(file)).items()
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
            rows.append((plain(path), shown, f"({profile.origins[path]})"))
    if not rows:
        return [f"profile {plain(profile.name)} sets nothing"]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows]


def stored(file: Path) -> dict[str, object]:
    """A file's profiles as it has them, without comments. Raises ValueError for a damaged file or a wrong profile."""
    profiles = profiles_in(file, read_document(file))
    check(profiles, file)
    return {name: without_comments(data) for name, data in profiles.items()}


def check(profiles: Mapping[str, object], file: Path) -> None:
    """Raise ValueError with a line for each name and value that cannot be saved. `file` is where they come from."""
    faults: list[str] = []
    for name, values in profiles.items():
        if not name.strip() or name != name.strip() or forbidden_character(name) or name.startswith(("-", "//", "$")):
            expected = "one line of text that does not begin with -, // or $"
            faults.append(f"profile name: expected {expected}, got {show_json(name)}")
        checked(values, place_in(file, name), faults)
    if faults:
        raise ValueError("\n".join(faults))


def save(file: Path, name: str, values: Mapping[str, object], files: Sequence[Path] = ()) -> bool:
    """Write a profile into a file. It replaces one with the same name; returns whether there was one.

    `values` are as in the file, with `extends`, which is looked up in `files` (`file` among them, the first wins).
    Everything else in the file stays, also comments. Raises ValueError if the name or a value is wrong, if `load` would
    refuse the profile, or if the file is damaged or cannot be written. The file then stays as it was.
    """
    check({name: dict(values)}, file)
    with alone_in_folder(file):
        document = read_document(file)
        is_there = name in profiles_in(file, document)
        put_profiles(document, {name: values})
        sources = ProfileFiles(_with(files, file), {file: profiles_in(file, document)})
        faults: list[str] = []
        chain_of(sources, (sources.files.index(file), name), faults)
        if faults:
            raise ValueError("\n".join(faults))
        write_document(file, document)
    return is_there


def save_all(file: Path, profiles: Mapping[str, Mapping[str, object]]) -> None:
    """Write several profiles, all or none, as `save` does. It does not look up what they extend."""
    check(profiles, file)
    with alone_in_folder(file):
        document = read_document(file)
        profiles_in(file, document)  # refuses what is damaged
        put_profiles(document, profiles)
        write_document(file, document)


def delete(file: Path, name: str, files: Sequence[Path] = ()) -> None:
    """Remove a profile from a file. It looks in `files` (`file` among them, the first wins) for what extends it.

    Raises ValueError if there is no such profile or another one extends it. The file then stays as it was.
    """
    with alone_in_folder(file, make_folder=False):
        document = read_document(file)
        own = profiles_in(file, document)
        if name not in own:
            raise ValueError(f"{file}: unknown profile {show_json(name)}{did_you_mean(name, own)}")
        users = _users(ProfileFiles(_with(files, file)), file, name)
        if users:
            raise ValueError(f"{file}: profile {show_json(name)} cannot be deleted: extended by {', '.join(users)}")
        profiles = document["profiles"]
        assert isinstance(profiles, dict)
        del profiles[name]
        write_document(file, document)


def _with(files: Sequence[Path], file: Path) -> Sequence[Path]:
    return files if file in files else [*files, file]


def _users(sources: ProfileFiles, file: Path, name: str) -> list[str]:
    """The profiles that extend the one with this name in this file."""
    target = sources.files.index(file)
    return [
        f"{show_json(user)} of {other}"
        for index, other in enumerate(sources.files)
        for user, data in sources.profiles(index).items()
        if extended_by(data) == name and sources.find(name, index + 1 if user == name else 0) == target
    ]


def from_run(overall_used_tokens: int, by_command: Mapping[str, int], margin: float = 0.25) -> dict[str, object]:
    """Limits that a run with this use would keep, as values for `save`: use plus margin, rounded up to two digits.

    `margin` is a share (0.25: a quarter more). What was not used gets no limit, since no limit is zero.
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
