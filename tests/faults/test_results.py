"""What a result says beside its answer: one before it was lost, claude's login ends, claude refused to start."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from claude_orchestrator.engine.state import State
from tests.harness import Workplace, run_real
from tests.stand_in import StandIn, Text

BODY = """
    turns = 0
    for message in messages():
        if message["type"] != "user":
            continue
        turns += 1
        emit({"type": "system", "subtype": "init", "model": "m"})
        start(turns); end(turns)
        result(turns, result_index=2 * turns - 1, credential_expires_at="2020-01-01T00:00:00.000Z")
"""


def test_a_lost_result_and_a_login_that_has_ended_are_reported(place: Workplace) -> None:
    fake = (Path(__file__).parent.parent / "fake_claude.py").read_text()
    head = fake[: fake.index("def main()")].partition("\n")[2]
    version = 'if "--version" in sys.argv: sys.exit(print("2.1.332 (Claude Code)"))\n'
    claude = place.root / "claude"
    claude.write_text(f"#!{sys.executable}\n{head}\n{version}{textwrap.dedent(BODY)}")
    claude.chmod(0o755)
    config = place.config({"instances": [{"name": name, "prompt": "a"} for name in ("one", "two")]})
    done = place.run("--config", config, claude=str(claude))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the login of claude ended at 2020-01-01") == 1
    lost = "one: claude has written a result that did not arrive: an answer is missing"
    assert done.stderr.count(lost) == 1


@pytest.mark.real_cli
def test_why_claude_refused_to_start_is_the_reason(claude: str, tmp_path: Path) -> None:
    """2.1.332 states it in a result, since the program asks for that; 2.1.197 states nothing."""
    with StandIn({"hello": [Text()]}) as api:
        env = {"CLAUDE_CODE_TMPDIR": "/proc/none"}
        outcome = run_real({"instances": [{"name": "one", "prompt": "hello", "env": env}]}, api, claude, tmp_path)
        status = outcome.only
        version = subprocess.run([claude, "--version"], capture_output=True, text=True, check=True).stdout
        why = "exited with code" if "2.1.197" in version else "claude did not start (temp_dir_unusable): ENOENT"
        assert status.state is State.FAILED and status.reason.startswith(why), status.reason
        assert not api.entries
