"""Rules about tool calls, such as `Read`, `Bash(npm test *)` or `Write(src/*)`, and what they match. Pure.

A rule that allows has to be certain. So a shell command that may start another one matches no such rule, and a path is
compared after its `..` are resolved.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from token_budget.named_tuples import NamedTuple

SUBJECTS = {
    "Bash": "command",
    "Edit": "file_path",
    "Glob": "pattern",
    "Grep": "pattern",
    "MultiEdit": "file_path",
    "NotebookEdit": "notebook_path",
    "Read": "file_path",
    "Skill": "skill",
    "WebFetch": "url",
    "WebSearch": "query",
    "Write": "file_path",
}
PATHS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Read", "Write"})
_JOINS = re.compile(r"[;&|\n\r`<>]|\$\(|\$\{")  # what can start another command, or write to a file
_PARTS = re.compile(r"[;&|\n\r`()]+|\$\(")


class Rule(NamedTuple):
    """A tool and what its call has to be; without a pattern, any call. `exact`: the pattern has no wildcards."""

    tool: str
    pattern: str | None = None
    exact: bool = False

    def __str__(self) -> str:
        return self.tool if self.pattern is None else f"{self.tool}({self.pattern})"


class Call(NamedTuple):
    """A tool call of an instance that works in `folder`."""

    tool: str
    given: Mapping[str, Any]
    folder: str

    @property
    def subject(self) -> str | None:
        """The part of the input that rules look at; None if the tool has none."""
        value = self.given.get(SUBJECTS.get(self.tool, ""))
        return value.strip() if isinstance(value, str) else None


def read_rule(text: str) -> Rule:
    """The rule that a text means: `Tool` or `Tool(pattern)`."""
    tool, bracket, rest = text.strip().partition("(")
    pattern = rest.rpartition(")")[0].strip() if bracket else None
    return Rule(tool.strip(), None if pattern == "*" else pattern)


def exactly(call: Call) -> Rule:
    """The rule that allows this call, and only this one if the tool has a subject."""
    return Rule(call.tool, call.subject, exact=call.subject is not None)


def allowing(rules: Iterable[Rule], call: Call) -> Rule | None:
    """The first rule that surely matches the call."""
    return next((rule for rule in rules if _surely(rule, call)), None)


def denying(rules: Iterable[Rule], call: Call) -> Rule | None:
    """The first rule that matches the call, or any command in it."""
    return next((rule for rule in rules if _perhaps(rule, call)), None)


def _surely(rule: Rule, call: Call) -> bool:
    if not fnmatchcase(call.tool, rule.tool):
        return False
    subject = call.subject
    if rule.pattern is None:
        return True
    if subject is None:
        return False
    if rule.exact:
        return subject == rule.pattern
    if call.tool == "Bash":
        return _JOINS.search(subject) is None and _command_matches(rule.pattern, subject)
    if call.tool in PATHS:
        return any(fnmatchcase(path, rule.pattern) for path in _paths(subject, call.folder))
    return fnmatchcase(subject, rule.pattern)


def _perhaps(rule: Rule, call: Call) -> bool:
    if not fnmatchcase(call.tool, rule.tool):
        return False
    subject = call.subject
    if rule.pattern is None or subject is None:
        return True
    pattern = rule.pattern
    if call.tool == "Bash":
        parts = (part.strip() for part in (subject, *_PARTS.split(subject)))
        return any(_command_matches(pattern, part) for part in parts if part)
    if call.tool in PATHS:
        return any(fnmatchcase(path, pattern) for path in (*_paths(subject, call.folder), subject))
    return fnmatchcase(subject, pattern)


def _command_matches(pattern: str, command: str) -> bool:
    """`npm test *` and `npm test:*` match `npm test` with and without arguments."""
    for end in (":*", " *"):
        if pattern.endswith(end):
            prefix = pattern.removesuffix(end)
            return fnmatchcase(command, prefix) or fnmatchcase(command, f"{prefix} *")
    return fnmatchcase(command, pattern)


def _paths(path: str, folder: str) -> tuple[str, ...]:
    """A path as it is from the root and, inside of the folder, from the folder."""
    whole = posixpath.normpath(posixpath.join(folder, path.replace("\\", "/")))
    inside = whole.removeprefix(folder.rstrip("/") + "/")
    return (whole,) if inside == whole else (whole, inside)
