"""Vertex and Foundry through the gateway, with the real claude and a stand-in on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.state import State
from tests.harness import run_real
from tests.stand_in import Call, StandIn, Text, Tools

pytestmark = pytest.mark.real_cli


def environment(cloud: str, api: StandIn) -> dict[str, str]:
    if cloud == "vertex":
        return {
            "CLAUDE_CODE_USE_VERTEX": "1",
            "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
            "ANTHROPIC_VERTEX_BASE_URL": f"{api.url}/v1",
            "ANTHROPIC_VERTEX_PROJECT_ID": "proj",
            "CLOUD_ML_REGION": "us-east5",
        }
    return {
        "CLAUDE_CODE_USE_FOUNDRY": "1",
        "ANTHROPIC_FOUNDRY_BASE_URL": f"{api.url}/anthropic",
        "ANTHROPIC_FOUNDRY_API_KEY": "dummy",
    }


@pytest.mark.parametrize("cloud", ["vertex", "foundry"])
def test_a_cloud_is_counted_and_capped(cloud: str, claude: str, tmp_path: Path) -> None:
    script = {"greet": [Tools((Call.bash("echo hi"),))] * 20 + [Text()]}
    with StandIn(script) as api:
        entry: dict[str, Any] = {"name": "one", "prompt": "greet me", "env": environment(cloud, api)}
        config = {"instances": [{**entry, "allowed_tools": ["Bash"]}]}
        options = {"overall_token_budget": 30_000, "budget_enforcement_mode": "block"}
        outcome = run_real(config, api, claude, tmp_path, meter="api", **options)
        billed = api.billed()
    assert outcome.only.state is State.STOPPED and "of the overall budget (30,000)" in outcome.only.reason
    assert outcome.only.usage == billed and 20_000 < billed.total_tokens <= 30_000 and outcome.only.exact
