"""Budget profiles: inheritance across two files, every fault by its line, files that are never left half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.errors import UserError
from tests.limits import HUNG_S
from token_budget import places
from token_budget.budget_manager import MODES, TokenBudgetManager
from token_budget.pricing import billing_weights
from token_budget.text import NANO
from token_budget.usage import profile_files, profiles
from token_budget.usage.profile_chain import FIELDS
from token_budget.usage.profiles import StoredProfile, delete, describe, from_run, load, names, save

EVERY_VALUE: dict[str, object] = {
    "overall_budget": 50_000,
    "command_budgets": {"/test": 10_000, "/b": 5},
    "daily_token_budget": 1,
    "weekly_token_budget": 2,
    "monthly_token_budget": 3,
    "overall_cost_budget": 5.0,
    "command_cost_budgets": {"/test": 1.5},
    "daily_cost_budget": 0.0025,
    "weekly_cost_budget": 7,
    "monthly_cost_budget": 1234.5,
    "enforcement_mode": "block",
    "token_weights": "billing",
    "alert_at": "50,80,95",
}
# costs in nano-dollars, the rest as budgets take it
EVERY_VALUE_READ: dict[str, object] = {
    **EVERY_VALUE,
    "overall_cost_budget": 5 * NANO,
    "command_cost_budgets": {"/test": 1_500_000_000},
    "daily_cost_budget": 2_500_000,
    "weekly_cost_budget": 7 * NANO,
    "monthly_cost_budget": 1_234_500_000_000,
    "token_weights": billing_weights(),
    "alert_at": (50, 80, 95),
}


class Files:
    """A project's file and a user's, in order of precedence."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "work" / profiles.PROJECT_FILE
        self.user = folder / "home" / places.PROFILES
        self.both = (self.project, self.user)

    def put(self, project: object = None, user: object = None) -> None:
        for file, content in ((self.project, project), (self.user, user)):
            if content is not None:
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps({"profiles": content}))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- loading --


def test_every_value_arrives(files: Files) -> None:
    files.put(
        user={"all": {"// why": "a comment", **EVERY_VALUE, "command_budgets": {"//": 1, " /test ": 10_000, "/b": 5}}}
    )
    assert dict(load("all", files.both).values) == EVERY_VALUE_READ
    assert set(EVERY_VALUE) == set(FIELDS)


@pytest.mark.parametrize(
    ("said", "value"), [(80, (80,)), ([50, 80], (50, 80)), ([], ()), ("", ()), ("off", ()), (" 80, 50", (50, 80))]
)
def test_thresholds_are_a_number_a_list_or_text(files: Files, said: object, value: tuple[int, ...]) -> None:
    save(files.user, "x", {"alert_at": said, "overall_budget": 10**15})
    assert load("x", files.both).values["alert_at"] == value


def test_inheritance_goes_key_by_key_and_says_where_from(files: Files) -> None:
    files.put(
        project={
            "nightly": {"extends": "nightly", "command_budgets": {"/test": 20, "/doc": 9}, "enforcement_mode": None},
            "base": {"overall_budget": 100, "alert_at": (80,)},
        },
        user={
            "nightly": {"extends": "base", "overall_budget": 500, "command_budgets": {"/test": 10, "/fix": 30}},
            "base": {"overall_budget": 1},
        },
    )
    profile = load("nightly", files.both)
    assert profile.values == {
        "overall_budget": 500,
        "alert_at": (80,),
        "command_budgets": {"/test": 20, "/fix": 30, "/doc": 9},
    }
    assert profile.origins == {
        "overall_budget": "profile nightly (profiles.json)",
        "alert_at": f"profile base ({profiles.PROJECT_FILE})",
        "command_budgets[/test]": f"profile nightly ({profiles.PROJECT_FILE})",
        "command_budgets[/doc]": f"profile nightly ({profiles.PROJECT_FILE})",
        "command_budgets[/fix]": "profile nightly (profiles.json)",
    }
    assert load("nightly", [files.user]).values["command_budgets"] == {"/test": 10, "/fix": 30}


def test_a_damaged_file_that_is_not_needed_does_no_harm(files: Files) -> None:
    files.put(project={"a": {"overall_budget": 1}, "b": {"overall_budget": "lots", "extends": "b"}}, user=[])
    assert load("a", files.both).values == {"overall_budget": 1}


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "p.json", tmp_path / "b" / "p.json"
    for file in (one, two):
        save(file, "x", {"overall_budget": 1})
    assert load("x", [one, two]).origins == {"overall_budget": f"profile x ({one})"}


