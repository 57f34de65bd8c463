"""The nodes of a real Ray cluster share the rate limits of a key."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limited_api import LimitedApi
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY, ray_nodes
from tests.stand_in import claude_env


@WITH_RAY
@pytest.mark.slow
@pytest.mark.real_cli
def test_two_nodes_send_no_request_that_must_come_back(claude: str, tmp_path: Path) -> None:
    """Four instances need eight requests. There are six at first, and one more every seven seconds."""
    home, workspace = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    workspace.mkdir()
    names = [f"i{number}" for number in range(4)]
    instances = [{"name": name, "prompt": f"Print, {name}.", "allowed_tools": ["Bash"]} for name in names]
    (tmp_path / "runs.json").write_text(json.dumps({"instances": instances}))

    async def main(address: str, env: dict[str, str]) -> None:
        async with LimitedApi(requests_a_minute=8, tokens_a_minute=10**9, rounds=2) as api:
            api._requests.level = 6
            own = ["--workspace", str(workspace), "--output-dir", str(tmp_path / "out"), "--claude-bin", claude]
            more = ["--cluster", address, "--meter", "api", "--ledger", "off", "--max-parallel", "4"]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "claude_orchestrator", "--config", str(tmp_path / "runs.json"), *own, *more,
                env={**claude_env(home, api.url), **env}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            _, stderr = await process.communicate()
            assert process.returncode == 0, stderr.decode()
            assert (api.requests, api.refused) == (8, 0), stderr.decode()

    with ray_nodes(2) as nodes:
        asyncio.run(asyncio.wait_for(main(nodes.address, nodes.env), HUNG_S))
