"""Repositories travel to nodes, and what instances do there comes back, with agents in this process and real git."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec, in_worktree
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.base import Exit, Running
from claude_orchestrator.launch.cluster.launcher import Callbacks, ClusterLauncher
from claude_orchestrator.launch.cluster.shipper import PART_BYTES
from claude_orchestrator.launch.cluster.wire import Begin, BundlePart
from claude_orchestrator.launch.git import GitError
from claude_orchestrator.launch.shipping import snapshot
from tests.launch.cluster.in_process import Here, HereAgent
from tests.launch.cluster.test_launcher import until
from tests.limits import HUNG_S
from tests.repositories import sh

pytestmark = pytest.mark.processes


class Counting(Here):
    """A cluster that counts the bytes of repositories that each node gets."""

    def __init__(self, *keys: str, capacity: int = 8) -> None:
        super().__init__(*keys, capacity=capacity)
        self.got: dict[str, list[int]] = {}
        self.fault = ""
        self.agents: list[CountingAgent] = []

    def start_agent(self, key: str) -> HereAgent:
        self.started.append(key)
        self.agents.append(CountingAgent(self, key))
        return self.agents[-1]


class CountingAgent(HereAgent):
    """An agent that counts."""

    def __init__(self, here: Counting, key: str) -> None:
        super().__init__(here, key)
        self._counting, self._name = here, key

    def fill(self) -> None:
        """There is no room for a further copy."""
        assert self._agent._host is not None
        folder = Path(self._agent._host._folder, "copies")
        shutil.rmtree(folder)
        folder.touch()

    async def receive(self, part: BundlePart) -> str:
        self._counting.got.setdefault(self._name, []).append(len(part.data))
        return self._counting.fault or await super().receive(part)


class Work:
    """A repository with uncommitted changes, and instances with worktrees of all of it."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.repo.mkdir()
        sh(
            self.repo,
            "git init -q -b main; mkdir sub; echo one > a.txt; echo x > sub/b; git add .; git commit -qm first",
        )
        sh(self.repo, "echo open >> a.txt")
        self.base = snapshot(self.repo)
        self.claude = folder / "claude"
        self.warnings: list[str] = []

    def program(self, script: str) -> None:
        """What instances run in the place of claude."""
        self.claude.write_text(f"#!/bin/sh\n{script}\n")
        self.claude.chmod(0o755)

    def specs(self, count: int, cwd: str = "") -> list[LaunchSpec]:
        instances = [{"name": f"i{n}", "prompt": "x", "worktree": True, "cwd": cwd or "."} for n in range(count)]
        plan = make_plan(
            parse_config({"instances": instances}, "t"),
            Settings(),
            workspace=str(self.repo),
            claude_bin=str(self.claude),
        )
        made = []
        for spec in plan.specs:
            sh(self.repo, f"git worktree add -q -b orchestrator/run/{spec.name} ../{spec.name} {self.base}")
            made.append(in_worktree(spec, str(self.home(spec) / cwd)))
        return made

    def home(self, spec: LaunchSpec) -> Path:
        return self.repo.parent / spec.name

    def launcher(self, here: Here, lease_s: float = 60.0) -> ClusterLauncher:
        begin = Begin(f"test-{uuid.uuid4().hex[:8]}", lease_s, {}, ships=True)
        return ClusterLauncher(here, begin, {}, Callbacks(self.warnings.append, lambda: None))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # that of the nodes
    return Work(tmp_path)


async def end_of(running: Running) -> tuple[Exit, str]:
    text = b"".join([batch.raw async for batch in running.output()])
    return await running.wait(), text.decode()


