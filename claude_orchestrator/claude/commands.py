"""Which slash commands and skills a workspace and a user offer, found as claude itself finds them.

The rules were measured with claude 2.1.197 and 2.1.330; where these differ, the later one is followed.
Not looked at: plugins, MCP prompts, `.claude/workflows`, managed settings, `--add-dir`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from claude_orchestrator.claude.failures import command_word, is_command_name
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

MAX_FILE_BYTES = 256 * 1024
MAX_BODY_CHARS = 20_000
MAX_FIELD_CHARS = 2_000
MAX_FILES = 2_000
MAX_FOLDERS = 2_000
MAX_DEPTH = 32

# names; hint; description, after `+` if init.slash_commands of 2.1.330 has it, but not that of 2.1.197
_BUILT_IN = """
auto-mode-setup;; + describe your environment to auto mode
autocompact; [auto|<tokens>]; + set how full the context gets before it is summarised
batch; <instruction>; plan a large change, then carry it out with parallel agents in worktrees
claude-api;; reference for the Claude API and SDKs
clear,reset,new; [name]; start a new session with an empty context (no API call)
code-review; [effort] [--fix] [--comment] [<target>]; review the current diff for bugs and clean-ups
color; [<color>]; + set the prompt bar's colour
compact; [instructions]; replace the conversation so far by a summary
config,settings; key=value; set a setting (no API call)
context;; show what fills the context
dataviz;; + how to design charts and dashboards
debug; [issue]; switch on debug logging and look into an issue
deep-research; <question>; search the web widely, check claims, write a report with sources
doctor,checkup;; + check the health of the claude set-up and fix it
effort; <level>; + set the model's effort
fewer-permission-prompts;; allow the read-only tool calls that past sessions asked for
goal; <condition>; keep working until a condition is met
heapdump;; write claude's JavaScript heap to a file
init;; write a CLAUDE.md that describes the code base
insights;; report on your past sessions
list-agents,peers;; + list subagents and other sessions
loop,proactive; [interval] [prompt]; run a prompt or a command again and again
mcp; [reconnect|enable|disable]; + show or switch MCP servers
model; [<model>]; + show or set the model
output-style; [style]; + list output styles or switch to one
plugin-authoring;; + write a change to claude's own interface
recap;; + sum up the session in a line
reload-plugins; [--force]; + activate changed plugins
reload-skills;; look for new and changed skills
rename,name; [name]; + rename the conversation
review; [pr]; review a pull request (2.1.330: another name of /code-review)
run;; start this project's app and drive it
run-skill-generator;; write a skill that runs this project's app
security-review;; review the branch's changes for security
simplify; [<target>]; clean up the changed code
team-onboarding;; write a guide for team mates from your own use
update-config;; change settings.json: hooks, permissions, environment
usage,cost,stats;; show the session's cost and the plan's usage (no API call)
verify;; see a change work by running the app
workflow-authoring;; + reference for workflow scripts
"""
# both versions answer "isn't available in this environment", or have nothing to do here
_NOT_HEADLESS = """
add-dir advisor agents allowed-tools bashes branch brief btw bug cd checkpoint continue copy diff exit
export extra-usage fast focus fork help hooks ide keybindings login logout memory mobile permissions plan
plugin plugins privacy-settings quit rc release-notes remote-control resume rewind sandbox schedule session
skills statusline status stickers tasks terminal-setup theme ultraplan ultrareview vim voice workflows
"""
_ONLY_CLAUDE = "only Claude itself can invoke it (user-invocable)"
_CONDITIONAL = "unknown until Claude touches a file that matches its `paths`"
_SPACE = "its name has a space, and a prompt's command ends there"
_ABSENT = "no such file"
_NEWER = "not yet in 2.1.197"
_FRONT_MATTER = re.compile(r"---[^\S\n]*+\n(.*?)---\s*+", re.DOTALL)  # claude's own end, too
_KEY = r"[\"']?([\w-]+)[\"']?\s*:(?:\s+(.*))?"
_YAML = r"#|.*?:(?:\s|$)"  # a comment, or a key
_TOOL = r"[^\s,()]+(?:\([^)]*\))?"


class CommandScope(StrEnum):
    """Who a command belongs to."""

    PROJECT = "project"
    USER = "user"
    BUILT_IN = "built-in"


class CommandKind(StrEnum):
    """What a command is."""

    COMMAND = "command"
    SKILL = "skill"
    BUILT_IN = "built-in"


class CommandInfo(NamedTuple):
    """A command that a prompt may begin with; if not `available`, `note` says why. Texts may be hostile."""

    name: str
    description: str
    argument_hint: str
    source: Path | None
    scope: CommandScope
    kind: CommandKind
    model: str | None = None
    allowed_tools: tuple[str, ...] = ()
    body: str = ""
    aliases: tuple[str, ...] = ()
    available: bool = True
    note: str = ""


def discover(workspace: Path, home: Path, *, config_dir: Path | None = None) -> tuple[CommandInfo, ...]:
    """Every command that a claude started in `workspace` knows; of several with one name, the one that it runs. Never
    raises.

    The first of a name wins, in this order: skills before commands; in both, the user's (in `config_dir`, the
    value of CLAUDE_CONFIG_DIR, else in `home`/.claude) before the project's (of the workspace, then of each
    parent up to the git root, without one up to `/`, but never of `home` or above); last, what is built in.
    """
    user, roots = config_dir or home / ".claude", _project_roots(workspace, home)
    main = _main_checkout(roots[-1]) if roots else None
    found: list[CommandInfo] = []
    seen: set[str] = set()
    for kind, files_of in ((CommandKind.SKILL, _skill_files), (CommandKind.COMMAND, _command_files)):
        places = [(CommandScope.USER, user / f"{kind}s")]
        places += [(CommandScope.PROJECT, root / ".claude" / f"{kind}s") for root in roots]
        if main is not None and not os.access(places[-1][1], os.F_OK):
            places.append((CommandScope.PROJECT, main / ".claude" / f"{kind}s"))
        for scope, place in places:
            for path, name in files_of(place):
                real = os.path.realpath(path)
                if real not in seen and len(seen) < MAX_FILES:
                    seen.add(real)
                    found += _infos(path, name, scope, in_skills=kind is CommandKind.SKILL)
    winners: dict[str, CommandInfo] = {}
    for info in sorted((*found, *_built_in()), key=lambda info: info.note == _CONDITIONAL):
        winners.setdefault(info.name, info)
    return tuple(winners.values())


def discover_here(workspace: Path) -> tuple[CommandInfo, ...]:
    """`discover` for this user and environment."""
    config_dir = os.environ.get("CLAUDE_CONFIG_DIR")
    return discover(workspace, Path.home(), config_dir=Path(config_dir) if config_dir else None)


def find(commands: Iterable[CommandInfo], name: str) -> CommandInfo | None:
    """The command of this name (slash or not, case matters), else the first that has it among its aliases."""
    wanted, known = "/" + name.removeprefix("/"), tuple(commands)
    exact = next((info for info in known if info.name == wanted), None)
    return exact or next((info for info in known if wanted in info.aliases), None)


def nearest(name: str, known: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """Up to `n` known names that `name` may mean, the likeliest first; `/sync` may mean `/git:sync`."""
    import difflib

    wanted = name.removeprefix("/").casefold()[:100]
    by_key: dict[str, list[str]] = {}
    for candidate in known:
        key = candidate.removeprefix("/").casefold()
        for part in {key, key.rpartition(":")[2]}:
            by_key.setdefault(part, []).append(candidate)
    close = difflib.get_close_matches(wanted, by_key, 2 * max(n, 1))
    return tuple(dict.fromkeys(candidate for key in close for candidate in by_key[key]))[:n]


def warning_for(prompt: str, commands: Sequence[CommandInfo]) -> str | None:
    """Why a prompt's command would not do what it seems to; None: it has no command, or all is well."""
    word = command_word(prompt)
    info = find(commands, word) if word else None
    if info is not None:
        return None if info.available else f"{word}: {info.note}"
    if word is None or word.startswith("/mcp__"):
        return None
    if not is_command_name(word):
        return _text_warning(word, commands)
    near = nearest(word, (info.name for info in commands if info.available))
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return (
        f"{word}: no such command or skill{meant}: unless a plugin has it, Claude Code 2.1.197 does nothing "
        "and 2.1.330 sends the text to the model"
    )


