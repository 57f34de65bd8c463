"""The scheduler, by values: graphs and endings go in, the order comes out. Nothing runs."""

from __future__ import annotations

import random

import pytest

from claude_orchestrator.engine.scheduler import ALWAYS, FAILURE, NOTHING_FAILED, GraphNode, Scheduler, Skip


def nodes(text: str) -> list[GraphNode]:
    """`a b<a c<a,b` as nodes: `!` after a name runs always, `?` on failure, `*` is a relay, `=5` its weight."""
    found = []
    for rank, word in enumerate(text.split()):
        name, _, needs = word.partition("<")
        name, _, weight = name.partition("=")
        run_if = {"!": ALWAYS, "?": FAILURE}.get(name[-1], "success")
        node = GraphNode(name.rstrip("!?*"), tuple(filter(None, needs.split(","))), run_if, int(weight or 1), rank)
        found.append(node._replace(relay=name.endswith("*")))
    return found


def ready(scheduler: Scheduler) -> list[str]:
    """Everything that is ready, taken out."""
    return list(iter(scheduler.pop, None))


@pytest.mark.parametrize(
    ("graph", "steps"),
    [
        ("a b c", ["a b c"]),
        ("a=1 b=9 c=5", ["a b c"]),  # no dependencies: the order of the config
        ("a b<a c<b", ["a", "b", "c"]),
        ("a b<a c<a d<b,c", ["a", "b c", "d"]),
        ("slow=9 a=1 b=9<a c=9<b", ["a slow", "b", "c"]),  # the longest chain first
        ("a=5 b=5 c<a,b", ["a b", "c"]),
        ("f1 f2 f*<f1,f2 reduce<f", ["f1 f2", "reduce"]),
        ("none* next<none", ["next"]),  # an empty group has ended
        ("a b<a,a c<b", ["a", "b", "c"]),
    ],
)
def test_what_is_ready_when_all_goes_well(graph: str, steps: list[str]) -> None:
    scheduler = Scheduler(nodes(graph))
    for step in steps:
        names = ready(scheduler)
        assert " ".join(names) == step
        assert [skip for name in names for skip in scheduler.end(name)] == []
    assert not scheduler.active


@pytest.mark.parametrize(
    ("graph", "failing", "ran", "skips"),
    [
        ("a b<a", "a", "a", [Skip("b", "a failed", False)]),
        ("a b<a c<b", "a", "a", [Skip("b", "a failed", False), Skip("c", "b was skipped: a failed", False)]),
        (
            "a b<a c<b d<c",
            "a",
            "a",
            [("b", "a failed"), ("c", "b was skipped: a failed"), ("d", "c was skipped: a failed")],
        ),
        ("a b c<a,b", "a", "a b", [("c", "a failed")]),
        ("a b!<a", "a", "a b", []),
        ("a b?<a", "a", "a b", []),
        ("a b?<a", "", "a", [Skip("b", NOTHING_FAILED, True)]),
        ("a b?<a c<b", "", "a", [Skip("b", NOTHING_FAILED, True), Skip("c", "b was not needed", True)]),
        ("a b?<a c!<b", "", "a c", [Skip("b", NOTHING_FAILED, True)]),
        ("a b<a c?<b", "a", "a c", [("b", "a failed")]),  # skipped because of a failure: also a failure
        ("a b<a c!<b", "a", "a c", [("b", "a failed")]),
        ("f1 f2 f*<f1,f2 r<f", "f2", "f1 f2", [("r", "f2 failed")]),
        ("f1 f2 f*<f1,f2 r!<f", "f2", "f1 f2 r", []),
    ],
)
def test_what_a_failure_skips(graph: str, failing: str, ran: str, skips: list[tuple[str, ...]]) -> None:
    scheduler, started, skipped = Scheduler(nodes(graph)), list[str](), list[Skip]()
    while names := ready(scheduler):
        started += names
        for name in names:
            skipped += scheduler.end(name, "failed" if name == failing else "")
    assert " ".join(started) == ran
    assert [skip[: len(wanted)] for skip, wanted in zip(skipped, skips, strict=True)] == [tuple(one) for one in skips]
    assert not scheduler.active


def test_a_group_grows_when_its_upstream_has_ended() -> None:
    scheduler = Scheduler(nodes("plan fix=3<plan reduce=7<fix other=1"))
    assert ready(scheduler) == ["plan", "other"]
    scheduler.end("plan")
    assert ready(scheduler) == ["fix"]
    assert scheduler.grow("fix", nodes("fix[a]=1 fix[b]=5")) == ()
    assert ready(scheduler) == ["fix[b]", "fix[a]"]
    scheduler.end("fix[b]")
    assert scheduler.pop() is None
    assert scheduler.end("fix[a]", "failed") == (Skip("reduce", "fix[a] failed", False),)
    assert scheduler.active
    scheduler.end("other")
    assert not scheduler.active


