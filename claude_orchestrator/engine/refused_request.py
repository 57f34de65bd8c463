"""The request of an attempt that a budget has refused, until it is clear how claude reacts. Pure.

Claude 2.1.332 asks again after a refusal if its request had the field `safeguards`: the next one has no such field, is
smaller, and may fit. So a refusal ends an instance only when claude gives up, or does nothing for the grace time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a run without a gateway needs none of these
    from claude_orchestrator.gateway.refusals import BudgetRefusal
    from claude_orchestrator.gateway.sender import Sender


class RefusedRequest:
    """The last request that was refused, unless its sender has sent another one since.

    `on_change` is called when there is such a request, and when there no longer is.
    """

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._pending: tuple[BudgetRefusal, Sender] | None = None

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        """A budget refuses a request. The first refusal stands, as long as nothing changes."""
        if self._pending is None:
            self._pending = refusal, sender
            self._on_change(True)

    def admitted(self, sender: Sender) -> None:
        """A request is sent. If its sender was refused before, it now asks for less."""
        if self._pending is not None and self._pending[1] == sender:
            self._pending = None
            self._on_change(False)

    def take(self) -> BudgetRefusal | None:
        """The refusal that still stands, which is forgotten here; None if there is none."""
        pending, self._pending = self._pending, None
        return pending[0] if pending is not None else None
