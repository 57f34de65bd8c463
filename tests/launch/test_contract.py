"""What every launcher promises, checked on local processes, simulated instances and the tests' own double."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.input_messages import control_request
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.base import Capabilities, Exit, Launcher, Running
from claude_orchestrator.launch.cluster.launcher import Callbacks, ClusterLauncher
from claude_orchestrator.launch.cluster.wire import Begin
from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.fence_kind import fence_kind
from claude_orchestrator.launch.local import LocalLauncher
from claude_orchestrator.launch.local_process import DEAF_S
from claude_orchestrator.launch.simulated import SimulatedLauncher
from tests.harness import FAKE, Workplace
from tests.launch.cluster.in_process import Here
from tests.limits import HUNG_S
from tests.namespaces import WITH_NAMESPACES
from tests.scripted import Script

LEASE_S = 120.0  # its end would end this process
TURN = {"type": "user", "message": {"role": "user", "content": "work"}}
CAPABILITIES = {
    "kept": Capabilities(fence="subreaper"),
    "in a namespace": Capabilities(fence="namespace"),
    "local": Capabilities(fence="mark"),
    "on a cluster": Capabilities(fence=fence_kind()),
    "simulated": Capabilities(simulated=True),
    "scripted": Capabilities(simulated=True),
}


class Place:
    """A launcher of one kind, and the instances that it can launch."""

    def __init__(self, kind: str, workplace: Workplace, fence: FenceGuard | None) -> None:
        self.kind = kind
        self._workplace = workplace
        mark = f"contract-{uuid.uuid4().hex[:8]}"
        launchers: dict[str, Callable[[], Launcher]] = {
            "kept": lambda: LocalLauncher(mark, workplace.env, fence=fence),
            "in a namespace": lambda: LocalLauncher(mark, workplace.env, fence=fence),
            "local": lambda: LocalLauncher(mark, workplace.env),
            "on a cluster": lambda: on_cluster(Here("n0"), Begin(mark, LEASE_S, workplace.env)),
            "simulated": SimulatedLauncher,
            "scripted": Script,
        }
        self.launcher = launchers[kind]()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """While this is open, the launcher can launch."""
        if isinstance(self.launcher, ClusterLauncher):
            async with self.launcher:
                yield
        else:
            yield

    def spec(self, scenario: str = "ok", *, claude: Path = FAKE, seconds: float = 0.05) -> LaunchSpec:
        """An instance of one turn; the scenario is the stand-in's, `hang` works for long in all of them."""
        env = {"FAKE_CLAUDE": scenario}
        turn = "wait" if scenario == "hang" else "work"
        instance = {"name": "one", "prompt": turn, "env": env, "rehearsal": {"tokens": 1000, "seconds": seconds}}
        config = parse_config({"instances": [instance]}, "test")
        (spec,) = make_plan(config, Settings(), workspace=str(self._workplace.workspace), claude_bin=str(claude)).specs
        return spec


def on_cluster(here: Here, begin: Begin) -> ClusterLauncher:
    return ClusterLauncher(here, begin, {}, Callbacks(lambda text: None, lambda: None))


LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="the fence is the Linux kernel's")


@pytest.fixture(scope="module")
def fence() -> Iterator[FenceGuard | None]:
    with FenceGuard("contract") if sys.platform == "linux" else contextlib.nullcontext() as guard:
        yield guard


@pytest.fixture(scope="module")
def namespaces() -> Iterator[FenceGuard]:
    with FenceGuard("contract", "namespace") as guard:
        yield guard


KEPT = [pytest.param("kept", marks=LINUX_ONLY), pytest.param("in a namespace", marks=WITH_NAMESPACES)]


@pytest.fixture(params=[*KEPT, *list(CAPABILITIES)[2:]])
def place(request: pytest.FixtureRequest, tmp_path: Path, fence: FenceGuard | None) -> Place:
    if request.param == "in a namespace":
        fence = request.getfixturevalue("namespaces")
    return Place(request.param, Workplace(tmp_path), fence)


def within(place: Place, work: Callable[[], Awaitable[None]], limit_s: float = HUNG_S) -> None:
    async def limited() -> None:
        async with asyncio.timeout(limit_s), place.opened():
            await work()

    asyncio.run(limited())


async def lines_of(running: Running) -> list[dict[str, Any]]:
    """All that it prints; every batch holds whole lines."""
    found: list[dict[str, Any]] = []
    async for batch in running.output():
        assert batch.lines == b"" or batch.lines.endswith(b"\n")
        found += [json.loads(line) for line in batch.lines.splitlines()]
    return found


async def until_it_works(running: Running) -> None:
    """Read until the turn is in progress, then no further."""
    async for batch in running.output():
        if b"message_start" in batch.lines:
            return


def test_it_declares_its_capabilities(place: Place) -> None:
    assert place.launcher.capabilities == CAPABILITIES[place.kind]


def test_a_stop_also_ends_a_turn_that_was_sent_and_has_not_begun(place: Place) -> None:
    async def work() -> None:
        running = await place.launcher.launch(place.spec("hang", seconds=600.0))
        running.send({"type": "user", "message": {"role": "user", "content": "wait"}})
        running.stop(2.0)
        await lines_of(running)
        await running.wait()

    within(place, work)


