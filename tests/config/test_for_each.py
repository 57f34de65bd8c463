"""Fan-out: templates and items, by values."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.config import Check, InstanceConfig
from claude_orchestrator.config.for_each import expand, fill_texts, group_name, item_values
from claude_orchestrator.config.items import Item, item_value, label_of, read_item
from claude_orchestrator.config.placeholders import Placeholder, Template, placeholders
from token_budget.fields import BadValue

HOSTILE = "\\{{item}} {{index}} $(reboot) `id` ; rm -rf / ' \" \n\r\t\x1b[2J %s {0} ../../x"


def value(text: str, item: Item, index: int = 3) -> str:
    (placeholder,) = placeholders(text)
    return item_value(placeholder, item, index)


@pytest.mark.parametrize(
    ("text", "item", "filled"),
    [
        ("{{item}}", "src/a.b.py", "src/a.b.py"),
        ("{{ item.stem }}", "src/a.b.py", "a.b"),
        ("{{item.name}}", "src/a.b.py", "a.b.py"),
        ("{{item.dir}}", "src/a.b.py", "src"),
        ("{{item.dir}}", "a.py", "."),
        ("{{index}}", "x", "3"),
        ("{{item}}", {"k": "ü", "n": [1, None]}, '{"k":"ü","n":[1,null]}'),
        ("{{item.k}}", {"k": "v"}, "v"),
        ("{{item.k}}", {"k": True}, "true"),
        ("{{item.k}}", {"k": 1.5}, "1.5"),
        ("{{item.k}}", {"k": None}, "null"),
        ("{{item.k.inner}}", {"k": {"inner": ["a"]}}, '["a"]'),
        ("{{item.k.inner.0}}", {"k": {"inner": ["a"]}}, "a"),
        ("{{item.a.b}}", {"a.b": "dots", "a": {"b": "path"}}, "dots"),
        ("{{item.stem}}", {"stem": "a key"}, "a key"),
        ("{{item.full name}}", {"full name": "spaces"}, "spaces"),
    ],
)
def test_what_placeholders_stand_for(text: str, item: Item, filled: str) -> None:
    assert value(text, item) == filled


@pytest.mark.parametrize(
    ("text", "item", "why"),
    [
        ("{{item.lang}}", "a", "unknown placeholder {{item.lang}}; did you mean {{item.name}}?"),
        ("{{item.pth}}", {"path": 1}, "unknown placeholder {{item.pth}}; did you mean {{item.path}}?"),
        ("{{item.a.b}}", {"a": "text"}, "unknown placeholder {{item.a.b}}; did you mean {{item.a}}?"),
        ("{{item.a.7}}", {"a": [0]}, "unknown placeholder {{item.a.7}}; did you mean {{item.a}}?"),
        ("{{itme}}", "a", "unknown placeholder {{itme}}; did you mean {{item}}?"),
        ("{{index.x}}", "a", "unknown placeholder {{index.x}}; did you mean {{index}}?"),
        ("{{x}}", {"k": 1}, "unknown placeholder {{x}}; known here: {{item}}, {{index}}, {{item.k}}"),
        ("{{item.__class__}}", "a", "unknown placeholder {{item.__class__}}"),
        ("{{results.plan}}", "a", "unknown placeholder {{results.plan}}"),
    ],
)
def test_unknown_placeholders_name_the_nearest(text: str, item: Item, why: str) -> None:
    with pytest.raises(BadValue) as error:
        value(text, item)
    assert str(error.value).startswith(why)


TEMPLATE = InstanceConfig(
    "fix",
    "Fix {{item}}, number {{index}}.",
    description="about {{item}}",
    append_system_prompt="Only {{item}}.",
    pre_commands=("/prime", "read {{item}}"),
    env=(("FILE", "{{item}}"), ("PLAIN", "x")),
)


def test_every_text_is_filled_once() -> None:
    (one,) = expand(TEMPLATE, [HOSTILE])
    assert one.command == f"Fix {HOSTILE}, number 0." and one.description == f"about {HOSTILE}"
    assert one.append_system_prompt == f"Only {HOSTILE}." and one.pre_commands == ("/prime", f"read {HOSTILE}")
    assert one.env == (("FILE", HOSTILE), ("PLAIN", "x"))
    assert (one.group, one.item, one.item_index, one.for_each) == ("fix", HOSTILE, 0, None)
    assert one.name.isprintable() and one.name.startswith("fix[\\{{item}} {{index}} $(reboot)")


def test_folders_and_worktrees_are_filled() -> None:
    (one,) = expand(TEMPLATE._replace(cwd="repos/{{item}}", worktree="w-{{item.stem}}"), ["a/b.c"])
    assert one.cwd == "repos/a/b.c" and one.worktree == "w-b"


def test_in_a_check_an_item_is_one_word() -> None:
    (one,) = expand(TEMPLATE._replace(check=Check("pytest -q {{item}}")), ["a b; $(reboot) 'x'"])
    assert one.check == Check("""pytest -q 'a b; $(reboot) '"'"'x'"'"''""")


@pytest.mark.parametrize("item", ["../x", "/etc", "a/../../b"])
@pytest.mark.parametrize("field", ["cwd", "worktree"])
def test_an_item_leads_out_of_no_folder(field: str, item: str) -> None:
    changes: dict[str, Any] = {field: "repos/{{item}}"}
    with pytest.raises(BadValue, match=rf"{field}: {{{{item}}}} must not lead out of the folder \(item 0: "):
        expand(TEMPLATE._replace(**changes), [item])


def test_texts_that_wait_for_results_are_filled_at_the_launch() -> None:
    template = TEMPLATE._replace(command="{{item}} after {{results.plan}}", cwd="{{item}}")
    (one,) = expand(template, ["{{results.plan}}"])
    assert one.command == template.command and isinstance(one.command, Template) and one.cwd == "{{results.plan}}"
    assert one.env[0] == ("FILE", "{{results.plan}}") and not isinstance(one.env[0][1], Template)
    known = item_values(one)

    def both(placeholder: Placeholder) -> str:
        return "RESULT {{item}}" if placeholder.root == "results" else known(placeholder)

    launched = fill_texts(one, both, at_launch=True)
    assert launched.command == "{{results.plan}} after RESULT {{item}}" and launched.env == one.env
    assert fill_texts(launched, both, at_launch=True) == launched


def test_folders_cannot_wait_for_results() -> None:
    with pytest.raises(BadValue, match=r"cwd: unknown placeholder {{results.plan}}"):
        expand(TEMPLATE._replace(cwd="{{results.plan}}"), ["a"])


def test_braces_of_others_and_escaped_ones_stay() -> None:
    (one,) = expand(TEMPLATE._replace(command=r"{{ .Values }} \{{item}} {{item.id}} {x}"), [{"id": 1}])
    assert one.command == "{{ .Values }} {{item}} 1 {x}"


# -- names --


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ("src/a.py", "src/a.py"),
        ({"lang": "de", "page": "a"}, "de,a"),
        ({"text": "long", "id": 7}, "7"),
        ({"text": "long", "name": "short"}, "short"),
        ("a\nb", "a b-05fec5ac"),
        ("a b", "a b"),
        ("\x1b[2J", "[2J-6c7a1b1f"),
        ("\x00", "6e340b9c"),
        ("", ""),
    ],
)
def test_labels(item: Item, label: str) -> None:
    made = label_of(item)
    assert made.isprintable() and made.partition("-")[0] == label.partition("-")[0]
    assert len(made) == len(label)


def test_long_labels_are_shortened_in_the_middle_and_stay_unique() -> None:
    one, two = label_of("a" * 1_000_000 + "b.py"), label_of("a" * 1_000_001 + "b.py")
    assert len(one) == 80 and one != two and one.startswith("aaaa") and "..aa" in one and "ab.py-" in one


def test_names() -> None:
    assert [one.name for one in expand(TEMPLATE, ["a/x.py", "b/x.py"])] == ["fix[a/x.py]", "fix[b/x.py]"]
    named = TEMPLATE._replace(name="fix-{{item.stem}}-{{index}}")
    assert [one.name for one in expand(named, ["a/x.py", "b/x.py"])] == ["fix-x-0", "fix-x-1"]


@pytest.mark.parametrize(
    ("name", "group"),
    [("fix", "fix"), ("fix-{{item}}", "fix"), ("{{item}}", "items"), ("{{item}}: fix", "fix"), ("a[{{item}}]", "a")],
)
def test_the_name_of_a_group(name: str, group: str) -> None:
    assert group_name(TEMPLATE._replace(name=name)) == group


# -- faults --


@pytest.mark.parametrize(
    ("changes", "items", "faults"),
    [
        ({}, ["a", "b", "a"], ['.name: the name fix[a] also belongs to item 0: add "name" with {{index}} (item 2: a)']),
        (
            {"name": "f-{{item.stem}}"},
            ["a/x.py", "b/x.py"],
            [".name: the name f-x also belongs to item 0: use {{index}} in it, or leave it out (item 1: b/x.py)"],
        ),
        (
            {"command": "{{item.no}}"},
            [{"a": 1}, {"a": 2}, {"a": 3}],
            [".command: unknown placeholder {{item.no}}"],
        ),
        ({"command": "{{item}}"}, ["  "], [".command: is empty: expected a slash command or a prompt (item 0: "]),
        ({"cwd": "{{item}}"}, ["a\nb"], [".cwd: expected one line of text without a line end (U+000A), got"]),
        ({"env": (("A", "{{item}}"),)}, ["x" * 200_000], [".env.A: an environment variable has at most 100,000"]),
        ({"session_id": "0f0e0d0c-0000-4000-8000-000000000001"}, ["a"], [".session_id: several instances cannot"]),
    ],
)
def test_faults_name_the_item_once(changes: dict[str, Any], items: list[Item], faults: list[str]) -> None:
    with pytest.raises(BadValue) as error:
        expand(TEMPLATE._replace(**{"description": "", **changes}), items)
    found = [f"{place}: {why}" for place, why in error.value.faults]
    assert len(found) == len(faults)
    for line, start in zip(found, faults, strict=True):
        assert line.startswith(start)
    if len(items) == 3 and "command" in changes:
        assert found[0].endswith("(item 0: 1, and 2 more)")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "expected a text or an object, got null"),
        (True, "expected a text or an object, got true"),
        (["a"], "expected a text or an object, got"),
        ("a\0b", "a NUL or half a surrogate pair cannot be passed"),
        ({"k": ["\ud800"]}, "a NUL or half a surrogate pair cannot be passed"),
        ({"a\0b": 1}, "a NUL or half a surrogate pair cannot be passed"),
        ("x" * 1_048_577, "an item has at most 1,048,576 characters"),
    ],
)
def test_what_is_no_item(raw: object, why: str) -> None:
    with pytest.raises(BadValue, match=f"^{why}"):
        read_item(raw)


def test_numbers_are_texts() -> None:
    assert read_item(7) == "7" and read_item(1.5) == "1.5" and read_item("x" * 1_048_576)
