"""The summary in Markdown, as a browser would show it."""

from __future__ import annotations

import html
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.ci.markdown import MAX_BYTES, markdown_summary
from tests.ui.test_report import a_run

HOSTILE = "<script>x</script> | `a` **b** ![i](https://x.y/z.png) @team #1 www.x.y \x1b[2J $a$ :+1: </pre></details>"


def test_a_summary() -> None:
    view = a_run("one", "two")
    view.instances[1].skip(State.BLOCKED, "overall budget: used 3,012 + estimate 1,000 > limit 3,500 tokens")
    lines = markdown_summary(view, 165.0, lambda name: {"result": "all good"} if name == "one" else {}).splitlines()
    assert lines[0].startswith("### claude-orchestrator: 1/2 done · 1 blocked · 3K") and lines[0].endswith("in 1:05")
    assert lines[2] == "| Instance | State | Time | Tokens | Cost | Turn | Reason |"
    assert lines[4].startswith("| <code>two</code> | **blocked** |  |  |  |  | <code>overall budget&#58; used 3,012 ")
    assert lines[5].startswith("| <code>one</code> | completed | 1:05 | 3.0K | &#36;")
    assert "| <code>/test command</code> | 3,012 | 4,000 | 🟡 75 % |" in lines
    folded = ["<details><summary><code>one</code></summary>", "", "<pre>", "all good", "</pre>", "", "</details>"]
    assert lines[-7:] == folded


def shown(text: str) -> str:
    """The text that a reader sees: without tags, and with character references resolved."""
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def test_hostile_text_is_shown_as_it_is() -> None:
    view = a_run("one")
    name = view.instances[0]
    name.attempt.spec = name.attempt.spec._replace(name=HOSTILE)
    name.take_over(State.FAILED, f"{HOSTILE}\nnext line")
    summary = markdown_summary(view, 165.0, lambda _: {"result": f"{HOSTILE}\n\n# no title\n```\n"})
    row = next(line for line in summary.splitlines() if "script" in line)
    cells = row.split(" | ")
    assert len(cells) == 7 and "<script>x</script> | `a` **b**" in shown(cells[0])
    inside = re.sub(r"</?code>|\*\*", "", row)
    assert not re.search(r"[<>`*\[\]@#$!_]", re.sub(r"&#\d+;", "", inside)) and "https:" not in inside
    assert summary.count("</pre>") == 1 and summary.count("</details>") == 1 and "\x1b" not in summary
    assert "\n# no title\n```\n" in summary  # inside of <pre>
    assert "<script" not in summary


@given(st.text(max_size=300))
def test_no_cell_has_a_meaning(text: str) -> None:
    view = a_run("one")
    view.instances[0].take_over(State.FAILED, text)
    row = markdown_summary(view, 165.0).splitlines()[4]
    cell = row.rpartition(" | ")[2].removesuffix(" |").removeprefix("<code>").removesuffix("</code>")
    bare = re.sub(r"&#\d+;", "", cell)
    assert not set(bare) & set(string.punctuation.replace("-", "").replace(",", "").replace(";", "").replace("/", ""))
    assert row.count(" | ") == 6


def test_a_summary_without_room_for_everything() -> None:
    view = a_run("n" * 250, *(f"n{number}" for number in range(399)))
    summary = markdown_summary(view, 165.0, lambda name: {"result": "<&>" * 30_000})
    assert "… and 100 more: " in summary and "more answers in the files of the run" in summary
    assert "… (cut)" in summary and len(summary.encode()) <= MAX_BYTES
    assert "answers" not in markdown_summary(view, 165.0, lambda name: {"result": " \n"}, 60_000)
    assert "\n400 more answers" in markdown_summary(view, 165.0, lambda name: {"result": "x" * 50_000}, 60_000)
    assert markdown_summary(view, 165.0, max_bytes=10_000).count("| <code>n") == 50
    assert markdown_summary(view, 165.0, max_bytes=500) == ""


@pytest.mark.slow
def test_the_summary_is_never_too_large() -> None:
    view = a_run(*(f"{'n' * 150}{number}" for number in range(2_000)))
    long = {"result": "<&>" * 100_000}
    summary = markdown_summary(view, 165.0, lambda name: long)
    assert len(summary.encode()) <= MAX_BYTES and "more answers in the files of the run" in summary
    assert "… and 1,700 more: " in summary and "… (cut)" in summary
    for room in (100_000, 20_000, 5_000, 500, 0, -5):
        assert len(markdown_summary(view, 165.0, lambda name: long, room).encode()) <= max(0, room)
    assert "completed" in markdown_summary(view, 165.0, max_bytes=10_000)
    assert markdown_summary(view, 165.0, max_bytes=500) == ""
