"""Reads a profile with all that it extends, across files, and checks its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from token_budget.fields import PROFILE_FIELDS, BadValue, expected, is_comment, show_json
from token_budget.usage.profile_files import did_you_mean, place_in, plain, profiles_in, read_document

FIELDS = {field.key: field for field in PROFILE_FIELDS}
Place = tuple[int, str]  # the file's number and the profile's name


class ProfileFiles:
    """The profiles of several files. It reads a file when it first needs it, unless its profiles are `known`."""

    def __init__(self, files: Sequence[Path], known: Mapping[Path, dict[str, object]] | None = None) -> None:
        self.files = tuple(files)
        self._read = {self.files.index(file): profiles for file, profiles in (known or {}).items()}

    def profiles(self, index: int) -> dict[str, object]:
        """The profiles of one file, unchecked."""
        if index not in self._read:
            self._read[index] = profiles_in(self.files[index], read_document(self.files[index]))
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


def chain_of(sources: ProfileFiles, start: Place, faults: list[str]) -> dict[Place, dict[str, object]]:
    """The checked values of a profile, of the one that it extends, and so on. It adds what is wrong to `faults`."""
    chain: dict[Place, dict[str, object]] = {}
    place: Place | None = start
    while place is not None:
        index, name = place
        data = sources.profiles(index)[name]
        where = place_in(sources.files[index], name)
        chain[place] = checked(data, where, faults)
        target = extended_by(data)
        place = None
        if target is not None:
            try:
                found = sources.find(target, index + 1 if target == name else 0)
                known = sources.names() if found is None else []
            except ValueError as error:
                faults.append(str(error))
                break
            path = " extends ".join(plain(step) for step in (*(step for _, step in chain), target))
            if found is not None and (found, target) not in chain:
                place = found, target
            elif found is not None or target == name:
                faults.append(f"{where}.extends: profiles extend each other: {path}")
            else:
                faults.append(f"{where}.extends: unknown profile {show_json(target)}{did_you_mean(target, known)}")
    return chain


def extended_by(data: object) -> str | None:
    """The name of the profile that one extends; None where it names none."""
    target = data.get("extends") if isinstance(data, dict) else None
    return target if isinstance(target, str) else None


# -- values --


def checked(data: object, where: str, faults: list[str]) -> dict[str, object]:
    """The checked values of one profile, without null and `extends`. It adds what is wrong to `faults`."""
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
            faults.append(f"{where}.{plain(key)}: unknown key{did_you_mean(key, ['extends', *FIELDS])}")
        else:
            try:
                values[key] = FIELDS[key].kind.read(value)
            except BadValue as error:
                faults += [
                    f"{where}.{key}: {place.lstrip('.')}: {why}" if place else f"{where}.{key}: {why}"
                    for place, why in error.faults
                ]
    return values
