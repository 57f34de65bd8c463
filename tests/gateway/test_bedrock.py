"""What signs requests to Bedrock: the credentials that claude has, and what happens without any."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from claude_orchestrator.gateway.server import Gateway
from tests.metered import Metered
from tests.stand_in import StandIn, Text
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

pytest.importorskip("botocore")
from claude_orchestrator.gateway.bedrock.signing import NoCredentials, Signers

URL = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/invoke"
SENT = {
    "authorization": "AWS4-HMAC-SHA256 Credential=CLAUDE/x",
    "x-amz-date": "old",
    "content-type": "application/json",
}
NOTHING = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}


def signed(environ: dict[str, str], url: str = URL) -> dict[str, str]:
    headers = asyncio.run(Signers().sign(environ, "POST", url, {**SENT, "x-other": "stays"}, b"{}"))
    return {name.lower(): value for name, value in headers.items()}


def test_keys_of_the_instance_sign_and_claudes_own_signature_goes() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIAONE", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "token"}
    found = signed({**keys, "AWS_REGION": "us-east-2"})
    assert re.match(r"AWS4-HMAC-SHA256 Credential=AKIAONE/\d+/eu-west-1/bedrock/aws4_request", found["authorization"])
    assert found["x-amz-security-token"] == "token" and found["x-other"] == "stays" and found["x-amz-date"] != "old"
    own = signed({**keys, "AWS_REGION": "us-east-2"}, "http://127.0.0.1:9/model/m/invoke")
    assert "/us-east-2/bedrock/" in own["authorization"]


def test_a_profile_of_the_instance_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    file.write_text("[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = s\n")
    environ = {**NOTHING, "AWS_PROFILE": "work", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert "Credential=AKIAWORK/" in signed(environ)["authorization"]
    with pytest.raises(NoCredentials, match="no credentials for Bedrock"):
        signed({**environ, "AWS_PROFILE": "other"})


def test_without_credentials_nothing_is_sent_and_nothing_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NOTHING.items():
        monkeypatch.setenv(name, value)

    async def main() -> None:
        manager = TokenBudgetManager(100_000, "block")
        with StandIn({"": [Text()]}) as api:
            environ = {**NOTHING, "CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": api.url}
            async with Gateway(manager, Weights(), environ=environ) as gateway, aiohttp.ClientSession() as session:
                place = gateway.open(Metered(manager.budgets, environ))
                body = {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
                async with session.post(f"{place.url}/model/m/invoke", json=body) as answer:
                    assert answer.status == 400 and "no credentials for Bedrock" in await answer.text()
            assert not api.entries and manager.total_usage == 0 and manager.budgets[0].held == 0

    asyncio.run(main())
