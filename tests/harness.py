"""Runs a config through the supervisor in this process, against the stand-in API or any launcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claude_orchestrator.claude.events import Price
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.expansion import Selection, expand_config
from claude_orchestrator.config.given import Given
from claude_orchestrator.config.item_reading import ItemReader
from claude_orchestrator.config.plan import Plan, make_manager, make_plan
from claude_orchestrator.config.settings import Settings, merge
from claude_orchestrator.engine.approvals import Approvals
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.growth import Growth
from claude_orchestrator.engine.results.answer_files import AnswerFiles
from claude_orchestrator.engine.run_context import NoAnswers, RunContext, Services
from claude_orchestrator.engine.run_events import RunEvent
from claude_orchestrator.engine.run_inputs import knows_command
from claude_orchestrator.engine.starts import Starts
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, Lifetimes
from claude_orchestrator.launch.base import Launcher
from claude_orchestrator.launch.local import LocalLauncher
from claude_orchestrator.ui.messages import message_of
from tests.limits import HUNG_S
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


@dataclass
class Watcher:
    """An observer that keeps the messages, and calls back on every event."""

    messages: list[str] = field(default_factory=list)
    on_event: Callable[[RunEvent], None] = lambda event: None

    def observe(self, event: RunEvent) -> None:
        message = message_of(event)
        if message is not None:
            self.messages.append(f"{message[0]}: {message[1]}")
        self.on_event(event)


def make_supervisor(
    plan: Plan, settings: Settings, launcher: Launcher, *, bus: Bus | None = None, **context: Any
) -> Supervisor:
    """A supervisor of a plan; `context` are further fields of RunContext."""
    manager = make_manager(plan, settings)
    return Supervisor(
        [InstanceStatus(spec) for spec in plan.specs], RunContext(settings, launcher, manager, bus or Bus(), **context)
    )


def run_config(
    config: dict[str, Any],
    launcher: Launcher,
    *,
    workspace: Path,
    claude: str = "claude",
    on_change: Callable[[Supervisor], None] = lambda supervisor: None,
    on_event: Callable[[RunEvent], None] = lambda event: None,
    at_start: Callable[[Supervisor], None] = lambda supervisor: None,
    price: Price | None = None,
    answers: AnswerFiles | None = None,
    starts: Starts | None = None,
    time_limit_s: float = HUNG_S,
    lifetimes: Lifetimes = LIFETIMES,
    **options: Any,
) -> Outcome:
    """Run a config to its end; `options` are Settings as options. With `meter="api"` through a gateway.

    `answers` keeps what the instances answer. `starts` holds launches back while others start. `lifetimes` are those of
    the API's prompt cache.
    """
    parsed = expand_config(parse_config(config, "test"), ItemReader(workspace).read, Selection())
    settings = merge({name: Given(value, "option") for name, value in options.items()}, parsed.budget, "test")
    plan = make_plan(parsed, settings, workspace=str(workspace), claude_bin=claude)
    manager = make_manager(plan, settings)
    watcher, bus = Watcher(), Bus()

    async def main() -> Supervisor:
        async with asyncio.timeout(time_limit_s), contextlib.AsyncExitStack() as stack:
            meter = None
            if settings.meter == "api":
                assert isinstance(launcher, LocalLauncher)
                gateway = Gateway(
                    manager,
                    settings.token_weights,
                    environ=launcher._environ,
                    options=GatewayOptions(
                        settings.cache_wait_s, keeps_cache=settings.keep_cache_warm, lifetimes=lifetimes
                    ),
                )
                meter = await stack.enter_async_context(gateway)
            approvals = Approvals(bus, settings.approval_timeout_s)
            kept = answers or NoAnswers()
            services = Services(price=price, meter=meter, answers=kept, approvals=approvals, starts=starts)
            if isinstance(launcher, LocalLauncher):
                services = services._replace(knows_command=knows_command, found_command=knows_command)
            if answers is not None:
                enter = Growth(plan, "", None, manager, answers, []).enter
                services = services._replace(enter=enter)
            context = RunContext(settings, launcher, manager, bus, services)
            supervisor = Supervisor([InstanceStatus(spec) for spec in plan.specs], context)

            def see(event: RunEvent) -> None:
                on_event(event)
                on_change(supervisor)

            watcher.on_event = see
            bus.attach(watcher)
            if answers is not None:
                answers.add({spec.name: len(spec.turns) for spec in plan.specs})
                bus.attach(answers)
            at_start(supervisor)
            await supervisor.run()
        return supervisor

    supervisor = asyncio.run(main())
    return Outcome(tuple(supervisor.instances), supervisor.manager, watcher.messages)


def content_of(path: Path, process: subprocess.Popen[Any], *, limit_s: float = HUNG_S) -> str:
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


FAKE = Path(__file__).with_name("fake_claude.py")
ROOT = Path(__file__).parent.parent


class Workplace:
    """A folder with a workspace, and a way to run the program there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "work"
        self.workspace.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "FAKE_DIR": str(root),
            "PYTHONUTF8": "1",
            "COLUMNS": "120",
        }

    def config(self, data: Any, name: str = "runs.json") -> str:
        path = self.root / name
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return str(path)

    def argv(self, *args: str, claude: str | None = str(FAKE)) -> list[str]:
        own = ["--workspace", str(self.workspace), "--output-dir", str(self.root / "out")]
        bin_args = ["--claude-bin", claude] if claude else []
        return [sys.executable, "-m", "claude_orchestrator", *own, *bin_args, *args]

    def run(self, *args: str, claude: str | None = str(FAKE), **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*args, claude=claude),
            env={**self.env, **env},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=HUNG_S,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.root / "report.json").read_text())
        return data


def sleeping(seconds: str) -> list[int]:
    """The processes of `FAKE_SLEEP` that are there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"/bin/sleep\0%s\0" % seconds.encode():
                found.append(int(path.parent.name))
    return [pid for pid in found if alive(pid)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"
    except ProcessLookupError:  # it has gone since
        return False
