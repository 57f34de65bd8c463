"""The launcher of a cluster, with agents in this process: nodes come, are drained, and are lost."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.cluster.instance_memory import MIB, InstanceMemory, Room
from claude_orchestrator.launch.cluster.launcher import Callbacks, ClusterLauncher
from claude_orchestrator.launch.cluster.leases import END_S
from claude_orchestrator.launch.cluster.link import NodeGone, NodeLink
from claude_orchestrator.launch.cluster.machines import Accepted
from claude_orchestrator.launch.cluster.wire import Begin, Memory
from tests.launch.cluster.in_process import Here
from tests.limits import HUNG_S

pytestmark = pytest.mark.processes


class Run:
    """A launcher, what it warned of, and how often places changed."""

    def __init__(self, here: Here, lease_s: float = 60.0) -> None:
        self.warnings: list[str] = []
        self.changes = 0
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", lease_s, {}, simulated=True)
        self.launcher = ClusterLauncher(here, begin, {}, Callbacks(self.warnings.append, self.changed))

    def changed(self) -> None:
        self.changes += 1


def specs(count: int, seconds: float = 60.0) -> tuple[LaunchSpec, ...]:
    rehearsal = {"tokens": 1000, "seconds": seconds}
    instances = [{"name": f"i{n}", "prompt": "x", "rehearsal": rehearsal} for n in range(count)]
    return make_plan(parse_config({"instances": instances}, "t"), Settings(), workspace="/", claude_bin="claude").specs


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not happen")


def within(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(HUNG_S):
            await work()

    asyncio.run(limited())


def test_a_node_that_joins_is_used_and_a_drained_one_gets_no_more() -> None:
    async def work() -> None:
        here = Here("n0", capacity=2)
        run = Run(here)
        async with run.launcher as launcher:
            assert launcher.free == 2 and launcher.capabilities.simulated
            here.alive["n1"] = True
            await until(lambda: launcher.free == 4)
            here.draining.add("n0")
            await until(lambda: launcher.free == 2)
            first, second, third = specs(3)
            for spec in (first, second):
                launcher.take(spec)
                assert launcher.placement.place_of(spec.name) == "n1"
            assert not launcher.has_room(third)
            running = await launcher.launch(first)
            running.stop(0.0)
            assert (await running.wait()).code == -9
            launcher.give_back(first.name)
            assert launcher.has_room(third) and run.changes >= 2
        assert run.warnings == ["the node n0 is drained: it gets no more instances"]

    within(work)


@pytest.mark.slow
def test_instances_of_a_lost_node_end_after_its_lease_and_the_node_is_used_again() -> None:
    async def work() -> None:
        here, lease_s = Here("n0"), 4.0  # its end would end this process
        run = Run(here, lease_s)
        (spec,) = specs(1)
        async with run.launcher as launcher:
            launcher.take(spec)
            running = await launcher.launch(spec)
            running.send({"type": "user", "message": {"role": "user", "content": "x"}})
            here.alive["n0"] = False
            begun = time.monotonic()
            async for _ in running.output():
                pass  # the stream ends when the node is lost
            assert time.monotonic() - begun < lease_s
            assert not launcher.free
            with pytest.raises(OSError, match="the node"):
                await launcher.launch(spec)
            ended = await running.wait()
            assert ended == Exit(-9, "the node n0 was lost", dropped_lines=1)
            assert time.monotonic() - begun > END_S
            running.stop(0.0)  # nobody is there to be told
            here.alive["n0"] = True
            await until(lambda: launcher.free > 0)
        assert here.started == ["n0", "n0"] and "the node n0 is lost" in run.warnings[0]

    within(work)


def test_what_was_about_to_start_on_a_lost_node_fails_once_its_lease_must_have_ended() -> None:
    """The node may have started it, and only its answer is missing."""

    async def work() -> None:
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", 60.0, {}, simulated=True)
        here = Here("n0")
        link = NodeLink("n0", here.start_agent("n0"), begin, lambda: None)
        assert await link.begin() == ""
        (spec,) = specs(1)
        launching = asyncio.ensure_future(link.launch(spec))
        await asyncio.sleep(0)
        here.alive["n0"] = False
        link.lose()
        await asyncio.sleep(0.05)
        assert not launching.done()
        link.fenced()
        with pytest.raises(NodeGone):
            await launching

    within(work)


def test_a_node_that_is_lost_while_it_begins_leaves_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    """Python warns of a coroutine that nobody awaits."""

    async def work() -> None:
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", 60.0, {}, simulated=True)
        link = NodeLink("n0", Here("n0").start_agent("n0"), begin, lambda: None)
        assert await link.begin() == ""
        await link.end()

    within(work)
    assert [str(one.message) for one in recwarn] == []


@pytest.mark.parametrize(
    ("here", "says"), [(Here(), "no node can be used any more"), (Here("n0"), "the cluster does not answer any more")]
)
def test_a_cluster_that_vanishes_at_the_start_is_one_error(here: Here, says: str) -> None:
    here.answers = not here.alive

    async def work() -> None:
        with pytest.raises(ConnectionError, match=says):
            async with Run(here).launcher:
                pass

    within(work)


@pytest.mark.slow
def test_a_head_that_does_not_answer_for_a_while_loses_no_node() -> None:
    async def work() -> None:
        here = Here("n0")
        run = Run(here)
        async with run.launcher as launcher:
            here.answers = False
            await asyncio.sleep(2.5)
            assert launcher.free == 8
            here.answers = True
            here.alive["n1"] = True
            await until(lambda: launcher.free == 16)
        assert run.warnings == []

    within(work)


@pytest.mark.slow
def test_a_head_that_is_silent_for_a_lease_is_reported_and_nothing_starts_until_it_answers() -> None:
    async def work() -> None:
        here = Here("n0")
        run = Run(here, lease_s=2.0)
        (spec,) = specs(1)
        async with run.launcher as launcher:
            here.answers = False
            await until(lambda: bool(run.warnings))
            assert run.warnings[0].startswith("the head of the cluster does not answer: nothing starts until it does")
            assert not launcher.free and not launcher.has_room(spec) and launcher.placement.free
            here.answers = True
            await until(lambda: launcher.free == 8)
            assert launcher.has_room(spec) and run.warnings[1:] == ["the head of the cluster answers again"]

    within(work)


@pytest.mark.slow
def test_without_a_head_nothing_waits_for_another_node() -> None:
    async def work() -> None:
        here = Here("n0")
        run = Run(here, lease_s=2.0)
        (spec,) = specs(1)
        async with run.launcher as launcher:
            here.answers = here.alive["n0"] = False
            await until(lambda: launcher.free == sys.maxsize)  # and not for two minutes
            with pytest.raises(OSError, match="no node of the cluster is left, and its head does not answer"):
                await launcher.launch(spec)

    within(work)


def test_a_node_without_room_on_its_disk_gets_nothing() -> None:
    async def work() -> None:
        run = Run(Here("n0"))
        (spec,) = specs(1)
        async with run.launcher as launcher:
            for disk in (3 * MIB, 150 * MIB, 250 * MIB):
                launcher._heard("n0", None, Memory(0, {}, disk))
                assert launcher.has_room(spec) is (disk > 200 * MIB)
        assert run.warnings == [
            "the node n0 has 3 MiB of disk left: it gets no more instances until it has 200",
            "the node n0 has room on its disk again",
        ]

    within(work)


@pytest.mark.slow
def test_once_no_node_is_left_instances_fail_instead_of_waiting() -> None:
    async def work() -> None:
        here, told = Here("n0"), list[str]()
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", 60.0, {}, simulated=True)
        launcher = ClusterLauncher(here, begin, {}, Callbacks(told.append, lambda: None), patience_s=1.5)
        (spec,) = specs(1)
        async with launcher:
            here.alive["n0"] = False
            await until(lambda: not launcher.free)
            assert not launcher.has_room(spec)
            await until(lambda: launcher.has_room(spec))
            assert launcher.free > 0
            launcher.take(spec)
            with pytest.raises(OSError, match="no node of the cluster is left"):
                await launcher.launch(spec)
        assert told[-1] == "no node of the cluster is left: instances that have not started fail"

    within(work)


@pytest.mark.slow
def test_nothing_waits_for_long_for_a_head_that_is_silent() -> None:
    async def work() -> None:
        here, told = Here("n0"), list[str]()
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", 2.0, {}, simulated=True)
        launcher = ClusterLauncher(here, begin, {}, Callbacks(told.append, lambda: None), patience_s=1.5)
        first, second = specs(2)
        async with launcher:
            launcher.take(first)
            here.answers = False
            await until(lambda: not launcher.free)
            await asyncio.sleep(3.0)
            assert not launcher.has_room(second)  # an instance still runs
            launcher.give_back(first.name)
            await until(lambda: launcher.has_room(second))
            with pytest.raises(OSError, match="no node of the cluster can be used, and its head does not answer"):
                await launcher.launch(second)
            here.answers = True
            await until(lambda: launcher.free == 8)

    within(work)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_instances_take_decides_how_many_more_a_node_gets() -> None:
    async def work() -> None:
        here, memory = Here("n0"), InstanceMemory([10 * MIB])
        here.room = Room(cores=1000, memory_bytes=100 * MIB)
        begin, changes = Begin(f"test-{uuid.uuid4().hex[:8]}", 60.0, dict(os.environ)), list[int]()
        told = Callbacks(lambda text: None, lambda: changes.append(launcher.placement.capacity))
        launcher = ClusterLauncher(here, begin, {}, told, memory=memory)
        spec = specs(1)[0]._replace(argv=(sys.executable, "-c", "block = b'x' * (90 << 20); input()"), private=())
        async with launcher:
            assert 8 in changes  # by the check of the node
            await until(lambda: launcher.placement.capacity > 8)  # by its agent: this machine has more
            before = launcher.placement.capacity
            launcher.take(spec)
            running = await launcher.launch(spec)
            await until(lambda: memory.expected_bytes > 90 * MIB)
            assert memory.expected_bytes < 200 * MIB and launcher.placement.capacity * 4 < before
            running.stop(0.0)
            await running.wait()

    within(work)


@pytest.mark.slow
def test_where_no_node_has_memory_for_an_instance_they_fail_at_last() -> None:
    async def work() -> None:
        here, told = Here("n0", "n1"), list[str]()
        accepted = {"n1": Accepted(1)}
        here.room = Room(cores=1, memory_bytes=1)
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", 60.0, {}, simulated=True)
        launcher = ClusterLauncher(here, begin, accepted, Callbacks(told.append, lambda: None), patience_s=0.5)
        first, second = specs(2)
        async with launcher:
            launcher.take(first)
            assert not launcher.has_room(second)
            here.draining.add("n1")
            await until(lambda: launcher.has_room(second))
            with pytest.raises(OSError, match=r"no node of the cluster has memory for an instance \(400 MiB assumed\)"):
                await launcher.launch(second)

    within(work)
