"""`token-budget` as users run it: in a home of its own, against ledgers made here."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from tests.harness import ROOT
from tests.limits import HUNG_S
from token_budget.ledger.export_import import CSV_COLUMNS, export
from token_budget.ledger.records import AttemptRecord, NoteRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage

PROGRAM = [sys.executable, "-c", "from token_budget.usage.cli import main; main()"]
HOSTILE = "/x\033[31m\n"
NOT_UTF_8 = "\udcff"  # as Python has a program's argument
MILLION = 1_000_000


def ms(text: str) -> int:
    """`11-24T12:00` of 2025 in UTC: long ago, whatever the clock says."""
    return round(datetime.fromisoformat(f"2025-{text}").replace(tzinfo=UTC).timestamp() * 1000)


class Home:
    """A home folder with a ledger, and the program in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = root / "ledger.db"
        root.mkdir(exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state"),
            "TOKEN_BUDGET_LEDGER": str(self.ledger),
            "PYTHONUTF8": "1",
            "COLUMNS": "100",
            "TZ": "UTC",
        }

    def run(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60, **more}
        return subprocess.run([*PROGRAM, *args], env=self.env, cwd=self.root, check=False, **options)

    def says(self, *args: str, stderr: str = "", **more: Any) -> str:
        """What a command says that succeeds."""
        done = self.run(*args, **more)
        assert (done.returncode, done.stderr) == (0, stderr)
        return done.stdout

    def refuses(self, *args: str, **more: Any) -> str:
        """The one line of a command that fails, and changes no file."""
        before = self.files()
        done = self.run(*args, **more)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert done.stderr.startswith("ERROR: ") and done.stderr[:-1].isprintable() and self.files() == before
        return done.stderr.removeprefix("ERROR: ").strip()

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def profiles(self, content: bytes) -> Path:
        """The user's own file of profiles, with this in it."""
        file = self.root / "config" / "claude-orchestrator" / "profiles.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def exported(self) -> list[str]:
        ledger = SqliteLedger(self.ledger, create=False)
        lines = list(export(ledger, prompts=True))
        ledger.close()
        return lines


def fill(path: Path, *, instances: int = 6) -> None:
    """A run of so many instances of /test that use 100, 200, … tokens, and one of a prompt a day later."""
    ledger = SqliteLedger(path)
    first, second = ms("11-24T12:00"), ms("11-25T18:00")
    names = [f"i{number}" for number in range(1, instances + 1)]
    ledger.write(
        runs=[
            RunRecord("run-1", "host", first, first + 60_000, "block", '{"overall": 4200}', 0),
            RunRecord("run-2", "host", second, second + 1_000),
        ],
        attempts=[
            *(
                AttemptRecord(
                    "run-1", name, 1, first, None, "/test the secret", "/test", "opus", first + 60_000, "completed"
                )
                for name in names
            ),
            AttemptRecord("run-2", "p", 1, second, None, "a secret prompt", None, "haiku", second + 1_000, "failed"),
        ],
        records=[
            *(
                UsageRecord(
                    f"run-1/{name}", "run-1", name, 1, first + 1, "opus", Usage(100 * place), MILLION * place, "claude"
                )
                for place, name in enumerate(names, 1)
            ),
            UsageRecord("run-2/p", "run-2", "p", 1, second + 1, "haiku", Usage(0, 50)),
        ],
        notes=[NoteRecord("n", "run-1", first + 5, "adjustment", "grew", "i1")],
    )
    ledger.close()


@pytest.fixture
def empty(tmp_path: Path) -> Home:
    """A home without a ledger."""
    return Home(tmp_path / "home")


@pytest.fixture
def home(empty: Home) -> Iterator[Home]:
    """A home with a ledger, which is there unharmed when the test is over."""
    fill(empty.ledger)
    yield empty
    SqliteLedger(empty.ledger, create=False).close()


# -- history --


