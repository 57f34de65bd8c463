"""What reaches the API is what would reach it without the gateway, byte for byte, with the real claude.

Claude changes its requests behind a base URL of its own. So the direct run has none: it reaches a stand-in at
Anthropic's address by a proxy, and the gateway reaches the same stand-in by the same proxy.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.versions import check_version
from claude_orchestrator.engine.state import State
from claude_orchestrator.gateway.forwarding import HOP_BY_HOP
from claude_orchestrator.launch.local import LocalLauncher
from tests.direct_api import DirectApi, Request
from tests.harness import run_config
from tests.stand_in import Call, Script, Text, Tools, claude_env

NO_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
pytestmark = [pytest.mark.real_cli, pytest.mark.slow, NO_OPENSSL]
# ids, the hash of each prompt in the billing block, and times
CHANGES = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{64}|\ba[0-9a-f]{16}\b|cch=[0-9a-f]+|"
    rb"duration_ms\W+\d+|\d\d:\d\d:\d\d"
)
TIMES = ("x-claude-code-prev-tool-durations",)
TOOLS = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    schema = {"type": "object", "properties": {"text": {"type": "string", "description": "A text. " * 40}}}
    tools = [{"name": f"tool_{n}", "description": f"Tool {n}. " * 40, "inputSchema": schema} for n in range(30)]
    result = {"tools": tools}
    info = {"name": "x", "version": "1"}
    if asked["method"] == "initialize":
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


PAGE = {"url": "https://api.anthropic.com/page", "prompt": "What is it about?"}
SCRIPTS: dict[str, Script] = {
    "tool": {"greet": [Tools((Call.bash("echo hi"),)), Text()]},
    "subagent": {
        "greet": [Tools((Call.agent("sub task", run_in_background=False),)), Text()],
        "sub task": [Text("Found.")],
    },
    "side call": {"greet": [Tools((Call("WebFetch", PAGE),)), Text()]},
    "turns": {"greet": [Text("Hello.")], "check of your work": [Tools((Call.bash("touch done"),)), Text()]},
}


def requests_of(claude: str, tmp_path: Path, kind: str, **options: Any) -> list[Request]:
    """The requests of a run, in the same folders each time."""
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    home, workspace = place / "home", place / "workspace"
    home.mkdir(parents=True)
    workspace.mkdir()
    (workspace / "tools.py").write_text(TOOLS)
    server = {"command": sys.executable, "args": [str(workspace / "tools.py")]}
    (workspace / "mcp.json").write_text(json.dumps({"mcpServers": {"many": server}}))
    with DirectApi(SCRIPTS[kind], tmp_path) as api:
        environ = {**claude_env(home, ""), **api.environ, "ANTHROPIC_CUSTOM_HEADERS": "x-team: seven"}
        del environ["ANTHROPIC_BASE_URL"]
        launcher = LocalLauncher(f"test-{uuid.uuid4().hex[:8]}", environ)
        tools = ["Bash", "Agent", "WebFetch"]
        entry: dict[str, Any] = {"name": "one", "prompt": "greet me", "allowed_tools": tools}
        entry |= {"mcp_config": ["mcp.json"], **({"check": {"command": "test -f done"}} if kind == "turns" else {})}
        outcome = run_config({"instances": [entry]}, launcher, workspace=workspace, claude=claude, **options)
        assert outcome.only.state is State.COMPLETED, outcome.only.reason
        assert outcome.only.usage == api.billed()
        return api.requests


def comparable(request: Request, *, block: bool, left_out: str = "") -> tuple[str, list[tuple[str, bytes]], bytes]:
    """A request without what differs from run to run, and without a name in its header `anthropic-beta`."""
    headers = [(name.lower(), value.encode()) for name, value in request.headers if name.lower() not in HOP_BY_HOP]
    body = re.sub(rb'"max_tokens":\d+', b"", request.body) if block else request.body
    name_left_out = f"{left_out},".encode() if left_out else b""
    same = [
        (name, b"" if name in TIMES else CHANGES.sub(b"", value).replace(name_left_out, b"")) for name, value in headers
    ]
    return request.line, same, CHANGES.sub(b"", body)


@pytest.mark.parametrize(
    ("kind", "mode"), [("tool", "block"), ("subagent", "warn"), ("side call", "warn"), ("turns", "warn")]
)
def test_the_api_sees_no_difference_but_the_one_that_is_known(
    kind: str, mode: str, claude: str, tmp_path: Path
) -> None:
    left_out = check_version(claude).leaves_out
    direct = requests_of(claude, tmp_path, kind)
    options = {"meter": "api", "budget_enforcement_mode": mode, "overall_token_budget": 10_000_000}
    metered = requests_of(claude, tmp_path, kind, **options)
    assert len(direct) == len(metered) >= 2
    for one, other in zip(direct, metered, strict=True):
        block = mode == "block"
        assert comparable(other, block=block) == comparable(one, block=block, left_out=left_out)
        assert left_out in dict(one.headers)["anthropic-beta"]
