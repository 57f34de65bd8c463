"""The hard cap on the scenarios of agent-budget-semantics (MIT), which compares what budgets mean in agent frameworks.

Its wheel lacks the scenarios, and installs modules with names such as `runners`. So unpack its source distribution, and
name the folder: `pip download --no-deps --no-binary :all: agent-budget-semantics==0.5.0`, then
`AGENT_BUDGET_SEMANTICS=FOLDER python -m pytest tests/gateway/test_agent_budget_semantics.py`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from claude_orchestrator.gateway.server import Gateway
from tests.benchmarks.hard_cap import Counted
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

SOURCE = os.environ.get("AGENT_BUDGET_SEMANTICS")
pytestmark = pytest.mark.skipif(
    not SOURCE, reason="its wheel lacks the scenarios: name the unpacked source in AGENT_BUDGET_SEMANTICS"
)
MAX_TOKENS = 64  # that the client asks for: more than any scripted answer has
FRAMEWORK = "claude-orchestrator"


def scenarios() -> list[Any]:
    """The scenarios with a budget in tokens, by their names."""
    if not SOURCE:
        return []
    yaml = pytest.importorskip("yaml")
    found = [yaml.safe_load(path.read_text()) for path in sorted(Path(SOURCE, "scenarios").glob("*.yaml"))]
    counted = [one for one in found if "max_tokens" in one.get("budget", {}) and isinstance(one.get("script"), list)]
    return [pytest.param(one, id=one["name"]) for one in counted]


def their_results() -> ModuleType:
    """The module with the package's own form of results."""
    spec = importlib.util.spec_from_file_location("their_results", Path(str(SOURCE), "runners", "base.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class ScriptedApi:
    """A Messages API that bills as the script says; `ledger` has the tokens of each call."""

    script: list[dict[str, Any]]
    ledger: list[int] = field(default_factory=list)

    @property
    def turn(self) -> dict[str, Any]:
        """What the next call gets."""
        done = {"prompt_tokens": 10, "completion_tokens": 5, "content": "Script exhausted."}
        return self.script[len(self.ledger)] if len(self.ledger) < len(self.script) else done

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        turn, body = self.turn, await request.json()
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": turn["prompt_tokens"]})
        output = min(turn["completion_tokens"], body["max_tokens"])
        self.ledger.append(turn["prompt_tokens"] + output)
        calls = turn.get("tool_calls") or []
        content: list[dict[str, Any]] = [{"type": "text", "text": turn.get("content") or "…"}]
        for call in calls:
            given = json.loads(call["function"]["arguments"])
            content.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given})
        return web.json_response(
            {
                "id": f"msg_{len(self.ledger)}",
                "model": body["model"],
                "content": content,
                "stop_reason": "tool_use" if calls else "end_turn",
                "usage": {"input_tokens": turn["prompt_tokens"], "output_tokens": output},
            }
        )


async def run(scenario: dict[str, Any], limit: int) -> tuple[Any, ScriptedApi]:
    """Work through a scenario behind the gateway, with a loop as the package's own runners have it."""
    api = ScriptedApi(scenario["script"])
    runner = web.ServerRunner(web.Server(api.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    manager = TokenBudgetManager(limit, "block")
    tools, stopped_by = 0, "budget"
    messages: list[dict[str, Any]] = [{"role": "user", "content": scenario["task"]}]
    async with Gateway(manager, Weights(), upstream=url) as gateway, aiohttp.ClientSession() as session:
        place = gateway.open(Metered(manager.budgets, on_usage=Counted(manager).take))
        while True:
            size = api.turn["prompt_tokens"]  # a token is at least a byte
            body = {"model": "mock-budget-llm", "max_tokens": MAX_TOKENS, "messages": messages, "system": "x" * size}
            async with session.post(f"{place.url}/v1/messages", json=body) as answer:
                if answer.status != 200:
                    assert "budget" in await answer.text()
                    break
                content = (await answer.json())["content"]
            calls = [block for block in content if block["type"] == "tool_use"]
            if not calls:
                stopped_by = "natural"
                break
            tools += len(calls)
            messages.append({"role": "assistant", "content": content})
            results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "{}"} for call in calls]
            messages.append({"role": "user", "content": results})
    await runner.cleanup()
    result = their_results().RunResult(
        framework=FRAMEWORK,
        scenario=scenario["name"],
        budget_param="overall_token_budget",
        budget_value=limit,
        actual_llm_calls=len(api.ledger),
        actual_tool_calls=tools,
        stopped_by=stopped_by,
        iteration_budget_consumed=len(api.ledger),
        token_budget_limit=limit,
        token_budget_consumed=manager.total_usage,
    )
    return result, api


@pytest.mark.parametrize("scenario", scenarios())
@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_every_token_of_every_turn_counts_and_none_beyond_the_limit(scenario: dict[str, Any], share: float) -> None:
    """Repeated system prompts, tool output in the next prompt, and calls whose tool failed: all of it is billed."""
    limit = max(1, int(scenario["budget"]["max_tokens"] * share))
    result, api = asyncio.run(run(scenario, limit))
    assert result.token_budget_consumed == sum(api.ledger) <= limit
    if result.stopped_by == "budget":  # what was left could not pay for the next call
        needed = api.turn["prompt_tokens"]
        assert limit - sum(api.ledger) < needed + needed // 100 + 16 + MAX_TOKENS


def test_counting_after_the_fact_passes_the_limit_where_the_cap_does_not() -> None:
    """The differential: the same script, with a budget that looks at what was used before each call."""
    passed = 0
    for one in scenarios():
        (scenario,) = one.values
        limit, used = scenario["budget"]["max_tokens"], 0
        for turn in scenario["script"]:
            if used >= limit:
                break
            used += turn["prompt_tokens"] + turn["completion_tokens"]
        result, _ = asyncio.run(run(scenario, limit))
        assert result.token_budget_consumed <= limit
        passed += used > limit
    assert passed >= 2