def test_history_by_day(home: Home) -> None:
    lines = [line.split()[:6] for line in home.says("history").splitlines()]
    assert lines[:4] == [
        ["day", "tokens", "cost", "cached", "done", "p50"],
        ["2025-11-24", "2.1K", "$0.0210", "0%", "6/6", "300"],
        ["2025-11-25", "50", "?", "-", "0/1", "50"],
        ["total", "2.1K", "$0.0210+", "0%", "6/7", "-"],
    ]


def test_history_as_json_and_csv(home: Home) -> None:
    by_command = json.loads(home.says("history", "--by", "command", "--json"))
    assert [(row["group"], row["total_tokens"], row["cost_usd"]) for row in by_command] == [
        ("/test", 2100, 0.021),
        ("(prompt)", 50, None),
    ]
    by_run = csv.DictReader(io.StringIO(home.says("history", "--by", "run", "--csv", "--since", "2025-11-25")))
    assert [(row["group"], row["total_tokens"], row["cost_usd"], row["p50_tokens"]) for row in by_run] == [
        ("run-2", "50", "", "50")
    ]


def test_history_of_a_span_in_several_groups(home: Home) -> None:
    args = ("history", "--by", "model, command", "--since", "2025-11-01", "--until", "2025-11-24", "--json")
    assert [(row["model"], row["command"], row["total_tokens"]) for row in json.loads(home.says(*args))] == [
        ("opus", "/test", 2100)
    ]
    text = home.says("history", "--by", "instance,model", "--since", "2025-11-25", "--csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["instance"], row["model"], row["total_tokens"]) == ("p", "haiku", "50")
    assert "nothing was used" in home.says("history", "--since", "yesterday")
    assert "nothing was used" in home.says("history", "--since", "week", "--until", "month")
    assert "(unknown)" in home.says("history", "--by", "workspace")


@pytest.mark.parametrize("program", [PROGRAM, [sys.executable, "-m", "token_budget"]])
def test_the_version_is_the_distribution_s(empty: Home, program: list[str]) -> None:
    env = {**empty.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*program, "--version"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"token-budget {metadata.version('claude-orchestrator')}\n"


@pytest.mark.parametrize("script", ["token-budget", "tb.exe", "my-budget"])
def test_a_shell_gets_completion_for_the_script_s_name(empty: Home, script: str) -> None:
    file = empty.root / script
    file.write_text(f"#!{sys.executable}\nfrom token_budget.usage.cli import main\nmain()\n")
    variable = f"_{script.removesuffix('.exe').replace('-', '_').upper()}_COMPLETE"
    empty.env["PYTHONPATH"] = str(ROOT)

    def asked(**more: str) -> str:
        env = {**empty.env, **more}
        return subprocess.run([sys.executable, str(file)], env=env, capture_output=True, text=True, check=True).stdout

    assert f"{variable}=bash_complete" in asked(**{variable: "bash_source"})
    words = {"COMP_WORDS": f"{script} his", "COMP_CWORD": "1"}
    assert asked(**{variable: "bash_complete"}, **words) == "plain,history\n"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--until", "2025-11-24", "--since", "2025-11-25"), "--until: '2025-11-24' is before --since"),
        (("--until", "soon"), "--until: expected a past moment such as "),
        (("--by", "day,day"), "Invalid value for '--by': 'day,day' has a word twice."),
        (("--by", "day,"), "Invalid value for '--by': '' is not one of 'day', "),
        (
            ("--since", "soon"),
            "--since: expected a past moment such as 24h, 7d, 4w, today, yesterday, week, month or 2026-11-01, "
            "got 'soon'",
        ),
        (("--json", "--csv"), "--json and --csv exclude each other (see token-budget history --help)"),
        (
            ("--by", "hour"),
            "Invalid value for '--by': 'hour' is not one of 'day', 'command', 'model', 'run', 'instance', 'workspace'.",
        ),
    ],
)
def test_wrong_options_are_told(home: Home, args: tuple[str, ...], reason: str) -> None:
    assert home.refuses("history", *args).startswith(reason)


