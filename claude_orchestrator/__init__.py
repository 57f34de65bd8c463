"""Run many headless Claude Code instances from one JSON config, inside token budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claude_orchestrator.api import InstanceConfig, InstanceResult, Run, RunOptions, UserError, arun, run

__version__ = "0.1.0"
__all__ = ["InstanceConfig", "InstanceResult", "Run", "RunOptions", "UserError", "arun", "run"]


def __getattr__(name: str) -> Any:
    """The public names, each imported when it is first used: the program itself needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from claude_orchestrator import api

    return getattr(api, name)
