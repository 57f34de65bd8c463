"""Which meter a run gets, and why not the other; and a rehearsal through the real gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import Plan, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.choice import choose_meter
from tests.harness import Workplace

KEY = {"ANTHROPIC_API_KEY": "key"}


def a_plan(**instance: Any) -> Plan:
    config = parse_config({"instances": [{"name": "one", "command": "/test", **instance}]}, "test")
    return make_plan(config, Settings(), workspace="/", claude_bin="claude")


def test_auto_takes_the_api_where_a_key_serves_it() -> None:
    assert choose_meter("auto", a_plan(), KEY, rehearse=False).kind == "api"
    own = a_plan(env={"ANTHROPIC_AUTH_TOKEN": "token"})
    assert choose_meter("auto", own, {}, rehearse=False).kind == "api"
    login = choose_meter("auto", a_plan(), {}, rehearse=False)
    assert login.kind == "stream" and "no API key in the environment" in login.reason
    assert choose_meter("api", a_plan(), {}, rehearse=False).kind == "api"
    assert choose_meter("stream", a_plan(), KEY, rehearse=False).kind == "stream"
    assert choose_meter("auto", a_plan(), KEY, rehearse=True).kind == "stream"


def test_auto_takes_the_stream_where_the_gateway_would_change_a_request() -> None:
    auto = choose_meter("auto", a_plan(), KEY, rehearse=False, leaves_out="a-name")
    assert auto.kind == "stream" and "leaves a-name out of its header anthropic-beta, and nothing else" in auto.reason
    assert choose_meter("api", a_plan(), KEY, rehearse=False, leaves_out="a-name").kind == "api"
    elsewhere = a_plan(env={"ANTHROPIC_BASE_URL": "https://proxy.example"})  # it is left out there anyway
    assert choose_meter("auto", elsewhere, KEY, rehearse=False, leaves_out="a-name").kind == "api"


def test_a_provider_that_signs_for_its_host_is_refused_with_the_reason() -> None:
    mantle = a_plan(env={"CLAUDE_CODE_USE_MANTLE": "1"})
    with pytest.raises(
        UserError, match="--meter api: one uses Bedrock, which the gateway does not route: claude signs"
    ):
        choose_meter("api", mantle, KEY, rehearse=False)
    auto = choose_meter("auto", a_plan(), {**KEY, "CLAUDE_CODE_USE_MANTLE": "1"}, rehearse=False)
    assert auto.kind == "stream" and "Bedrock" in auto.reason
    assert choose_meter("auto", a_plan(), {**KEY, "CLAUDE_CODE_USE_BEDROCK": "0"}, rehearse=False).kind == "api"
    assert choose_meter("auto", a_plan(env={"CLAUDE_CODE_USE_BEDROCK": "1"}), {}, rehearse=False).kind == "api"


def test_vertex_and_foundry_need_no_key_of_anthropic() -> None:
    vertex = {"CLAUDE_CODE_USE_VERTEX": "1"}
    foundry = {"CLAUDE_CODE_USE_FOUNDRY": "1", "ANTHROPIC_FOUNDRY_RESOURCE": "mine"}
    for environ in (vertex, foundry):
        assert choose_meter("auto", a_plan(), environ, rehearse=False).kind == "api"
    half = choose_meter("auto", a_plan(), {"CLAUDE_CODE_USE_FOUNDRY": "1"}, rehearse=False)
    assert "sets neither ANTHROPIC_FOUNDRY_RESOURCE nor ANTHROPIC_FOUNDRY_BASE_URL" in half.reason


def test_a_rehearsal_takes_the_api_when_asked() -> None:
    meter = choose_meter("api", a_plan(), {}, rehearse=True)
    assert (meter.kind, meter.reason) == ("api", "a simulated API")


def test_an_address_that_the_gateway_cannot_use_leaves_the_stream() -> None:
    broken = a_plan(env={"ANTHROPIC_BASE_URL": "ftp://api.example"})
    auto = choose_meter("auto", broken, KEY, rehearse=False)
    assert auto.kind == "stream" and auto.reason.startswith("one: ")
    with pytest.raises(UserError, match="--meter api: one: "):
        choose_meter("api", broken, KEY, rehearse=False)


@pytest.mark.parametrize("rehearse", [True, False])
def test_without_the_extra_a_line_names_it(monkeypatch: pytest.MonkeyPatch, rehearse: bool) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"--meter api: needs the extra gateway \(pip install 'claude-orchestrator"):
        choose_meter("api", a_plan(), KEY, rehearse=rehearse)
    assert choose_meter("auto", a_plan(), KEY, rehearse=rehearse).kind == "stream"


def entries(count: int, tokens: int) -> list[dict[str, Any]]:
    rehearsal = {"tokens": tokens, "seconds": 0.2, "turns": 5}
    return [{"name": f"i{n}", "command": "/test", "rehearsal": rehearsal} for n in range(count)]


def test_a_rehearsal_goes_through_the_real_gateway(place: Workplace) -> None:
    config = place.config({"instances": entries(3, 20_000)})
    options = ("--rehearse", "--meter", "api", "--report", "report.json")
    assert place.run("--config", config, *options, claude=None).returncode == 0
    report = place.report()
    assert report["meter"] == {"kind": "api", "reason": "a simulated API"} and report["totals"]["exact"]
    assert report["totals"]["total_tokens"] == 60_000
    assert {instance["usage_source"] for instance in report["instances"]} == {"api"}

    block = ("--overall-token-budget", "30000", "--budget-enforcement-mode", "block")
    done = place.run("--config", config, *options, *block, claude=None)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    report = place.report()
    assert 25_000 < report["totals"]["total_tokens"] <= 30_000 and report["budgets"]["overall"]["held"] == 0
    assert "stopped" in {instance["status"] for instance in report["instances"]}
    assert "BLOCK MODE: Budget exceeded for instance" in done.stderr


def test_a_rehearsal_never_leaves_the_machine_whatever_address_an_instance_has(place: Workplace) -> None:
    setup = [{**entry, "env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}} for entry in entries(1, 5000)]
    options = ("--rehearse", "--meter", "api", "--report", "report.json")
    assert place.run("--config", place.config({"instances": setup}), *options, claude=None).returncode == 0
    assert place.report()["totals"]["total_tokens"] == 5000


def test_the_dry_run_shows_the_policy_and_the_report_the_reason(place: Workplace) -> None:
    done = place.run("/test", "--dry-run", "--meter", "api", "--budget-enforcement-mode", "block")
    assert (
        "Meter: api: the gateway sends a request only if every budget has room for the most that it can cost"
        in done.stdout
    )
    done = place.run("/test", "--dry-run")
    assert "Meter: stream (no API key in the environment" in done.stdout
    assert place.run("/test", "--report", "report.json").returncode == 0
    assert place.report()["meter"]["kind"] == "stream" and "no API key" in place.report()["meter"]["reason"]
    done = place.run("/test", "--meter", "api", CLAUDE_CODE_USE_MANTLE="1")
    assert done.returncode == 2 and "ERROR: --meter api: /test uses Bedrock" in done.stderr


def test_one_line_at_the_start_says_what_the_gateway_would_cost(tmp_path: Path) -> None:
    place = Workplace(tmp_path)  # its claude is of version 2.1.330
    config = place.config({"instances": [{"command": "/ok"}]})
    done = place.run("--config", config, "--ledger", "off", **KEY)
    lines = [line for line in done.stderr.splitlines() if "mid-conversation-system-clear-at-2026-08-21" in line]
    assert done.returncode == 0 and len(lines) == 1 and "WARNING: --meter auto takes the stream: " in lines[0]
    asked = place.run("--config", config, "--ledger", "off", "--dry-run", "--meter", "api", **KEY)
    assert "Meter: api" in asked.stdout and "mid-conversation" not in asked.stdout + asked.stderr