def test_options_that_mean_moments_are_named(home: Home) -> None:
    assert home.refuses("prune", "--before", "soon").startswith("--before: expected a past moment such as ")
    assert home.refuses("history", "--since", "0001-01-01").startswith("--since: expected a past moment such as ")


@pytest.mark.parametrize("args", [(), ("profile",)])
def test_a_group_alone_shows_its_help(empty: Home, args: tuple[str, ...]) -> None:
    done = empty.run(*args)
    text = done.stdout or done.stderr  # which and with which code is click's to say
    assert done.returncode in (0, 2) and text.startswith(" ".join(["Usage: token-budget", *args])) and "\n  -" in text


def test_help_names_the_commands(empty: Home) -> None:
    text = empty.says("-h")
    commands = ("history", "run", "plot", "forecast", "backtest", "profile", "export", "import", "prune")
    assert all(f"\n  {name} " in text for name in commands) and not empty.files()


def test_a_run(home: Home) -> None:
    text = home.says("run", "last")
    assert text.startswith("run        run-2\n") and "a secret prompt" in text
    lines = home.says("run", "run-1").splitlines()
    assert lines[8].split()[:3] == ["overall", "50%", "2.1K/4.2K"] and lines[-1] == "12:00:00 adjustment i1: grew"
    assert home.refuses("run", "run1") == (
        "RUN_ID: expected a run of the ledger or last, got 'run1'; the nearest: run-1, run-2"
    )
    assert home.refuses("run", NOT_UTF_8).startswith(r"RUN_ID: expected a run of the ledger or last, got '\udcff'; ")


def test_hostile_names_are_shown_and_files_have_no_colours(empty: Home) -> None:
    ledger = SqliteLedger(empty.ledger)
    ledger.write(attempts=[AttemptRecord("r", HOSTILE, 1, 1, None, HOSTILE, HOSTILE, HOSTILE, 5, "completed")])
    ledger.write(runs=[RunRecord("r", HOSTILE, 1)], records=[UsageRecord("x", "r", HOSTILE, 1, 2, HOSTILE, Usage(5))])
    ledger.close()
    for args in (("history", "--by", "command"), ("run", "last"), ("forecast",)):
        text = empty.says(*args)
        assert r"/x\x1b[31m\x0a" in text and "\033" not in text
    _, row = csv.reader(io.StringIO(empty.says("export", "--csv"), newline=""))
    assert row.count(HOSTILE) == 3


def test_colours_where_they_are_forced_and_not_refused(home: Home) -> None:
    home.env["FORCE_COLOR"] = "1"
    assert "\033[" in home.says("history") and "\033[" in home.says("run", "last")
    home.env["NO_COLOR"] = "1"
    assert "\033" not in home.says("history")


def test_what_the_output_cannot_say_is_replaced(empty: Home) -> None:
    fill(empty.ledger)
    ledger = SqliteLedger(empty.ledger)
    ledger.write(
        attempts=[AttemptRecord("r", "i", 1, 1, base_command="/漢")],
        records=[UsageRecord("1", "r", "i", 1, 1, "m", Usage(5))],
    )
    ledger.close()
    del empty.env["PYTHONUTF8"]
    empty.env["PYTHONIOENCODING"] = "latin-1"
    text = empty.says("history", "--by", "command", encoding="latin-1")
    assert "\n/? " in text and "#####" in text
    assert "/漢" in empty.says("export", "--csv", encoding="utf-8")  # what is for files is whole


# -- plot --


def test_plots(home: Home) -> None:
    assert home.says("plot", "use.svg", "--since", "2025-11-24", "--daily", "1000") == ""
    assert home.says("plot", "USE.HTML", "--since", "2025-11-24") == ""
    svg, page = (home.root / name for name in ("use.svg", "USE.HTML"))
    title = fromstring(svg.read_text()).findtext("{http://www.w3.org/2000/svg}title") or ""
    assert title.startswith("Token use, 2025-11-24 to ") and "daily budget: 1.0K" in svg.read_text()
    assert (fromstring(page.read_text()).findtext("head/title") or "") == title and "budget" not in page.read_text()


