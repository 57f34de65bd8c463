"""Secrets and files: what is private stays so, and what an instance or a config says obeys nobody."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.redact import redact, secrets_of
from claude_orchestrator.engine.run_dir import RunDirectory
from tests.harness import ROOT, Workplace, content_of
from tests.limits import HUNG_S
from tests.stand_in import Call, Script, StandIn, Text, Tools, claude_env

SECRET = "sk-hunter2-hunter2"
PROMPT = "the merger with Acme is on Monday"


def private_setup(scenario: str, **extra: Any) -> dict[str, Any]:
    instance = {
        "prompt": PROMPT,
        "append_system_prompt": f"{PROMPT}, {SECRET}",
        "mcp_config": {"mcpServers": {"x": {"command": "x", "env": {"K": SECRET}}}},
        "env": {"FAKE_CLAUDE": scenario, "DEPLOY": SECRET},
        **extra,
    }
    return {"instances": [instance]}


def test_files_are_for_their_owner_alone(place: Workplace) -> None:
    os.umask(os.umask(0o000))  # whatever the user's own mask says
    assert place.run("--config", place.config(private_setup("ok"))).returncode == 0
    (folder,) = (place.root / "out").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    results = folder / "results"
    assert stat.S_IMODE(results.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in results.iterdir()} == {0o600}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path != results}
    assert set(modes) == {"journal.jsonl", "001-prompt.jsonl", "001.mcp-config", "001.append-system-prompt"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("scenario", ["ok", "tells-all"])
def test_no_prompt_key_or_environment_in_messages_and_journal(place: Workplace, scenario: str) -> None:
    """`tells-all` fails and writes its whole environment to standard error."""
    config = place.config(private_setup(scenario))
    done = place.run("--config", config, "--log-level", "debug", "--retries", "1", ANTHROPIC_API_KEY="sk-ant-key-0001")
    assert done.returncode == (0 if scenario == "ok" else 1)
    (journal,) = place.root.glob("out/*/journal.jsonl")
    for text in (done.stdout, done.stderr, journal.read_text()):
        assert SECRET not in text and PROMPT not in text and "sk-ant-key-0001" not in text
    assert ("***" in done.stderr) is (scenario == "tells-all")


@pytest.mark.slow
@pytest.mark.real_cli
def test_a_key_that_passes_the_gateway_is_in_no_file_and_no_message(claude: str, tmp_path: Path) -> None:
    home, workspace, key = tmp_path / "home", tmp_path / "work", "sk-ant-key-0002"
    home.mkdir()
    workspace.mkdir()
    script: Script = {"QUARTZ": [Tools((Call.bash("echo hi"),), fail_first=(529,)), Text(drop="text"), Text()]}
    with StandIn(script) as api:
        argv = [sys.executable, "-m", "claude_orchestrator", "QUARTZ work", "--permission-mode", "bypassPermissions"]
        argv += ["--claude-bin", claude, "--workspace", str(workspace), "--output-dir", str(tmp_path / "out")]
        argv += ["--meter", "api", "--log-level", "debug", "--report", str(tmp_path / "report.json")]
        argv += ["--overall-token-budget", "9000", "--budget-enforcement-mode", "block"]
        env = {**claude_env(home, api.url), "PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": key}
        done = subprocess.run(argv, env=env, capture_output=True, check=False, timeout=HUNG_S)
        assert api.entries and api.billed().total_tokens <= 9000
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["instances"][0]["usage_source"] == "api"
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) >= 2
    for text in (done.stdout, done.stderr, (tmp_path / "report.json").read_bytes(), *written):
        assert key.encode() not in text


def test_no_prompt_or_key_in_the_list_of_processes(place: Workplace) -> None:
    process = subprocess.Popen(
        place.argv("--config", place.config(private_setup("hang")), "--quiet"),
        env={**place.env, "ANTHROPIC_API_KEY": "sk-ant-key-0001"},
        cwd=place.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = json.loads(content_of(place.root / "pids.json", process))
    listing = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (process.pid, *pids))
    process.terminate()
    process.wait(timeout=HUNG_S)
    assert b"stream-json" in listing and not any(
        text.encode() in listing for text in (SECRET, PROMPT, "sk-ant-key-0001")
    )


def test_a_dry_run_shows_the_prompt_but_no_values_of_the_environment(place: Workplace) -> None:
    done = place.run("--config", place.config(private_setup("ok")), "--dry-run")
    assert PROMPT in done.stdout and SECRET not in done.stdout + done.stderr
    assert "by file:   --append-system-prompt (" in done.stdout and "env:       FAKE_CLAUDE, DEPLOY" in done.stdout


def test_secrets_of_several_lines_and_as_json_are_hidden_too() -> None:
    key = '-----BEGIN KEY-----\nMIIEvQIBADANBg\nqhkiG9w0BAQ"E\\F\n-----END KEY-----'
    hidden = secrets_of({"SIGNING_KEY": key}, ())
    for shown in (key, key.replace("\n", " | "), json.dumps({"k": key}), key[40:]):
        assert "MIIEvQ" not in redact(shown, hidden) and "qhkiG9" not in redact(shown, hidden)


def test_a_secret_is_hidden_before_its_text_is_cut(place: Workplace) -> None:
    """Of a flood of standard error only the end is shown: no half of a secret may be at its beginning."""
    secret = "s3cr3t-" + "abcdefghij" * 500
    env = {"FAKE_CLAUDE": "tells-all", "DEPLOY_TOKEN": secret}
    done = place.run("--config", place.config({"instances": [{"prompt": "x", "env": env}]}))
    assert done.returncode == 1 and "abcdefghij" not in done.stderr + done.stdout


def test_a_link_is_not_followed_by_resume_last_either(place: Workplace) -> None:
    assert place.run("/test", FAKE_CLAUDE="tells-all").returncode == 1
    (folder,) = (place.root / "out").iterdir()
    folder.rename(place.root / "elsewhere")
    folder.symlink_to(place.root / "elsewhere")
    before = sorted((place.root / "elsewhere").iterdir())
    done = place.run("/test", "--resume", "last")
    assert done.returncode == 2 and "no run to resume" in done.stderr
    assert sorted((place.root / "elsewhere").iterdir()) == before


def test_secrets_are_recognised_by_their_names_and_hidden_whole() -> None:
    environ = {"PATH": "/usr/bin:/bin", "API_KEY": "abcdefgh", "GH_TOKEN": "abcdefghij", "SHORT_KEY": "abc"}
    secrets = secrets_of(environ, [("ANYTHING", "given-value")])
    assert secrets == {"abcdefgh", "abcdefghij", "given-value"}
    assert redact("abcdefghij /usr/bin abcdefgh abc given-value", secrets) == "*** /usr/bin *** abc ***"


def test_no_value_of_a_config_reaches_a_shell(place: Workplace) -> None:
    bait = "$(touch pwned) `touch pwned`; touch pwned | touch pwned & \n"
    folder = place.workspace / "$(touch pwned)"
    folder.mkdir()
    entry = {
        "name": "a; touch pwned $(touch pwned)",
        "command": f"/test {bait}",
        "pre_commands": [bait],
        "append_system_prompt": bait,
        "model": "$(touch pwned)",
        "allowed_tools": ["Bash(touch pwned:*)"],
        "cwd": "$(touch pwned)",
        "env": {"X": bait},
        "extra_args": ["--max-turns", "$(touch pwned)"],
    }
    done = place.run("--config", place.config({"instances": [entry]}))
    assert done.returncode == 0, done.stderr
    assert not list(place.root.rglob("pwned"))


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "bell\x07", "\u202eevil", "\x9b2J"])
def test_hostile_names_are_refused_or_shown(place: Workplace, name: str) -> None:
    done = place.run("--config", place.config({"instances": [{"name": name, "prompt": "x"}]}))
    assert done.returncode == 2 and "instances[0].name: expected one line of text" in done.stderr
    assert not any(char in done.stderr for char in "\x1b\x07\x9b\u202e")


@pytest.mark.slow
def test_hostile_folders_commands_and_files_are_shown_not_obeyed(place: Workplace) -> None:
    nasty = "\x1b[2J\x1b]0;owned\x07"
    commands = place.workspace / ".claude" / "commands"
    commands.mkdir(parents=True)
    (commands / f"evil{nasty}.md").write_text(f"---\ndescription: {nasty}\n---\n{nasty}")
    (commands / "test.md").write_text(f"---\ndescription: |\n  {nasty}\n---\nx")
    (place.workspace / f"dir{nasty}").mkdir()
    setup = {"instances": [{"name": "one", "command": f"/test {nasty}"}]}
    for args in (
        ("--list-commands",),
        ("--inspect-command", "test"),
        ("--inspect-command", f"nope{nasty}"),
        ("--dry-run", "--config", place.config(setup)),
        ("--config", place.config(setup)),
        ("--config", f"missing{nasty}.json"),
        ("--dry-run", "x", "--workspace", str(place.workspace / f"dir{nasty}")),
        ("--resume", f"run{nasty}"),
        ("--command-budget", f"{nasty}=0"),
        (f"--nope{nasty}",),
    ):
        done = place.run(*args)
        assert done.returncode in (0, 2), done.stderr
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout + done.stderr, args


def spec(name: str = "one") -> LaunchSpec:
    config = parse_config({"instances": [{"name": name, "prompt": "x"}]}, "x")
    return make_plan(config, Settings(), workspace="/", claude_bin="claude").specs[0]


def test_links_are_not_followed_for_writing(tmp_path: Path) -> None:
    said: list[str] = []
    folder = RunDirectory.make(tmp_path, "run", said.append)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("001-one.jsonl", "001.mcp-config"):
        (folder.path / name).symlink_to(victim)
    assert folder.open_log(spec(), 1) is None and len(said) == 1
    with pytest.raises(OSError, match="symbolic links"):
        folder.keep(spec(), "mcp-config", "{}")
    assert victim.read_text() == "precious"


def test_names_cannot_lead_out_of_the_run_folder(tmp_path: Path) -> None:
    folder = RunDirectory.make(tmp_path, "run", print)
    for name in ("../../escape", "/etc/passwd", "..", "a/b\\c", "~"):
        log = folder.open_log(spec(name), 1)
        if log is not None:
            assert Path(log.path).resolve().parent == folder.path
            log.close()
            Path(log.path).unlink()


def test_an_instance_does_not_get_our_pipes_and_locks(place: Workplace) -> None:
    """Only its own three: with the guard's pipe or the journal's lock it could outlive us unseen."""
    process = subprocess.Popen(
        place.argv("--config", place.config(private_setup("hang")), "--quiet"),
        env=place.env,
        cwd=place.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = json.loads(content_of(place.root / "pids.json", process))
    time.sleep(0.1)
    kinds = [str(path.readlink()) for path in Path(f"/proc/{pids[0]}/fd").iterdir()]
    process.terminate()
    process.wait(timeout=HUNG_S)
    assert not any("journal" in kind for kind in kinds)
    assert sum(kind.startswith(("pipe:", "socket:")) for kind in kinds) == 3
