"""Decides about the tools of one instance that need consent: by rules, or by asking a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from claude_orchestrator.claude.events import ControlRequest
from claude_orchestrator.config.approvals import ASK
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.approvals import UNATTENDED, Approvals, Reply
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.run_events import ApprovalEnded, By

if TYPE_CHECKING:
    from claude_orchestrator.claude.permission_rules import Call, Rule

Send = Callable[[ControlRequest, Reply], None]


class Permissions:
    """The questions of one attempt. `send` passes an answer on to claude; `changed` is called as a person is asked,
    and when the answer has come."""

    def __init__(
        self, spec: LaunchSpec, approvals: Approvals | None, bus: Bus, send: Send, changed: Callable[[], None]
    ) -> None:
        rules = spec.approvals
        self._name = spec.name
        self._approvals = approvals
        self._bus = bus
        self._send = send
        self._changed = changed
        self._asks = rules.default == ASK and approvals is not None
        self._allow = _read(rules.allow)
        self._deny = _read(rules.deny)
        self._open: dict[str, str] = {}  # ids of claude's requests, and those of the questions

    @property
    def waits(self) -> bool:
        """Whether a tool waits for a person."""
        return bool(self._open)

    def decide(self, request: ControlRequest, folder: str) -> None:
        """Answer a request about a tool, now or when a person has."""
        from claude_orchestrator.claude.permission_rules import Call, allowing, denying

        call = Call(request.tool, request.given, folder)
        rule = denying(self._deny, call)
        if rule is not None:
            self._by_rule(request, Reply(False, f"Permission denied: the rule {rule} denies it."), f"rule {rule}")
            return
        rule = allowing(self._allow, call)
        if rule is not None:
            self._by_rule(request, Reply(True), f"rule {rule}")
            return
        made = allowing(self._approvals.rules, call) if self._approvals is not None else None
        if made is not None:
            self._by_rule(request, Reply(True), f"{made} is always allowed")
        elif self._asks and self._approvals is not None:
            self._ask(self._approvals, request, call)
        else:
            self._send(request, Reply(False, UNATTENDED))

    def withdraw(self, request_id: str) -> None:
        """Claude needs no answer any more."""
        ask_id = self._open.pop(request_id, None)
        if ask_id is not None and self._approvals is not None:
            self._approvals.withdraw(ask_id, "withdrawn")
            self._changed()

    def close(self) -> None:
        """The attempt ends: withdraw all that is open."""
        for request_id in tuple(self._open):
            self.withdraw(request_id)

    def _ask(self, approvals: Approvals, request: ControlRequest, call: Call) -> None:
        answered = False

        def reply(found: Reply) -> None:
            nonlocal answered
            answered = True
            self._open.pop(request.request_id, None)
            self._send(request, found)
            self._changed()

        ask_id = approvals.ask(self._name, call, request.description, reply)
        if not answered:
            self._open[request.request_id] = ask_id
            self._changed()

    def _by_rule(self, request: ControlRequest, reply: Reply, why: str) -> None:
        self._send(request, reply)
        from claude_orchestrator.claude.tool_text import call_text

        text = call_text(request.tool, request.given)
        outcome = "allowed" if reply.allowed else "denied"
        self._bus.publish(ApprovalEnded("", self._name, text, outcome, By("rules", why=why)))


def _read(rules: Iterable[str]) -> tuple[Rule, ...]:
    if not rules:
        return ()
    from claude_orchestrator.claude.permission_rules import read_rule

    return tuple(map(read_rule, rules))
