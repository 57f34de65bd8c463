"""The fleet by values: a list of nodes and a clock, no Ray."""

from __future__ import annotations

from claude_orchestrator.launch.cluster.fleet import MOST_LOSSES, Act, Fleet, NodeState

NODES = [f"n{number}" for number in range(100)]
FINE = (False, 0.0)


def ready(nodes: list[str]) -> Fleet:
    fleet = Fleet()
    acts = fleet.reconcile(nodes, (), {}, 0.0)
    assert acts == [(Act.START, key) for key in nodes]
    assert all(fleet.started(key) for key in nodes)
    return fleet


def test_a_hundred_nodes_are_started_once() -> None:
    fleet = ready(NODES)
    assert fleet.reconcile(NODES, (), dict.fromkeys(NODES, FINE), 1.0) == []
    assert {node.state for node in fleet.nodes.values()} == {NodeState.READY}
    assert not fleet.started("n1") and not fleet.started("unknown")


def test_a_node_that_joins_later_is_started_and_a_draining_one_is_not() -> None:
    fleet = ready(NODES[:2])
    assert fleet.reconcile([*NODES[:2], "new", "leaving"], ["leaving"], {}, 1.0) == [(Act.START, "new")]


def test_a_drained_node_is_closed_once_and_keeps_its_instances() -> None:
    fleet = ready(NODES)
    assert fleet.reconcile(NODES, ["n3"], {}, 1.0) == [(Act.DRAIN, "n3")]
    assert fleet.reconcile(NODES, ["n3"], {}, 2.0) == []
    assert fleet.nodes["n3"].state is NodeState.DRAINED
    gone = [key for key in NODES if key != "n3"]
    assert fleet.reconcile(gone, (), {"n3": (False, 5.0)}, 3.0) == [(Act.LOSE, "n3")]


def test_half_of_the_nodes_vanish_and_are_fenced_before_they_are_started_again() -> None:
    fleet = ready(NODES)
    lost, leases = NODES[::2], dict.fromkeys(NODES, (False, 20.0))
    assert fleet.reconcile(NODES[1::2], (), leases, 5.0) == [(Act.LOSE, key) for key in lost]
    assert fleet.reconcile(NODES, (), {}, 19.9) == []  # Ray lists them again: what they ran may still run
    acts = fleet.reconcile(NODES, (), {}, 20.0)
    assert acts == [(Act.FENCED, key) for key in lost] + [(Act.START, key) for key in lost]


def test_an_ended_lease_is_a_loss_although_ray_lists_the_node() -> None:
    fleet = ready(NODES)
    assert fleet.reconcile(NODES, (), {"n7": (True, 30.0)}, 10.0) == [(Act.LOSE, "n7")]
    assert fleet.nodes["n7"].fenced_at_s == 30.0


def test_an_agent_that_ended_is_lost_once() -> None:
    fleet = ready(NODES[:1])
    assert fleet.lose("n0", 12.0)
    assert not fleet.lose("n0", 99.0) and not fleet.lose("unknown", 1.0)
    assert not fleet.started("n0")
    assert fleet.nodes["n0"].fenced_at_s == 12.0


def test_a_node_that_was_lost_three_times_is_not_started_again() -> None:
    fleet, now_s = ready(["n0"]), 0.0
    for loss in range(MOST_LOSSES):
        assert not fleet.is_given_up("n0")
        fleet.lose("n0", now_s)
        acts = fleet.reconcile(["n0"], (), {}, now_s)
        assert acts[0] == (Act.FENCED, "n0") and (acts[1:] == []) is (loss == MOST_LOSSES - 1)
        fleet.started("n0")
        now_s += 1.0
    assert fleet.is_given_up("n0") and fleet.reconcile(["n0"], (), {}, 99.0) == []