def test_a_plot_of_cost_by_model_with_the_workspace_s_limits(home: Home) -> None:
    (home.root / "project").mkdir()
    (home.root / "project" / "claude-orchestrator.json").write_text('{"budget": {"daily_cost_budget": "$5"}}')
    args = ("--unit", "usd", "--by", "model", "--since", "2025-11-24", "--until", "2025-11-25", "--weekly", "10")
    assert home.says("plot", "cost.svg", *args, "--workspace", "project") == ""
    text = (home.root / "cost.svg").read_text()
    title = fromstring(text).findtext("{http://www.w3.org/2000/svg}title")
    assert title == "Cost, 2025-11-24 to 2025-11-25" and "Use by day and model" in text
    assert "daily budget: $5.00" in text and "weekly budget: $10.00" in text and "opus $0.0210" in text
    assert home.refuses("plot", "x.svg", "--daily", "0").startswith("--daily: expected a positive whole number")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("use.png", "use.png: expected a name that ends in .svg or .html"),
        ("svg", "svg: expected a name that ends in .svg or .html"),
        ("no/such/folder.svg", "no/such/folder.svg: cannot be written: No such file or directory"),
        ("ledger.db/x.svg", "ledger.db/x.svg: cannot be written: Not a directory"),
    ],
)
def test_a_plot_that_cannot_be_is_told(home: Home, file: str, reason: str) -> None:
    assert home.refuses("plot", file).startswith(reason)


# -- forecasts --


def test_forecasts_and_how_good_they_would_have_been(home: Home) -> None:
    test, prompt = home.says("forecast").splitlines()
    assert prompt.startswith("prompt p: unknown (n=1") and home.says("forecast", "p").splitlines() == [prompt]
    assert test.startswith("/test: about ") and "n=6" in test
    for asked in ("/test", "test", "/test all --now", "test all"):
        assert home.says("forecast", asked).splitlines() == [test]
    assert home.refuses("forecast", "/tset") == (
        "COMMAND: expected a command or an instance of the ledger, got '/tset'; the nearest: /test"
    )
    assert home.refuses("forecast", NOT_UTF_8) == (
        r"COMMAND: expected a command or an instance of the ledger, got '\udcff'; known: /test, p"
    )
    told, *scores = home.says("backtest").splitlines()
    assert told == "1 instances forecast, 5 without a forecast"
    assert [score.split(":")[0] for score in scores] == ["P50", "P90", "P95"]


def test_a_command_with_few_runs_is_known_but_not_its_use(empty: Home) -> None:
    fill(empty.ledger, instances=2)
    assert empty.says("forecast", "test") == "/test: unknown (n=2)\n"


# -- profiles --