_ODD = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "d", None]), max_size=4)


@given(_ODD, _ODD)
def test_any_inheritance_ends(
    tmp_path_factory: pytest.TempPathFactory, project: dict[str, str | None], user: dict[str, str | None]
) -> None:
    """Against the rule in words: follow `extends` until it ends, is unknown or comes back."""
    files = Files(tmp_path_factory.getbasetemp())
    both = (project, user)
    files.put(
        *(
            {name: {"extends": to, "command_budgets": {f"{i}{name}": 1}} for name, to in each.items()}
            for i, each in enumerate(both)
        )
    )
    steps: list[tuple[int, str]] = []
    target: str | None = "a"
    while target is not None:
        where = [
            i for i in (0, 1) if target in both[i] and not (steps and steps[-1][1] == target and i <= steps[-1][0])
        ]
        if not where or (where[0], target) in steps:
            with pytest.raises(ValueError, match=r"unknown profile|extend each other"):
                load("a", files.both)
            return
        steps.append((where[0], target))
        target = both[where[0]][target]
    assert load("a", files.both).values["command_budgets"] == {f"{i}{name}": 1 for i, name in steps}


# -- faults --


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("overall_budget", "lots", 'expected a positive whole number such as 50000, 50k or 1.5M, got "lots"'),
        ("overall_budget", True, "expected a positive whole number, got true"),
        ("daily_token_budget", 0, "expected a positive whole number, got 0"),
        ("weekly_token_budget", 1.5, "expected a positive whole number, got 1.5"),
        ("command_budgets", [1], "expected an object of command: limit, got [1]"),
        ("command_budgets", {"/test": None}, "/test: expected a positive whole number, got null"),
        ("command_budgets", {" ": 1}, "a command's name is empty"),
        ("command_cost_budgets", {"/test": -1}, "/test: expected a positive number of US dollars, got -1"),
        ("daily_cost_budget", 1e-10, "expected a positive number of US dollars, got 1e-10"),
        ("monthly_cost_budget", 10**400, "expected a positive number of US dollars"),
        ("enforcement_mode", "stop", 'expected one of warn, block, got "stop"'),
        ("enforcement_mode", ["warn"], 'expected one of warn, block, got ["warn"]'),
        ("token_weights", "heavy", "expected flat, billing or"),
        ("token_weights", {"colour": 1}, "expected numbers for input, output, cache_write, cache_read"),
        (
            "overall_budget",
            10**15 + 1,
            "expected a positive whole number up to 1,000,000,000,000,000, got 1000000000000001",
        ),
        (
            "command_budgets",
            {"/x": 10**400},
            "/x: expected a positive whole number up to 1,000,000,000,000,000, got 1000",
        ),
        ("alert_at", "50;80", 'expected percentages such as 80, [50, 80] or "50,80,95", or "off", got "50;80"'),
        ("alert_at", "0,80", "expected percentages from 1 to 1000"),
        ("alert_at", 80.5, "expected percentages such as"),
        ("alert_at", True, "expected percentages such as"),
        ("alert_at", -80, "expected percentages such as"),
        ("alert_at", [80, "90"], "expected percentages such as"),
        ("alert_at", [80, True], "expected percentages such as"),
        ("alert_at", [80, 1001], "expected percentages from 1 to 1000"),
        ("extends", 5, "expected the name of a profile, got 5"),
        ("overal_budget", 5, 'unknown key; did you mean "overall_budget"'),
        ("x", 5, "unknown key; known: alert_at, command_budgets"),
    ],
)
def test_wrong_values_are_named_and_never_saved(files: Files, key: str, value: object, reason: str) -> None:
    line = f"{files.user}: profiles.nightly.{key}: {reason}"
    files.put(user={"nightly": {key: value}})
    before = files.user.read_text()
    with pytest.raises(ValueError) as loaded:
        load("nightly", files.both)
    with pytest.raises(ValueError) as saved:
        save(files.user, "nightly", {key: value})
    for error in (loaded, saved):
        assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert files.user.read_text() == before


