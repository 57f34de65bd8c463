"""The mark of tests that need process namespaces."""

from __future__ import annotations

import sys

import pytest

from claude_orchestrator.launch.fence.guard import FenceGuard


def _are_allowed() -> bool:
    try:
        with FenceGuard("probe", "namespace"):
            return True
    except OSError:
        return False


WITH_NAMESPACES = pytest.mark.skipif(
    sys.platform != "linux" or not _are_allowed(), reason="this system allows no process namespaces"
)
