"""Many at once and many in a row: counted exactly, with no thread for each and memory flat."""

from __future__ import annotations

import gc
import os
import threading
import uuid
from pathlib import Path

import pytest

from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.local import LocalLauncher, raise_file_limit, use_pidfd_watcher
from tests.harness import Outcome, run_config
from tests.limits import HUNG_S

# an instance as small as it can be: a shell that says what claude says; SECONDS is how long its response takes
CLAUDE = """#!/bin/sh
read turn
echo '{"type":"system","subtype":"init","model":"m","session_id":"s"}'
echo '{"type":"stream_event","event":{"type":"message_start","message":{"id":"m","usage":{"input_tokens":100}}}}'
[ "$SECONDS_EACH" = 0 ] || sleep $SECONDS_EACH
printf %s '{"type":"stream_event","event":{"type":"message_delta","delta":{"stop_reason":"end_turn"},'
echo '"usage":{"output_tokens":7}}}'
printf %s '{"type":"result","subtype":"success","is_error":false,"num_turns":1,'
echo '"modelUsage":{"m":{"inputTokens":100,"outputTokens":7}}}'
while read line; do :; done
"""


def run_many(tmp_path: Path, count: int, parallel: int, seconds: str, watch: Watch) -> Outcome:
    use_pidfd_watcher()
    raise_file_limit(parallel)
    claude = tmp_path / "claude"
    claude.write_text(CLAUDE)
    claude.chmod(0o755)
    launcher = LocalLauncher(f"many-{uuid.uuid4().hex[:8]}", {"PATH": os.environ["PATH"], "SECONDS_EACH": seconds})
    entries = [{"name": f"i{n}", "prompt": "x"} for n in range(count)]
    return run_config(
        {"instances": entries},
        launcher,
        workspace=tmp_path,
        claude=str(claude),
        max_parallel=parallel,
        overall_token_budget=10**9,
        on_change=watch.look,
        time_limit_s=HUNG_S,
    )


class Watch:
    """What was seen while a run went on."""

    def __init__(self) -> None:
        self.threads = 0
        self.running = 0
        self.ended = 0
        self.resident: dict[int, int] = {}

    def look(self, supervisor: Supervisor) -> None:
        self.threads = max(self.threads, threading.active_count())
        ended = sum(status.ended for status in supervisor.instances)
        self.running = max(self.running, sum(status.state is State.RUNNING for status in supervisor.instances))
        if ended // 500 > self.ended // 500:
            gc.collect()
            self.resident[ended // 500 * 500] = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        self.ended = ended


def check(outcome: Outcome, count: int) -> None:
    assert all(status.state is State.COMPLETED for status in outcome.instances)
    assert [status.total_tokens for status in outcome.instances] == [107] * count
    assert outcome.manager.total_usage == 107 * count and all(status.exact for status in outcome.instances)
    assert all(budget.held == 0 for budget in outcome.manager.budgets)


@pytest.mark.slow
def test_500_at_once_are_counted_exactly_without_a_thread_for_each(tmp_path: Path) -> None:
    watch = Watch()
    check(run_many(tmp_path, 500, 500, "6", watch), 500)
    assert watch.running == 500 and watch.threads <= 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_2000_short_ones_leave_memory_flat(tmp_path: Path) -> None:
    """What stays of each is its status: some kilobytes."""
    watch = Watch()
    check(run_many(tmp_path, 2000, 50, "0", watch), 2000)
    assert set(watch.resident) >= {500, 2000} and watch.threads <= 4
    assert watch.resident[2000] - watch.resident[500] < 1500 * 8192