def test_profiles_from_the_first_to_the_last(home: Home) -> None:
    assert home.says("profile", "list") == ""
    said = home.says(
        "profile", "save", "base", "--project", "--set", "daily_cost_budget=2.5", "--set", "alert_at=50,80"
    )
    assert said == "saved base in claude-orchestrator-profiles.json\n"
    file = home.root / "config" / "claude-orchestrator" / "profiles.json"
    args = ("--from-run", "run-1", "--margin", "0.5", "--set", "extends=base")
    assert home.says("profile", "save", "night", *args) == f"saved night in {file}\n"
    assert home.says("profile", "list").splitlines() == [
        "base (claude-orchestrator-profiles.json)",
        f"night extends base ({file})",
    ]
    assert [line.split() for line in home.says("profile", "show", "night").splitlines()] == [
        ["overall_budget", "3,200", "(profile", "night", "(profiles.json))"],
        ["command_budgets[/test]", "3,200", "(profile", "night", "(profiles.json))"],
        ["daily_cost_budget", "$2.50", "(profile", "base", "(claude-orchestrator-profiles.json))"],
        ["alert_at", "50,80", "(profile", "base", "(claude-orchestrator-profiles.json))"],
    ]
    refused = home.refuses("profile", "delete", "base", "--project")
    assert refused.endswith(f'profile "base" cannot be deleted: extended by "night" of {file}')
    said = home.says("profile", "save", "base", "--project", "--set", "alert_at=80")
    assert said == "replaced base in claude-orchestrator-profiles.json\n"
    assert home.says("profile", "show", "base").split()[:2] == ["alert_at", "80"]
    assert home.says("profile", "delete", "night") == "deleted night\n"
    assert json.loads(file.read_text()) == {"profiles": {}}


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("show", "night"), 'unknown profile "night"; none known (looked in '),
        (("delete", "night"), "/profiles.json: unknown profile"),
        (("save", "night"), "nothing to save: give --set, or --from-run with a run that has used tokens"),
        (("save", "night", "--set", r"a\b"), r"--set: expected KEY=VALUE, got 'a\b'"),
        (
            ("save", "night", "--set", "overall_budget=lots"),
            "expected a positive whole number such as 50000, 50k or 1.5M, got",
        ),
        (
            ("save", "night", "--set", "overall_budget=" + "[" * 9999),
            "expected a positive whole number such as 50000, 50k or 1.5M, got",
        ),
        (("save", "night", "--set", "alert_at=80.5"), "expected percentages such as"),
        (("save", "night", "--set", "extends=night"), "profiles extend each other: night extends night"),
        (("save", "night", "--set", "extends=nihgt"), 'night.extends: unknown profile "nihgt"; did you mean "night"'),
        (
            ("save", "night", "--set", "overall_budget=9999999999999999"),
            "expected a positive whole number up to 1,000,000,000,000,000, got 9999999999999999",
        ),
        (("save", "night", "--from-run", "run-3"), "--from-run: expected a run of the ledger or last, got 'run-3'; "),
        (
            ("save", "night", "--from-run", NOT_UTF_8),
            r"--from-run: expected a run of the ledger or last, got '\udcff'; ",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_told(home: Home, args: tuple[str, ...], reason: str) -> None:
    assert reason in home.refuses("profile", *args)


# -- in and out --


def test_an_export_goes_into_another_ledger_whole_and_once(home: Home, tmp_path: Path) -> None:
    home.says("profile", "save", "night", "--set", "overall_budget=5000")
    file, other = home.root / "all.jsonl", Home(tmp_path / "other")
    assert home.says("export", str(file)) == "" and "secret" not in file.read_text()
    SqliteLedger(other.ledger).close()
    before = other.exported()
    added = "2 runs, 7 attempts, 7 records (2.1K tokens); known before: 0\n"
    assert other.says("import", str(file), "--dry-run") == f"would add {added}"
    assert other.exported() == before and not (other.root / "config").exists()
    assert other.says("import", "-", input=file.read_text()) == f"added {added}"
    assert other.says("export") == file.read_text()
    known = "profile night already exists and was not changed\n"
    again = other.says("import", str(file), stderr=known)
    assert again == "added 0 runs, 0 attempts, 0 records (0 tokens); known before: 7\n"
    assert other.says("export") == file.read_text()


def test_prompts_and_tables_are_exported_where_asked_for(home: Home) -> None:
    assert home.says("export", "--prompts").splitlines() == home.exported()
    rows = list(csv.DictReader(io.StringIO(home.says("export", "-", "--csv"))))
    assert tuple(rows[0]) == CSV_COLUMNS and [row["total_tokens"] for row in rows][-2:] == ["600", "50"]


def test_an_export_comes_into_place_when_it_is_whole(home: Home) -> None:
    file, link = home.root / "all.jsonl", home.root / "link.jsonl"
    home.says("export", "all.jsonl")
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask()
    file.chmod(0o600)
    file.write_text("old" * 10_000)
    link.symlink_to(file)
    home.says("export", "all.jsonl")
    assert file.read_text() == home.says("export") and file.stat().st_mode & 0o777 == 0o600
    file.write_text("old" * 10_000)
    home.says("export", "link.jsonl")
    assert file.read_text() == home.says("export") == home.says("export", "/dev/stdout") and link.is_symlink()
    assert {path.name for path in home.files()} <= {
        "all.jsonl",
        "link.jsonl",
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
    }


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db-shm", "link", "hard"])
def test_an_export_onto_the_ledger_itself_is_refused(home: Home, name: str) -> None:
    (home.root / "link").symlink_to(home.ledger)
    (home.root / "hard").hardlink_to(home.ledger)
    assert home.refuses("export", name) == f"{name}: is the ledger itself, or a part of it"


def test_an_export_that_cannot_be_leaves_the_file_as_it_was(home: Home) -> None:
    (home.root / "backup.jsonl").write_text("precious")
    assert "no ledger yet" in home.refuses("--ledger", "other.db", "export", "backup.jsonl")
    profiles = home.profiles(b"{,")
    assert home.refuses("export", "backup.jsonl").startswith(f"{profiles}: line 1 column 2: invalid JSON")
    home.profiles(b'{"profiles": {"x": {"overall_budget": "lots"}}}')  # no import would take it
    assert home.refuses("export", "backup.jsonl").startswith(f"{profiles}: profiles.x.overall_budget: expected")
    assert home.says("export", "backup.csv", "--csv") == ""
    assert home.refuses("export", "no/b.csv", "--csv") == "no/b.csv: cannot be written: No such file or directory"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_full_disk_is_told(home: Home) -> None:
    assert home.refuses("export", "/dev/full") == "/dev/full: cannot be written: No space left on device"
    (home.root / "use.svg").symlink_to("/dev/full")
    assert home.refuses("plot", "use.svg") == "use.svg: cannot be written: No space left on device"
    for args in (
        ("history",),
        ("export",),
        ("export", "--csv"),
        ("--help",),
        ("profile", "save", "x", "--set", "alert_at=5"),
    ):
        with Path("/dev/full").open("w") as full:
            done = home.run(*args, stdout=full)
        assert (done.returncode, done.stderr) == (2, "ERROR: standard output: No space left on device\n")


def test_profiles_travel_without_their_comments(home: Home, tmp_path: Path) -> None:
    home.profiles(
        b'\xef\xbb\xbf{"profiles": {"// old": 1, "a": {"// why": "so", "command_budgets": {"//": 1, "/x": 5}}}}'
    )
    text, other = home.says("export"), Home(tmp_path / "other")
    assert text.splitlines()[-1] == '{"kind": "profiles", "profiles": {"a": {"command_budgets": {"/x": 5}}}}'
    other.says("import", "-", input=text)
    assert other.says("export") == text


def test_a_profile_that_cannot_be_saved_is_told_before_anything_is_taken(home: Home) -> None:
    lines = [*home.exported(), '{"kind": "profiles", "profiles": {"x": {"overall_budget": "lots"}}}']
    (home.root / "bad.jsonl").write_text("\n".join(lines))
    reason = (
        'bad.jsonl: profiles.x.overall_budget: expected a positive whole number such as 50000, 50k or 1.5M, got "lots"'
    )
    assert home.refuses("--ledger", "new.db", "import", "bad.jsonl") == reason
    (home.root / "bad.jsonl").write_text("\n".join(lines).replace('"lots"', "5"))
    profiles = home.profiles(b"{,")
    assert home.refuses("--ledger", "new.db", "import", "bad.jsonl").startswith(f"{profiles}: line 1")


def test_an_import_that_is_refused_or_only_shown_makes_no_ledger(empty: Home) -> None:
    (empty.root / "a.jsonl").write_text('{"kind": "token-budget", "version": 1}\nx\n')
    assert empty.refuses("import", "a.jsonl").startswith("a.jsonl: line 2: ")
    (empty.root / "a.jsonl").write_text('{"kind": "token-budget", "version": 1}\n')
    shown = "would add 0 runs, 0 attempts, 0 records (0 tokens); known before: 0\n"
    assert empty.says("import", "a.jsonl", "--dry-run") == shown and not empty.ledger.exists()
    (empty.root / "projects").mkdir()
    assert empty.run("import", "--from-claude", "projects", "--dry-run").stdout == shown and not empty.ledger.exists()


def test_a_malformed_line_is_named_and_nothing_is_taken(home: Home) -> None:
    lines = home.exported()
    ledger = SqliteLedger(home.root / "new.db")
    ledger.close()
    broken = [*(line.replace("run-", "other-") for line in lines), '{"kind": "run", "ru']
    (home.root / "bad.jsonl").write_text("\n".join(broken))
    reason = home.refuses("import", "bad.jsonl")
    assert reason.startswith(f"bad.jsonl: line {len(broken)}: is not JSON") and home.exported() == lines
    assert home.refuses("--ledger", "new.db", "import", "bad.jsonl") == reason


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((), "expected a FILE, or --from-claude DIR"),
        (("ledger.db", "--from-claude", "."), "expected a FILE, or --from-claude DIR"),
        (("x.jsonl", "--from-claude", "."), "Invalid value for '[FILE]': 'x.jsonl': No such file or directory"),
        (("--from-claude", "nowhere"), "--from-claude: nowhere: no such folder"),
        (("ledger.db",), "ledger.db: "),
    ],
)
def test_an_import_that_cannot_be_is_told(home: Home, args: tuple[str, ...], reason: str) -> None:
    assert home.refuses("import", *args).startswith(reason)