@pytest.mark.parametrize(
    ("project", "user", "reason"),
    [
        ({}, {"nightly": {}}, 'unknown profile "nihgtly"; did you mean "nightly"? (looked in '),
        ({"b": {}}, {"a": {}}, 'unknown profile "nihgtly"; known: a, b (looked in '),
        (None, None, 'unknown profile "nihgtly"; none known (looked in '),
        ({"nihgtly": {"extends": "bsae"}}, {"base": {}}, '.extends: unknown profile "bsae"; did you mean "base"?'),
        (
            {"nihgtly": {"extends": "b"}, "b": {"extends": "nihgtly"}},
            None,
            "profiles.b.extends: profiles extend each other: nihgtly extends b extends nihgtly",
        ),
        (None, {"nihgtly": {"extends": "nihgtly"}}, "profiles extend each other: nihgtly extends nihgtly"),
        (["x"], None, 'profiles: expected an object of name: profile, got ["x"]'),
        ({"nihgtly": 7}, None, "profiles.nihgtly: expected an object, got 7"),
    ],
)
def test_what_cannot_be_found_or_never_ends(files: Files, project: object, user: object, reason: str) -> None:
    files.put(project, user)
    with pytest.raises(ValueError) as error:
        load("nihgtly", files.both)
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_all_faults_that_matter_come_at_once(files: Files) -> None:
    files.put(
        project={"a": {"extends": "b", "overall_budget": 0, "alert": 1}, "c": {"overall_budget": "not asked for"}},
        user={"b": {"extends": "gone", "alert_at": "x"}},
    )
    with pytest.raises(ValueError) as error:
        load("a", files.both)
    starts = [
        f"{files.project}: profiles.a.overall_budget: ",
        f"{files.project}: profiles.a.alert: ",
        f"{files.user}: profiles.b.alert_at: ",
        f"{files.user}: profiles.b.extends: ",
    ]
    lines = str(error.value).splitlines()
    assert len(lines) == len(starts) and all(map(str.startswith, lines, starts))


DAMAGED = {
    b'{"profiles": {\n"a": {},\n}}': "line 3 column 1: invalid JSON",
    b"": "line 1 column 1",
    b"[]": "expected an object, got []",
    b'{"profile": {}}': 'profile: unknown key; did you mean "profiles"?',
    b'{"profiles": 5}': "profiles: expected an object",
    b'{"profiles": {"a": {}, "a": {}}}': 'the key "a" appears twice',
    b'{"profiles": {"a": {"overall_cost_budget": NaN}}}': "NaN is not a number",
    b'{"profiles": {"a": {"overall_cost_budget": 1e999}}}': "1e999 is not a number",
    b"\xff": "not UTF-8",
    b"[" * 100_000: "too deeply nested",
    b"9" * 5000: "invalid JSON",
    b" " * (profile_files.MAX_FILE_BYTES + 1): "larger than 1 MiB",
}