def test_a_group_that_grows_by_nothing_has_ended() -> None:
    scheduler = Scheduler(nodes("plan fix<plan reduce<fix"))
    scheduler.pop()
    scheduler.end("plan")
    assert scheduler.pop() == "fix"
    scheduler.grow("fix", ())
    assert ready(scheduler) == ["reduce"]


def test_what_was_put_back_keeps_its_place() -> None:
    scheduler = Scheduler(nodes("a b c"))
    assert (scheduler.pop(), scheduler.pop()) == ("a", "b")
    scheduler.push("b")
    scheduler.push("a")
    scheduler.push("a")
    assert ready(scheduler) == ["a", "b", "c"]


def test_what_has_ended_is_not_ready_any_more() -> None:
    scheduler = Scheduler(nodes("a b<a c"))
    scheduler.end("c", "was cancelled")
    scheduler.end("b", "was cancelled")  # before it was ready
    assert ready(scheduler) == ["a"]
    assert scheduler.end("a") == scheduler.end("a") == ()
    assert ready(scheduler) == [] and not scheduler.active


@pytest.mark.parametrize("seed", range(20))
def test_every_node_of_a_random_graph_ends_once_and_after_what_it_needs(seed: int) -> None:
    chance = random.Random(seed)
    count, graph = 200, []
    for number in range(count):
        needs = {f"n{chance.randrange(number)}" for _ in range(chance.randrange(4))} if number else set()
        run_if = chance.choice(["success", "success", ALWAYS, FAILURE])
        graph.append(GraphNode(f"n{number}", tuple(sorted(needs)), run_if, chance.randrange(1, 9), number))
    scheduler, ended, running = Scheduler(graph), dict[str, bool](), list[str]()
    while scheduler.active:
        running += ready(scheduler)
        name = running.pop(chance.randrange(len(running)))
        good = chance.random() < 0.8
        assert name not in ended
        ended[name] = good
        for skip in scheduler.end(name, "" if good else "failed"):
            assert skip.name not in ended
            ended[skip.name] = False
    assert len(ended) == count and not running
    order = {name: place for place, name in enumerate(ended)}
    assert all(order[need] < order[node.name] for node in graph for need in node.needs)
    for node in graph:
        if node.run_if == "success" and ended[node.name]:
            assert all(ended[need] for need in node.needs)


def test_what_was_blocked_and_what_was_skipped_with_it_can_start_after_all() -> None:
    nodes = [
        GraphNode("a"),
        GraphNode("b", ("a",)),
        GraphNode("c", ("b",)),
        GraphNode("d", ("a",), run_if="failure"),
        GraphNode("e", ("a",), run_if="always"),
    ]
    scheduler = Scheduler(nodes)
    assert scheduler.pop() == "a"
    assert {skip.name for skip in scheduler.end("a", "was blocked")} == {"b", "c"}
    assert {scheduler.pop(), scheduler.pop()} == {"d", "e"}
    assert set(scheduler.reopen("a")) == {"a", "b", "c"}
    assert scheduler.pop() == "a"
    scheduler.end("d")
    scheduler.end("e")
    assert scheduler.active
    assert scheduler.end("a") == ()
    assert scheduler.pop() == "b"
    scheduler.end("b")
    assert scheduler.pop() == "c"
    assert scheduler.pop() is None
    scheduler.end("c")
    assert not scheduler.active


def test_a_group_with_a_reopened_member_ends_once_more() -> None:
    nodes = [
        GraphNode("g[1]"),
        GraphNode("g[2]"),
        GraphNode("g", ("g[1]", "g[2]"), relay=True),
        GraphNode("after", ("g",)),
    ]
    scheduler = Scheduler(nodes)
    assert [scheduler.pop(), scheduler.pop()] == ["g[1]", "g[2]"]
    scheduler.end("g[1]", "was blocked")
    assert [skip.name for skip in scheduler.end("g[2]")] == ["after"]
    assert not scheduler.active
    assert set(scheduler.reopen("g[1]")) == {"g[1]", "after"}
    assert scheduler.pop() == "g[1]"
    assert scheduler.pop() is None
    assert scheduler.end("g[1]") == ()
    assert scheduler.pop() == "after"


def test_a_second_failure_still_skips_what_was_reopened() -> None:
    scheduler = Scheduler([GraphNode("a"), GraphNode("b"), GraphNode("c", ("a", "b"))])
    assert [scheduler.pop(), scheduler.pop()] == ["a", "b"]
    scheduler.end("b", "failed")
    scheduler.end("a", "was blocked")
    assert set(scheduler.reopen("a")) == {"a", "c"}
    assert scheduler.pop() == "a"
    assert [(skip.name, skip.reason) for skip in scheduler.end("a")] == [("c", "b failed")]
    assert not scheduler.active