def said(name: str, second: int, **usage: int) -> str:
    """A line of a transcript that stands for a part of a response."""
    message = {"id": name, "model": "made-up", "usage": {"input_tokens": 10, "output_tokens": 1, **usage}}
    moment = f"2025-11-24T18:00:{second:02}Z"
    return json.dumps({"type": "assistant", "message": message, "timestamp": moment, "sessionId": "s1"})


def test_claude_s_own_transcripts_count_each_response_once(empty: Home) -> None:
    del empty.env["TOKEN_BUDGET_LEDGER"]
    folder = empty.root / "projects" / "slug"
    folder.mkdir(parents=True)
    first = [said("a", 1, output_tokens=5), said("a", 2, cache_read_input_tokens=7), said("b", 3, output_tokens=70)]
    (folder / "s1.jsonl").write_text("\n".join([*first, said("a", 4, output_tokens=3), "{broken"]))
    (folder / "s2.jsonl").write_text(said("a", 1, output_tokens=2) + "\n")
    done = empty.run("import", "--from-claude", "projects")
    assert done.stdout == "added 1 run, 1 attempt, 2 records (102 tokens); known before: 0\n"
    assert done.returncode == 0 and "skipped 1 broken line\n" in done.stderr
    again = empty.run("import", "--from-claude", ".")
    assert again.stdout == "added 0 runs, 0 attempts, 0 records (0 tokens); known before: 2\n"
    ledger = SqliteLedger(empty.root / "state" / "claude-orchestrator" / "ledger.db", create=False)
    assert {record.id: record.usage for record in ledger.records()} == {
        "claude:a": Usage(10, 5, 0, 7),
        "claude:b": Usage(10, 70),
    }
    ledger.close()