@pytest.mark.parametrize("raw", DAMAGED, ids=lambda raw: DAMAGED[raw])
def test_a_damaged_file_is_named_and_never_written(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "profiles.json"
    file.write_bytes(raw)
    for act in (
        lambda: load("a", [file]),
        lambda: names([file]),
        lambda: save(file, "a", {"overall_budget": 1}),
        lambda: delete(file, "a"),
    ):
        with pytest.raises(ValueError) as error:
            act()
        assert str(error.value).startswith(f"{file}: ") and DAMAGED[raw] in str(error.value)
    assert file.read_bytes() == raw and list(tmp_path.iterdir()) == [file]


def test_folders_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    for file, reason in ((tmp_path, "Is a directory"), (tmp_path / "in the way" / "p.json", "Not a directory")):
        with pytest.raises(ValueError, match=f"cannot read the profiles: {reason}"):
            save(file, "a", {})


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write the profiles: File name too long"):
        save(tmp_path / ("x" * 250), "a", {})  # there is no room for the temporary file's name
    assert list(tmp_path.iterdir()) == []


# -- saving and deleting --


def test_saving_keeps_everything_else(tmp_path: Path) -> None:
    file = tmp_path / "profiles.json"
    file.write_bytes(
        """\ufeff{"$schema": "s", "//": "one", "//": "zwölf", "profiles": {
            "// a": 1, "first": {"overall_budget": 1e0, "unknown": "\\ud800"},
            "x": {"// why": "stays", "overall_budget": 1, "alert_at": "80",
                  "command_budgets": {"// c": 0, "/a": 1, "/b": 2}, "extends": "first"},
            "last": 5}}""".encode()
    )
    save(file, "x", {"command_budgets": {"/c": 3, "/b": 4}, "overall_budget": 7})
    save(file, "new", {"extends": "x"})
    text = file.read_text()
    assert text.count('"//": ') == 2 and '"one"' in text and '"zwölf"' in text and '"\\ud800"' in text
    found = json.loads(text)["profiles"]
    assert list(found) == ["// a", "first", "x", "last", "new"]
    assert found["first"] == {"overall_budget": 1, "unknown": "\ud800"} and found["last"] == 5
    assert found["x"] == {
        "// why": "stays",
        "overall_budget": 7,
        "command_budgets": {"// c": 0, "/b": 4, "/c": 3},
    }
    assert list(tmp_path.iterdir()) == [file]


def test_modes_links_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "profiles.json"
    save(file, "a", {})
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    save(link, "b", EVERY_VALUE)
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o644
    assert load("b", [file]).values == EVERY_VALUE_READ


@pytest.mark.parametrize(
    ("name", "extends", "reason"),
    [
        ("a", "a", "a.extends: profiles extend each other: a extends a"),
        ("a", "c", "b.extends: profiles extend each other: a extends c extends b extends a"),
        ("new", "bsae", 'new.extends: unknown profile "bsae"; did you mean "base"?'),
        ("new", "bad", "bad.overall_budget: expected a positive whole number, got 0"),
    ],
)
def test_what_could_never_be_loaded_is_not_saved(files: Files, name: str, extends: str, reason: str) -> None:
    files.put(
        project={"base": {}, "c": {"extends": "b"}},
        user={"a": {}, "b": {"extends": "a"}, "bad": {"overall_budget": 0}},
    )
    before = files.user.read_bytes()
    with pytest.raises(ValueError) as error:
        save(files.user, name, {"extends": extends}, files.both)
    assert str(error.value).endswith(f"profiles.{reason}") and "\n" not in str(error.value)
    assert files.user.read_bytes() == before and list(files.user.parent.iterdir()) == [files.user]


def test_a_project_s_profile_extends_the_user_s_of_its_name(files: Files) -> None:
    assert not save(files.user, "a", {"overall_budget": 5}, files.both)
    assert not save(files.project, "a", {"extends": "a"}, files.both)
    assert save(files.project, "a", {"extends": "a", "alert_at": 80}, files.both)
    assert load("a", files.both).values == {"overall_budget": 5, "alert_at": (80,)}
    with pytest.raises(ValueError, match="extend each other"):
        save(files.project, "a", {"extends": "a"})  # alone it would be itself


SAVES = """
import sys
from pathlib import Path
from token_budget.usage.profiles import delete, save
file, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.read()
for number in range(10):
    save(file, f"{name}{number}", {"overall_budget": 1})
    save(file, f"{name}-", {"overall_budget": 1})
    delete(file, f"{name}-")
"""


def test_none_is_lost_of_those_that_are_saved_at_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "profiles.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVES, str(file), name], stdin=subprocess.PIPE) for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(HUNG_S) for writer in writers] == [0, 0, 0, 0]
    assert {listed.name for listed in names([file])} == {f"{name}{number}" for name in "abcd" for number in range(10)}
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(profile_files, "LOCKED_S", 0.05)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match=r"p\.json: cannot write the profiles: another program locks the folder$"):
        save(tmp_path / "p.json", "a", {})
    os.close(folder)
    save(tmp_path / "p.json", "a", {})


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    link = tmp_path / "p.json"
    link.symlink_to(link)
    with pytest.raises(ValueError, match="cannot read the profiles: Too many levels of symbolic links"):
        save(link, "a", {})


def test_deleting_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unknown profile "a"; none known'):
        delete(tmp_path / "new" / "p.json", "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", " a", "a\nb", "--all", "// a", "$schema", "\u202ea"])
def test_names_that_cannot_be_saved(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^profile name: .*, got \"[^\n]*$"):
        save(tmp_path / "p.json", name, {})
    assert list(tmp_path.iterdir()) == []


def test_what_others_extend_is_not_deleted(files: Files) -> None:
    files.put(
        project={"nightly": {"extends": "nightly"}, "b": {"extends": "base"}},
        user={"nightly": {}, "base": {}, "c": {"extends": "base"}, "self": {"extends": "self"}},
    )
    for name, users in (
        ("base", f'"b" of {files.project}, "c" of {files.user}'),
        ("nightly", f'"nightly" of {files.project}'),
    ):
        with pytest.raises(ValueError) as error:
            delete(files.user, name, files.both)
        assert str(error.value) == f'{files.user}: profile "{name}" cannot be deleted: extended by {users}'
    with pytest.raises(ValueError, match='unknown profile "bas"; did you mean "base"'):
        delete(files.user, "bas")
    delete(files.user, "nightly")  # alone, nothing extends it
    delete(files.user, "self")
    delete(files.user, "c")
    delete(files.user, "base")
    assert json.loads(files.user.read_text()) == {"profiles": {}}
    assert names(files.both) == [
        StoredProfile("b", files.project, "base"),
        StoredProfile("nightly", files.project, "nightly"),
    ]


