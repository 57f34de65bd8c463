"""A killed run's attempts are counted again from its logs and from claude's transcripts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from claude_orchestrator.claude.events import Price
from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.interrupted import count_interrupted, message
from claude_orchestrator.engine.journal_history import JournalHistory
from claude_orchestrator.engine.state import InstanceStatus
from tests.claude.test_recount import ASKS, piece, written
from tests.claude.test_tally import INIT, final, line, result, start
from tests.engine.test_resume import Journal, a_plan
from tests.faults.test_journal import kill_in_the_middle
from tests.harness import Workplace
from token_budget import Usage
from token_budget.folders import Folder
from token_budget.models import Amount, Hold

SESSION = "0b5f8a52-6d0e-4a52-8d1c-2f4b6c8d9e10"
BEGINS = line({"type": "system", "subtype": "init", "session_id": SESSION, "model": "m"})
PLAN = a_plan(one="/a")


class Killed:
    """A run of one instance that was killed in its first attempt."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path / "run"
        self.projects = tmp_path / "config" / "projects" / "-x"
        self.projects.mkdir(parents=True)
        self.folder.mkdir(mode=0o700)
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "config"))
        self.journal = Journal()
        self.journal.start(PLAN)
        self.launch(1, 10.0)

    def launch(self, attempt: int, at_s: float) -> None:
        status = InstanceStatus(PLAN.specs[0])
        if attempt > 1:
            status.restore((AttemptTotals(),) * (attempt - 1), None)
        status.begin(0.0)
        self.journal.write(happened.Launched(status, Hold((), Amount())), at=at_s)

    def log(self, *lines: bytes, at_s: float = 14.0, name: str = "001-one.jsonl") -> None:
        path = self.folder / name
        path.write_bytes(b"".join(one + b"\n" for one in lines))
        os.utime(path, (at_s, at_s))

    def count(
        self, price: Price | None = None, *, charge: bool = False
    ) -> tuple[JournalHistory, list[happened.Recounted]]:
        history = self.journal.history
        with Folder.open(self.folder) as folder:
            return history, count_interrupted(folder, history, PLAN, price, charge_unanswered=charge)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Killed:
    return Killed(tmp_path, monkeypatch)


def test_the_log_and_the_transcripts_count_together(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10), start("b", 200), piece("one two "))
    lines = [written("a", 100, 10, 13.0), written("b", 200, 50, 14.5), written("late", 9, 9, 99.0)]
    (killed.projects / f"{SESSION}.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"half":')
    agents = killed.projects / SESSION / "subagents"
    agents.mkdir(parents=True)
    (agents / "agent-1.jsonl").write_text(json.dumps(written("x", 1000, 7, 13.5)))
    os.mkfifo(agents / "agent-2.jsonl")  # it would never end
    history, found = killed.count()
    after = AttemptTotals(Usage(1300, 67), False, by_model=(("m", Usage(1300, 67)),))
    assert found == [happened.Recounted("one", 1, after)] and history.instances["one"].attempts == [after]
    assert message(found, 1367) == (
        "1 interrupted attempt was counted again from the logs and Claude's transcripts: 1,367 more tokens"
    )
    assert message(found * 2, 0).startswith("2 interrupted attempts were")


def test_what_was_counted_again_is_in_the_journal_and_not_counted_a_third_time(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10))
    _, found = killed.count()
    killed.journal.write(found[0], at=20.0)
    killed.log(BEGINS, start("z", 999), final(10))
    history, again = killed.count()
    assert again == [] and history.usage == Usage(100, 10)


def test_the_next_attempt_has_its_own_lines(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10))
    killed.launch(2, 15.0)
    killed.log(BEGINS, start("b", 200), final(20), at_s=19.0, name="001-one.2.jsonl")
    lines = [written("a", 100, 10, 12.0), written("b", 200, 20, 16.0)]
    (killed.projects / f"{SESSION}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    history, _ = killed.count()
    assert [one.usage for one in history.instances["one"].attempts] == [Usage(100, 10), Usage(200, 20)]


def test_without_log_and_transcripts_the_journal_stands(killed: Killed) -> None:
    history, found = killed.count()
    assert found == [] and history.usage == Usage()
    (killed.folder / "001-one.jsonl").symlink_to("/etc/passwd")
    killed.log(line({"type": "system", "subtype": "init", "session_id": "../../*"}), name="other")
    assert killed.count()[1] == []


def test_a_session_that_is_no_id_names_no_file(killed: Killed) -> None:
    (killed.projects / "s.jsonl").write_text(json.dumps(written("a", 100, 10, 12.0)))
    killed.log(INIT)
    assert killed.count()[1] == []


def test_a_request_at_the_gateway_needs_no_other_count(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10))
    left = [0, 0, 0, 0, 0]
    killed.journal.add("sent", instance="one", attempt=1, request=1, left=left)
    assert killed.count()[1] == []


def test_work_that_was_done_is_exact(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10), result(100, 10))
    _, found = killed.count()
    assert not found[0].totals.exact  # a turn may have begun since
    killed.journal.write(happened.WorkEnded("one"), at=13.0)
    _, found = killed.count()
    assert found[0].totals.exact and found[0].totals.cost_usd == 0.1


def test_prices_and_the_request_without_an_answer(killed: Killed) -> None:
    killed.log(BEGINS, start("a", 100), final(10), ASKS)
    _, found = killed.count(lambda model, usage, for_1h: usage.total_tokens)
    assert (found[0].totals.usage, found[0].totals.cost_nano_usd) == (Usage(100, 10), 110)
    _, found = killed.count(lambda model, usage, for_1h: usage.total_tokens, charge=True)
    assert (found[0].totals.usage, found[0].totals.cost_nano_usd) == (Usage(200, 10), 210)


def test_a_dry_run_counts_like_the_run_that_resumes(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "hang-once"}}]}
    kill_in_the_middle(place, setup, until=b'"kind":"usage"')
    (run,) = (place.root / "out").iterdir()
    log = run / "001-one.jsonl"
    log.write_bytes(log.read_bytes() + start("late", 5_000) + b"\n")
    shown = place.run("--resume", "last", "--dry-run")
    resumed = place.run("--resume", "last", "--report", "report.json")
    line = "1 interrupted attempt was counted again from the logs and Claude's transcripts: 5,001 more tokens"
    assert line in shown.stdout + shown.stderr and line in resumed.stderr
    assert place.run("--resume", "last").stderr.count("counted again") == 0