def within(steps: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(HUNG_S):
            await steps()

    asyncio.run(limited())


def test_instances_of_two_nodes_change_copies_and_their_work_comes_back(work: Work) -> None:
    work.program("pwd; cat a.txt; echo own > own; echo more >> a.txt; git commit -qam mine; rm sub/b")
    here = Counting("n0", "n1")

    async def steps() -> None:
        specs = work.specs(4)
        async with work.launcher(here) as launcher:
            assert launcher.capabilities.elsewhere
            runnings = await asyncio.gather(*(launcher.launch(spec) for spec in specs))
            for spec, running in zip(specs, runnings, strict=True):
                exit, text = await end_of(running)
                folder, *lines = text.splitlines()
                assert exit == Exit(0) and lines == ["one", "open"] and folder != spec.cwd
                home = work.home(spec)
                assert (home / "own").read_text() == "own\n" and not (home / "sub" / "b").exists()
                assert sh(home, "git log -1 --format=%s") == "mine"
                assert sh(home, "git status --porcelain").split() == ["D", "sub/b", "??", "own"]
                assert sh(home, "git branch --show-current") == f"orchestrator/run/{spec.name}"
        assert sorted(here.got) == ["n0", "n1"] and all(len(sizes) == 1 for sizes in here.got.values())
        assert sh(work.repo, "git status --porcelain") == "M a.txt" and work.warnings == []

    within(steps)


def test_a_second_attempt_continues_on_another_node_and_only_what_is_new_travels(work: Work) -> None:
    work.program('echo "$$" >> list; wc -l < list')
    here = Counting("n0", "n1", capacity=1)

    async def steps() -> None:
        (spec,) = work.specs(1, "sub")
        first_node: str | None = None
        async with work.launcher(here) as launcher:
            for attempt in range(3):
                exit, text = await end_of(await launcher.launch(spec))
                assert exit.code == 0 and int(text) == attempt + 1
                if attempt == 1:
                    first_node = launcher.placement.place_of(spec.name)
                    assert first_node is not None
                    here.draining.add(first_node)
                    await until(lambda: bool(work.warnings))
                    launcher.give_back(spec.name)
            assert len((work.home(spec) / "sub" / "list").read_text().split()) == 3
        assert first_node is not None and len(here.got) == 2
        first, *rest = here.got.pop(first_node)
        assert len(rest) == 1 and rest[0] < first and [len(sizes) for sizes in here.got.values()] == [1]

    within(steps)


def test_a_later_run_sends_only_what_a_node_lacks(work: Work, tmp_path: Path) -> None:
    work.program("cat a.txt; git remote")

    async def steps() -> None:
        sizes, printed = [], []
        for change in ("", "", "two"):
            sh(work.repo, f"echo -n '{change}' >> a.txt")
            work.base = snapshot(work.repo)
            here = Counting("n0")
            (spec,) = work.specs(1)
            async with work.launcher(here) as launcher:
                exit, text = await end_of(await launcher.launch(spec))
                assert exit == Exit(0)
            sizes.append(sum(here.got.get("n0", ())))
            printed.append(text)
            sh(work.repo, "git worktree remove --force ../i0; git branch -q -D orchestrator/run/i0")
        first, again, changed = sizes
        assert printed == ["one\nopen\n", "one\nopen\n", "one\nopen\ntwo"]
        assert again == 0 and 0 < changed < first
        (kept,) = (tmp_path / "state" / "claude-orchestrator" / "shipped").iterdir()
        assert kept.parent.stat().st_mode & 0o777 == 0o700 and len(sh(kept, "git for-each-ref").splitlines()) == 2
        blob = sh(kept, f"git rev-parse {work.base}:a.txt")
        for damaged, has_parts in ((f"{blob[:2]}/{blob[2:]}", False), ("nothing", True), ("*/*", True)):
            for path in kept.glob(f"objects/{damaged}"):
                path.chmod(0o600)
                path.write_bytes(b"damaged")
            here = Counting("n0")
            (spec,) = work.specs(1)
            async with work.launcher(here) as launcher:
                if has_parts:
                    assert (await end_of(await launcher.launch(spec)))[0] == Exit(0)
                else:  # it turns out late, and the next run gets all of it again
                    with pytest.raises(ValueError, match="its copy cannot be made on the node"):
                        await launcher.launch(spec)
            assert bool(here.got) is has_parts and kept.exists() is has_parts
            sh(work.repo, "git worktree remove --force ../i0; git branch -q -D orchestrator/run/i0")

    within(steps)


def test_what_is_large_travels_in_parts(work: Work) -> None:
    work.program("cp large changed; printf x >> changed")
    here = Counting("n0")
    data = os.urandom(PART_BYTES + 1000)
    (work.repo / "large").write_bytes(data)
    work.base = snapshot(work.repo)

    async def steps() -> None:
        (spec,) = work.specs(1)
        async with work.launcher(here) as launcher:
            exit, _ = await end_of(await launcher.launch(spec))
            assert exit == Exit(0) and (work.home(spec) / "changed").read_bytes() == data + b"x"
        assert [size == PART_BYTES for size in here.got["n0"]] == [True, False]

    within(steps)


def test_a_check_runs_where_its_instance_works_and_what_it_changes_comes_back(work: Work) -> None:
    work.program("echo made > made; read line")
    here = Counting("n0")

    async def steps() -> None:
        (spec,) = work.specs(1)
        async with work.launcher(here) as launcher:
            running = await launcher.launch(spec)
            look = "while ! [ -e made ]; do sleep 0.05; done; echo checked > checked; pwd"
            checking = await launcher.check(spec, look, spec.cwd)
            running.close_input()
            exit, text = await end_of(checking)
            assert exit == Exit(0) and text.strip() != spec.cwd
            assert (await end_of(running))[0].fault == ""
            assert (work.home(spec) / "checked").read_text() == "checked\n"
            # without its instance, it runs in a new copy of all that was done
            exit, text = await end_of(await launcher.check(spec, "cat made checked; echo late > late", spec.cwd))
            assert exit == Exit(0) and text == "made\nchecked\n"
            assert (work.home(spec) / "late").exists()

    within(steps)


def test_what_a_node_cannot_take_or_give_back_is_one_line(work: Work) -> None:
    work.program("rm .git")
    here = Counting("n0")

    async def steps() -> None:
        one, two = work.specs(2)
        async with work.launcher(here) as launcher:
            here.fault = "No space left on device"
            with pytest.raises(GitError, match="the node n0 cannot take the repository: No space left on device"):
                await launcher.launch(one)
            here.fault = ""
            exit, _ = await end_of(await launcher.launch(one))
            assert exit.code == 0
            assert exit.fault.startswith("what it changed cannot be brought back from the node n0: not a git repo")
            assert (work.home(one) / "a.txt").read_text() == "one\nopen\n"
            here.agents[0].fill()
            with pytest.raises(ValueError, match="its copy cannot be made on the node"):
                await launcher.launch(two)
            sh(work.repo, "git worktree remove --force ../i1")
            with pytest.raises(OSError, match="No such file or directory"):
                await launcher.launch(two)

    within(steps)


def test_a_node_that_is_lost_while_a_repository_travels_fails_the_launch(
    work: Work,
) -> None:
    work.program("exit 0")
    here = Counting("n0")

    async def steps() -> None:
        (spec,) = work.specs(1)
        async with work.launcher(here) as launcher:
            here.alive["n0"] = False
            with pytest.raises(OSError, match="the node n0 was lost") as caught:
                await launcher.launch(spec)
            assert caught.value.errno == errno.EAGAIN
            await until(lambda: bool(work.warnings))
            await asyncio.gather(*(agent.closed() for agent in here.agents))

    within(steps)


def test_a_lost_node_brings_nothing_back_and_that_is_said(work: Work) -> None:
    work.program("echo made > made; echo ready; exec sleep 60")
    here = Counting("n0")

    async def steps() -> None:
        (spec,) = work.specs(1)
        async with work.launcher(here, lease_s=600.0) as launcher:
            running = await launcher.launch(spec)
            async for _ in running.output():
                here.alive["n0"] = False  # the stream ends when the node is lost
            assert not (work.home(spec) / "made").exists()
            await asyncio.gather(*(agent.closed() for agent in here.agents))
        (said,) = work.warnings
        assert said.endswith("; their changes there are lost")

    within(steps)
