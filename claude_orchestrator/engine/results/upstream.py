"""Fills the texts of an instance at its launch with the results of those that it depends on. Pure.

A value goes into a text as it is: it is never read for placeholders, and never becomes a command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from claude_orchestrator.claude.argv import private_options
from claude_orchestrator.config.for_each import fill_texts, item_values
from claude_orchestrator.config.graph import FILE, near, result_of
from claude_orchestrator.config.items import as_text
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.placeholders import LATE, Placeholder, Template
from claude_orchestrator.config.plan import turns_of
from claude_orchestrator.engine.results.answers import Answer
from token_budget.fields import BadValue, show_json
from token_budget.named_tuples import NamedTuple

MAX_PROMPT_CHARS = 400_000  # about 100,000 tokens


class FinishedInstance(NamedTuple):
    """An instance that has ended: its final state, the reason, its answer, the item that it worked on, its branch."""

    name: str
    state: str
    reason: str
    answer: Answer
    item: Any = None
    branch: str | None = None


class Group(NamedTuple):
    """All instances of a group. `keep` writes their list into a file and returns its path. Raises OSError."""

    members: Sequence[FinishedInstance]
    keep: Callable[[str], str]


UpstreamOf = Callable[[str], FinishedInstance | Group]


def fill(spec: LaunchSpec, upstream_of: UpstreamOf) -> LaunchSpec:
    """What is launched: the instance with its texts filled. Raises BadValue with each text that cannot be filled."""
    if spec.late is None:
        return spec
    values = _Values(spec, upstream_of)
    filled = fill_texts(spec.late, values, at_launch=True)
    _check(spec, filled.command, (*filled.pre_commands, filled.command, filled.append_system_prompt or ""))
    pairs = zip(turns_of(spec.late), turns_of(filled), strict=True)
    texts = {raw: text for raw, text in pairs if isinstance(raw, Template)}
    return spec._replace(
        turns=tuple(texts[turn] if isinstance(turn, Template) else turn for turn in spec.turns),
        argv=(*spec.argv, *(f"--add-dir={folder}" for folder in dict.fromkeys(values.folders))),
        private=private_options(filled),
        env=filled.env,
        check=filled.check,
        base=filled.base,
    )


def _check(spec: LaunchSpec, command: str, texts: Sequence[str]) -> None:
    longest = max(map(len, texts))
    if longest > MAX_PROMPT_CHARS:
        use = "pass the file of a long result: {{results.NAME.file}}"
        raise BadValue(("", f"a prompt of {longest:,} characters, and at most {MAX_PROMPT_CHARS:,} are sent: {use}"))
    if command.startswith("/") and not spec.command.startswith("/"):
        raise BadValue(
            ("", "a prompt that begins with / would be a slash command: write a word before the placeholder")
        )


class _Values:
    """What the placeholders of one instance stand for. `folders` are those of the files that were named."""

    def __init__(self, spec: LaunchSpec, upstream_of: UpstreamOf) -> None:
        assert spec.late is not None
        self.folders: list[str] = []
        self._needs = spec.depends_on
        self._item_value = item_values(spec.late)
        self._upstream_of = upstream_of

    def __call__(self, placeholder: Placeholder) -> str:
        meant = result_of(placeholder.path, self._needs) if placeholder.root in LATE else None
        if meant is None:
            return self._item_value(placeholder)
        try:
            return self._branch(meant[0]) if placeholder.root == "branch" else self._value(*meant)
        except LookupError as error:
            raise BadValue(("", f"{placeholder.text}: {error.args[0]}")) from None

    def _branch(self, name: str) -> str:
        upstream = self._upstream_of(name)
        if isinstance(upstream, Group) or upstream.branch is None:
            raise LookupError(f"{name} has no branch: it never worked in a worktree")
        return upstream.branch

    def _value(self, name: str, path: str) -> str:
        upstream = self._upstream_of(name)
        if isinstance(upstream, Group):
            rows = list_of(upstream)
            if path != FILE:
                return as_text(part_of(name, rows, path))
            return self._named(upstream.keep(json.dumps(rows, ensure_ascii=False, indent=1)))
        answer = upstream.answer
        if path == FILE and answer.file is not None:
            return self._named(answer.structured_file or answer.file)
        if path and path != FILE:
            return as_text(part_of(name, structured_output(upstream), path))
        if answer.text is None and upstream.state == "completed":
            raise LookupError(f"{name} has completed, but its result is missing: run it again in a new run")
        if path == FILE:
            raise LookupError(f"{name} has no file: it {upstream.state.replace('_', ' ')}")
        return answer.text if answer.text is not None else f"{upstream.state}: {upstream.reason}"

    def _named(self, file: str) -> str:
        self.folders.append(str(PurePath(file).parent))
        return file


def structured_output(upstream: FinishedInstance) -> Any:
    """An instance's structured output. Raises LookupError if it has none."""
    if upstream.answer.structured_output is None:
        gone = upstream.state == "completed"
        why = "it is missing: run it again in a new run" if gone else f"it is {upstream.state.replace('_', ' ')}"
        raise LookupError(f"{upstream.name} has no structured output: {why}")
    return upstream.answer.structured_output


def part_of(name: str, value: Any, path: str) -> Any:
    """The part of a result at a path such as `files.0.name`. Raises LookupError, which names what is there."""
    keys = path.split(".") if path else []
    place = 0
    while place < len(keys):
        taken = _step(value, keys[place:])
        if taken is None:
            raise LookupError(
                f"the result of {name} has no {'.'.join(keys[: place + 1])}{_what_is_there(value, keys[place])}"
            )
        length, value = taken
        place += length
    return value


def _step(value: Any, keys: Sequence[str]) -> tuple[int, Any] | None:
    """How many of the keys the next step takes, and where it leads. A key of an object may contain dots."""
    if isinstance(value, dict):
        lengths = [length for length in range(len(keys), 0, -1) if ".".join(keys[:length]) in value]
        return (lengths[0], value[".".join(keys[: lengths[0]])]) if lengths else None
    if isinstance(value, list) and keys[0].isascii() and keys[0].isdigit() and int(keys[0]) < len(value):
        return 1, value[int(keys[0])]
    return None


def _what_is_there(value: Any, key: str) -> str:
    if isinstance(value, dict):
        return near(key, value) or f"; it has {', '.join(map(show_json, [*value][:8])) or 'nothing'}"
    return f"; there is a list of {len(value)}" if isinstance(value, list) else f"; there is {show_json(value)}"


def list_of(group: Group) -> list[dict[str, Any]]:
    """What `results` of a group stands for: the item, state and result of each instance."""
    return [
        {
            "item": member.item,
            "status": member.state,
            "result": answer.text if answer.structured_output is None else answer.structured_output,
        }
        for member in group.members
        for answer in (member.answer,)
    ]
