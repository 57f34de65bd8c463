"""Where the instances of a run are launched, and how they reach the API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync
from claude_orchestrator.engine.run_events import Level, Message, Paced, RoomChanged
from claude_orchestrator.engine.run_request import RunRequest
from claude_orchestrator.engine.starts import Starts
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.base import Launcher
from claude_orchestrator.launch.guards import Guard, fence_of
from claude_orchestrator.launch.local import LocalLauncher
from token_budget.budget_manager import TokenBudgetManager
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.engine.ports import ApiMeter
    from claude_orchestrator.launch.cluster.launcher import ClusterLauncher
    from claude_orchestrator.launch.simulated import Ask

PACE_EVERY_S = 1.0
Keep = Callable[[LaunchSpec, str, str], str]  # as RunDirectory.keep


class Launching(NamedTuple):
    """The launcher of a run; also the guard of its processes if they run on this machine.

    `nodes` is the same launcher if they run on a cluster.
    """

    launcher: Launcher
    guard: Guard | None = None
    nodes: ClusterLauncher | None = None


def launching_for(request: RunRequest, mark: str, keep: Keep | None, bus: Bus) -> Launching:
    """How a run launches its instances. `keep` writes a private option to a file, if claude can read it there."""
    if request.on_cluster is not None:
        nodes = request.on_cluster(mark, bus.warn, lambda: bus.publish(RoomChanged()))
        return Launching(nodes, nodes=nodes)
    if request.rehearse:
        return Launching(_simulated())
    fence = fence_of(mark)
    return Launching(LocalLauncher(mark, keep=keep, fence=fence), fence or _mark_guard(mark))


def _mark_guard(mark: str) -> Guard:
    from claude_orchestrator.launch.processes import MarkGuard  # of systems without a fence

    return MarkGuard(mark)


def _simulated(ask: Ask | None = None) -> Launcher:
    from claude_orchestrator.launch.simulated import SimulatedLauncher  # not needed by other runs

    return SimulatedLauncher(ask)


def starts_of(launching: Launching, meter: ApiMeter | None) -> Starts | None:
    """What holds launches back while others start. Only a gateway sees when a start has ended."""
    if meter is None or launching.guard is None:
        return None
    from claude_orchestrator.launch.cluster.probe import cores
    from claude_orchestrator.launch.processors import IdleShare

    return Starts(cores(), IdleShare())


@contextlib.asynccontextmanager
async def way_to_api(
    launching: Launching, request: RunRequest, manager: TokenBudgetManager, ledger: LedgerSync, bus: Bus
) -> AsyncIterator[tuple[Launcher, ApiMeter | None]]:
    """The launcher, once it can be used, and the meter if the run counts at an API gateway.

    A rehearsal's gateway calls a simulated API.
    """
    async with contextlib.AsyncExitStack() as stack:
        launcher: Launcher = launching.launcher
        meter: ApiMeter | None = None
        if launching.nodes is not None:
            if request.meter.kind == "api":
                meter = _meter_of_nodes(launching.nodes, request, manager, None if request.rehearse else ledger)
            try:
                await stack.enter_async_context(launching.nodes)
            except OSError as error:
                raise UserError(f"--cluster: {error.strerror}: nothing has started") from None
        elif request.meter.kind == "api":
            launcher, meter = await _gateway(stack, launcher, request, manager, ledger)
        if meter is not None:
            stack.callback(asyncio.ensure_future(_watch_pace(meter, bus)).cancel)
        yield launcher, meter


async def _gateway(
    stack: contextlib.AsyncExitStack,
    launcher: Launcher,
    request: RunRequest,
    manager: TokenBudgetManager,
    ledger: LedgerSync,
) -> tuple[Launcher, ApiMeter]:
    """The gateway of this machine, and what launches instances that use it."""
    from claude_orchestrator.gateway.fake_api import FakeApi
    from claude_orchestrator.gateway.server import Gateway, GatewayOptions
    from claude_orchestrator.gateway.unanswered import ChargeUnanswered

    settings, upstream, board = request.settings, None, None
    if request.rehearse:
        api = await stack.enter_async_context(FakeApi())
        launcher, upstream = _simulated(api.ask), api.url
    else:
        board = ledger
    charge = ChargeUnanswered(settings.charge_unanswered) if settings.charge_unanswered else None
    options = GatewayOptions(settings.cache_wait_s, charge, board, keeps_cache=settings.keep_cache_warm)
    gateway = Gateway(manager, settings.token_weights, upstream=upstream, options=options)
    return launcher, await stack.enter_async_context(gateway)


def _meter_of_nodes(
    nodes: ClusterLauncher, request: RunRequest, manager: TokenBudgetManager, board: LedgerSync | None
) -> ApiMeter:
    """The meter of the gateways on all nodes."""
    from claude_orchestrator.engine.on_cluster import meter_begin
    from claude_orchestrator.gateway.nodes.driver_meter import DriverMeter

    begin = meter_begin(request.settings, request.plan, rehearse=request.rehearse)
    meter = DriverMeter(manager, begin, nodes.gateway_of, board=board)
    nodes.attach(meter)
    return meter


async def _watch_pace(meter: ApiMeter, bus: Bus) -> None:
    """Publish why requests wait for the API's rate limits, whenever that changes, until cancelled."""
    before, said = None, False
    while True:
        await asyncio.sleep(PACE_EVERY_S)
        pace = meter.pace()
        if pace is not None and not said:
            bus.publish(Message(Level.INFO, pace))
            said = True
        if pace != before:
            bus.publish(Paced(pace))
            before = pace
