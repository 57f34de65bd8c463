"""The run as JUnit XML. Pure."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

from claude_orchestrator.engine.results.answers import AnswerOf, no_answers
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import state_text
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.text import printable

_TAGS = {State.FAILED: "failure", State.BLOCKED: "skipped", State.SKIPPED: "skipped"}


def junit_report(view: RunView, took_s: float, answer_of: AnswerOf = no_answers) -> bytes:
    """The run as JUnit XML with a test case for each instance. An `error` is an instance that was stopped.

    A case has its tokens and its answer in `system-out`, and the whole reason in the body of a failure or error.
    """
    tags = Counter(map(_tag, view.instances))
    suite = ElementTree.Element(
        "testsuite",
        name="claude-orchestrator",
        tests=str(len(view.instances)),
        failures=str(tags["failure"]),
        errors=str(tags["error"]),
        skipped=str(tags["skipped"]),
        timestamp=view.started_at.isoformat(),
        time=f"{took_s:.3f}",
    )
    for status in view.instances:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(status.spec.base_command or "prompt"), name=_xml(status.name)
        )
        case.set("time", f"{status.seconds(0.0):.3f}")
        tag = _tag(status)
        if tag:
            problem = ElementTree.SubElement(case, tag, message=_xml(f"{status.state}: {status.reason}"))
            problem.text = _xml_lines(status.reason)
        tokens = f"{status.total_tokens} tokens{'' if status.exact else ' or more'}"
        if status.permission_denials:
            tokens = f"{state_text(status)}\n{tokens}"
        answer = answer_of(status.name).get("result")
        out = tokens if answer is None else f"{tokens}\n\n{_xml_lines(answer)}"
        ElementTree.SubElement(case, "system-out").text = out
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _tag(status: InstanceStatus) -> str:
    """The element that says how an instance did not complete; empty if it did."""
    if status.state is State.COMPLETED:
        return ""
    return "skipped" if status.unneeded else _TAGS.get(status.state, "error")


def _xml(text: str) -> str:
    """The text with escapes for characters that XML 1.0 cannot hold."""
    return printable(text)


def _xml_lines(text: str) -> str:
    """The same for a text of several lines, which stay."""
    return "\n".join("\t".join(map(_xml, line.split("\t"))) for line in text.split("\n"))
