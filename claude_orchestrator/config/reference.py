"""Writes what is generated from the table of settings: the JSON Schema and the page docs/options.md.

python -m claude_orchestrator.config.reference schema > claude_orchestrator/config/config.schema.json
python -m claude_orchestrator.config.reference options > docs/options.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from claude_orchestrator.config.config import TOP
from claude_orchestrator.config.fields import BUDGET, CHECK, INSTANCE, MOVED, REHEARSAL, SETTINGS, Setting, by_key
from claude_orchestrator.config.kinds import FLAG

_REHEARSAL = "How simulated instances behave with --rehearse. An instance's own values override those of the config."
_CHECK = "A command that verifies the work. When it fails, Claude gets the end of its output."
_COMMENTS: dict[str, object] = {"^//": {}}
_NOTHING = {"description": "Each instance has its own name.", "type": "null"}
_BRANCHES = [{"required": [key], "properties": {key: {"type": "string"}}} for key in ("command", "prompt")]


def schema() -> dict[str, Any]:
    """The JSON Schema of a config."""
    descriptions = {
        "defaults": "Values for all instances. An instance's own values override them.",
        "instances": "What to run, in order of launch.",
        "budget": "Limits, and what happens when one is exceeded.",
        "rehearsal": _REHEARSAL,
        "dashboard": "The port of a page that shows the run. `true` means any free port.",
    }
    top = {
        key: {"description": descriptions[key], **(dict(kind.schema) if key == "instances" else _or_null(kind.schema))}
        for key, kind in TOP.items()
    }
    instance = _properties(INSTANCE, "instance")
    instance["check"] = {"description": _CHECK, **_or_null({"$ref": "#/$defs/check"})}
    instance["rehearsal"] = {"description": _REHEARSAL, **_or_null({"$ref": "#/$defs/rehearsal"})}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "claude-orchestrator config",
        "description": "Instances of Claude Code to run, and the budgets that limit them. Keys that begin with // are "
        "comments. A key with null counts as absent.",
        "required": ["instances"],
        **_object(top),
        "if": {"required": ["defaults"], "properties": {"defaults": {"type": "object", "anyOf": _BRANCHES}}},
        "else": {"properties": {"instances": {"items": {"anyOf": _BRANCHES}}}},
        "$defs": {
            "instance": _object(instance),
            "defaults": _object({key: value for key, value in instance.items() if key != "name"} | {"name": _NOTHING}),
            "budget": _object(_properties(BUDGET, "budget")),
            "check": {"required": ["command"], **_object(_properties(CHECK, "instance"))},
            "rehearsal": _object(_properties(REHEARSAL, "instance")),
        },
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"$schema": {}, **properties},
        "patternProperties": _COMMENTS,
        "additionalProperties": False,
    }


def _properties(settings: tuple[Setting, ...], place: str) -> dict[str, Any]:
    return {
        key: {"description": _description(setting, key, place), **_or_null(setting.kind.schema)}
        for key, setting in by_key(settings, place).items()
    }


def _description(setting: Setting, key: str, place: str) -> str:
    key_now = getattr(setting, place)
    if setting.no_effect:
        return f"Has no effect: {setting.no_effect}."
    return setting.help if key == key_now else f"The older name of {key_now}."


def _or_null(schema: Any) -> dict[str, Any]:
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}


# -- the page --

_INTRODUCTION = """# Options, environment variables and keys

This page is generated from `claude_orchestrator/config/fields.py`.

You can give most settings in several places. An option of the command line wins over the environment, the environment
over a [budget profile](profiles.md), a profile over the config file, and the config file over the default.
`claude-orchestrator --dry-run` shows every value and its origin.

The environment variable of an option is `CLAUDE_ORCHESTRATOR_` and the option's name in capitals:
`CLAUDE_ORCHESTRATOR_MAX_PARALLEL=4` gives `--max-parallel`.

You can write values in these forms, in every place:

| kind | examples |
| --- | --- |
| tokens | `50000`, `50_000`, `50,000`, `50k`, `1.5M`, `2B` |
| money | `2.50`, `$2.50`, `$1,000`; exact to a billionth of a dollar |
| times | `90` or `90s` (seconds), `5m`, `2h`, `1h30m`, `2d` |
| limits by command | options: `/test=20k`, `/test=$1.50`; JSON: `{"/test": "20k"}` |
| percentages | `80`, `50,80,95`, `off` |

In JSON, you can write numbers or these texts.
"""


def options_page() -> str:
    """docs/options.md: every option by group, then the keys of a config."""
    lines = [_INTRODUCTION]
    groups = dict.fromkeys(setting.group for setting in SETTINGS)
    for group in groups:
        if group == MOVED:
            continue
        head = ("| option | meaning | default | in a config or profile |", "| --- | --- | --- | --- |")
        lines += [f"## {group}", "", *head]
        lines += [_option_row(setting) for setting in SETTINGS if setting.group == group]
        lines.append("")
    lines += [f"## {MOVED}", "", "| option | why |", "| --- | --- |"]
    lines += [_row(f"`--{setting.option}`", setting.no_effect) for setting in SETTINGS if setting.no_effect]
    lines += ["", "## Keys of an instance", "", *_key_table(INSTANCE)]
    lines += [_row("`check`", _CHECK), _row("`rehearsal`", _REHEARSAL), ""]
    lines += ["## Keys of a check", "", *_key_table(CHECK), ""]
    lines += ["## Keys of a rehearsal", "", *_key_table(REHEARSAL)]
    return "\n".join(lines) + "\n"


def _option_row(setting: Setting) -> str:
    value = f" {setting.metavar or '|'.join(setting.kind.choices)}" if setting.kind is not FLAG else ""
    names = [f"`--{setting.option}{value}`", *(f"`--{name}`" for name in setting.aliases)]
    places = []
    if setting.budget:
        places.append(f"`budget.{setting.budget}`" + ("" if setting.profile else " (config only)"))
    if setting.instance:
        places.append(f"instance: `{setting.instance}`")
    return _row(", ".join(names), setting.help, setting.shown_default, "; ".join(places))


def _key_table(settings: tuple[Setting, ...]) -> Iterable[str]:
    yield from ("| key | meaning |", "| --- | --- |")
    for setting in settings:
        yield _row(f"`{setting.instance}`", setting.help)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Print `schema` or `options`, whichever the argument names."""
    pages = {"schema": lambda: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", "options": options_page}
    sys.stdout.write(pages[sys.argv[1]]())


if __name__ == "__main__":
    main()