def test_what_runs_of_ours_have_counted_is_told_and_left_out(empty: Home) -> None:
    ledger = SqliteLedger(empty.ledger)
    attempt = AttemptRecord("r", "i", 1, ms("11-24T17:00"), "s1", ended_ms=ms("11-24T17:59:03"), outcome="completed")
    ledger.write(runs=[RunRecord("r", "host", ms("11-24T17:00"), ms("11-24T17:59:03"))], attempts=[attempt])
    ledger.close()
    folder = empty.root / "projects" / "slug"
    folder.mkdir(parents=True)
    later = said("d", 5).replace("2025-", "9998-")
    (folder / "s1.jsonl").write_text("\n".join([said("a", 1), said("b", 2), said("c", 4), later]))
    done = empty.run("import", "--from-claude", "projects")
    assert done.stdout == "added 1 run, 1 attempt, 1 record (11 tokens); known before: 0\n"
    assert "skipped 1 broken line\nleft out 2 responses: your runs have counted them\n" in done.stderr


def test_records_with_other_figures_are_told(home: Home) -> None:
    lines = [json.loads(line) for line in home.says("export").splitlines()]
    changed = [{**line, "cost_nano": 1} if line["kind"] == "record" else line for line in lines]
    (home.root / "a.jsonl").write_text("\n".join(map(json.dumps, changed)))
    before, told = home.exported(), "7 records with other figures: the ledger keeps its own\n"
    for args in (("import", "a.jsonl", "--dry-run"), ("import", "a.jsonl")):
        assert "0 records (0 tokens); known before: 7\n" in home.says(*args, stderr=told)
    assert home.exported() == before


