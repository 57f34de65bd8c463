"""The real claude and an API that caches as documented: the shared prefix is written once."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from claude_orchestrator.claude.versions import check_version
from tests.benchmarks.cache_sharing import measure, prepare, script, system_of
from tests.limits import HUNG_S
from tests.prompt_cache import CachingApi
from tests.stand_in import claude_env

pytestmark = [pytest.mark.real_cli, pytest.mark.slow]

OPTIONS = Namespace(instances=3, parallel=3, first_byte=1.0)


@pytest.mark.parametrize("meter", ["stream", "api"])
@pytest.mark.parametrize("place", ["folder", "worktrees"])
def test_the_shared_prefix_is_written_once(claude: str, place: str, meter: str) -> None:
    measured, api = measure(claude, place, OPTIONS, meter, "auto")
    read = [digest for digest, times in api.cache.reads.items() if times]
    assert read and {api.cache.writes[digest] for digest in read} == {1}
    assert measured.read > 0 < measured.written


@pytest.mark.parametrize("share", ["auto", "off"])
def test_worktrees_have_the_same_system_prompt_if_they_share(claude: str, share: str) -> None:
    _, api = measure(claude, "worktrees", OPTIONS, "stream", share)
    is_different = share == "off" and check_version(claude).names_worktree
    assert len({system_of(body) for body in api.bodies}) == (OPTIONS.instances if is_different else 1)


def test_subagents_share_at_the_gateway(claude: str) -> None:
    _, api = measure(claude, "subagents", OPTIONS, "api", "auto")
    read = [digest for digest, times in api.cache.reads.items() if times]
    assert {api.cache.writes[digest] for digest in read} == {1}


def test_two_runs_with_one_ledger_write_it_once_together(claude: str, tmp_path: Path) -> None:
    with CachingApi(script("folder"), first_byte_s=2.0) as api:
        config = prepare(tmp_path, "folder", 2)
        base = [sys.executable, "-m", "claude_orchestrator", "--config", str(config), "--workspace", f"{tmp_path}/work"]
        base += ["--ledger", str(tmp_path / "ledger.db"), "--claude-bin", claude]
        running = [
            subprocess.Popen(
                [*base, "--output-dir", f"{tmp_path}/{name}", "--quiet", "--meter", "api"],
                env=claude_env(tmp_path, api.url),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in ("first", "second")
        ]
        for run in running:
            said, _ = run.communicate(timeout=HUNG_S)
            assert run.returncode == 0, said
    tools_and_system = [block.digest for block in api.asked[0].written[:2]]
    assert [api.cache.writes[digest] for digest in tools_and_system] == [1, 1]
    for path in tmp_path.glob("ledger.db*"):
        assert b"dummy" not in path.read_bytes()  # the key
