"""`--keep-cache-warm` where it works, with its price, and where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Workplace

pytest.importorskip("genai_prices")

KEY = {"ANTHROPIC_API_KEY": "dummy", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
TWO = {"instances": [{"name": name, "prompt": "hi", "model": "claude-opus-4-8"} for name in "ab"]}


def dry_run(tmp_path: Path, *args: str) -> tuple[int, str]:
    place = Workplace(tmp_path)
    config = place.config(TWO)
    done = place.run("--config", config, "--dry-run", "--ledger", "off", "--keep-cache-warm", *args, **KEY)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (
            ("--meter", "stream"),
            "needs --meter api, which can repeat requests; this run takes the stream (as asked for)",
        ),
        (("--share-cache", "off"), "has no effect with --share-cache off"),
    ],
)
def test_where_nothing_can_keep_it_one_line_says_why(args: tuple[str, str], why: str, tmp_path: Path) -> None:
    code, said = dry_run(tmp_path, *args)
    assert code == 2 and f"--keep-cache-warm: {why}" in said


def test_the_dry_run_shows_its_price(tmp_path: Path) -> None:
    code, said = dry_run(tmp_path, "--startup-delay", "400s")
    text = " ".join(said.split())
    assert code == 0 and "expire" not in said
    assert "about 10,000 tokens or more are read 1 more time, for $0.0050" in text
    assert "a call every 4.5 minutes reads 10,000 tokens or more, for $0.0050. After 11 calls in a row" in text
