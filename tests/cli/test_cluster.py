"""`--cluster` as a user meets it: what cannot work is one clear line, and nothing has started."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from claude_orchestrator import __version__
from claude_orchestrator.launch.processes import MARK_VARIABLE
from tests.harness import FAKE, ROOT, Workplace
from tests.limits import HUNG_S
from tests.ray_nodes import WITH_RAY, command_lines, ray_nodes
from tests.stand_in import Call, Script, StandIn, Text, Tools, claude_env

STARTING = "INFO: starting Ray on this machine\n"
CONNECTING = "INFO: connecting to the cluster and checking its nodes\n"
SETUP = {"instances": [{"name": "one", "prompt": "x", "rehearsal": {"tokens": 1000, "seconds": 0.2}}]}
AS_ASKED = {"permission_mode": "bypassPermissions"}
OTHER_RAY = """
import ray
ray.__version__ = "2.0.0"
from claude_orchestrator.cli.main import main
main()
"""
WITHOUT_RAY = """
import sys

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoRay())
from claude_orchestrator.cli.main import main
main()
"""


DRAIN = """
import subprocess, sys
import ray
ray.init(sys.argv[1], log_to_driver=False)
node = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU"))
why = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test", "--deadline-remaining-seconds=3600"]
ray = [sys.executable, "-m", "ray.scripts.scripts", "drain-node"]
sys.exit(subprocess.run([*ray, f"--address={sys.argv[1]}", f"--node-id={node}", *why]).returncode)
"""
CHANGED_RAY = """
from ray._private.state import GlobalState
del GlobalState.get_draining_nodes
from claude_orchestrator.cli.main import main
main()
"""


def run(argv: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=HUNG_S, check=False)


def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    argv = ["--config", place.config(SETUP), "--rehearse", "--cluster", "local", "--output-dir", str(tmp_path / "out")]
    done = run([sys.executable, "-c", WITHOUT_RAY, *argv], {**place.env, "PYTHONPATH": str(ROOT)}, tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == (
        "ERROR: --cluster: needs the extra cluster (pip install 'claude-orchestrator[cluster]'), and has no ray\n"
    )


@WITH_RAY
def test_a_version_of_ray_that_lacks_something_is_one_line(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    argv = ["--config", place.config(SETUP), "--rehearse", "--cluster", "local", "--output-dir", str(tmp_path / "out")]
    done = run([sys.executable, "-c", CHANGED_RAY, *argv], {**place.env, "PYTHONPATH": str(ROOT)}, tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == (
        f"ERROR: --cluster: Ray {version('ray')} does not fit: 'GlobalState' object has no attribute "
        "'get_draining_nodes': pip install 'ray==2.60.0' on all machines\n"
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--lease", "1s"), "--lease: expected at least 2 s, got 1 s"),
        (("--instances-per-node", "0"), "--instances-per-node: expected auto, or a whole number from 1 to 10000"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_ray_is_loaded(
    tmp_path: Path, args: tuple[str, ...], says: str
) -> None:
    place = Workplace(tmp_path)
    done = place.run("--config", place.config(SETUP), "--rehearse", "--cluster", "local", *args)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_a_node_without_a_cluster_has_no_effect_and_that_is_said(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    config = place.config({"instances": [{**SETUP["instances"][0], "node": {"gpu": 1}}]})
    done = place.run("--config", config, "--rehearse")
    assert done.returncode == 0 and "WARNING: node: has no effect without --cluster" in done.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--lease", "5s"), "--lease"),
        (("--instances-per-node", "auto"), "--instances-per-node"),
        (("--lease", "5s", "--instances-per-node", "2"), "--instances-per-node and --lease"),
    ],
)
def test_options_of_a_cluster_are_refused_without_one(tmp_path: Path, args: tuple[str, ...], named: str) -> None:
    place = Workplace(tmp_path)
    done = place.run("--config", place.config(SETUP), "--rehearse", *args)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == f"ERROR: {named}: only with --cluster\n"


def test_a_variable_for_runs_on_clusters_does_not_hinder_others(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    lease = {"CLAUDE_ORCHESTRATOR_LEASE": "5s", "CLAUDE_ORCHESTRATOR_INSTANCES_PER_NODE": "2"}
    done = place.run("--config", place.config(SETUP), "--rehearse", **lease)
    assert done.returncode == 0 and "cluster" not in done.stderr


def test_resources_of_a_node_are_positive_numbers(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    config = place.config({"instances": [{**SETUP["instances"][0], "node": {"gpu": 0, "tpu": "a"}}]})
    done = place.run("--config", config, "--rehearse")
    assert done.returncode == 2
    assert "node.gpu: expected a positive number, got 0" in done.stderr
    assert 'node.tpu: expected a positive number, got "a"' in done.stderr


@WITH_RAY
@pytest.mark.slow
@pytest.mark.parametrize("where", ["nobody listens", "nobody listens at RAY_ADDRESS", "another server listens"])
def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path: Path, where: str) -> None:
    place = Workplace(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        address, env = f"127.0.0.1:{port}", place.env
        if where.startswith("nobody listens"):
            server.close()
        if where.endswith("RAY_ADDRESS"):
            address, env = "auto", {**env, "RAY_ADDRESS": address}
        argv = place.argv("--config", place.config(SETUP), "--rehearse", "--cluster", address)
        done = run(argv, env, tmp_path)
    assert done.returncode == 2 and not list((tmp_path / "out").glob("2*")), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(lines) == 1 and "nothing has started" in lines[0] and "Traceback" not in done.stderr


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short name, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@WITH_RAY
@pytest.mark.slow
def test_a_rehearsal_and_a_dry_run_on_a_cluster_of_this_machine(tmp_path: Path, short_folder: Path) -> None:
    place = Workplace(tmp_path)
    place.env["TMPDIR"] = str(short_folder)
    instances = [{"name": f"i{n}", "prompt": "x", "rehearsal": {"tokens": 1000, "seconds": 0.2}} for n in range(20)]
    config = place.config({"instances": instances})
    cluster, report = ("--cluster", "local", "--instances-per-node", "6"), ("--report", str(tmp_path / "report.json"))
    done = place.run("--config", config, "--rehearse", *cluster, *report)
    assert done.returncode == 0 and done.stderr.startswith(STARTING), done.stderr
    assert place.report()["totals"]["total_tokens"] == 20_000
    limit = ("--overall-token-budget", "15000", "--budget-enforcement-mode", "block")
    done = place.run("--config", config, "--rehearse", *cluster, *report, *limit, "--meter", "api")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert place.report()["meter"] == {"kind": "api", "reason": "a simulated API"}
    assert 13_000 < place.report()["totals"]["total_tokens"] <= 15_000
    assert place.report()["budgets"]["overall"]["held"] == 0
    shown = place.run("--config", config, "--rehearse", *cluster, "--dry-run")
    assert "Cluster: 1 node for 6 instances at once, lease 10 s" in shown.stdout
    assert "takes 6 instances: first i0, i1, i2 and 3 more" in shown.stdout
    assert "max_parallel" in shown.stdout and "for each instance" not in shown.stdout
    kept = tmp_path / ".local/state/claude-orchestrator/instance-memory.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"largest_instance_bytes": [1024**4]}))
    refused = place.run("--config", config, "--rehearse", "--cluster", "local", "--quiet")
    assert refused.returncode == 2 and not list(short_folder.iterdir())
    assert re.fullmatch(
        r"ERROR: --cluster: node \S+: has \d+ MiB of free memory, of which 80% can be used, and an instance takes "
        r"1048576 MiB measured: set --instances-per-node\n",
        refused.stderr,
    )


@WITH_RAY
@pytest.mark.slow
def test_only_its_owner_may_enter_the_folder_of_a_local_cluster(tmp_path: Path, short_folder: Path) -> None:
    place = Workplace(tmp_path)
    place.env["TMPDIR"] = str(short_folder)
    argv = place.argv("--config", place.config(SETUP), "--rehearse", "--cluster", "local")
    modes = set[int]()
    with subprocess.Popen(argv, env=place.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        while run.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                modes |= {folder.stat().st_mode & 0o777 for folder in short_folder.glob("co-ray-*")}
            time.sleep(0.02)
    assert run.returncode == 0 and modes == {0o700}


@WITH_RAY
@pytest.mark.slow
def test_all_faults_of_all_nodes_are_named_at_once(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    config = place.config({"instances": [{**SETUP["instances"][0], "node": {"gpu": 1}}]})
    with ray_nodes(2) as nodes:
        argv = place.argv("--config", config, "--cluster", nodes.address)
        bare = run(argv, {**place.env, **nodes.env}, tmp_path)
        assert bare.returncode == 2 and bare.stderr.startswith(CONNECTING)
        assert bare.stderr.count("has neither an API key nor claude's login") == 2
        env = {**place.env, **nodes.env, "ANTHROPIC_API_KEY": "dummy"}
        without = run(argv, env, tmp_path)
        assert without.returncode == 2 and "no node has what one needs: gpu 1" in without.stderr
        nodes.add("--resources", json.dumps({"gpu": 1}))
        kept = tmp_path / ".local/state/claude-orchestrator/instance-memory.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"largest_instance_bytes": [1024**4]}))
        shown = run([*argv, "--dry-run", "--instances-per-node", "4"], env, tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.count("and 4 instances may need 4194304 MiB (1048576 MiB measured for each)") == 3
        assert "Cluster: 3 nodes" in shown.stdout and "Ray does not encrypt" in shown.stdout
        assert len([line for line in shown.stdout.splitlines() if "first one" in line]) == 1


@WITH_RAY
@pytest.mark.slow
def test_another_version_of_ray_is_one_line_that_names_both(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    with ray_nodes(0) as nodes:
        rest = place.argv("--config", place.config(SETUP), "--rehearse", "--cluster", nodes.address)[3:]
        env = {**place.env, **nodes.env, "PYTHONPATH": str(ROOT)}
        done = run([sys.executable, "-c", OTHER_RAY, *rest], env, tmp_path)
    python = ".".join(map(str, sys.version_info[:3]))
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    here, theirs = f"Ray 2.0.0 and Python {python}", f"Ray {version('ray')} and Python {python}"
    assert done.stderr == CONNECTING + (
        f"ERROR: --cluster: {nodes.address}: the cluster has {theirs}, and this machine has {here}: "
        "both need the same versions: nothing has started\n"
    )


@WITH_RAY
@pytest.mark.slow
def test_a_node_that_is_drained_keeps_its_instances_and_gets_no_more(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    instances = [{"name": f"i{n}", "prompt": "x", "rehearsal": {"tokens": 100, "seconds": 6}} for n in range(5)]
    with ray_nodes(2) as nodes:
        argv = place.argv("--config", place.config({"instances": instances}), "--rehearse", "--cluster", nodes.address)
        more = ("--instances-per-node", "1", "--report", str(tmp_path / "report.json"))
        env = {**place.env, **nodes.env}
        process = subprocess.Popen([*argv, *more], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        out = tmp_path / "out"
        while not any(name.read_bytes().count(b'"kind":"launch"') > 1 for name in out.glob("2*/journal.jsonl")):
            assert process.poll() is None
            time.sleep(0.02)
        done = run([sys.executable, "-c", DRAIN, nodes.address], {**os.environ, **nodes.env}, tmp_path)
        assert done.returncode == 0, done.stderr
        _, stderr = process.communicate(timeout=HUNG_S)
    assert process.returncode == 0, stderr
    assert len(re.findall(r"the node \S+ is drained: it gets no more instances", stderr)) == 1, stderr
    assert "lost" not in stderr and {one["attempts"] for one in place.report()["instances"]} == {1}


def package(folder: Path, text: str) -> dict[str, str]:
    """What a node has in its environment if its package is this one."""
    (folder / "claude_orchestrator").mkdir(parents=True)
    (folder / "claude_orchestrator" / "__init__.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


@WITH_RAY
@pytest.mark.slow
def test_nodes_with_no_claude_or_another_package_are_named_and_nothing_starts(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    claude = tmp_path / "claude"
    claude.write_text(f'#!/bin/sh\n[ "$NO_CLAUDE" ] && exit 127\nexec {FAKE} "$@"\n')
    claude.chmod(0o755)
    with ray_nodes(1) as nodes:
        nodes.add(env={"NO_CLAUDE": "1"})
        nodes.add(env=package(tmp_path / "old", '__version__ = "0.0.9"'))
        nodes.add(env=package(tmp_path / "none", "raise ImportError"))
        argv = place.argv("--config", place.config(SETUP), "--cluster", nodes.address, claude=str(claude))
        done = run(argv, {**place.env, **nodes.env, "ANTHROPIC_API_KEY": "dummy"}, tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists(), done.stderr
    errors = done.stderr.removeprefix(CONNECTING)
    lines = [re.sub(r"node \S+:", "node:", line) for line in errors.splitlines()]
    assert sorted(lines) == [
        f"ERROR: --cluster: node: claude-orchestrator is not installed: install {__version__} there",
        f"ERROR: --cluster: node: has claude-orchestrator 0.0.9, and this machine has {__version__}",
        f"ERROR: --cluster: node: has no claude that runs: {claude}",
    ]
    assert len({line.split(":")[2] for line in errors.splitlines()}) == 3


@WITH_RAY
@pytest.mark.slow
def test_a_clock_that_is_wrong_is_said_and_no_time_comes_from_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    (tmp_path / "node").mkdir()
    skew = "import time\nright = time.time\ntime.time = lambda: right() + 86_400\n"
    (tmp_path / "node" / "sitecustomize.py").write_text(skew)
    with ray_nodes(0) as nodes:
        nodes.add(env={"PYTHONPATH": str(tmp_path / "node")})
        report = ("--report", str(tmp_path / "report.json"), "--lease", "3s")
        argv = place.argv("--config", place.config(SETUP), "--rehearse", "--cluster", nodes.address, *report)
        done = run(argv, {**place.env, **nodes.env}, tmp_path)
    assert done.returncode == 0 and "its clock differs by 86400 s from this machine's" in done.stderr, done.stderr
    assert "does not encrypt" not in done.stderr  # everything is on one machine
    assert place.report()["totals"]["total_tokens"] == 1000
    now_s = time.time()
    (journal,) = (tmp_path / "out").glob("2*/journal.jsonl")
    times = [float(found) for found in re.findall(r"\b1\d{9}\.\d+", journal.read_text())]
    assert len(times) > 3 and all(now_s - 60 < at_s <= now_s for at_s in times)
    tomorrow = datetime.fromtimestamp(now_s, UTC) + timedelta(days=1)
    assert f"{tomorrow:%Y-%m-%d}" not in (tmp_path / "report.json").read_text()


@WITH_RAY
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the cluster", "the node"])
def test_a_cluster_that_vanishes_while_it_is_asked_is_one_line(tmp_path: Path, lost: str) -> None:
    """Its claude is asked for its version, and never answers."""
    place, asked = Workplace(tmp_path), tmp_path / "asked"
    claude = tmp_path / "claude"
    claude.write_text(f'#!/bin/sh\n[ "$ON_NODE" ] && touch {asked} && exec sleep 60\nexec {FAKE} "$@"\n')
    claude.chmod(0o755)
    with ray_nodes(0) as nodes:
        raylet = nodes.add(env={"ON_NODE": "1"})
        argv = place.argv("--config", place.config(SETUP), "--cluster", nodes.address, claude=str(claude))
        env = {**place.env, **nodes.env, "ANTHROPIC_API_KEY": "dummy"}
        process = subprocess.Popen(argv, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while not asked.exists() and process.poll() is None:
            time.sleep(0.02)
        if lost == "the node":
            os.kill(raylet, signal.SIGKILL)
        else:
            nodes.stop()
        _, stderr = process.communicate(timeout=HUNG_S)
    assert process.returncode == 2 and not (tmp_path / "out").exists()
    refusal = r"ERROR: --cluster: node \S+: cannot be asked: [^.]{10,100}\n"
    assert re.fullmatch(refusal, stderr.removeprefix(CONNECTING)), stderr


@WITH_RAY
@pytest.mark.slow
@pytest.mark.real_cli
def test_the_real_cli_counts_and_stops_on_a_cluster_as_it_does_here(claude: str, tmp_path: Path) -> None:
    """A key goes to the node's agent: no file of Ray has it, no command line, and no process that keeps its records.

    What an instance takes is measured, and the next dry run uses it.
    """
    home, workspace, key = tmp_path / "home", tmp_path / "work", "sk-secret-of-this-test"
    home.mkdir()
    workspace.mkdir()
    script: Script = {
        "greet": [Tools((Call.bash("env > seen; sleep 6"),)), Text("All done.")],
        "again": [Text("Second.")],
    }
    setup = {
        "budget": {"overall_budget": 1_000_000},
        "instances": [
            {"name": name, "prompt": f"{name} now", "permission_mode": "bypassPermissions"}
            for name in ("greet", "again")
        ],
    }
    (tmp_path / "runs.json").write_text(json.dumps(setup))
    with StandIn(script) as api, ray_nodes(1) as nodes:
        env = {**claude_env(home, api.url), "ANTHROPIC_API_KEY": key, **nodes.env}
        own = ["--workspace", str(workspace), "--output-dir", str(tmp_path / "out"), "--claude-bin", claude]
        files = ["--config", str(tmp_path / "runs.json"), "--report", str(tmp_path / "report.json"), "--ledger", "off"]
        argv = [sys.executable, "-m", "claude_orchestrator", *own, *files, "--cluster", nodes.address]
        process = subprocess.Popen(argv, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while not (workspace / "seen").exists() and process.poll() is None:
            time.sleep(0.02)
        assert not any(key.encode() in line for _, line in command_lines())
        keepers = nodes.running("gcs_server") + nodes.raylets()
        assert len(keepers) == 3 and not any(in_memory(pid, key.encode()) for pid in keepers)
        assert in_memory(process.pid, key.encode())
        _, stderr = process.communicate(timeout=HUNG_S)
        report = json.loads((tmp_path / "report.json").read_text())
        assert process.returncode == 0, stderr
        assert report["meter"]["kind"] == "api"  # through the gateway of the node
        assert report["totals"]["total_tokens"] == api.billed().total_tokens and report["totals"]["exact"]
        assert {one["status"] for one in report["instances"]} == {"completed"}
        assert key in (workspace / "seen").read_text() and MARK_VARIABLE in (workspace / "seen").read_text()
        with_key = [
            path for path in Path(nodes.folder).rglob("*") if path.is_file() and key.encode() in path.read_bytes()
        ]
        assert with_key == []
        assert not any(key.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
        (measured,) = json.loads((home / ".local/state/claude-orchestrator/instance-memory.json").read_text()).values()
        shown = run([*argv, "--dry-run"], env, tmp_path)
    assert 100 < measured[0] / 1024**2 < 2000
    assert f"   {math.ceil(measured[0] / 1024**2)} MiB measured for each instance" in shown.stdout, shown.stderr


def in_memory(pid: int, text: bytes) -> bool:
    """Whether the memory of a process has a text."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:  # noqa: PTH123
        for line in maps:
            span, mode = line.split()[:2]
            start, end = (int(side, 16) for side in span.split("-"))
            if not mode.startswith("rw") or "/dev/" in line:
                continue
            memory.seek(start)
            with contextlib.suppress(OSError):  # pages that nobody has touched
                if text in memory.read(end - start):
                    return True
    return False


