"""Placement by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.launch.cluster.checks import LEAST_DISK_BYTES
from claude_orchestrator.launch.cluster.instance_memory import MIB, Room
from claude_orchestrator.launch.cluster.machines import Accepted, Node
from claude_orchestrator.launch.cluster.placement import NodeSlots, Placement, capacity_of, site_of


@pytest.mark.parametrize(
    ("cores", "free_mib", "each_mib", "expected"),
    [(2, 24_000, 400, 8), (64, 8_000, 400, 16), (64, 8_000, 312, 20), (1, 499, 400, 0), (1, 500, 400, 1), (4, 0, 1, 0)],
)
def test_a_node_takes_what_its_cores_and_its_memory_allow(
    cores: int, free_mib: int, each_mib: int, expected: int
) -> None:
    assert capacity_of(Room(cores, free_mib * MIB), each_mib * MIB) == expected


def places(**capacities: int) -> Placement:
    found = Placement()
    for key, capacity in capacities.items():
        found.add(key, NodeSlots(f"node {key}", capacity, {"CPU": 2.0, key: 1.0}))
    return found


def test_instances_are_spread_by_the_part_of_a_node_that_is_taken() -> None:
    found = places(a=2, b=4)
    assert [found.take(f"i{n}", ()) for n in range(7)] == ["a", "b", "b", "a", "b", "b", None]
    assert (found.free, found.capacity) == (0, 6)


def test_a_node_whose_disk_is_full_gets_nothing_until_it_has_twice_the_least() -> None:
    found = places(a=1)
    assert not found.fill("a", LEAST_DISK_BYTES) and not found.fill("b", 0)
    assert found.fill("a", LEAST_DISK_BYTES - 1) and found.is_full("a")
    assert (found.free, found.capacity, found.take("one", ())) == (0, 0, None)
    assert found.has_full_disks and not found.has_nodes and found.suits_any(())
    assert not found.fill("a", 2 * LEAST_DISK_BYTES - 1)
    assert found.fill("a", 2 * LEAST_DISK_BYTES) and found.take("one", ()) == "a"
    assert not found.has_full_disks


def test_an_instance_goes_where_its_resources_are() -> None:
    found = places(a=1, b=1)
    wants = (("b", 1.0),)
    assert found.suits_any(wants) and found.has_room(wants)
    assert found.take("one", wants) == "b"
    assert not found.has_room(wants) and found.suits_any(wants)
    assert found.take("two", wants) is None and found.take("three", ()) == "a"
    assert not found.suits_any((("b", 2.0),)) and not found.suits_any((("gpu", 1.0),))


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    found = places(a=1)
    found.take("one", ())
    assert found.place_of("one") == "a"
    found.give_back("one")
    found.give_back("one")
    assert found.place_of("one") is None and found.take("two", ()) == "a"


def test_a_closed_node_gets_no_more_and_keeps_what_it_has() -> None:
    found = places(a=2, b=2)
    found.take("one", ())
    found.close("a")
    found.close("not there")
    assert found.place_of("one") == "a" and found.capacity == 2
    assert [found.take(f"i{n}", ()) for n in range(3)] == ["b", "b", None]
    assert not found.suits_any((("a", 1.0),))


def test_a_node_that_is_gone_takes_its_places_with_it() -> None:
    found = places(a=1, b=1)
    found.take("one", ())
    found.remove("a")
    found.remove("a")
    assert found.place_of("one") is None and [site.name for site in found.sites] == ["node b"]
    found.add("a", NodeSlots("node a", 1, {}))
    found.give_back("one")
    assert found.free == 2


def test_what_remains_of_a_removed_node_can_be_given_back() -> None:
    found = places(a=1)
    found.take("one", ())
    found.add("a", NodeSlots("node a", 1, {}))  # it came back before the instance had ended
    found.give_back("one")
    assert found.free == 1


def test_places_follow_what_an_instance_takes_and_what_is_free() -> None:
    found = Placement()
    found.add("a", site_of(Node("a", "a", {}), Accepted(0, room=Room(2, 1000 * MIB)), 400 * MIB))
    found.add("b", site_of(Node("b", "b", {}), Accepted(3), 400 * MIB))  # asked for
    assert [site.capacity for site in found.sites] == [2, 3]
    assert not found.fit(300 * MIB)
    assert found.fit(100 * MIB) and [site.capacity for site in found.sites] == [8, 3]
    for name in ("one", "two", "three"):
        found.take(name, ())
    assert found.fit(100 * MIB, {"a": 250 * MIB, "b": 0, "gone": 0})
    assert [site.free for site in found.sites] == [0, 2] and found.is_in_use  # what runs stays
    assert [found.take(f"i{n}", ()) for n in range(3)] == ["b", "b", None]


def test_a_cluster_may_have_nodes_and_no_place() -> None:
    found = Placement()
    assert not found.has_nodes
    found.add("a", site_of(Node("a", "a", {}), Accepted(0, room=Room(2, 0)), MIB))
    assert found.has_nodes and not found.capacity and not found.is_in_use and found.take("one", ()) is None
    found.close("a")
    assert not found.has_nodes
