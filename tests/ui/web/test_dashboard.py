"""The option `--dashboard`: where the page is, who may see it, and what is refused before anything starts."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from claude_orchestrator.ui.web.dashboard import DASHBOARD
from tests.harness import Workplace, content_of
from tests.limits import HUNG_S
from tests.ui.web.rehearsal import Rehearsal, rehearsal_config
from token_budget.serving.listening import PageOptions, bind


@pytest.fixture
def rehearsal(place: Workplace) -> Iterator[Rehearsal]:
    running = Rehearsal(place, rehearsal_config(4, seconds=30), "--dashboard", "0")
    yield running
    running.stop()


def browser() -> urllib.request.OpenerDirector:
    """A client with a cookie jar, and the header that a page of the server has."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.addheaders = [("Sec-Fetch-Site", "same-origin")]
    return opener


def test_the_printed_address_signs_in_and_the_page_changes_the_run(rehearsal: Rehearsal, place: Workplace) -> None:
    visitor = browser()
    base = rehearsal.address.partition("open?")[0]
    with visitor.open(rehearsal.address, timeout=HUNG_S) as answer:
        assert answer.url == base and b"main.js" in answer.read()
    with visitor.open(f"{base}api/snapshot", timeout=HUNG_S) as answer:
        data = json.loads(answer.read())
    assert len(data["instances"]) == 4 and data["timeline"]["at"]
    act = json.dumps({"method": "stop_run", "params": {"why": "seen enough", "at_once": True}}).encode()
    asked = urllib.request.Request(f"{base}api/act", act, {"Content-Type": "application/json"})
    with visitor.open(asked, timeout=HUNG_S) as answer:
        assert answer.status == 200
    assert rehearsal.process.wait(timeout=HUNG_S) == 1
    journal = next((place.root / "out").iterdir()) / "journal.jsonl"
    assert '"via":"web"' in journal.read_text() and "seen enough" in journal.read_text()


def test_a_config_can_ask_for_the_page(place: Workplace) -> None:
    running = Rehearsal(place, {**rehearsal_config(1, seconds=20), "dashboard": True})
    assert running.address.startswith("http://127.0.0.1:")
    running.stop()


def test_the_ticket_stands_in_no_file_of_the_run(rehearsal: Rehearsal, place: Workplace) -> None:
    ticket = rehearsal.address.partition("ticket=")[2]
    folder = next((place.root / "out").iterdir())
    assert ticket and all(ticket not in path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dashboard", "nonsense"],
            '--dashboard: expected a port from 1 to 65535, or 0 for any free one, got "nonsense"',
        ),
        (["--dashboard", "65536"], "--dashboard: expected a port from 1 to 65535"),
        (["--dashboard", "--dashboard-host", "0.0.0.0"], "add --dashboard-token-file FILE"),
        (["--dashboard", "--dashboard-token-file", "missing"], "--dashboard-token-file: missing: No such file"),
        (["--dashboard", "--dashboard-host", "no.such.host"], "add --dashboard-token-file FILE"),
    ],
)
def test_a_page_that_cannot_be_is_refused_in_one_line(place: Workplace, arguments: list[str], message: str) -> None:
    done = place.run("/x", "--rehearse", *arguments, claude=None)
    assert done.returncode == 2 and not (place.root / "out").exists()
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_refused_before_anything_starts(place: Workplace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = place.run("/x", "--rehearse", "--dashboard", str(port), claude=None)
    assert done.returncode == 2 and not (place.root / "out").exists()
    assert done.stderr.strip() == f"ERROR: --dashboard: 127.0.0.1:{port}: Address already in use: choose another port"


def test_without_aiohttp_one_line_names_the_extra(place: Workplace) -> None:
    hidden = place.root / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util, sys\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'aiohttp' else found(name, *rest)\n"
    )
    done = place.run("/x", "--rehearse", "--dashboard", claude=None, PYTHONPATH=str(hidden))
    assert done.returncode == 2
    assert done.stderr.strip() == "ERROR: --dashboard: needs the extra web (pip install 'claude-orchestrator[web]')"


def test_a_run_without_a_page_loads_nothing_of_it(place: Workplace) -> None:
    code = "import sys, claude_orchestrator.cli.run_plan as it; print([n for n in sys.modules if 'ui.web' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        ("correct horse battery\n", 0o600, ""),
        ("correct horse battery", 0o644, "other users can read it"),
        ("short", 0o600, "at least 12 characters"),
        ("", 0o600, "at least 12 characters"),
        ("\udcff" * 20, 0o600, "is not UTF-8 text"),
    ],
)
def test_the_password_comes_from_a_private_file(tmp_path: Path, content: str, mode: int, fault: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content.encode(errors="surrogateescape"))
    path.chmod(mode)
    try:
        bound = bind(PageOptions(0, "0.0.0.0", path), DASHBOARD)
    except ValueError as error:
        assert fault and fault in str(error)
    else:
        assert not fault and bound.password == "correct horse battery"
        bound.listening.close()


def test_an_open_page_says_what_it_exposes(place: Workplace) -> None:
    path = place.root / "password"
    path.write_text("correct horse battery")
    path.chmod(0o600)
    running = Rehearsal(
        place, rehearsal_config(1, seconds=20), "--dashboard", "--dashboard-host", "0.0.0.0",
        "--dashboard-token-file", str(path), "--dashboard-read-only",
    )  # fmt: skip
    said = content_of(place.root / "messages", running.process)
    assert re.search(
        r"open to other machines, without encryption: .*see prompts, answers and logs$", said, re.MULTILINE
    )
    running.stop()