def certificates(folder: Path) -> dict[str, str]:
    """What Ray needs in its environment for TLS: certificates for every address of this machine."""
    hosts = {"127.0.0.1", *(found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.99", 9))  # sends nothing: the system only names the address that it would use
        hosts.add(asking.getsockname()[0])
    names = ",".join(f"IP:{host}" for host in sorted(map(str, hosts)))
    (folder / "names").write_text(f"subjectAltName={names}")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout node.key -out node.csr -subj /CN=node",
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out node.crt -days 2 -extfile names",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@WITH_RAY
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_the_documented_tls_encrypts_and_nothing_is_warned_of(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    tls = certificates(tmp_path)
    with ray_nodes(2, tls) as nodes:
        argv = place.argv("--config", place.config(SETUP), "--rehearse", "--cluster", nodes.address)
        done = run(argv, {**place.env, **nodes.env}, tmp_path)
        assert done.returncode == 0 and "does not encrypt" not in done.stderr
        host, _, port = nodes.address.rpartition(":")
        context = ssl.create_default_context(cafile=tls["RAY_TLS_CA_CERT"])
        context.load_cert_chain(tls["RAY_TLS_SERVER_CERT"], tls["RAY_TLS_SERVER_KEY"])
        with socket.create_connection((host, int(port))) as plain:
            assert context.wrap_socket(plain, server_hostname=host).version() is not None
