"""A cluster of four nodes on this machine: cost of an instance, latency of events and of decisions, the hard cap.

    python -m tests.benchmarks.cluster [--quick]

Needs Ray. The nodes, the driver, the API and its clients share this machine's cores, so latencies are upper bounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from claude_orchestrator import __version__
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.gateway.nodes.agent import MeteredAgent
from claude_orchestrator.gateway.nodes.driver_meter import DriverMeter
from claude_orchestrator.gateway.nodes.messages import MeterBegin
from claude_orchestrator.gateway.server import Gateway
from claude_orchestrator.launch.base import Running
from claude_orchestrator.launch.cluster.checks import Wanted
from claude_orchestrator.launch.cluster.launcher import Callbacks, ClusterLauncher
from claude_orchestrator.launch.cluster.machines import Accepted
from claude_orchestrator.launch.cluster.probe import Question
from claude_orchestrator.launch.cluster.wire import Begin
from tests.benchmarks.hard_cap import Counted, Outcome, client
from tests.benchmarks.simulated_api import SimulatedApi
from tests.metered import Metered
from tests.ray_nodes import RayNodes, ray_nodes
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

NODES = 4
# prints the time twenty times a second, as an instance prints its events
CLOCK = "import time\nfor _ in range(200):\n    print(time.monotonic(), flush=True)\n    time.sleep(0.05)\n"


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in ms."""
    ordered = sorted(values)
    middle, high = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return {"p50_ms": round(middle * 1000, 2), "p99_ms": round(high * 1000, 2)}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def specs(count: int, seconds: float) -> tuple[LaunchSpec, ...]:
    rehearsal = {"tokens": 20_000, "seconds": seconds, "turns": 4}
    instances = [{"name": f"i{n}", "prompt": "x", "rehearsal": rehearsal} for n in range(count)]
    return make_plan(parse_config({"instances": instances}, "b"), Settings(), workspace="/", claude_bin="claude").specs


async def to_the_end(running: Running, turn: str) -> int:
    """Send the turn and read everything; returns the bytes."""
    running.send({"type": "user", "message": {"role": "user", "content": turn}})
    running.close_input()
    size = 0
    async for batch in running.output():
        size += len(batch.raw)
    await running.wait()
    return size


