"""The files that start clusters fit their schemas, and name the versions that this package needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from claude_orchestrator import __version__
from tests.harness import ROOT
from tests.ray_nodes import WITH_RAY

FILES = ROOT / "configs" / "cluster"
SCHEMA = json.loads((ROOT / "tests" / "data" / "raycluster.schema.json").read_text())
CLUSTER_EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cluster"]


def documents(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((FILES / name).read_text()))


def templates(cluster: Any) -> list[Any]:
    spec = cluster["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_the_manifest_of_kuberay_fits_the_fields_of_a_ray_cluster() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    claim, cluster = documents("kuberay.yaml")
    jsonschema.Draft202012Validator(SCHEMA).validate(cluster)
    assert (claim["kind"], claim["spec"]["accessModes"]) == ("PersistentVolumeClaim", ["ReadWriteMany"])
    for pod in templates(cluster):
        volumes = {volume["name"] for volume in pod["volumes"]}
        containers = [*pod["initContainers"], *pod["containers"]]
        assert {mount["name"] for one in containers for mount in one["volumeMounts"]} == volumes
        claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]]
        assert claims == [None, claim["metadata"]["name"]]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "workerGroupSpecs", 0, "replica"), 3),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), "3"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "volumeMount"), []),
        (("spec", "authOptions", "mode"), "Token"),
    ],
)
def test_a_slip_in_the_manifest_does_not_fit(path: tuple[str | int, ...], value: object) -> None:
    _, cluster = documents("kuberay.yaml")
    place = cluster
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(cluster)


def test_all_pods_install_the_same_and_only_the_head_has_the_key() -> None:
    _, cluster = documents("kuberay.yaml")
    head, *others = [pod["containers"][0] for pod in templates(cluster)]
    assert all(
        (pod["image"], pod["command"], pod["args"]) == (head["image"], head["command"], head["args"]) for pod in others
    )
    assert [one["name"] for one in head["env"]] == ["ANTHROPIC_API_KEY"] and not any("env" in pod for pod in others)
    ray = cluster["spec"]["rayVersion"]
    assert head["image"].startswith(f"rayproject/ray:{ray}-") and [f"ray>={ray.removesuffix('.0')}"] == CLUSTER_EXTRA


def test_the_commands_of_a_pod_end_at_the_first_that_fails(tmp_path: Path) -> None:
    """They run here, with programs that note how they are called."""
    _, cluster = documents("kuberay.yaml")
    container = templates(cluster)[0]["containers"][0]
    note = f'#!/bin/sh\necho "$0 $@" >> {tmp_path}/noted\nexit ${{FAILS:-0}}\n'
    for name in ("pip", "ray"):
        (tmp_path / name).write_text(note)
        (tmp_path / name).chmod(0o755)
    argv = [container["command"][0], "-c", *container["args"]]  # without the login shell's own PATH
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBERAY_GEN_RAY_START_CMD": "ray start --head --labels='a b'"}
    for fails, programs in (("0", ["pip", "ray"]), ("1", ["pip"])):
        (tmp_path / "noted").write_text("")
        done = subprocess.run(argv, env={**env, "FAILS": fails}, check=False, capture_output=True, text=True)
        noted = (tmp_path / "noted").read_text().splitlines()
        assert [Path(line.split()[0]).name for line in noted] == programs and done.returncode == int(fails), done.stderr


@WITH_RAY
def test_the_file_of_ray_up_fits_the_schema_of_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("ray-up.yaml")
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
    (node,) = prepared["available_node_types"].values()
    assert node["min_workers"] == prepared["max_workers"]  # no node goes when Ray thinks that it is idle
    with pytest.raises(Exception, match=r"^'setup_command' does not match|Additional properties"):
        validate_config({**prepared, "setup_command": []})


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.name)
def test_each_file_installs_this_version_of_the_package_and_one_claude(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"claude-orchestrator\[cluster,gateway\]==([\d.]+)", text)) == {__version__}
    (claude,) = set(re.findall(r"@anthropic-ai/claude-code@([\d.]+)", text))
    assert tuple(map(int, claude.split("."))) >= (2, 1, 170)
    assert "--no-" not in text and "latest" not in text