def test_messages_go_in_and_whole_lines_come_out(place: Place) -> None:
    async def work() -> None:
        running = await place.launcher.launch(place.spec())
        running.send(TURN)
        running.close_input()
        running.close_input()
        lines = await lines_of(running)
        kinds = [line["type"] for line in lines]
        assert kinds[0] == "system" and kinds[-1] == "result" and "stream_event" in kinds
        assert await running.wait() == Exit(0)

    within(place, work)


def test_a_message_after_the_end_of_the_input_does_no_harm(place: Place) -> None:
    async def work() -> None:
        running = await place.launcher.launch(place.spec())
        running.close_input()
        running.send(control_request("u1", "get_usage"))
        await lines_of(running)
        assert (await running.wait()).code == 0

    within(place, work)


def test_a_stop_in_the_moment_of_its_launch_ends_it(place: Place) -> None:
    async def work() -> None:
        running = await place.launcher.launch(place.spec("hang", seconds=600.0))
        running.stop(0.0)
        await lines_of(running)
        await running.wait()

    within(place, work)


@pytest.mark.parametrize("graces", [(5.0,), (5.0, 5.0), (60.0, 0.0), (0.0,), (0.0, 0.0)])
def test_a_stop_ends_it_however_often_it_is_asked_for(place: Place, graces: tuple[float, ...]) -> None:
    async def work() -> None:
        spec = place.spec("hang", seconds=600.0)
        running = await place.launcher.launch(spec)
        running.send({"type": "user", "message": {"role": "user", "content": spec.turns[-1]}})
        await until_it_works(running)
        for grace_s in graces:
            running.stop(grace_s)
        await lines_of(running)
        ended = await running.wait()
        assert await running.wait() == ended
        running.stop(0.0)
        running.close_input()

    within(place, work)


@pytest.mark.parametrize(
    "place", [*KEPT, "local", "on a cluster", "scripted"], indirect=True
)  # a simulated one can always be launched
def test_a_launch_that_is_not_possible_is_an_oserror(place: Place, tmp_path: Path) -> None:
    if isinstance(place.launcher, Script):
        place.launcher.fail = OSError("refused")

    async def work() -> None:
        with pytest.raises(OSError):
            await place.launcher.launch(place.spec(claude=tmp_path / "not-there"))

    within(place, work)


LOCAL = pytest.mark.parametrize("place", [*KEPT, "local"], indirect=True)


@LOCAL
@pytest.mark.parametrize(("answer", "code"), [("", 7), ('{"type":"control_response","request_id":"stop"}', -9)])
def test_sigint_follows_soon_if_the_interrupt_is_not_answered(place: Place, answer: str, code: int) -> None:
    """One that answers keeps its time: here it is killed before its SIGINT is due."""
    script = f"trap 'exit 7' INT; echo ready; read line; echo '{answer}'; while :; do sleep 0.01; done"

    async def work() -> None:
        assert isinstance(place.launcher, LocalLauncher)
        running = await place.launcher.start(["/bin/sh", "-c", script], {}, None, "0")
        async for _ in running.output():
            break
        running.stop(60.0)
        if answer:
            async for batch in running.output():
                if b"control_response" in batch.lines:
                    break
            asyncio.get_running_loop().call_later(2 * DEAF_S, running.stop, 0.0)
        assert (await running.wait()).code == code

    within(place, work)


@LOCAL
def test_any_process_can_be_started_and_its_exit_is_exact(place: Place, tmp_path: Path) -> None:
    async def work() -> None:
        assert isinstance(place.launcher, LocalLauncher)
        start = place.launcher.start
        for code in (0, 7, 255):
            running = await start(
                ["sh", "-c", 'echo "$GREETING $PWD"; exit "$0"', str(code)], {"GREETING": "hi"}, "/", "c"
            )
            assert [batch.lines async for batch in running.output() if batch.lines] == [b"hi /\n"]
            assert await running.wait() == Exit(code)
        running = await start(["sh", "-c", "kill -TERM $$"], {}, None, "c")
        assert await running.wait() == Exit(-15)
        for argv, cwd in ((["not-there"], "/"), (["/bin/sh"], str(tmp_path / "gone"))):
            with pytest.raises(FileNotFoundError) as caught:
                await start(argv, {}, cwd, "c")
            assert caught.value.filename == (argv[0] if cwd == "/" else cwd)
        with pytest.raises(PermissionError):
            await start(["/etc/passwd"], {}, "/", "c")
        for argv, env in ((["sh", "\0"], {}), (["sh"], {"A=B": "c"})):
            with pytest.raises(ValueError):
                await start(argv, env, "/", "c")

    within(place, work)


@LOCAL
def test_signals_that_were_ignored_are_not_ignored_by_what_it_starts(place: Place) -> None:
    """The guard ignores Ctrl-C. Its instances must not, and they get no descriptor but their own three."""

    async def work() -> None:
        assert isinstance(place.launcher, LocalLauncher)
        script = "grep SigIgn /proc/$$/status; ls /proc/$$/fd"
        running = await place.launcher.start(["/bin/sh", "-c", script], {}, None, "0")
        lines = b"".join([batch.lines async for batch in running.output()]).split()
        assert int(lines[1], 16) == 0 and lines[2:] == [b"0", b"1", b"2"]

    within(place, work)
