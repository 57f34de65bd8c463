"""SHA-256 is the same from wherever it comes."""

from __future__ import annotations

import hashlib
import importlib
import sys

import pytest

from token_budget import digests
from token_budget.text import short_digest


@pytest.mark.parametrize("lacking", [(), ("_sha2",), ("_sha2", "_sha256")])
def test_the_digest_of_a_text(lacking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for module in lacking:
            patch.setitem(sys.modules, module, None)
        found = importlib.reload(digests).sha256(b"a text").hexdigest()
    importlib.reload(digests)
    assert found == hashlib.sha256(b"a text").hexdigest() and short_digest("a text") == found[:8]
