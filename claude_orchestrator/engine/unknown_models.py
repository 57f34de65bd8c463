"""Reports each model without a certain price once in a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from token_budget.text import printable


class UnknownModels:
    """Reports models to `warn`."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._reported: set[str] = set()

    def no_price(self, model: str) -> None:
        """The price lists lack a model."""
        name = printable(model)
        self._report(model, f"no price is known for the model {name}: its cost counts once claude states it")

    def guessed(self, models: Iterable[str]) -> None:
        """The CLI states a cost for these models without knowing their prices."""
        for model in models:
            name = printable(model)
            self._report(model, f"claude knows no price for the model {name}: the cost that it states is a guess")

    def _report(self, model: str, text: str) -> None:
        name = model.partition("[")[0]
        if name not in self._reported:
            self._reported.add(name)
            self._warn(text)
