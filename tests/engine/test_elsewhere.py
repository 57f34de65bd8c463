"""Instances that work in copies of their folders, as on nodes: rules hold there, and lost work fails an instance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.state import State
from claude_orchestrator.launch.base import Capabilities, Exit
from tests.harness import run_config
from tests.scripted import Script, ScriptedRunning

RULES = {"default": "deny", "allow": ["Edit(src/**)"], "deny": ["Edit(src/secret)"]}


class Elsewhere(Script):
    """Instances in `/copy` that ask whether they may edit a file. `fault` is why their work is lost."""

    def __init__(self, file: str, fault: str = "", *, elsewhere: bool = True) -> None:
        super().__init__()
        self.capabilities = Capabilities(simulated=True, elsewhere=elsewhere)
        self.file, self.fault = file, fault
        self.replies: list[str] = []

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        await asyncio.sleep(0)
        return Asking(self, spec)


class Asking(ScriptedRunning):
    """One of them."""

    def __init__(self, script: Elsewhere, spec: LaunchSpec) -> None:
        super().__init__(script, spec)
        self.elsewhere = script

    def respond(self, text: str) -> None:
        self.emit({"type": "system", "subtype": "init", "model": "m", "cwd": "/copy"})
        request = {"subtype": "can_use_tool", "tool_name": "Edit", "input": {"file_path": self.elsewhere.file}}
        self.emit({"type": "control_request", "request_id": "q", "request": request})

    def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "control_response":
            self.elsewhere.replies.append(message["response"]["response"]["behavior"])
            self.result(is_error=False)
            return
        super().send(message)

    async def wait(self) -> Exit:
        return (await super().wait())._replace(fault=self.elsewhere.fault)


def run(script: Elsewhere, workspace: Path) -> tuple[State, str]:
    config = {"instances": [{"name": "one", "prompt": "x", "approvals": RULES}]}
    status = run_config(config, script, workspace=workspace).only
    return status.state, status.reason


@pytest.mark.parametrize(
    ("file", "reply"), [("/copy/src/a", "allow"), ("/copy/src/secret", "deny"), ("/copy/other", "deny")]
)
def test_rules_about_files_hold_where_an_instance_works(tmp_path: Path, file: str, reply: str) -> None:
    script = Elsewhere(file)
    assert run(script, tmp_path)[0] is State.COMPLETED and script.replies == [reply]


def test_here_the_folder_that_a_stream_names_changes_no_rule(tmp_path: Path) -> None:
    script = Elsewhere("/copy/src/a", elsewhere=False)
    run(script, tmp_path)
    assert script.replies == ["deny"]


def test_work_that_is_lost_fails_an_instance_that_has_done_it(tmp_path: Path) -> None:
    assert run(Elsewhere("/copy/src/a", "its work is lost"), tmp_path) == (State.FAILED, "its work is lost")