def test_old_runs_go_where_that_is_said_twice(home: Home) -> None:
    shown = home.says("prune", "--before", "2025-11-25")
    assert shown == "would remove 6 attempts (2.1K tokens): add --yes to remove them\n"
    assert len(home.exported()) == 1 + 2 + 7 + 7 + 1
    assert home.says("prune", "--before", "2025-11-25", "--yes") == "removed 6 attempts, 6 records (2.1K tokens)\n"
    assert [json.loads(line).get("run") for line in home.exported()] == [None, "run-2", "run-2", "run-2"]
    assert "Missing option '--before'" in home.refuses("prune", "--yes")


# -- what is no ledger --


def damage(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to be one" * 50)


def make_other(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()


@pytest.mark.parametrize("args", [("history",), ("prune", "--before", "1d", "--yes")])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no ledger yet: the first run creates it"),
        (damage, "cannot be read (file is not a database): nothing was changed"),
        (make_other, "is a database of another program: name another file with --ledger"),
        (Path.mkdir, "cannot be "),
    ],
    ids=["none", "damaged", "another's", "folder"],
)
def test_what_is_no_ledger_is_told_and_left_alone(empty: Home, make: Any, reason: str, args: tuple[str, ...]) -> None:
    make(empty.ledger)
    assert empty.refuses(*args).startswith(f"{empty.ledger}: {reason}")


def test_a_ledger_that_is_damaged_inside_is_told(empty: Home) -> None:
    fill(empty.ledger)
    data = empty.ledger.read_bytes()
    empty.ledger.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))  # the schema is whole
    assert empty.refuses("history").startswith(f"{empty.ledger}: cannot be read (")


# -- pipes --


@pytest.mark.parametrize(
    ("args", "first"),
    [(("export",), '{"kind": "token-budget", "version": 4}'), (("export", "--csv"), ",".join(CSV_COLUMNS))],
)
def test_a_reader_that_has_enough_ends_it_quietly(empty: Home, args: tuple[str, ...], first: str) -> None:
    fill(empty.ledger, instances=1_000)  # far more than a pipe holds
    writer = subprocess.Popen(
        [*PROGRAM, *args], env=empty.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stderr is not None
    assert writer.stdout.readline() == f"{first}\n"
    writer.stdout.close()
    assert writer.stderr.read() == "" and writer.wait(HUNG_S) == 1
    writer.stderr.close()


@pytest.mark.parametrize("args", [("history",), ("export",), ("export", "/dev/stdout")])
def test_nobody_reads_at_all(home: Home, args: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = home.run(*args, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_output_is_none(home: Home) -> None:
    done = home.run("history", stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
