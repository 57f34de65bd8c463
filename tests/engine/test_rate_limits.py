"""A subscription's rate limits as rows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.rate_limits import rate_limit_rows
from claude_orchestrator.engine.state import State
from tests.harness import run_config
from tests.scripted import Script, ScriptedRunning


def test_limits_with_and_without_a_reset() -> None:
    limits = {"five_hour": {"utilization": 12, "resets_at": "18:00"}, "week": {"utilization": 99.5, "resets_at": 5}}
    assert rate_limit_rows(limits) == [("five_hour", 12.0, "18:00"), ("week", 99.5, "")]


def test_limits_of_single_models_come_in_lists() -> None:
    scoped = {"model": {"display_name": "Opus"}, "surface": None}
    limits = {
        "model_scoped": [{"display_name": "Haiku", "utilization": 7, "resets_at": None}, 5, {"utilization": None}],
        "limits": [
            {"kind": "weekly_scoped", "percent": 80, "resets_at": "Monday", "scope": scoped},
            {"kind": "session"},
        ],
    }
    assert rate_limit_rows(limits) == [("model_scoped Haiku", 7.0, ""), ("weekly_scoped Opus", 80.0, "Monday")]


@pytest.mark.parametrize(
    "limit", [None, 5, {}, {"utilization": None}, {"utilization": True}, {"utilization": -1}, {"utilization": 10**9}]
)
def test_a_limit_of_another_shape_is_left_out(limit: object) -> None:
    assert rate_limit_rows({"five_hour": limit}) == []


class WaitsItself(Script):
    """Instances whose subscription is used up, and which continue by themselves after the reset, as 2.1.234 does."""

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        running = await super().launch(spec)
        info = {"status": "rejected", "resetsAt": int(time.time()) + 2}
        running.emit({"type": "rate_limit_event", "rate_limit_info": info})
        asyncio.get_running_loop().call_later(1.0, lambda: running.result(is_error=False))
        return running


def test_an_instance_that_waits_for_a_reset_itself_is_neither_stalled_nor_retried(tmp_path: Path) -> None:
    options: dict[str, Any] = {"wait_for_reset": True, "idle_timeout_s": 0.3, "retries": 2}
    config = {"instances": [{"name": "one", "prompt": "mute"}]}
    outcome = run_config(config, WaitsItself(), workspace=tmp_path, **options)
    assert outcome.only.state is State.COMPLETED and outcome.only.attempts == 1
