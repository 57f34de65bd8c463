"""The methods of the control protocol: what each takes, and what it does with a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from claude_orchestrator.engine.control.rpc import Code, RpcError, RpcRequest
from claude_orchestrator.engine.control.run_control import RefusedError, RunControl
from claude_orchestrator.engine.control.snapshot import approval_row
from claude_orchestrator.engine.run_events import By

MAX_TEXT = 1_000  # characters of a reason or a message
MAX_NAMES = 10_000
Method = Callable[[RunControl, "Params", By], object]


class Params:
    """The params of a request. Each is read by its type. Raises RpcError."""

    def __init__(self, request: RpcRequest) -> None:
        self._id = request.id
        self._values = request.params

    def text(self, name: str, default: str | None = None) -> str:
        """A text of a bounded length."""
        value = self._values.get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise self.fault(name, f"a text of at most {MAX_TEXT:,} characters")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false where it is missing."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise self.fault(name, "true or false")
        return value

    def number(self, name: str) -> int:
        """A whole number; -1 where it is missing."""
        value = self._values.get(name, -1)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(name, "a whole number")
        return value

    def names(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._values.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or len(value) > MAX_NAMES or not all(isinstance(one, str) for one in value):
            raise self.fault(name, "a list of names")
        return value

    def any(self, name: str) -> object:
        """A value that its reader checks."""
        return self._values.get(name)

    def fault(self, name: str, what: str) -> RpcError:
        """The error of a value that is not what was expected."""
        return RpcError(Code.PARAMS, f"{name}: expected {what}", self._id)


def by_of(via: str, user: str, params: Params) -> By:
    """Who asks, and why."""
    return By(via, user, params.text("why", ""))


def _set_limit(control: RunControl, params: Params, by: By) -> object:
    return control.set_limits({params.text("budget"): params.any("limit")}, by)[0]


def _set_limits(control: RunControl, params: Params, by: By) -> object:
    limits = params.any("limits")
    if not isinstance(limits, dict) or not limits or len(limits) > MAX_NAMES:
        raise params.fault("limits", "an object of limits by budget")
    return control.set_limits(limits, by)


def _set_max_parallel(control: RunControl, params: Params, by: By) -> object:
    return {"max_parallel": control.set_max_parallel(params.any("number"), by)}


def _approve(control: RunControl, params: Params, by: By) -> object:
    return {"approved": control.approve(params.names("ids"), by, always=params.flag("always"))}


def _deny(control: RunControl, params: Params, by: By) -> object:
    return {"denied": control.deny(params.names("ids"), by, message=params.text("message", ""))}


METHODS: Mapping[str, Method] = {
    "status": lambda control, params, by: control.brief() if params.flag("brief") else control.status(),
    "stop": lambda control, params, by: {"stopping": control.stop(params.names("names"), by)},
    "stop_run": lambda control, params, by: control.stop_run(by, at_once=params.flag("at_once")),
    "pause": lambda control, params, by: control.pause(by),
    "resume": lambda control, params, by: control.resume(by),
    "set_limit": _set_limit,
    "set_limits": _set_limits,
    "set_max_parallel": _set_max_parallel,
    "approvals": lambda control, params, by: [approval_row(ask) for ask in control.approvals],
    "approve": _approve,
    "deny": _deny,
}


def call(control: RunControl, request: RpcRequest, via: str, user: str) -> Any:
    """Do what a request asks for; returns the result. Raises RpcError."""
    method = METHODS.get(request.method)
    if method is None:
        raise RpcError(Code.METHOD, f"there is no method {request.method[:100]!r}", request.id)
    params = Params(request)
    try:
        return method(control, params, by_of(via, user, params))
    except RefusedError as error:
        raise RpcError(Code.REFUSED, str(error), request.id) from None
