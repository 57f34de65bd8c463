"""What speaks against a node, by values."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.launch.cluster import probe
from claude_orchestrator.launch.cluster.checks import Wanted, by_node, crowded, faults, refusal_of, warnings
from claude_orchestrator.launch.cluster.instance_memory import InstanceMemory
from claude_orchestrator.launch.cluster.probe import Facts, Question

GIB = 1024**3
FACTS = Facts("1.0", "3.11.7", 4, 8 * GIB, 8 * GIB, 1000.0, "2.1.332", True, True, "abc", True)
WANTED = Wanted("1.0", "/work", "/bin/claude", "2.1.332", head="abc", marker="/out/x")


def test_nothing_speaks_against_a_node_that_has_everything() -> None:
    assert list(faults(WANTED, FACTS)) == [] and list(warnings(WANTED, FACTS, 999.0, 1001.0)) == []


@pytest.mark.parametrize(
    ("facts", "begins"),
    [
        (FACTS._replace(package=""), "claude-orchestrator is not installed: install 1.0"),
        (FACTS._replace(package="0.9"), "has claude-orchestrator 0.9, and this machine has 1.0"),
        (FACTS._replace(claude=""), "has no claude that runs: /bin/claude"),
        (FACTS._replace(has_login=False), "has neither an API key nor claude's login"),
        (FACTS._replace(has_workspace=False), "has no folder /work"),
        (FACTS._replace(head="def"), "its /work is at commit def, and here at abc"),
        (FACTS._replace(head=""), "its /work is at commit none"),
        (FACTS._replace(sees_marker=False), "does not share the output folder"),
        (FACTS._replace(disk_bytes=1024**2), "has 1 MiB of disk left"),
    ],
)
def test_each_lack_is_a_fault(facts: Facts, begins: str) -> None:
    (fault,) = faults(WANTED, facts)
    assert fault.startswith(begins)


def test_more_instances_than_there_is_memory_for_deserve_a_warning() -> None:
    measured = InstanceMemory([3 * GIB])
    assert list(crowded(2, 6 * GIB, measured)) == []
    assert list(crowded(3, 6 * GIB, measured)) == [
        "has 6144 MiB of free memory, and 3 instances may need 9216 MiB (3072 MiB measured for each)"
    ]
    assert list(crowded(1, GIB // 4, InstanceMemory())) == [
        "has 256 MiB of free memory, and 1 instance may need 400 MiB (400 MiB assumed for each)"
    ]


def test_a_metered_run_needs_a_gateway_on_each_node() -> None:
    (fault,) = faults(WANTED._replace(metered=True), FACTS)
    assert fault.startswith("lacks the extra gateway")
    assert list(faults(WANTED._replace(metered=True), FACTS._replace(has_gateway=True))) == []


def test_a_node_to_which_the_workspace_travels_needs_git_and_no_workspace() -> None:
    ships = WANTED._replace(workspace="", head="", marker="", ships=True)
    bare = FACTS._replace(has_workspace=False, head="", sees_marker=False)
    assert list(faults(ships, bare._replace(has_git=True))) == []
    assert list(faults(ships, bare)) == ["has no git, which --cluster-workspace ship needs: install it there"]


def test_all_faults_of_a_node_are_named_at_once() -> None:
    nothing = Facts("", "3.11.7", 4, GIB, 0, 0.0)
    assert len(list(faults(WANTED, nothing))) == 5


def test_a_rehearsal_needs_no_claude_and_a_key_of_the_driver_is_enough() -> None:
    bare = FACTS._replace(claude="", has_login=False)
    assert list(faults(WANTED._replace(claude=""), bare)) == []
    assert list(faults(WANTED._replace(has_key=True), FACTS._replace(has_login=False))) == []
    assert list(faults(WANTED._replace(head="", marker=""), FACTS._replace(head="x", sees_marker=False))) == []


@pytest.mark.parametrize(("clock_s", "said"), [(998.0, False), (1003.0, False), (990.0, True), (1010.0, True)])
def test_a_clock_that_differs_is_said(clock_s: float, said: bool) -> None:
    assert bool(list(warnings(WANTED, FACTS._replace(clock_s=clock_s), 999.0, 1001.0))) is said


def test_another_claude_is_said() -> None:
    (text,) = warnings(WANTED, FACTS._replace(claude="2.1.197"), 999.0, 1001.0)
    assert text == "has claude 2.1.197, and this machine has 2.1.332"


def test_faults_are_named_by_node_and_are_bounded() -> None:
    lines = by_node(((f"n{number}", "x") for number in range(50)), most=3)
    assert lines[:3] == ["--cluster: node n0: x", "--cluster: node n1: x", "--cluster: node n2: x"]
    assert lines[3:] == ["--cluster: 47 more faults like these"]
    assert by_node([("n0", "x")]) == ["--cluster: node n0: x"]


def facts_of(question: Question) -> Facts:
    answer: Any = probe.probe(question)
    return Facts(*answer)


def test_the_probe_answers_for_this_machine() -> None:
    facts = facts_of(Question("not-there", "/", ("PATH",), "/"))
    assert facts.package and facts.cores >= 1 and facts.free_bytes > 0 and facts.disk_bytes > 0
    assert facts.claude == "" and facts.has_login and facts.has_workspace and facts.sees_marker
    assert not facts_of(Question("", "/not/there")).has_workspace
    assert not facts_of(Question("", "")).has_workspace and facts_of(Question("", "")).disk_bytes > 0


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.12.1
This process on node 192.0.2.2 was started with:
    Ray: 2.61.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            MISMATCH,
            "the cluster has Ray 2.60.0 and Python 3.12.1, and this machine has Ray 2.61.0 and Python 3.11.7: "
            "both need the same versions",
        ),
        ("\n  Ray: 2.60.0\n", "Ray: 2.60.0"),
        (
            "Could not find any running Ray instance. Please specify the one to connect to by setting `--address`",
            "this machine belongs to no cluster: begin one with ray start, or name another one by HOST:PORT",
        ),
        ("Could not find it.\nDid you start it?", "Could not find it."),
        (" \n", ""),
    ],
)
def test_what_ray_says_becomes_one_line_with_both_versions(error: str, line: str) -> None:
    assert refusal_of(error) == line
