"""Instances that may write into the same folder at the same time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from claude_orchestrator.claude.argv import asks_for_worktree
from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.launch_spec import LaunchSpec

WRITING_MODES = ("acceptEdits", "bypassPermissions")
WRITING_TOOLS = ("Edit", "MultiEdit", "NotebookEdit", "Write")
NAMED = 3  # of the instances in a warning


def shared_folders(specs: Sequence[LaunchSpec], instances: Sequence[InstanceConfig], at_once: int) -> Iterator[str]:
    """Warnings of instances that may write into the same folder at the same time."""
    writing: dict[str, list[str]] = {}
    for spec, instance in zip(specs, instances, strict=True):
        own = spec.worktree or asks_for_worktree(spec.argv)
        if not own and not spec.depends_on and may_write(instance):
            writing.setdefault(spec.cwd, []).append(spec.name)
    for folder, names in writing.items():
        if len(names) > 1 and at_once > 1:
            yield f"{some_of(names)} can change files in {folder} at once: the key worktree gives each its own folder"


def may_write(instance: InstanceConfig) -> bool:
    """Whether an instance may change files without asking."""
    tools = {tool.partition("(")[0].strip() for tool in instance.allowed_tools}
    return instance.permission_mode in WRITING_MODES or not tools.isdisjoint(WRITING_TOOLS)


def some_of(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
