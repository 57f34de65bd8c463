"""The budgets of a run as the ledger keeps them: structured JSON, and the labels that earlier versions kept. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from token_budget.ledger.records import WEIGHTS_KEY
from token_budget.model_weights import TokenWeights, parse_weights
from token_budget.models import Budget, Scope, Unit, Weights
from token_budget.named_tuples import NamedTuple

FLAT = Weights()
_COST, _COMMAND, _INSTANCE = " cost", " command", "instance "


class RunBudgets(NamedTuple):
    """A run's budgets, unused, and the weights by which tokens are drawn from them."""

    budgets: tuple[Budget, ...] = ()
    weights: TokenWeights = FLAT


def write_budgets(budgets: Iterable[Budget], weights: TokenWeights) -> str:
    """The limits of a run and its weights as JSON text."""
    return json.dumps(budgets_data(budgets, weights))


def budgets_data(budgets: Iterable[Budget], weights: TokenWeights) -> dict[str, Any]:
    """The limits of a run and its weights as JSON data."""
    return {"budgets": [limit_row(one) for one in budgets], "weights": weights.describe()}


def limit_row(budget: Budget) -> dict[str, Any]:
    """A budget's limit as JSON data, in tokens or nano-dollars."""
    return {"scope": str(budget.scope), "key": budget.key, "unit": str(budget.unit), "limit": budget.limit}


def read_budgets(text: str, instances: Collection[str] = ()) -> RunBudgets:
    """The budgets that `write_budgets` has written, or an earlier version by their labels; what is malformed is left
    out. `instances` are the names of the run's instances, which labels need: a name can end like a label."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or isinstance(data.get("budgets"), list):
        return budgets_in(data)
    labelled = [_read_label(label, limit, instances) for label, limit in data.items()]
    return RunBudgets(tuple(one for one in labelled if one is not None), _weights(data.get(WEIGHTS_KEY)))


def budgets_in(data: object) -> RunBudgets:
    """The budgets in what `budgets_data` has made, with what they had used if that is recorded.

    What is malformed is left out.
    """
    limits = data.get("budgets") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(limits, list):
        return RunBudgets()
    found = [_read_limit(one) for one in limits]
    return RunBudgets(tuple(one for one in found if one is not None), _weights(data.get("weights")))


def _read_limit(data: object) -> Budget | None:
    if not isinstance(data, dict) or not _is_limit(data.get("limit")):
        return None
    try:
        scope, unit = Scope(str(data.get("scope"))), Unit(str(data.get("unit")))
    except ValueError:  # of a newer version
        return None
    used = data.get("used")
    known = used if type(used) is int and used >= 0 else 0
    return Budget(data["limit"], scope=scope, key=str(data.get("key") or ""), unit=unit, used=known)


def _read_label(label: str, limit: object, instances: Collection[str]) -> Budget | None:
    """A budget from its label: `overall`, `daily`, `/test command`, `instance one`, each perhaps with ` cost`."""
    if not isinstance(limit, int) or not _is_limit(limit):
        return None
    is_money = label.endswith(_COST) and label.removeprefix(_INSTANCE) not in instances
    unit, name = (Unit.USD, label.removesuffix(_COST)) if is_money else (Unit.TOKENS, label)
    if name in (Scope.OVERALL, Scope.DAILY, Scope.WEEKLY, Scope.MONTHLY):
        return Budget(limit, scope=Scope(name), unit=unit)
    if name.startswith(_INSTANCE):
        return Budget(limit, scope=Scope.INSTANCE, key=name.removeprefix(_INSTANCE), unit=unit)
    if name.endswith(_COMMAND):
        return Budget(limit, scope=Scope.COMMAND, key=name.removesuffix(_COMMAND), unit=unit)
    return None


def _is_limit(value: object) -> bool:
    return type(value) is int and value > 0


def _weights(value: object) -> TokenWeights:
    from token_budget.pricing import billing_weights  # with decimals, which a run's start does not need

    try:
        return parse_weights(str(value or "flat"), billing_weights)
    except ValueError:
        return Weights()