def _text_warning(word: str, commands: Sequence[CommandInfo]) -> str | None:
    """A warning where a word that claude takes as text was meant as a command."""
    known = [info.name for info in commands if info.available]
    meant = re.split(r"[^\w:-]", word[1:], maxsplit=1)[0]
    near = tuple(name for name in known if name == f"/{meant}") or nearest(word, known)
    if not near:
        return None
    return f"{word}: no such command or skill, so claude takes the prompt as text (did you mean {' or '.join(near)}?)"


def _built_in() -> Iterator[CommandInfo]:
    scope, kind = CommandScope.BUILT_IN, CommandKind.BUILT_IN
    for row in _BUILT_IN.strip().split("\n"):
        names, hint, text = (part.strip() for part in row.split(";"))
        name, *aliases = (f"/{word}" for word in names.split(","))
        note = _NEWER if text.startswith("+ ") else ""
        text = text.removeprefix("+ ")
        yield CommandInfo(name, text, hint, None, scope, kind, aliases=tuple(aliases), note=note)
    for name in _NOT_HEADLESS.split():
        note = "not available headless"
        yield CommandInfo(f"/{name}", "", "", None, scope, kind, available=False, note=note)


def _project_roots(workspace: Path, home: Path) -> list[Path]:
    here, end = Path(os.path.realpath(workspace)), Path(os.path.realpath(home))
    roots: list[Path] = []
    for folder in (here, *here.parents):
        if folder == end:
            break
        roots.append(folder)
        if os.access(folder / ".git", os.F_OK):
            break
    return roots


def _main_checkout(root: Path) -> Path | None:
    """The main folder of a git worktree: its commands stand in where the worktree's root has none."""
    git = _read(root / ".git")[0].removeprefix("gitdir:").strip()
    common = _read(root / git / "commondir")[0].strip()
    found = Path(os.path.realpath(root / git / common))
    return found.parent if git and common and found.name == ".git" else None


