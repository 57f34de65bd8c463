"""Daemons that hide from a search for marks end with their instance, whichever of our processes is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from claude_orchestrator.launch.fence_kind import FENCE_VARIABLE
from tests.harness import ROOT
from tests.limits import HUNG_S
from tests.namespaces import WITH_NAMESPACES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fence is the Linux kernel's")
# in a process of its own, because that has to become a subreaper to see everything that is left
ROUND = """
import json, sys
from tests.benchmarks.kills import KINDS, become_subreaper, left_after
become_subreaper()
print(json.dumps(left_after(KINDS[sys.argv[1]], 0.0, {}, from_work=True)))
"""


def left_after(kind: str, fence: str) -> tuple[list[str], int]:
    """The names of the processes that a kill leaves, and the calls that instances make after it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), FENCE_VARIABLE: fence}
    done = subprocess.run([sys.executable, "-c", ROUND, kind], env=env, check=True, capture_output=True, timeout=HUNG_S)
    left, calls, *_ = json.loads(done.stdout)
    return left, calls


@pytest.mark.parametrize("kind", ["orchestrator", "guard", "keepers", "orchestrator and guard"])
def test_nothing_is_left_and_nothing_calls(kind: str) -> None:
    assert left_after(kind, "subreaper") == ([], 0)


@WITH_NAMESPACES
@pytest.mark.parametrize("kind", ["first processes", "guard and keepers", "all"])
def test_in_namespaces_nothing_is_left_whatever_is_killed(kind: str) -> None:
    assert left_after(kind, "namespace") == ([], 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["guard and keepers", "all"])
def test_no_instance_calls_after_its_keeper_and_the_guard_were_killed_together(kind: str) -> None:
    """Their daemons can stay: nothing is left that could know them."""
    left, calls = left_after(kind, "subreaper")
    assert calls == 0 and "claude" not in left


@pytest.mark.slow
def test_without_the_fence_such_a_daemon_survives() -> None:
    left, calls = left_after("orchestrator", "mark")
    assert "sleep" in left and calls == 0
