"""Connects a run with a cluster: checks every node before anything starts, and makes the launcher."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from claude_orchestrator import __version__
from claude_orchestrator.config.fields import SHIP
from claude_orchestrator.config.settings import MeterChoice, Settings
from claude_orchestrator.engine.loading import Loaded
from claude_orchestrator.engine.state import State
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.cluster.agent import NodeAgent
from claude_orchestrator.launch.cluster.checks import Wanted, by_node, crowded
from claude_orchestrator.launch.cluster.instance_memory import MIB, InstanceMemory, recalled
from claude_orchestrator.launch.cluster.leases import DriverLease
from claude_orchestrator.launch.cluster.machines import Accepted, Node
from claude_orchestrator.launch.cluster.placement import USABLE, Placement, site_of
from claude_orchestrator.launch.cluster.probe import Question, output_of
from claude_orchestrator.launch.cluster.wire import Begin
from token_budget import places
from token_budget.files import write_atomically
from token_budget.named_tuples import NamedTuple
from token_budget.text import counted

if TYPE_CHECKING:
    from claude_orchestrator.config.launch_spec import LaunchSpec
    from claude_orchestrator.config.plan import Plan
    from claude_orchestrator.engine.preparation import Planned
    from claude_orchestrator.gateway.nodes.messages import MeterBegin
    from claude_orchestrator.launch.cluster.launcher import ClusterLauncher
    from claude_orchestrator.launch.cluster.ray_cluster import RayCluster

EXTRA = "the extra cluster (pip install 'claude-orchestrator[cluster]')"
TRIED_RAY = "2.60.0"
LEAST_LEASE_S = 2.0
MOST_NAMES = 3
NOT_ENCRYPTED = (
    "--cluster: Ray does not encrypt what its machines send each other, API keys included: the page about clusters "
    "shows how to switch TLS on"
)
# variables of this machine that instances on nodes get too; those that hold a key are among them
SENT = ("ANTHROPIC_", "CLAUDE_CODE_", "AWS_", "IS_SANDBOX", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING")
KEYS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)


def meter_begin(settings: Settings, plan: Plan, *, rehearse: bool) -> MeterBegin:
    """How the gateways on nodes treat requests."""
    from claude_orchestrator.gateway.nodes.messages import MeterBegin
    from claude_orchestrator.gateway.unanswered import ChargeUnanswered

    how = ChargeUnanswered(settings.charge_unanswered) if settings.charge_unanswered else None
    limits_subagents = any(spec.subagent_limits for spec in plan.specs)
    enforces = settings.budget_enforcement_mode == "block"
    return MeterBegin(enforces, settings.token_weights, limits_subagents, settings.cache_wait_s, how, rehearse)


class OpenCluster(NamedTuple):
    """A cluster whose nodes have been checked. `settings` are the run's, with as many instances at once as it takes.

    `memory` is what an instance takes.
    """

    cluster: RayCluster
    nodes: tuple[Node, ...]
    accepted: Mapping[str, Accepted]
    begin: Begin
    settings: Settings
    warnings: tuple[str, ...]
    memory: InstanceMemory

    def launcher(self, mark: str, warn: Callable[[str], None], changed: Callable[[], None]) -> ClusterLauncher:
        """The launcher of a run whose processes carry this mark."""
        from claude_orchestrator.launch.cluster.launcher import Callbacks, ClusterLauncher

        begin = self.begin._replace(mark=mark)
        return ClusterLauncher(self.cluster, begin, self.accepted, Callbacks(warn, changed), memory=self.memory)

    def describe(self, specs: Sequence[LaunchSpec]) -> list[str]:
        """The nodes, how many instances each takes, and which ones it would get first."""
        sites = placement_of(self.nodes, self.accepted, self.memory)
        for spec in specs:
            if spec.grows is None:
                sites.take(spec.name, spec.node)
        total = counted(sites.capacity, "instance")
        lines = [f"Cluster: {counted(len(self.nodes), 'node')} for {total} at once, lease {self.begin.lease_s:g} s"]
        if any(site.room for site in sites.sites):
            lines.append(f"   {self.memory.text} for each instance")
        for site in sites.sites:
            names = [spec.name for spec in specs if spec.name in site.taken]
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            first = f": first {', '.join(names[:MOST_NAMES])}{more}" if names else ""
            lines.append(f"   {site.name}  takes {counted(site.capacity, 'instance')}{first}")
        if self.begin.ships:
            lines.append("   The repository travels to each node, with all that git does not ignore")
        return lines

    def close(self) -> None:
        """Leave the cluster; one that was started here ends. What was measured is kept for later runs."""
        self.cluster.__exit__(None, None, None)
        measured = self.memory.remembered()
        if measured is not None:
            with contextlib.suppress(OSError):  # a later run measures again
                memory_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_atomically(memory_file(), [measured], mode=0o600, durable=False)


def placement_of(nodes: Sequence[Node], accepted: Mapping[str, Accepted], memory: InstanceMemory) -> Placement:
    """The places of these nodes, all of them free."""
    found = Placement()
    for node in nodes:
        found.add(node.key, site_of(node, accepted[node.key], memory.expected_bytes))
    return found


def memory_file() -> Path:
    """What instances of earlier runs on clusters have taken."""
    return places.state_dir() / "instance-memory.json"


def _memory_of_earlier_runs() -> InstanceMemory:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return InstanceMemory(recalled(memory_file().read_text(encoding="utf-8")))
    return InstanceMemory()


def open_cluster(
    loaded: Loaded, planned: Planned, meter: MeterChoice, *, private: bool, say: Callable[[str], None]
) -> OpenCluster:
    """Connect with the cluster and check each of its nodes. Raises UserError with all that is wrong, by node.

    `say` gets a message before that, because it takes some seconds.
    """
    begun_s = time.monotonic()
    address, settings, simulated = loaded.options["cluster"], planned.settings, bool(loaded.options["rehearse"])
    if settings.lease_s < LEAST_LEASE_S:
        raise UserError(f"--lease: expected at least {LEAST_LEASE_S:g} s, got {settings.lease_s:g} s")
    try:
        from claude_orchestrator.launch.cluster.ray_cluster import LOCAL, RayCluster
    except ModuleNotFoundError as error:
        raise UserError(f"--cluster: needs {EXTRA}, and has no {error.name}") from None
    except ImportError as error:
        raise UserError(f"--cluster: {error}: pip install 'ray=={TRIED_RAY}' on all machines") from None
    agent, metered = NodeAgent, meter.kind == "api"
    if metered:
        from claude_orchestrator.gateway.nodes.agent import MeteredAgent

        agent = MeteredAgent
    with contextlib.ExitStack() as stack:
        claude = "" if simulated else planned.claude
        ships = settings.cluster_workspace == SHIP and not simulated
        workspace = "" if ships else str(loaded.workspace)
        marker = "" if ships else stack.enter_context(_marker(loaded, planned))
        sent = {} if simulated else {name: value for name, value in os.environ.items() if name.startswith(SENT)}
        wanted = Wanted(
            __version__,
            workspace,
            claude,
            output_of([claude, "--version"]) if claude else "",
            any(sent.get(name) for name in KEYS),
            output_of(["git", "-C", workspace, "rev-parse", "HEAD"]) if workspace else "",
            marker,
            metered,
            ships,
        )
        question = Question(claude, workspace, KEYS, marker)
        say("starting Ray on this machine" if address == LOCAL else "connecting to the cluster and checking its nodes")
        try:
            cluster = stack.enter_context(RayCluster(address, question, wanted, settings.instances_per_node, agent))
        except ConnectionError as error:
            raise UserError(f"--cluster: {error.strerror}: nothing has started") from None
        memory = _memory_of_earlier_runs()
        nodes, accepted, warnings = _checked(cluster, planned.plan.specs, memory)
        if not cluster.is_encrypted and (len(nodes) > 1 or any(node.is_elsewhere for node in nodes)):
            warnings.insert(0, NOT_ENCRYPTED)
        for node in nodes if settings.instances_per_node and not simulated else ():
            found = crowded(settings.instances_per_node, accepted[node.key].free_bytes, memory)
            warnings += [f"node {node.name}: {text}" for text in found]
        stack.pop_all()
    if settings.origins.get("max_parallel") == "default":
        settings = settings._replace(max_parallel=placement_of(nodes, accepted, memory).capacity)
    begin = Begin("", settings.lease_s, sent, private, simulated, ships=ships)
    if metered:
        begin = begin._replace(meter=meter_begin(settings, planned.plan, rehearse=simulated))
    _wait_for_earlier(loaded, begun_s)
    return OpenCluster(cluster, nodes, accepted, begin, settings, tuple(warnings), memory)


def _wait_for_earlier(loaded: Loaded, begun_s: float) -> None:
    """Wait until the leases of the driver that was killed must have ended: no two processes may use one session."""
    earlier = loaded.earlier
    if earlier is None or not loaded.options.may_write:
        return
    if any(instance.state is State.RUNNING for instance in earlier.history.instances.values()):
        lease = DriverLease(loaded.settings.lease_s, 0.0, begun_s)
        time.sleep(max(0.0, lease.surely_ended_at_s - time.monotonic()))


def _checked(
    cluster: RayCluster, specs: Sequence[LaunchSpec], memory: InstanceMemory
) -> tuple[tuple[Node, ...], dict[str, Accepted], list[str]]:
    """The nodes that may run instances, as far as they have processors, and what was found of each."""
    try:
        found = cluster.nodes_now()
    except OSError as error:
        raise UserError(f"--cluster: {error.strerror}: nothing has started") from None
    nodes = tuple(node for node in found if not node.is_draining)
    if not nodes:
        raise UserError("--cluster: it has no node with processors: nothing has started")
    examined = cluster.examine(nodes)
    faults = by_node((node.name, fault) for node in nodes for fault in examined[node.key][0].faults)
    if faults:
        raise UserError(*faults)
    accepted = {key: result for key, (result, _) in examined.items()}
    sites = placement_of(nodes, accepted, memory)
    if not sites.capacity:
        raise UserError(*_without_memory(nodes, accepted, memory))
    homeless = [
        f"--cluster: no node has what {spec.name} needs: {_wants(spec)}: start a node that declares it with `ray start "
        "--resources`, or change `node` in the config"
        for spec in specs
        if spec.node and not sites.suits_any(spec.node)
    ]
    if homeless:
        raise UserError(*homeless[:20])
    return nodes, accepted, [f"node {node.name}: {text}" for node in nodes for text in examined[node.key][1]]


def _without_memory(nodes: Sequence[Node], accepted: Mapping[str, Accepted], memory: InstanceMemory) -> Iterator[str]:
    for node in nodes:
        room = accepted[node.key].room
        if room is not None:
            free = f"has {room.memory_bytes // MIB} MiB of free memory, of which {USABLE:.0%} can be used"
            yield f"--cluster: node {node.name}: {free}, and an instance takes {memory.text}: set --instances-per-node"


def _wants(spec: LaunchSpec) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in spec.node)


@contextlib.contextmanager
def _marker(loaded: Loaded, planned: Planned) -> Iterator[str]:
    """A file in the output folder, while this is open, if instances have worktrees there; else an empty name."""
    if not any(spec.worktree for spec in planned.plan.specs) or not loaded.options.may_write:
        yield ""
        return
    path = Path(loaded.output_dir, f".seen-by-nodes-{os.urandom(8).hex()}").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=False)
        yield str(path)
    except OSError as error:
        raise UserError(f"--output-dir: {path.parent}: cannot be written: {error.strerror or error}") from None
    finally:
        path.unlink(missing_ok=True)
