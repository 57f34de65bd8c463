"""Vertex, Foundry and Bedrock through the gateway, with the real claude and a stand-in on loopback."""

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
    if cloud == "bedrock":
        return {
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "ANTHROPIC_BEDROCK_BASE_URL": f"{api.url}/base",
            "AWS_REGION": "us-east-2",
            "AWS_ACCESS_KEY_ID": "AKIADUMMY",
            "AWS_SECRET_ACCESS_KEY": "dummy",
            "ANTHROPIC_MODEL": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        }
    return {
        "CLAUDE_CODE_USE_FOUNDRY": "1",
        "ANTHROPIC_FOUNDRY_BASE_URL": f"{api.url}/anthropic",
        "ANTHROPIC_FOUNDRY_API_KEY": "dummy",
    }


def is_signed_for(url: str, path: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether the signature is that of the dummy key for this address."""
    botocore_auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    sent = {name.lower(): value for name, value in headers.items()}
    names = sent["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest("POST", url + path, data=body, headers={name: sent[name] for name in names if name != "host"})
    signer = botocore_auth.SigV4Auth(Credentials("AKIADUMMY", "dummy"), "bedrock", "us-east-2")
    request.context["timestamp"] = sent["x-amz-date"]
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return sent["host"] == url.partition("//")[2] and sent["authorization"].endswith(f"Signature={expected}")


@pytest.mark.parametrize("cloud", ["vertex", "foundry", "bedrock"])
def test_a_cloud_is_counted_and_capped(cloud: str, claude: str, tmp_path: Path) -> None:
    script = {"greet": [Tools((Call.bash("echo hi"),))] * 20 + [Text()]}
    signatures: list[bool] = []
    with StandIn(script) as api:
        api.on_headers = lambda path, headers, body: signatures.append(is_signed_for(api.url, path, headers, body))
        entry: dict[str, Any] = {"name": "one", "prompt": "greet me", "env": environment(cloud, api)}
        config = {"instances": [{**entry, "allowed_tools": ["Bash"]}]}
        options = {"overall_token_budget": 30_000, "budget_enforcement_mode": "block"}
        outcome = run_real(config, api, claude, tmp_path, meter="api", **options)
        billed = api.billed()
    assert outcome.only.state is State.STOPPED and "of the overall budget (30,000)" in outcome.only.reason
    assert outcome.only.usage == billed and 20_000 < billed.total_tokens <= 30_000 and outcome.only.exact
    assert all(signatures) and bool(signatures) == (cloud == "bedrock")
