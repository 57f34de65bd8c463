"""A finished run as one file: what it contains, and what it leaves out."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.ui.web.assets import MODULES, assets
from claude_orchestrator.ui.web.page_file import bundle, fitting, page_file, short_conversation


def test_the_data_cannot_end_its_element_and_is_whole() -> None:
    hostile = "</script><script>alert(1)</script><!--\u2028"
    html = page_file({"instances": [{"name": hostile}]}, {hostile: {"answer": hostile}}).decode()
    data = re.search(r'<script type="application/json" id="run-data">(.*?)</script>', html, re.DOTALL)
    assert data and json.loads(data[1])["parts"] == {hostile: {"answer": hostile}}
    assert "alert(1)</script>" not in html and html.count("<script") == 3
    assert "unsafe-inline" not in html and re.search(r"script-src 'sha256-[\w+/=]+' 'sha256-[\w+/=]+';", html)


def test_all_modules_fit_into_one_scope() -> None:
    text = "\n".join(assets()[f"/{name}"].data.decode() for name in MODULES)
    names = re.findall(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert "import " not in bundle() and "export " not in bundle()
    imported = {name for group in re.findall(r"^import \{([^}]+)\}", text, re.MULTILINE) for name in group.split(",")}
    assert {name.strip() for name in imported} <= set(names)


@given(st.lists(st.text(max_size=200), max_size=20), st.integers(0, 3_000))
def test_texts_fit_and_short_ones_stay_whole(texts: list[str], room: int) -> None:
    cut = fitting(texts, room)
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    assert sum(len(text.encode("utf-8", "replace")) for text in cut) <= room
    if sum(sizes) <= room:
        assert cut == texts
    for before, after in zip(texts, cut, strict=True):
        assert before.startswith(after) or "\ud800" <= max(before) <= "\udfff"


def test_a_long_conversation_keeps_its_beginning_and_its_end() -> None:
    lines = [
        json.dumps(
            {"type": "assistant", "message": {"content": [{"type": "text", "text": f"{number} " + "x" * 5_000}]}}
        )
        for number in range(1_000)
    ]
    items = short_conversation((line.encode() for line in lines), 10_000)
    assert len(json.dumps(items)) <= 10_500
    assert items[0]["text"].startswith("0 ") and items[-1]["text"].startswith("999 ")
    assert any("parts are in the log" in item["text"] for item in items)