def _skill_files(place: Path) -> Iterator[tuple[Path, str]]:
    _, folders, _ = next(os.walk(place), ("", [], []))
    for name in sorted(folders)[:MAX_FOLDERS]:
        yield place / name / "SKILL.md", name


def _command_files(place: Path) -> Iterator[tuple[Path, str]]:
    """Every a/b/c.md, named a:b:c. A folder with a SKILL.md is a skill; files beside it do not count."""
    seen: set[str] = set()
    for here, folders, files in os.walk(place, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or len(seen) >= MAX_FOLDERS:
            folders.clear()
            continue
        seen.add(real)
        parts = Path(here).relative_to(place).parts
        folders[:] = sorted(folders) if len(parts) < MAX_DEPTH else []
        skill = next((name for name in files if name.lower() == "skill.md"), None)
        if skill is not None:
            yield Path(here, skill), ":".join(parts) or place.name
            continue
        for name in sorted(files):
            if name.endswith(".md"):
                yield Path(here, name), ":".join((*parts, name[:-3]))


def _infos(path: Path, name: str, scope: CommandScope, *, in_skills: bool) -> Iterator[CommandInfo]:
    text, note = _read(path)
    if note == _ABSENT or not name or not name.isprintable():
        return
    fields, body = _split(text)
    reason = note if note and not text else _why_not(name, fields, in_skills=in_skills)
    first = next((line.strip() for line in body.split("\n") if line.strip()), "")[:MAX_FIELD_CHARS]
    if len(body) > MAX_BODY_CHARS:
        body = f"{body[:MAX_BODY_CHARS]}\n… (cut at {MAX_BODY_CHARS:,} characters)"
    yield CommandInfo(
        name=f"/{name}",
        description=fields.get("description") or re.sub(r"^#+\s+", "", first),
        argument_hint=fields.get("argument-hint", ""),
        source=path,
        scope=scope,
        kind=CommandKind.SKILL if path.name.lower() == "skill.md" else CommandKind.COMMAND,
        model=fields.get("model") or None,
        allowed_tools=tuple(re.findall(_TOOL, fields.get("allowed-tools", ""))),
        body=body,
        aliases=_aliases(name, fields.get("name", "")) if in_skills else (),
        available=not reason,
        note=reason or note,
    )


def _why_not(name: str, fields: Mapping[str, str], *, in_skills: bool) -> str:
    """Why a user cannot call the command; "" if they can."""
    if fields.get("user-invocable", "true").lower() not in ("true", "yes", "on", "1"):
        return _ONLY_CLAUDE
    if in_skills and fields.get("paths", "") not in ("", "**"):
        return _CONDITIONAL
    return _SPACE if len(name.split()) > 1 else ""


def _aliases(name: str, alias: str) -> tuple[str, ...]:
    is_word = alias != name and alias.split() == [alias] and alias.isprintable()
    return (f"/{alias}",) if is_word else ()


def _read(path: Path) -> tuple[str, str]:
    """A file's text, bounded, and what is to be said about it."""
    try:
        if not path.is_file():  # a folder, a pipe, a link to nowhere
            return "", _ABSENT
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    note = f"only its first {MAX_FILE_BYTES // 1024} KiB were read" if len(raw) > MAX_FILE_BYTES else ""
    return raw[:MAX_FILE_BYTES].decode("utf-8-sig", "replace").replace("\r\n", "\n"), note


def _split(text: str) -> tuple[dict[str, str], str]:
    """A file's front matter, as far as it is `key: value` or a plain list, and its body.

    If a line at the margin is neither, it is no YAML, and claude uses none of it. Claude repairs other mistakes, such
    as `description: has: colons`, so a strict YAML parser would find less than claude does.
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    import textwrap

    fields: dict[str, str] = {}
    lines = textwrap.dedent(match[1]).split("\n")[::-1]
    while lines:
        line = lines.pop().rstrip()
        if line and not re.match(_YAML, line):
            return {}, text[match.end() :]
        key = re.fullmatch(_KEY, line)
        more: list[str] = []
        while key and lines and (not lines[-1].strip() or lines[-1][0] in " \t-"):
            more.append(lines.pop().strip())
        if key:
            fields[key[1]] = _value((key[2] or "").strip(), [line for line in more if line])[:MAX_FIELD_CHARS]
    return fields, text[match.end() :]


def _value(text: str, more: list[str]) -> str:
    """A value on one line; a list is joined by commas. Claude does the same."""
    if re.fullmatch(r"[>|][+-]?\d?[+-]?", text):
        return " ".join(more)
    if not text and more and all(line.startswith("- ") for line in more):
        return ",".join(_scalar(line[2:].strip()) for line in more)
    text = " ".join((text, *more)).strip()
    if re.fullmatch(r"\[[^\[\]]*\]", text):
        return ",".join(_scalar(item.strip()) for item in text[1:-1].split(","))
    return _scalar(text)


def _scalar(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            return text[1:-1]
    text = text.partition(" #")[0].rstrip()
    return "" if text in ("null", "~") else text
