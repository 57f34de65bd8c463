"""Runs a config through the supervisor in this process, against the stand-in API or any launcher."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claude_orchestrator.config import parse_config
from claude_orchestrator.instance import InstanceStatus
from claude_orchestrator.launcher import Launcher, LocalLauncher
from claude_orchestrator.plan import make_manager, make_plan
from claude_orchestrator.settings import Given, merge
from claude_orchestrator.supervisor import Supervisor
from tests.stand_in import StandIn, claude_env
from token_budget import TokenBudgetManager


@dataclass
class Outcome:
    """What a run left."""

    instances: tuple[InstanceStatus, ...]
    manager: TokenBudgetManager
    messages: list[str] = field(default_factory=list)

    @property
    def only(self) -> InstanceStatus:
        (status,) = self.instances
        return status


def run_config(
    config: dict[str, Any],
    launcher: Launcher,
    *,
    workspace: Path,
    claude: str = "claude",
    on_change: Callable[[Supervisor], None] = lambda supervisor: None,
    at_start: Callable[[Supervisor], None] = lambda supervisor: None,
    time_limit_s: float = 60.0,
    **options: Any,
) -> Outcome:
    """Run a config to its end; `options` are Settings as options."""
    parsed = parse_config(config, "test")
    settings = merge({name: Given(value, "option") for name, value in options.items()}, parsed.budget, "test")
    plan = make_plan(parsed, settings, workspace=str(workspace), claude_bin=claude)
    messages: list[str] = []

    async def main() -> Supervisor:
        supervisor = Supervisor(
            plan,
            settings,
            launcher,
            make_manager(plan, settings),
            say=lambda level, text: messages.append(f"{level}: {text}"),
            on_change=lambda: on_change(supervisor),
        )
        at_start(supervisor)
        async with asyncio.timeout(time_limit_s):
            await supervisor.run()
        return supervisor

    supervisor = asyncio.run(main())
    return Outcome(supervisor.instances, supervisor.manager, messages)


def content_of(path: Path, process: subprocess.Popen[Any], *, limit_s: float = 30.0) -> str:
    """What a process writes into a file, waited for as long as the process runs."""
    deadline = time.monotonic() + limit_s
    while not path.exists() or not path.read_text().strip():
        assert process.poll() is None and time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.01)
    return path.read_text()


def run_real(config: dict[str, Any], api: StandIn, claude: str, tmp_path: Path, **options: Any) -> Outcome:
    """Run a config with the real CLI against the stand-in API, in a home of its own."""
    home, workspace = tmp_path / "home", tmp_path / "workspace"
    home.mkdir(exist_ok=True)
    workspace.mkdir(exist_ok=True)
    launcher = LocalLauncher(f"test-{uuid.uuid4().hex[:8]}", claude_env(home, api.url))
    return run_config(config, launcher, workspace=workspace, claude=claude, **options)
