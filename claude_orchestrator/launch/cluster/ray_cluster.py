"""A cluster of Ray: the only module that imports it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, TypeVar

# before the import: a run reports nothing to anybody, and a call after the end starts no other cluster
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", "2")  # Ray tries for longer by itself
# without its head, Ray would end this process after a minute, and no report would be written
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(7 * 24 * 3600))

import ray
from ray import cloudpickle
from ray.exceptions import RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from claude_orchestrator.launch.cluster import checks, probe, ray_private
from claude_orchestrator.launch.cluster.agent import NodeAgent
from claude_orchestrator.launch.cluster.checks import Wanted
from claude_orchestrator.launch.cluster.instance_memory import Room
from claude_orchestrator.launch.cluster.local_folder import local_folder
from claude_orchestrator.launch.cluster.machines import Accepted, AgentLost, Node
from claude_orchestrator.launch.cluster.probe import Facts, Question
from claude_orchestrator.launch.cluster.wire import Begin, Begun, BundlePart, Command, Event

_T = TypeVar("_T")
LOCAL, AUTO = "local", "auto"
KNOCK_S = 5.0
STORE_BYTES = 80 * 1024 * 1024  # Ray's least is 75 MiB
PROBE_S = 60.0
ENCRYPTED = "RAY_USE_TLS"


class RayAgent:
    """An agent of a node as an actor. It is never started a second time by Ray."""

    def __init__(self, key: str, agent: type[NodeAgent]) -> None:
        actor = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=1000)(agent)
        self._actor = actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False)).remote()

    async def begin(self, begin: Begin) -> Begun:
        """Begin to work for a run."""
        return await _answer(self._actor.begin.remote(begin))

    async def renew(self, token_s: float) -> float:
        """Extend the lease by a token."""
        return await _answer(self._actor.renew.remote(token_s))

    async def tell(self, commands: Sequence[Command]) -> None:
        """Have these things done, in order."""
        await _answer(self._actor.tell.remote(commands))

    async def stock(self, store: str) -> list[str]:
        """The commits that the node has of a repository from earlier runs."""
        return await _answer(self._actor.stock.remote(store))

    async def receive(self, part: BundlePart) -> str:
        """Take a part of a bundle."""
        return await _answer(self._actor.receive.remote(part))

    async def take(self) -> list[Event]:
        """The next events."""
        return await _answer(self._actor.take.remote())

    async def end(self) -> None:
        """The run is over."""
        await _answer(self._actor.end.remote())

    def kill(self) -> None:
        """End the agent's process, if it can be reached."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._actor)


async def _answer(reference: Awaitable[_T]) -> _T:
    try:
        return await reference
    except RayError:
        raise AgentLost from None


