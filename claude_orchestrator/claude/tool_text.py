"""What a tool call does, in a few words for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MAX_CHARS = 200
# the input that says most about a call, by the tool's name; what stands before it
_WORDS = {
    "Bash": ("command", "Bash: "),
    "BashOutput": ("bash_id", "reading the output of "),
    "Edit": ("file_path", "editing "),
    "Glob": ("pattern", "Glob: "),
    "Grep": ("pattern", "Grep: "),
    "LS": ("path", "listing "),
    "MultiEdit": ("file_path", "editing "),
    "NotebookEdit": ("notebook_path", "editing "),
    "Read": ("file_path", "reading "),
    "Skill": ("skill", "Skill: "),
    "WebFetch": ("url", "WebFetch: "),
    "WebSearch": ("query", "WebSearch: "),
    "Write": ("file_path", "writing "),
}
_USUAL = ("description", "command", "file_path", "path", "query", "pattern", "url", "prompt", "name")


def call_text(tool: str, given: object) -> str:
    """`Bash: pytest -q`, `writing src/a.py`: a tool and the input that says most, in one line."""
    values = given if isinstance(given, Mapping) else {}
    key, before = _WORDS.get(tool, ("", f"{tool}: "))
    value = values.get(key) if key else next((values[key] for key in _USUAL if isinstance(values.get(key), str)), None)
    if not isinstance(value, str) or not value.strip():
        return tool[:MAX_CHARS]
    line = value.strip()[: MAX_CHARS * 2].partition("\n")[0]
    return f"{before}{line}"[:MAX_CHARS]