def test_a_shadowed_profile_can_go(files: Files) -> None:
    files.put(project={"base": {}, "a": {"extends": "base"}}, user={"base": {}})
    delete(files.user, "base", files.both)
    with pytest.raises(ValueError, match="extended by"):
        delete(files.project, "base", files.both)


def test_profiles_are_listed_by_name_the_winner_first(files: Files) -> None:
    files.put(project={"b": {}, "//": 1}, user={"b": {"extends": "a"}, "a": 5})
    assert names(files.both) == [
        ("a", files.user, None),
        ("b", files.project, None),
        ("b", files.user, "a"),
    ]


# -- showing --


def test_show_aligns_and_names_origins(files: Files) -> None:
    files.put(
        project={
            "p": {"extends": "q", "command_budgets": {"/test\n": 10_000, "/b\u202e": 5}, "daily_cost_budget": 0.0025}
        },
        user={"q": {"overall_budget": 50_000, "enforcement_mode": "warn", "overall_cost_budget": 1234}},
    )
    project = f"(profile p ({profiles.PROJECT_FILE}))"
    user = "(profile q (profiles.json))"
    assert describe(load("p", files.both)) == [
        f"overall_budget             50,000     {user}",
        f"command_budgets[/b\\u202e]  5          {project}",
        f"command_budgets[/test]     10,000     {project}",
        f"overall_cost_budget        $1,234.00  {user}",
        f"daily_cost_budget          $0.0025    {project}",
        f"enforcement_mode           warn       {user}",
    ]
    save(files.user, "empty", {"command_budgets": {}})
    assert describe(load("empty", files.both)) == ["profile empty sets nothing"]


# -- from a run --


@pytest.mark.parametrize(
    ("used", "margin", "limit"),
    [(1, 0, 1), (1, 0.25, 2), (100, 0.1, 110), (8_012, 0.25, 11_000), (40_000, 0.25, 50_000), (99_500, 0, 100_000)],
)
def test_limits_of_a_run(used: int, margin: float, limit: int) -> None:
    expected = {"overall_budget": limit, "command_budgets": {"/a": limit}}
    assert from_run(used, {"/b": 0, "/a": used}, margin) == expected


def test_a_run_that_used_nothing_sets_nothing() -> None:
    assert from_run(0, {"/a": 0}) == {}


@pytest.mark.parametrize("margin", [-0.1, 101, float("nan"), float("inf")])
def test_margins_have_bounds(margin: float) -> None:
    with pytest.raises(ValueError, match="margin: expected a number from 0 to 100"):
        from_run(1, {}, margin)


@given(st.integers(1, 10**12), st.floats(0, 100))
def test_the_margin_is_kept_and_little_more(used: int, margin: float) -> None:
    limit = from_run(used, {}, margin)["overall_budget"]
    wanted = used * (1 + Fraction(str(margin)))
    assert isinstance(limit, int) and wanted <= limit < wanted * Fraction(11, 10) + 1
    assert len(str(limit).rstrip("0")) <= 2
    TokenBudgetManager(limit)


def test_the_modes_are_the_managers() -> None:
    for mode in MODES:
        assert FIELDS["enforcement_mode"].kind.read(mode) == mode


# -- the same limits as a config's --


@pytest.mark.parametrize(
    ("key", "value"), [("overall_cost_budget", 5_000_000), ("overall_budget", 10**15 + 1), ("token_weights", "heavy")]
)
def test_a_profile_and_a_config_refuse_the_same(files: Files, key: str, value: object) -> None:
    with pytest.raises(ValueError) as refused:
        save(files.user, "big", {key: value})
    with pytest.raises(UserError) as by_config:
        parse_config({"instances": [{"prompt": "x"}], "budget": {key: value}}, "x")
    assert str(refused.value).partition(f"{key}: ")[2] == str(by_config.value).partition(f"{key}: ")[2] != ""
    assert not files.user.exists()


def test_a_profile_takes_what_people_write(files: Files) -> None:
    save(
        files.user, "typed", {"overall_budget": "50k", "daily_cost_budget": "$2.50", "command_budgets": {"/t": "1.5M"}}
    )
    assert load("typed", files.both).values == {
        "overall_budget": 50_000,
        "daily_cost_budget": 2_500_000_000,
        "command_budgets": {"/t": 1_500_000},
    }


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is not a regular file"):
        load("x", [tmp_path / "pipe"])
