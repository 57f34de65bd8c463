"""Fan-out through the program: items from everywhere, trials, resumed runs, overrides, hostile items."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from claude_orchestrator.engine.run_events import Answered, RunEvent
from tests.harness import ROOT, Workplace, content_of, run_real
from tests.limits import HUNG_S
from tests.stand_in import StandIn, Text


def rows(text: str) -> list[dict[str, object]]:
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda row: str(row["name"]))


@pytest.mark.slow
def test_a_prompt_for_each_file(place: Workplace) -> None:
    for name in ("b.py", "a.py", "sub/c.py", "no.txt"):
        (place.workspace / name).parent.mkdir(exist_ok=True)
        (place.workspace / name).write_text("")
    args = ("Review {{item.stem}} in {{item.dir}}.", "--for-each", "**/*.py", "--rehearse")
    done = place.run(*args, "--results", "-")
    assert done.returncode == 0, done.stderr
    found = [(row["name"], row["group"], row["item"], row["index"], row["result"]) for row in rows(done.stdout)]
    assert found == [
        ("prompt[a.py]", "prompt", "a.py", 0, "Rehearsed: Review a in .."),
        ("prompt[b.py]", "prompt", "b.py", 1, "Rehearsed: Review b in .."),
        ("prompt[sub/c.py]", "prompt", "sub/c.py", 2, "Rehearsed: Review c in sub."),
    ]
    assert "prompt  3/3 done" in done.stderr


@pytest.mark.slow
def test_items_of_a_file_and_of_standard_input(place: Workplace) -> None:
    (place.root / "items.csv").write_text("page,lang\nintro,de\nintro,fr\n")
    prompt = "{{item.page}} in {{item.lang}}"
    done = place.run(prompt, "--for-each", "@items.csv", "--rehearse", "--results", "-")
    assert [row["name"] for row in rows(done.stdout)] == ["prompt[intro,de]", "prompt[intro,fr]"]
    argv = place.argv("/fix {{item}}", "--for-each", "-", "--rehearse", "--results", "-")
    piped = subprocess.run(argv, env=place.env, input="one\ntwo\n", capture_output=True, text=True, check=True)
    assert [row["name"] for row in rows(piped.stdout)] == ["/fix[one]", "/fix[two]"]


@pytest.mark.slow
def test_answers_for_each_item_have_names(place: Workplace) -> None:
    """Without them nobody would know which is which; one that has no answer would leave an empty line alone."""
    (place.root / "items.txt").write_text("one\ntwo\n")
    done = place.run("Explain {{item}}.", "--for-each", "@items.txt", "--rehearse")
    assert done.stdout == "# prompt[one]\n\nRehearsed: Explain one.\n\n# prompt[two]\n\nRehearsed: Explain two.\n"


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "../../pwned",
    "a\nb\x1b[2Jc",
    "; touch pwned",
    "{{item}} {{index}}",
    "x" * 10**6,
]


def test_hostile_items_are_only_text(place: Workplace) -> None:
    config = place.config({"instances": [{"name": "n", "prompt": "Do {{item}}", "for_each": HOSTILE}]})
    done = place.run("--config", config, "--results", "lines.jsonl", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    report = place.report()
    for instance, item in zip(report["instances"], HOSTILE, strict=True):
        assert instance["item"] == item and instance["command"] == f"Do {item}" and len(instance["name"]) < 90
        assert instance["name"].isprintable()
        files = (Path(instance["result_file"]), Path(instance["log"]))
        assert all(file.is_file() and (place.root / "out") in file.resolve().parents for file in files)
    assert not list(place.root.rglob("pwned*")) and "\x1b[2J" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_trial_then_the_rest(place: Workplace) -> None:
    items = [f"i{number}" for number in range(12)]
    config = place.config({"instances": [{"name": "n", "prompt": "Do {{item}}", "for_each": items}]})
    run = ("--config", config, "--ledger", "ledger.db")
    done = place.run(*run, "--limit", "6", "--shuffle", "3", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    first = [instance["name"] for instance in place.report()["instances"]]
    assert len(first) == 6 and first != sorted(first)
    done = place.run(*run, "--dry-run")
    assert "Forecast of n: a trial of 6 cost 6.3K tokens; 12 would need about 12.6K, 90 % under 12.6K" in done.stdout
    for path in place.root.glob("turns*.json"):
        path.unlink()
    again = place.run("--resume", "last", "--dry-run")
    assert "Group n: 6 instances of 12 items" in again.stdout
    done = place.run("--resume", "last", "--limit", "12", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert "6 of 12 instances had completed" in done.stderr and "new in the config" in done.stderr
    report = place.report()
    assert len(report["instances"]) == 12 and report["groups"][0]["states"] == {"completed": 12}
    assert sum(instance["attempts"] for instance in report["instances"]) == 12


def test_a_killed_fan_out_is_resumed_with_other_items(place: Workplace) -> None:
    def config(*items: str) -> str:
        entry = {"name": "n", "prompt": "Do {{item}}", "env": {"FAKE_CLAUDE": "{{item}}"}, "for_each": list(items)}
        return place.config({"instances": [entry], "budget": {"command_budgets": {"n": 90_000}}})

    argv = place.argv("--config", config("ok", "hang-once", "hello"), "--max-parallel", "1")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stderr=subprocess.DEVNULL)
    content_of(place.root / "pids.json", process)
    (path,) = place.root.glob("out/*/journal.jsonl")
    while b'"instance":"n[hang-once]","attempt":1,"usage"' not in path.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    config("ok", "hello", "added")
    done = place.run("--resume", "last", "--report", "report.json")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 instances had completed" in done.stderr
    assert "n[hang-once]: no longer in the config, but the use still counts" in done.stderr
    assert "n[added]: new in the config" in done.stderr
    report = place.report()
    assert [(one["name"], one["attempts"]) for one in report["instances"]] == [
        ("n[ok]", 1),
        ("n[hello]", 1),
        ("n[added]", 1),
    ]
    assert report["budgets"]["groups"]["n"]["used"] == report["totals"]["total_tokens"]


def test_options_override_the_defaults(place: Workplace) -> None:
    config = place.config(
        {
            "defaults": {"model": "opus", "permission_mode": "plan"},
            "instances": [{"name": "a", "prompt": "x"}, {"name": "b", "prompt": "y", "model": "haiku"}],
        }
    )
    shown = place.run("--config", config, "--model", "sonnet", "--allowed-tools", "Read,Bash(ls:*)", "--dry-run").stdout
    lines = [line for line in shown.splitlines() if "argv:" in line]
    assert "--model=sonnet" in lines[0] and "--model=haiku" in lines[1]
    assert all("--permission-mode=plan" in line and "'--allowedTools=Read,Bash(ls:*)'" in line for line in lines)
    done = place.run("--config", config, "--session-id", "0f0e0d0c-0000-4000-8000-000000000001")
    assert done.returncode == 2 and "--session-id: only with a PROMPT; in a config they are keys" in done.stderr


def test_a_budget_of_the_group_stops_it(place: Workplace) -> None:
    items = [f"i{number}" for number in range(8)]
    entry = {"name": "n", "prompt": "Do {{item}}", "for_each": items}
    config = place.config({"instances": [entry, {"name": "free", "prompt": "x"}]})
    block = ("--budget-enforcement-mode", "block", "--command-budget", "n=3000", "--max-parallel", "1")
    done = place.run("--config", config, *block, "--report", "report.json")
    report = place.report()
    assert done.returncode == 1 and report["instances"][-1]["status"] == "completed"
    states = report["groups"][0]["states"]
    assert states["completed"] == 2 and states["blocked"] == 6
    assert "group n budget: used 2,100 + estimate 1,000 > limit 3,000 tokens" in done.stderr


@pytest.mark.slow
def test_the_example_is_rehearsed(place: Workplace) -> None:
    done = place.run(
        "--config", str(ROOT / "configs" / "fan-out.json"), "--rehearse", "--workspace", str(ROOT),
        "--report", "report.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    groups = {group["name"]: group for group in place.report()["groups"]}
    assert list(groups) == ["review", "translate", "check"] and groups["review"]["instances"] >= 10
    names = [instance["name"] for instance in place.report()["instances"]]
    assert names[-3:] == ["translate[French,config]", "check-python", "check-click"]


@pytest.mark.slow
@pytest.mark.real_cli
def test_thirty_files_with_the_real_cli(claude: str, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for number in range(30):
        (workspace / f"f{number:02}.txt").write_text("x")
    with StandIn({f"Read f{number:02}.txt": [Text(f"Answer {number}.")] for number in range(30)}) as api:
        entry = {"name": "read", "prompt": "Read {{item}}", "for_each": {"glob": "*.txt"}}
        answers: dict[str, str] = {}

        def keep(event: RunEvent) -> None:
            if isinstance(event, Answered):
                answers[event.instance] = event.text

        config = {"instances": [entry]}
        outcome = run_real(config, api, claude, tmp_path, max_parallel=4, time_limit_s=HUNG_S, on_event=keep)
        assert answers == {f"read[f{number:02}.txt]": f"Answer {number}." for number in range(30)}
        assert sum(status.total_tokens for status in outcome.instances) == api.billed().total_tokens


def test_a_prompt_without_an_item_is_a_doubt(place: Workplace) -> None:
    (place.workspace / "a.py").touch()
    done = place.run("Review it.", "--for-each", "*.py", "--rehearse", "--dry-run")
    assert done.returncode == 0
    assert "--for-each: the PROMPT has no {{item}}, so every item gets the same prompt" in done.stdout
