"""Commands and skills in real folders; with a claude at hand, compared with what claude itself finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from claude_orchestrator.claude.commands import (
    MAX_BODY_CHARS,
    MAX_DEPTH,
    MAX_FIELD_CHARS,
    MAX_FILE_BYTES,
    MAX_FILES,
    CommandInfo,
    CommandKind,
    CommandScope,
    discover,
    find,
    nearest,
    warning_for,
)
from claude_orchestrator.cli.commands_view import render_inspect, render_list
from tests.limits import HUNG_S
from tests.stand_in import claude_env
from token_budget.text import display_width


class Tree:
    """A home, and a workspace two folders below the root of a git repository."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.repo = root, root / "home", root / "repo"
        self.workspace = self.repo / "sub" / "ws"
        for folder in (self.home, self.workspace, self.repo / ".git"):
            folder.mkdir(parents=True)

    def command(self, path: str, content: str | bytes = "BODY\n", *, below: Path | None = None) -> Path:
        return self.write((below or self.workspace) / ".claude" / "commands" / path, content)

    def skill(self, name: str, content: str | bytes = "BODY\n", *, below: Path | None = None) -> Path:
        return self.write((below or self.workspace) / ".claude" / "skills" / name / "SKILL.md", content)

    def write(self, path: Path, content: str | bytes = "BODY\n") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def link(self, path: str, target: str | Path) -> Path:
        """A symbolic link among the workspace's commands."""
        link = self.workspace / ".claude" / "commands" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        return link

    def found(self) -> dict[str, CommandInfo]:
        """What is not built in."""
        found = discover(self.workspace, self.home)
        assert len({info.name for info in found}) == len(found)
        return {info.name: info for info in found if info.scope is not CommandScope.BUILT_IN}

    def one(self, content: str | bytes) -> CommandInfo:
        self.command("x.md", content)
        return self.found()["/x"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def bodies(tree: Tree) -> dict[str, str]:
    return {name: info.body.strip() for name, info in tree.found().items()}


# where commands are looked for


def test_nothing_but_built_ins_where_there_is_no_claude_folder(tree: Tree) -> None:
    assert tree.found() == {}
    assert find(discover(tree.root / "no such folder", tree.home), "/compact") is not None


def test_names_come_from_folders(tree: Tree) -> None:
    good = {
        "plain.md": "/plain",
        "git/sync.md": "/git:sync",
        "a/b/c.md": "/a:b:c",
        "UPPER.md": "/UPPER",
        "dot.ted.md": "/dot.ted",
        ".hidden.md": "/.hidden",
        ".h/in.md": "/.h:in",
        "é.md": "/é",
    }
    for path in (*good, "text.txt", "upper-ending.MD", ".md", "new\nline.md", "esc\x1b[2J.md"):
        tree.command(path)
    assert set(tree.found()) == set(good.values())


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are not UTF-8")
def test_a_name_that_is_not_utf8(tree: Tree) -> None:
    tree.command("name-\udcff.md")
    tree.command("folder-\udcff/x/SKILL.md")
    tree.skill("skill-\udcff")
    assert tree.found() == {}


def test_a_command_says_where_it_is_from(tree: Tree) -> None:
    path = tree.command("git/sync.md")
    info = tree.found()["/git:sync"]
    assert (info.source, info.scope, info.kind, info.available) == (
        path,
        CommandScope.PROJECT,
        CommandKind.COMMAND,
        True,
    )
    tree.command("mine.md", below=tree.home)
    assert tree.found()["/mine"].scope is CommandScope.USER


def test_skills_are_folders_with_a_skill_file(tree: Tree) -> None:
    tree.skill("good")
    tree.skill(".hidden")
    skills = tree.workspace / ".claude" / "skills"
    tree.write(skills / "loose.md")
    tree.write(skills / "lower" / "skill.md")
    tree.write(skills / "nested" / "deep" / "SKILL.md")
    found = tree.found()
    assert set(found) == {"/good", "/.hidden"}
    assert found["/good"].kind is CommandKind.SKILL


def test_a_skill_among_the_commands_hides_the_files_beside_it(tree: Tree) -> None:
    tree.command("one/SKILL.md", "---\nname: other\n---\nBODY\n")
    tree.command("one/beside.md")
    tree.command("one/below/it.md")
    tree.command("two/skill.md")
    found = tree.found()
    assert {name: info.kind.value for name, info in found.items()} == {
        "/one": "skill", "/one:below:it": "command", "/two": "skill",
    }  # fmt: skip
    assert found["/one"].aliases == ()
    tree.command("SKILL.md")
    assert set(tree.found()) == {"/commands", "/one", "/one:below:it", "/two"}


def test_parents_count_up_to_the_git_root(tree: Tree) -> None:
    for below, name in ((tree.workspace.parent, "parent"), (tree.repo, "root"), (tree.root, "above")):
        tree.command(f"{name}.md", below=below)
        tree.skill(f"{name}-skill", below=below)
    assert set(tree.found()) == {"/parent", "/parent-skill", "/root", "/root-skill"}


def test_without_git_parents_count_up_to_home(tree: Tree) -> None:
    workspace = tree.home / "a" / "b"
    workspace.mkdir(parents=True)
    for below, name in ((workspace, "ws"), (tree.home / "a", "a"), (tree.home, "home"), (tree.root, "above")):
        tree.command(f"{name}.md", below=below)
    found = discover(workspace, tree.home)
    scopes = {info.name: info.scope.value for info in found if info.source}
    assert scopes == {"/home": "user", "/ws": "project", "/a": "project"}
    at_home = discover(tree.home, tree.home)
    assert {info.name: info.scope.value for info in at_home if info.source} == {"/home": "user"}


def test_a_linked_workspace_counts_where_it_really_is(tree: Tree) -> None:
    tree.command("root.md", below=tree.repo)
    link = tree.root / "link"
    link.symlink_to(tree.workspace)
    assert find(discover(link, tree.home), "root") is not None


def test_config_dir_stands_for_the_folder_in_home(tree: Tree) -> None:
    tree.command("of-home.md", below=tree.home)
    config_dir = tree.root / "config"
    tree.write(config_dir / "commands" / "of-config.md")
    found = discover(tree.workspace, tree.home, config_dir=config_dir)
    assert [info.name for info in found if info.source] == ["/of-config"]


@pytest.mark.parametrize("own", ["", "commands", "skills"])
def test_a_worktree_falls_back_on_its_main_folder(tree: Tree, own: str) -> None:
    worktree = tree.root / "wt"
    git_dir = tree.repo / ".git" / "worktrees" / "wt"
    tree.write(git_dir / "commondir", "../..\n")
    tree.write(worktree / ".git", f"gitdir: {git_dir}\n")
    tree.command("main.md", below=tree.repo)
    tree.skill("main-skill", below=tree.repo)
    tree.command("of-sub.md", below=worktree / "sub")
    if own:
        (worktree / ".claude" / own).mkdir(parents=True)
    found = {info.name for info in discover(worktree / "sub", tree.home) if info.source}
    fallen_back = {"commands": {"/main-skill"}, "skills": {"/main"}}.get(own, {"/main", "/main-skill"})
    assert found == {"/of-sub", *fallen_back}


# which of a name wins


def test_user_before_project_and_near_before_far(tree: Tree) -> None:
    for below, name in ((tree.home, "user"), (tree.workspace, "near"), (tree.repo, "far")):
        tree.command("all.md", name, below=below)
        tree.skill("all-skill", name, below=below)
        if below != tree.home:
            tree.command("two.md", name, below=below)
            tree.skill("two-skill", name, below=below)
    assert bodies(tree) == {"/all": "user", "/all-skill": "user", "/two": "near", "/two-skill": "near"}


def test_skills_before_commands(tree: Tree) -> None:
    tree.skill("a", "project skill")
    tree.command("a.md", "user command", below=tree.home)
    assert bodies(tree) == {"/a": "project skill"}


def test_own_before_built_in(tree: Tree) -> None:
    tree.command("clear.md", "mine")
    tree.command("cost.md", "mine too")
    tree.command("help.md", "help")
    found = discover(tree.workspace, tree.home)
    for name, body in (("/clear", "mine"), ("/cost", "mine too"), ("/help", "help")):
        info = find(found, name)
        assert info is not None and info.body == body and info.available
    assert getattr(find(found, "/stats"), "name", None) == "/usage"


def test_a_file_found_twice_counts_once(tree: Tree) -> None:
    tree.command("kept.md")
    tree.link("linked.md", "kept.md")
    tree.link("up", "..")
    tree.link("around", ".")
    assert set(tree.found()) == {"/kept"}


def test_links_are_followed(tree: Tree) -> None:
    tree.write(tree.root / "else" / "inner.md")
    tree.write(tree.root / "file.md")
    tree.write(tree.root / "a-skill" / "SKILL.md")
    tree.link("folder", tree.root / "else")
    tree.link("file.md", tree.root / "file.md")
    skills = tree.workspace / ".claude" / "skills"
    skills.mkdir()
    (skills / "linked").symlink_to(tree.root / "a-skill")
    assert set(tree.found()) == {"/folder:inner", "/file", "/linked"}


# names, aliases, what can be called


def test_find_by_name_with_or_without_slash_but_in_its_case(tree: Tree) -> None:
    tree.command("Git/Sync.md")
    found = discover(tree.workspace, tree.home)
    assert find(found, "/Git:Sync") is find(found, "Git:Sync") is not None
    for name in ("/git:sync", "/Sync", "", "/", "//Git:Sync", "/Git:Sync x"):
        assert find(found, name) is None


def test_a_skills_name_is_an_alias_weaker_than_every_name(tree: Tree) -> None:
    tree.skill("folder-a", "---\nname: name-a\n---\nA\n")
    tree.skill("folder-b", "---\nname: folder-c\n---\nB\n")
    tree.skill("folder-c", "---\nname: clear\n---\nC\n")
    tree.skill("folder-d", "---\nname: Two Words\n---\nD\n")
    tree.command("cmd.md", "---\nname: not-used\n---\n")
    found = discover(tree.workspace, tree.home)
    names = {"name-a": "/folder-a", "folder-c": "/folder-c", "clear": "/clear", "not-used": None}
    assert {name: getattr(find(found, name), "name", None) for name in names} == names
    assert getattr(find(found, "folder-d"), "aliases", None) == ()


@pytest.mark.parametrize(
    ("alias", "name"),
    [("reset", "/clear"), ("new", "/clear"), ("settings", "/config"), ("cost", "/usage")],
)
def test_built_in_aliases(tree: Tree, alias: str, name: str) -> None:
    info = find(discover(tree.workspace, tree.home), alias)
    assert info is not None and (info.name, info.kind, info.source) == (name, CommandKind.BUILT_IN, None)


@pytest.mark.parametrize("name", ["help", "status", "exit", "login", "resume", "memory", "permissions"])
def test_interactive_built_ins_are_marked(tree: Tree, name: str) -> None:
    info = find(discover(tree.workspace, tree.home), name)
    assert info is not None and (info.available, info.note) == (False, "not available headless")


@pytest.mark.parametrize(
    ("value", "available"),
    [("true", True), ("True", True), ("'true'", True), ("yes", True), ("1", True),
     ("false", False), ("no", False), ("0", False), ("", False), ("maybe", False)],
)  # fmt: skip
def test_user_invocable(tree: Tree, value: str, available: bool) -> None:
    tree.skill("s", f"---\nuser-invocable: {value}\n---\nBODY\n")
    assert tree.found()["/s"].available is available


def test_a_hidden_command_still_hides_the_next_of_its_name(tree: Tree) -> None:
    tree.command("x.md", "---\nuser-invocable: false\n---\nnear\n")
    tree.command("x.md", "far\n", below=tree.repo)
    assert tree.found()["/x"].available is False


def test_a_skill_for_certain_paths_waits_for_them_and_hides_nothing(tree: Tree) -> None:
    tree.skill("some", "---\npaths: src/**\n---\nBODY\n")
    tree.skill("list", "---\npaths:\n  - src/**\n---\nBODY\n")
    tree.skill("all", "---\npaths: '**'\n---\nBODY\n")
    tree.skill("none", "---\npaths: []\n---\nBODY\n")
    tree.skill("context", "---\npaths: src/**\n---\nBODY\n")
    tree.command("cmd.md", "---\npaths: src/**\n---\nBODY\n")
    found = tree.found()
    assert {name: info.available for name, info in found.items()} == {
        "/some": False, "/list": False, "/all": True, "/none": True, "/cmd": True,
    }  # fmt: skip


def test_a_name_with_a_space_is_listed_but_cannot_be_called(tree: Tree) -> None:
    tree.command("two words.md")
    assert tree.found()["/two words"].available is False
    assert "name has a space" in tree.found()["/two words"].note


# front matter


@pytest.mark.parametrize(
    ("content", "description"),
    [
        ("---\ndescription: plain text\n---\nBODY\n", "plain text"),
        ("---\ndescription: has: colons: in it\n---\n", "has: colons: in it"),
        ("---\ndescription: text # comment\n---\n", "text"),
        ("---\ndescription: 'it''s'\n---\n", "it's"),
        ('---\ndescription: "a \\"b\\" \\u00e9"\n---\n', 'a "b" é'),
        ('---\ndescription: "a \\q b"\n---\n', "a \\q b"),
        ("---\ndescription: >\n  folded one\n  folded two\nmodel: x\n---\n", "folded one folded two"),
        ("---\ndescription: |-\n  first\n    second\n\n  third\n---\n", "first second third"),
        ("---\ndescription: starts\n  goes on\nmodel: x\n---\n", "starts goes on"),
        ("---\ndescription:\ttab\n---\n", "tab"),
        ('---\n"description" : key in quotes\n---\n', "key in quotes"),
        ("---\n# comment\ndescription: after it\n---\n", "after it"),
        ("---\n  description: indented\n---\n", "indented"),
        ("---\ndescription: one\ndescription: two\n---\n", "two"),
        ("---\ndescription: [unclosed\n---\n", "[unclosed"),
        ("---\ndescription: *star\n---\n", "*star"),
        ("---\r\ndescription: dos\r\n---\r\nBODY\r\n", "dos"),
        (b"\xef\xbb\xbf---\ndescription: bom\n---\n", "bom"),
        ("---  \ndescription: spaces after\n---  \nBODY\n", "spaces after"),
        ("---\ndescription: foo --- bar\n---\nBODY\n", "foo"),
        ("---\ndescription: null\n---\nBODY\n", "BODY"),
        ("---\ndescription:\n---\n\n## Heading\ntext\n", "Heading"),
        ("---\ndescription: ''\n---\nBODY\n", "BODY"),
        ("---\nmetadata:\n  description: inner\n---\nBODY\n", "BODY"),
        ("---\nDescription: capital\n---\nBODY\n", "BODY"),
        ("---\ndescription:nospace\n---\nBODY\n", "BODY"),
        ("---\n---\nBODY\n", "BODY"),
        ("---\ndescription: one\nand more\nmodel: x\n---\n## Heading\n", "Heading"),
        ("---\nmy key: x\ndescription: one\n---\n", "one"),
        ("---\ndescription: open\nBODY\n", "---"),
        ("\n---\ndescription: late\n---\n", "---"),
        ("# Heading line\nBODY\n", "Heading line"),
        ("\n\n   \n  indented first\n", "indented first"),
        ("#nospace\n", "#nospace"),
        ("#\nnext\n", "#"),
        ("", ""),
        ("---\nmodel: x\n---", ""),
        (b"caf\xe9 latin\n", "caf\ufffd latin"),
        (b"nul\0byte\n", "nul\0byte"),
    ],
)
def test_description(tree: Tree, content: str | bytes, description: str) -> None:
    assert tree.one(content).description == description


@pytest.mark.parametrize(
    ("line", "hint"),
    [("<a> [b]", "<a> [b]"), ('"[a] [b]"', "[a] [b]"), ("[a] [b]", "[a] [b]"), ("[a, b]", "a,b"),
     ("[a]", "a"), ("\n  - one\n  - two", "one,two"), ("", "")],
)  # fmt: skip
def test_argument_hint(tree: Tree, line: str, hint: str) -> None:
    assert tree.one(f"---\nargument-hint: {line}\nmodel: opus\n---\n").argument_hint == hint


@pytest.mark.parametrize(
    ("value", "tools"),
    [
        ("Read, Grep", ("Read", "Grep")),
        ("Read Grep", ("Read", "Grep")),
        ("Bash(git add:*), Bash(a, b), Read", ("Bash(git add:*)", "Bash(a, b)", "Read")),
        ("[Read, 'Grep']", ("Read", "Grep")),
        ("\n  - Bash(git pull:*)\n  - Read", ("Bash(git pull:*)", "Read")),
        ("\n- Read\n- mcp__x__y", ("Read", "mcp__x__y")),
        ("", ()),
    ],
)
def test_allowed_tools(tree: Tree, value: str, tools: tuple[str, ...]) -> None:
    info = tree.one(f"---\nallowed-tools: {value}\nmodel: opus\n---\nBODY\n")
    assert (info.allowed_tools, info.model, info.body) == (tools, "opus", "BODY\n")


def test_no_model_is_none(tree: Tree) -> None:
    assert tree.one("BODY").model is None


# hostile and broken files


def test_what_is_no_file_is_passed_over(tree: Tree) -> None:
    tree.link("dangling.md", "nowhere.md")
    tree.link("loop.md", "loop.md")
    tree.link("loop-folder", "loop-folder")
    os.mkfifo(tree.workspace / ".claude" / "commands" / "pipe.md")
    tree.command("folder.md/inner.md")
    skills = tree.workspace / ".claude" / "skills"
    (skills / "SKILL.md" / "SKILL.md").mkdir(parents=True)
    (skills / "dangling").symlink_to("nowhere")
    assert set(tree.found()) == {"/folder.md:inner"}


def test_claude_folder_that_is_a_file(tree: Tree) -> None:
    tree.write(tree.workspace / ".claude", "no folder")
    tree.write(tree.home / ".claude" / "commands", "no folder")
    assert tree.found() == {}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that not even root can read")
def test_an_unreadable_file_is_shown_with_a_note(tree: Tree) -> None:
    tree.link("x.md", "/proc/self/mem")
    info = tree.found()["/x"]
    assert info.available is False
    assert info.note.startswith("cannot be read: ")


def test_a_huge_file_is_read_in_part(tree: Tree) -> None:
    info = tree.one("---\ndescription: big\n---\n" + "x" * MAX_FILE_BYTES)
    assert (info.description, info.available) == ("big", True)
    assert info.note == "only its first 256 KiB were read"
    assert len(info.body) < MAX_BODY_CHARS + 100
    assert info.body.endswith("x\n… (cut at 20,000 characters)")


def test_fields_are_bounded(tree: Tree) -> None:
    long = "y" * 50_000
    info = tree.one(f"---\nargument-hint: {long}\nmodel: {long}\nallowed-tools: {long}\n---\n{long}\n")
    texts = (info.description, info.argument_hint, info.model or "", *info.allowed_tools)
    assert [len(text) for text in texts] == [MAX_FIELD_CHARS] * 4


@pytest.mark.parametrize(
    "content",
    [
        "---" + "\n" * 250_000,
        "---\n" + "a" * 250_000,
        "---\ndescription: " + " " * 120_000 + "x" + " " * 120_000 + "\n---\n",
        "---\nallowed-tools: " + "a(" * 120_000 + "\n---\n",
        "---\nallowed-tools:\n" + "  - a(\n" * 30_000 + "---\n",
        "---\ndescription: " + "[" * 240_000 + "\n---\n",
        "---\n" + "k:\n" * 20_000 + "---\n",
        "---\n" + " " * 250_000 + "\n---\n",
        "---\ndescription: '" + '\\"' * 120_000 + "'\n---\n",
        "#" * 250_000,
        "# " + " " * 250_000 + "x",
        " \n" * 120_000,
    ],
)
def test_no_content_takes_long(tree: Tree, content: str) -> None:
    start = time.process_time()  # not the time on the wall, which other programs take too
    tree.one(content)
    assert time.process_time() - start < 60  # a quadratic pattern takes minutes, also on an idle machine


def test_folders_without_end(tree: Tree) -> None:
    tree.command("/".join("a" * (MAX_DEPTH + 5)) + "/deep.md")
    tree.command("/".join("b" * MAX_DEPTH) + "/deep.md")
    for number in range(MAX_FILES + 5):
        tree.command(f"many/{number}.md", "")
    found = tree.found()
    assert len(found) == MAX_FILES
    assert ":".join(["/b", *"b" * (MAX_DEPTH - 1), "deep"]) in found


# suggestions and warnings


def test_nearest() -> None:
    known = ["/test", "/git:sync", "/db:sync", "/README", "/review", "/code-review"]
    assert nearest("/tset", known) == ("/test",)
    assert nearest("test", known) == ("/test",)
    assert nearest("/sync", known) == ("/git:sync", "/db:sync")
    assert nearest("/synk", known, n=1) == ("/git:sync",)
    assert nearest("/readme", known) == ("/README",)
    assert nearest("/reviw", known)[0] == "/review"
    assert nearest("/zzzzzz", known) == nearest("", known) == nearest("/x", []) == ()
    assert len(nearest("/a", [f"/a{n}" for n in range(50)])) == 3


@pytest.mark.parametrize(
    "prompt",
    ["/test --unit", "/test", "/test\nmore", "/cost", "plain text", "/etc/hosts is empty", "/", "", " /nope",
     "/mcp__server__prompt x", "/nope! is text", "//"],
)  # fmt: skip
def test_no_warning(tree: Tree, prompt: str) -> None:
    tree.command("test.md")
    assert warning_for(prompt, discover(tree.workspace, tree.home)) is None


def test_warnings(tree: Tree) -> None:
    tree.command("git/sync.md")
    tree.skill("inner", "---\nuser-invocable: false\n---\n")
    found = discover(tree.workspace, tree.home)
    unknown = warning_for("/sync --all", found)
    assert unknown is not None
    assert unknown.startswith("/sync: no such command or skill (did you mean /git:sync?): ")
    nothing_near = warning_for("/zzzzzzzz", found)
    assert nothing_near is not None
    assert nothing_near.startswith("/zzzzzzzz: no such command or skill: ")
    assert warning_for("/help", found) == "/help: not available headless"
    assert warning_for("/inner x", found) == "/inner: only Claude itself can invoke it (user-invocable)"


# how it is shown


def info(name: str, description: str, scope: CommandScope = CommandScope.PROJECT, **more: str) -> CommandInfo:
    kind = CommandKind.BUILT_IN if scope is CommandScope.BUILT_IN else CommandKind(more.get("kind", "command"))
    available = more.get("available", "yes") == "yes"
    hint, note = more.get("hint", ""), more.get("note", "")
    return CommandInfo(name, description, hint, None, scope, kind, available=available, note=note)


SHOWN = (
    info("/zeta", "Does the last thing"),
    info("/Git:sync", "Sync the branch\nwith its remote, then run it", hint="[branch]", kind="skill"),
    info("/mine", "My own", CommandScope.USER),
    info("/two words", "Lost", CommandScope.USER, available="no", note="cannot be called"),
    info("/clear", "start afresh", CommandScope.BUILT_IN),
    info("/model", "set the model", CommandScope.BUILT_IN, note="not yet in 1.0"),
    info("/help", "", CommandScope.BUILT_IN, available="no", note="not available headless"),
    info("/exit", "", CommandScope.BUILT_IN, available="no", note="not available headless"),
)


def test_list() -> None:
    assert render_list(SHOWN, 60) == [
        "Project (2)",
        "  /Git:sync [branch]  skill    Sync the branch with its rem…",
        "  /zeta               command  Does the last thing",
        "",
        "User (2)",
        "  /mine               command  My own",
        "  /two words          command  (cannot be called) Lost",
        "",
        "Built-in (2)",
        "  /clear              start afresh",
        "  /model              set the model (not yet in 1.0)",
        "",
        "Not available headless: /exit, /help",
    ]


def test_list_of_nothing() -> None:
    assert render_list((), 80) == []


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_list_keeps_to_its_width(tree: Tree, width: int) -> None:
    tree.command("wide.md", "---\nargument-hint: " + "日本語" * 40 + "\n---\n" + "日本語 " * 40)
    tree.command("n" * 100 + ".md", "d" * 500)
    lines = render_list(discover(tree.workspace, tree.home), width)
    lines = [line for line in lines if not line.startswith("      /")]  # a source stands whole, to be copied
    assert max(map(display_width, lines)) <= max(20, width)


HOSTILE = "red \x1b[31m bell \x07 back \x08 csi \x9b2J bidi \u202e end\r\n"


def test_nothing_of_a_file_drives_the_terminal(tree: Tree) -> None:
    fields = 'argument-hint: "h\\u001b[2J"\nmodel: m\x1bc\nallowed-tools: t\x1bc\n'
    tree.command("x.md", f"---\n{fields}---\n{HOSTILE}")
    tree.skill("s", "---\nname: a\x1bc\ndescription: d\x1b]0;title\x07\n---\n")
    found = discover(tree.workspace, tree.home)
    lines = render_list(found, 200)
    for name in ("x", "s"):
        shown = find(found, name)
        assert shown is not None
        lines += render_inspect(shown, 80)
    assert all(line.isprintable() for line in lines)
    assert "red \\x1b[31m bell \\x07 back \\x08 csi \\x9b2J bidi \\u202e end" in lines
    assert any("d\\x1b]0;title\\x07" in line for line in lines)


def test_inspect() -> None:
    shown = CommandInfo(
        name="/git:sync",
        description="Sync the branch with its remote, then run all of the tests",
        argument_hint="[branch]",
        source=Path("/w/.claude/commands/git/sync.md"),
        scope=CommandScope.PROJECT,
        kind=CommandKind.COMMAND,
        model="sonnet",
        allowed_tools=("Bash(git pull:*)", "Read"),
        body="\n# Sync\n\tDo it.\n\nThis line is longer than the width and stays as it is.\n",
        aliases=("/s",),
    )
    assert render_inspect(shown, 50) == [
        "/git:sync [branch]",
        "  description:  Sync the branch with its remote,",
        "                then run all of the tests",
        "  scope:        project",
        "  kind:         command",
        "  source:       /w/.claude/commands/git/sync.md",
        "  aliases:      /s",
        "  model:        sonnet",
        "  tools:        Bash(git pull:*), Read",
        "",
        "# Sync",
        "    Do it.",
        "",
        "This line is longer than the width and stays as it is.",
    ]


def test_inspect_a_built_in() -> None:
    assert render_inspect(SHOWN[5], 80) == [
        "/model",
        "  description:  set the model",
        "  scope:        built-in",
        "  kind:         built-in",
        "  note:         not yet in 1.0",
    ]


# claude itself


def claude_finds(claude: str, tree: Tree) -> dict[str, str]:
    """The commands that the real claude names in its answer to `initialize`; no API call is made."""
    request = {"type": "control_request", "request_id": "1", "request": {"subtype": "initialize"}}
    done = subprocess.run(
        [claude, "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"],
        input=json.dumps(request) + "\n",
        cwd=tree.workspace,
        env=claude_env(tree.home, "http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if '"control_response"' in line]
    rows = answers[0]["response"]["response"]["commands"]
    # 2.1.197 may have a name twice: the first is the one that it runs
    return {row["name"]: row["description"] for row in reversed(rows)}


@pytest.mark.real_cli
def test_claude_finds_the_same(tree: Tree, claude: str) -> None:
    before = claude_finds(claude, tree)
    places = ((tree.home, "user"), (tree.workspace, "near"), (tree.repo, "far"), (tree.root, "above"))
    for below, name in places:
        tree.command("all.md", f"all of {name}\n", below=below)
        tree.command(f"{name}/deep/er.md", f"deeper of {name}\n", below=below)
        tree.skill("all-skill", f"# skill of {name}\n", below=below)
    tree.command("beside/SKILL.md", "skill among commands\n")
    tree.command("beside/nothing.md")
    tree.command("fields.md", "---\ndescription: >\n  folded\n  text\nargument-hint: [x]\n---\n")
    tree.command("half.md", "---\ndescription: one\nand more\n---\n## Heading\n")
    tree.command("hidden.md", "---\nuser-invocable: false\n---\n")
    tree.skill("waiting", "---\npaths: src/**\n---\n")
    tree.skill("all", "skill before command\n")
    tree.link("around", ".")
    theirs = {name: text for name, text in claude_finds(claude, tree).items() if name not in before}
    ours = {
        found.name[1:]: f"{found.description} ({found.scope})"
        for found in discover(tree.workspace, tree.home)
        if found.source and found.available
    }
    assert ours == theirs
    assert len(ours) == 8
