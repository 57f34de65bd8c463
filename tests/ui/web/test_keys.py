"""Tickets that sign in once, cookies that outlive the server, and the password."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from claude_orchestrator.ui.web import keys
from claude_orchestrator.ui.web.keys import PageDoor, make_keys, read_door, write_door
from token_budget.folders import Folder
from token_budget.serving import keys as serving_keys
from token_budget.serving.keys import Keys

SECRET = b"s" * 32


def test_a_ticket_is_good_once() -> None:
    ours = Keys(SECRET, "boot")
    ticket = ours.ticket()
    assert ours.redeem(ticket) and not ours.redeem(ticket)
    assert ours.redeem(ours.ticket())


@pytest.mark.parametrize("ticket", ["", ".", "x", "x.", "x.y", "\ud800.\ud800", "ä.ö", "a" * 100_000])
def test_what_is_no_ticket_signs_nobody_in(ticket: str) -> None:
    ours = Keys(SECRET, "boot")
    assert not ours.redeem(ticket) and not ours.knows(ticket)


def test_tickets_end_with_the_server_and_cookies_do_not() -> None:
    before, after = Keys(SECRET, "first"), Keys(SECRET, "second")
    assert not after.redeem(before.ticket())
    assert after.knows(before.cookie())
    assert not Keys(b"t" * 32, "first").knows(before.cookie())


def test_a_ticket_is_no_cookie_and_a_cookie_is_no_ticket() -> None:
    ours = Keys(SECRET, "boot")
    assert not ours.knows(ours.ticket()) and not ours.redeem(ours.cookie())


def test_used_tickets_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_keys, "MAX_USED", 2)
    ours = Keys(SECRET, "boot")
    assert [ours.redeem(ours.ticket()) for _ in range(3)] == [True, True, False]


def test_only_the_password_opens() -> None:
    assert Keys(SECRET, "boot", "correct horse").opens("correct horse")
    assert not Keys(SECRET, "boot", "correct horse").opens("correct hors\ud800")
    assert not Keys(SECRET, "boot").opens("")


def test_the_directory_of_a_run_lets_its_owner_in(tmp_path: Path) -> None:
    with Folder.open(tmp_path) as folder:
        ours, secret = make_keys(folder)
        write_door(folder, PageDoor("http://127.0.0.1:1/", 1, secret, ours.boot))
        door = read_door(folder)
        assert door is not None and ours.redeem(door.ticket())
        assert stat.S_IMODE((tmp_path / keys.NAME).stat().st_mode) == 0o600
        again, _ = make_keys(folder)
        assert again.knows(ours.cookie())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"address": 1, "pid": "x", "secret": "", "boot": ""}'])
def test_a_damaged_record_of_the_page_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / keys.NAME).write_text(text)
    with Folder.open(tmp_path) as folder:
        assert read_door(folder) is None
        assert len(make_keys(folder)[1]) == 64


def test_a_secret_that_is_no_number_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / keys.NAME).write_text(json.dumps({"address": "x", "pid": 1, "secret": "zz", "boot": "b"}))
    with Folder.open(tmp_path) as folder:
        assert read_door(folder) is None
