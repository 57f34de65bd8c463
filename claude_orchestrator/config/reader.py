"""Reads a config file: its JSON, its duplicate keys, and the place of each fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from claude_orchestrator.errors import UserError
from token_budget.fields import is_comment, show_json
from token_budget.usage.json_file import JsonFileError, parse_json, read_bytes

MAX_CONFIG_BYTES = 16 * 1024 * 1024


class _DuplicateKey(dict[str, Any]):
    """An object that has a key twice."""

    def __init__(self, pairs: dict[str, object], key: str) -> None:
        super().__init__(pairs)
        self.key = key


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result and not is_comment(key):
            result = _DuplicateKey(result, key)
        result[key] = value
    return result


def read_config_file(path: Path) -> object:
    """The JSON of a config file, unchecked. Raises UserError with the fault of the file."""
    try:
        raw = read_bytes(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror or error}") from None
    except JsonFileError as error:
        raise UserError(f"{path}: the config {error}") from None
    try:
        return parse_json(raw, path.name, _unique_keys)
    except JsonFileError as error:
        raise UserError(f"{path}: {error}") from None


def duplicate_keys(data: object) -> Iterator[tuple[str, str]]:
    """The path and the fault of every object that has a key twice."""
    waiting: list[tuple[str, object]] = [("", data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _DuplicateKey):
            yield path, f"the key {show_json(value.key)} appears twice"
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
