"""The reasons against using a node, from its answers, and what deserves a warning. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from claude_orchestrator.launch.cluster.instance_memory import MIB, InstanceMemory
from claude_orchestrator.launch.cluster.probe import Facts
from token_budget.named_tuples import NamedTuple
from token_budget.text import counted

LEAST_DISK_BYTES = 100 * 1024 * 1024
CLOCK_S = 2.0
NONE_HERE = "Could not find any running Ray instance"
VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


class Wanted(NamedTuple):
    """What the driver itself has, and what it needs on each node. `claude` is empty if instances are simulated.

    `has_key`: the driver sends a key. `marker`: each node has to see the driver's output folder. `metered`:
    each node needs a gateway. `ships`: the workspace travels there, so none is needed, but git.
    """

    package: str
    workspace: str
    claude: str = ""
    claude_version: str = ""
    has_key: bool = False
    head: str = ""
    marker: str = ""
    metered: bool = False
    ships: bool = False


def faults(wanted: Wanted, facts: Facts) -> Iterator[str]:
    """All reasons against using a node."""
    if not facts.package:
        yield f"claude-orchestrator is not installed: install {wanted.package} there"
    elif facts.package != wanted.package:
        yield f"has claude-orchestrator {facts.package}, and this machine has {wanted.package}"
    if wanted.ships:
        if not facts.has_git:
            yield "has no git, which --cluster-workspace ship needs: install it there"
    elif not facts.has_workspace:
        yield f"has no folder {wanted.workspace}: the workspace has to be at the same path on every node"
    elif wanted.head and facts.head != wanted.head:
        yield f"its {wanted.workspace} is at commit {facts.head[:12] or 'none'}, and here at {wanted.head[:12]}"
    if wanted.marker and not facts.sees_marker:
        yield "does not share the output folder, which instances with worktrees need: name a shared one by --output-dir"
    if facts.disk_bytes < LEAST_DISK_BYTES:
        yield f"has {facts.disk_bytes // 1024**2} MiB of disk left, and needs {LEAST_DISK_BYTES // 1024**2}"
    if wanted.metered and not facts.has_gateway:
        yield "lacks the extra gateway, which --meter api needs: pip install 'claude-orchestrator[gateway]' there"
    if wanted.claude:
        yield from _faults_of_claude(wanted, facts)


def _faults_of_claude(wanted: Wanted, facts: Facts) -> Iterator[str]:
    if not facts.claude:
        yield f"has no claude that runs: {wanted.claude}"
    elif not wanted.has_key and not facts.has_login:
        yield "has neither an API key nor claude's login: set ANTHROPIC_API_KEY here, or log in there"


def warnings(wanted: Wanted, facts: Facts, asked_at_s: float, answered_at_s: float) -> Iterator[str]:
    """What deserves a warning. The node's clock is compared with this machine's clock."""
    if wanted.claude and facts.claude and wanted.claude_version and facts.claude != wanted.claude_version:
        yield f"has claude {facts.claude}, and this machine has {wanted.claude_version}"
    off_s = max(asked_at_s - facts.clock_s, facts.clock_s - answered_at_s, 0.0)
    if off_s > CLOCK_S:
        yield f"its clock differs by {off_s:.0f} s from this machine's, so times in its logs may mislead"


def crowded(per_node: int, free_bytes: int, memory: InstanceMemory) -> Iterator[str]:
    """A warning if so many instances take more memory than a node has left."""
    needed = per_node * memory.expected_bytes
    if needed > free_bytes:
        yield (
            f"has {free_bytes // MIB} MiB of free memory, and {counted(per_node, 'instance')} may need "
            f"{-(-needed // MIB)} MiB ({memory.text} for each)"
        )


def refusal_of(error: str) -> str:
    """What Ray says when a cluster cannot be joined, in one line; with all versions, if these differ.

    Ray names the versions of the cluster first, and then those of this process (`ray._private.utils.
    check_version_info`). Where it finds no cluster, its advice names options that this program does not have.
    """
    if NONE_HERE in error:
        return "this machine belongs to no cluster: begin one with ray start, or name another one by HOST:PORT"
    match VERSIONS.findall(error):
        case [(ray, python), (own_ray, own_python)]:
            theirs, ours = f"Ray {ray} and Python {python}", f"Ray {own_ray} and Python {own_python}"
            return f"the cluster has {theirs}, and this machine has {ours}: both need the same versions"
    return next((line.strip() for line in error.splitlines() if line.strip()), "")


def by_node(found: Iterable[tuple[str, str]], most: int = 40) -> list[str]:
    """All faults, each after the name of its node."""
    lines = [f"--cluster: node {name}: {fault}" for name, fault in found]
    if len(lines) > most:
        lines[most:] = [f"--cluster: {counted(len(lines) - most, 'more fault')} like these"]
    return lines