class RayCluster:
    """A context with a connection to a cluster. With the address `local`, the cluster begins and ends with it.

    Entering it raises ConnectionError. `per_node` is how many instances each node takes; 0: as many as there is
    room for.
    """

    def __init__(
        self, address: str, question: Question, wanted: Wanted, per_node: int, agent: type[NodeAgent] = NodeAgent
    ) -> None:
        self._address = address
        self._question = question
        self._wanted = wanted
        self._per_node = per_node
        self._agent = agent
        self._closing = contextlib.ExitStack()
        self._listing: Future[tuple[Node, ...]] | None = None

    def __enter__(self) -> RayCluster:
        with self._closing:
            with _quiet():
                self._connect()
            self._closing.callback(ray.shutdown)
            cloudpickle.register_pickle_by_value(probe)
            self._closing = self._closing.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        address = self._address
        if address == AUTO:
            address = os.environ.get("RAY_ADDRESS") or AUTO  # Ray would try for minutes, as with any other address
        if address not in (LOCAL, AUTO):
            _knock(address)
        if address == LOCAL:
            options["_temp_dir"] = str(self._closing.enter_context(local_folder()))
            options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_gpus": 0}
        try:
            ray.init(address=address, **options)
        except (RayError, ConnectionError, RuntimeError, OSError, ValueError, TimeoutError) as error:
            raise ConnectionError(None, f"{address}: {_first_line(error)}") from None

    @property
    def is_encrypted(self) -> bool:
        """Whether Ray encrypts what its processes send each other."""
        return os.environ.get(ENCRYPTED, "0") not in ("", "0", "false")

    # -- Machines --

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive. Raises OSError if the cluster does not answer."""
        if self._listing is not None and not self._listing.done():
            raise OSError(None, "the cluster does not answer")
        self._listing = _in_thread(self.nodes_now)
        return await asyncio.wrap_future(self._listing)

    def nodes_now(self) -> tuple[Node, ...]:
        """The same, without an event loop. Nodes without processors run no instances, so they do not count."""
        try:
            listed = ray.nodes()
            found = [node for node in listed if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
            draining = ray_private.draining()
            here = ray.get_runtime_context().get_node_id()
        except (RayError, RuntimeError, OSError, ValueError) as error:
            raise OSError(None, f"the cluster does not answer: {_first_line(error)}") from None
        own = {node["NodeManagerAddress"] for node in listed if node["NodeID"] == here}
        hosts = [node["NodeManagerHostname"] for node in found]
        return tuple(
            Node(
                node["NodeID"],
                host if hosts.count(host) == 1 else f"{host}-{node['NodeID'][:6]}",
                node["Resources"],
                node["NodeID"] in draining,
                node["NodeManagerAddress"] not in own,
            )
            for node, host in zip(found, hosts, strict=True)
        )

    async def accept(self, node: Node) -> Accepted:
        """Check a node that has joined."""
        try:
            examining = _in_thread(lambda: self.examine((node,)))
            accepted, _ = (await asyncio.wrap_future(examining))[node.key]
        except RayError as error:
            return Accepted(0, (_unanswered(error),))
        return accepted

    def start_agent(self, key: str) -> RayAgent:
        """Start an agent on a node."""
        return RayAgent(key, self._agent)

    def examine(self, nodes: Sequence[Node]) -> dict[str, tuple[Accepted, list[str]]]:
        """Check nodes, all at once; returns what was found of each, with warnings, by its key."""
        asking = ray.remote(num_cpus=0, max_retries=0)(probe.probe)
        asked_at_s = time.time()
        asked = {
            node.key: asking.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.key, soft=False)).remote(
                self._question
            )
            for node in nodes
        }
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_S)
        return {key: self._judge(answer, asked_at_s) for key, answer in asked.items()}

    def _judge(self, answer: Any, asked_at_s: float) -> tuple[Accepted, list[str]]:
        try:
            facts = Facts(*ray.get(answer, timeout=0))
        except TimeoutError:
            return Accepted(0, (f"does not answer within {PROBE_S:g} s",)), []
        except RayError as error:
            return Accepted(0, (_unanswered(error),)), []
        room = None if self._per_node else Room(facts.cores, facts.free_bytes)
        found = tuple(checks.faults(self._wanted, facts))
        warnings = list(checks.warnings(self._wanted, facts, asked_at_s, time.time()))
        return Accepted(self._per_node, found, room, facts.free_bytes), warnings


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own messages off the terminal, and its handler off SIGTERM.

    Its messages about the end of workers would go to standard output, which carries data.
    """
    ray_private.keep_off_stdout()
    logger, before, handler = logging.getLogger("ray"), logging.getLogger("ray").level, signal.getsignal(signal.SIGTERM)
    logger.setLevel(logging.CRITICAL)
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # its parts in C++ write there
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
        logger.setLevel(before)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Raise ConnectionError at once if nobody listens there: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConnectionError(None, f"{address}: expected auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConnectionError(None, f"{address}: nobody answers there: {why}") from None
    ray_private.connect_once()


def _in_thread(call: Callable[[], _T]) -> Future[_T]:
    """Call it in a thread that the program does not wait for: without its head, Ray may never answer."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # as an executor does
            answer = partial(future.set_exception, error)
        else:
            answer = partial(future.set_result, result)
        with contextlib.suppress(InvalidStateError):  # nobody waits any more
            answer()

    threading.Thread(target=run, name="cluster", daemon=True).start()
    return future


def _unanswered(error: RayError) -> str:
    if isinstance(error, TaskUnschedulableError):
        return "cannot be asked: it has left the cluster"
    return f"cannot be asked: {_first_line(error).partition('. ')[0]}"  # advice about Ray's own tools follows


def _first_line(error: BaseException) -> str:
    return checks.refusal_of(str(error)) or type(error).__name__
