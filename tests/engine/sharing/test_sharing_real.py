"""The real claude and an API that caches as documented: the shared prefix is written once."""

from __future__ import annotations

from argparse import Namespace

import pytest

from claude_orchestrator.claude.versions import check_version
from tests.benchmarks.cache_sharing import measure, system_of

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