async def thousand(launcher: ClusterLauncher, count: int) -> dict[str, object]:
    """Simulated instances, all at once: what each costs the driver."""
    planned = specs(count, 10.0)
    for spec in planned:
        launcher.take(spec)
    begun, cpu = time.monotonic(), cpu_s()

    async def one(spec: LaunchSpec) -> int:
        return await to_the_end(await launcher.launch(spec), spec.turns[-1])

    sizes = await asyncio.gather(*(one(spec) for spec in planned))
    for spec in planned:
        launcher.give_back(spec.name)
    return {
        "instances": count,
        "seconds": round(time.monotonic() - begun, 1),
        "driver_cpu_ms_each": round((cpu_s() - cpu) / count * 1000, 2),
        "kbytes_each": round(sum(sizes) / count / 1000, 1),
        "driver_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


async def latency(launcher: ClusterLauncher, count: int) -> dict[str, object]:
    """Real processes that print the time: how long a line is on its way to the driver."""
    planned = [spec._replace(argv=(sys.executable, "-c", CLOCK)) for spec in specs(count, 1.0)]
    late: list[float] = []

    async def one(spec: LaunchSpec) -> None:
        launcher.take(spec)
        running = await launcher.launch(spec)
        async for batch in running.output():
            late.extend(time.monotonic() - float(line) for line in batch.lines.split())
        await running.wait()
        launcher.give_back(spec.name)

    await asyncio.gather(*(one(spec) for spec in planned))
    return {"processes": count, "lines": len(late), **quantiles(late)}


async def decisions(urls: Sequence[str], rounds: int) -> dict[str, float]:
    """One request after the other through each gateway in turn: the time to the first byte."""
    waits: list[float] = []
    async with aiohttp.ClientSession() as session:
        for number in range(rounds):
            body = {"max_tokens": 100, "messages": [{"role": "user", "content": "x"}], "metadata": {"needs": 1}}
            begun = time.perf_counter()
            async with session.post(f"{urls[number % len(urls)]}/v1/messages", json=body) as answer:
                await answer.content.readany()
                waits.append(time.perf_counter() - begun)
                await answer.read()
    return quantiles(waits[len(urls) :])


async def capped(nodes: RayNodes, cluster: object, quick: bool) -> None:
    """The hard cap with 64 clients over the nodes, and what a decision of the driver adds to a request."""
    api = SimulatedApi(tokens_per_s=20_000)
    await api.start()
    environ, limit = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{api.port}"}, 500_000
    manager = TokenBudgetManager(limit, "block")
    meter_begin = MeterBegin(True, Weights())
    begin = Begin("bench", 30.0, environ, simulated=True, meter=meter_begin)
    accepted = {node.key: Accepted(1000) for node in await cluster.nodes()}  # type: ignore[attr-defined]
    launcher = ClusterLauncher(cluster, begin, accepted, Callbacks(print, lambda: None))  # type: ignore[arg-type]
    roomy, outcome = TokenBudgetManager(10**9, "block"), Outcome(0, 0.0, 0, 0, 0, 0.0)
    far = DriverMeter(roomy, meter_begin, launcher.gateway_of, environ)
    meter = DriverMeter(manager, meter_begin, launcher.gateway_of, environ)
    launcher.attach(meter)
    launcher.attach(far)
    async with launcher, Gateway(roomy, Weights(), environ=environ) as here:
        planned = specs(64, 1.0)
        for spec in planned:
            launcher.take(spec)
        rounds = 200 if quick else 1000
        places = [far.open(Metered(roomy.budgets), spec.name) for spec in planned[:NODES]]
        near = [here.open(Metered(roomy.budgets)).url for _ in range(NODES)]
        await asyncio.sleep(0.5)
        for turn in range(3):
            row = {"turn": turn, "here": await decisions(near, rounds)}
            row["over_the_driver"] = await decisions([place.client.url for place in places], rounds)
            print(json.dumps({"benchmark": "cluster_decision", **row}), flush=True)
        for place in places:
            await far.close(place)
        attempts = [Metered(manager.budgets, on_usage=Counted(manager).take) for _ in planned]
        used = [meter.open(attempt, spec.name) for attempt, spec in zip(attempts, planned, strict=True)]
        await asyncio.sleep(0.5)
        before = api.billed
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            urls = [place.client.url for place in used]
            await asyncio.gather(*(client(n, url, session, outcome, 20) for n, url in enumerate(urls)))
        for place in used:
            await meter.close(place)
        billed = api.billed - before
        figures = {"clients": 64, "nodes": NODES, "limit": limit, "beyond": max(0, billed - limit)}
        print(json.dumps({"benchmark": "cluster_cap", **figures, "used_percent": round(billed / limit * 100, 1)}))
    assert api.runner is not None
    await api.runner.cleanup()


async def work(nodes: RayNodes, quick: bool) -> None:
    from claude_orchestrator.launch.cluster.ray_cluster import RayCluster

    asked = Question("", "/"), Wanted(__version__, "/")
    with RayCluster(nodes.address, *asked, 1000, MeteredAgent) as cluster:
        for simulated in (True, False):
            accepted = {node.key: Accepted(1000) for node in await cluster.nodes()}
            begin = Begin(f"bench-{os.getpid()}-{simulated}", 30.0, {}, simulated=simulated)
            async with ClusterLauncher(cluster, begin, accepted, Callbacks(print, lambda: None)) as launcher:
                if simulated:
                    row = await thousand(launcher, 200 if quick else 1000)
                else:
                    row = await latency(launcher, 8)
                name = "cluster_instances" if simulated else "cluster_events"
                print(json.dumps({"benchmark": name, "load": os.getloadavg()[0], **row}), flush=True)
        await capped(nodes, cluster, quick)


def main() -> None:
    """Print a JSON line for each figure."""
    with ray_nodes(NODES) as nodes:
        os.environ.update(nodes.env)
        asyncio.run(work(nodes, "--quick" in sys.argv))


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
