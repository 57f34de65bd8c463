"""Graphs through the supervisor with scripted instances: what is launched, when, and with which texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.results import upstream
from claude_orchestrator.engine.results.answer_files import AnswerFiles
from claude_orchestrator.engine.run_view import exit_code
from claude_orchestrator.engine.state import State
from claude_orchestrator.errors import UserError
from tests.harness import Outcome, run_config, run_real
from tests.scripted import Script
from tests.stand_in import Call, Reply, StandIn, Text, Tools

SCHEMA = {"type": "object"}
DONE, FAILED, SKIPPED = State.COMPLETED, State.FAILED, State.SKIPPED


def step(name: str, *needs: str, prompt: str = "x", **keys: Any) -> dict[str, Any]:
    return {"name": name, "prompt": prompt, "depends_on": list(needs), **keys}


def run(script: Script, tmp_path: Path, *steps: dict[str, Any], **options: Any) -> Outcome:
    answers = AnswerFiles(tmp_path, {}, pytest.fail)
    return run_config({"instances": list(steps)}, script, workspace=tmp_path, answers=answers, **options)


def states(outcome: Outcome) -> dict[str, State]:
    return {status.name: status.state for status in outcome.instances}


def told(script: Script, name: str) -> list[str]:
    """What an instance was asked."""
    return [line.removeprefix(f"{name}: ") for line in script.log if line.startswith(f"{name}: ")]


def launches(script: Script) -> list[str]:
    return [line.removeprefix("launch ") for line in script.log if line.startswith("launch ")]


def test_each_starts_after_what_it_needs(tmp_path: Path) -> None:
    script = Script()
    outcome = run(script, tmp_path, step("c", "b"), step("b", "a"), step("a"))
    assert launches(script) == ["a", "b", "c"] and exit_code(outcome.instances) == 0


def test_the_longest_chain_starts_first(tmp_path: Path) -> None:
    script = Script()
    steps = [step("short"), step("head"), step("tail", "head"), step("big", max_tokens_per_command=9_000)]
    run(script, tmp_path, *steps, max_parallel=1)
    assert launches(script) == ["big", "head", "short", "tail"]


def test_without_dependencies_the_order_is_that_of_the_config(tmp_path: Path) -> None:
    script = Script()
    run(script, tmp_path, step("a"), step("b", max_tokens_per_command=9_000), step("c"), max_parallel=1)
    assert launches(script) == ["a", "b", "c"]


def test_a_failure_skips_what_depends_on_it(tmp_path: Path) -> None:
    script = Script()
    outcome = run(
        script,
        tmp_path,
        step("plan", prompt="broken"),
        step("build", "plan"),
        step("test", "build"),
        step("tidy", "test", run_if="always"),
        step("tell", "plan", run_if="failure", prompt="Why? {{results.plan}}"),
        step("other"),
    )
    assert states(outcome) == {
        "plan": FAILED, "build": SKIPPED, "test": SKIPPED, "tidy": DONE, "tell": DONE, "other": DONE
    }  # fmt: skip
    reasons = {status.name: status.reason for status in outcome.instances}
    assert reasons["build"] == "plan failed" and reasons["test"] == "build was skipped: plan failed"
    assert told(script, "tell")[0].startswith("Why? failed: ")
    assert "WARNING: test: skipped: build was skipped: plan failed" in outcome.messages
    assert exit_code(outcome.instances) == 1


def test_what_was_there_for_a_failure_is_no_fault(tmp_path: Path) -> None:
    outcome = run(Script(), tmp_path, step("plan"), step("tell", "plan", run_if="failure"), step("after", "tell"))
    assert states(outcome) == {"plan": DONE, "tell": SKIPPED, "after": SKIPPED}
    assert exit_code(outcome.instances) == 0


def test_a_blocked_upstream_skips_its_dependants(tmp_path: Path) -> None:
    budget = {"command_budgets": {"plan": 500}, "enforcement_mode": "block"}
    answers = AnswerFiles(tmp_path, {}, pytest.fail)
    config = {"instances": [step("plan"), step("next", "plan")], "budget": budget}
    outcome = run_config(config, Script(), workspace=tmp_path, answers=answers)
    assert states(outcome) == {"plan": State.BLOCKED, "next": SKIPPED}
    assert outcome.instances[1].reason == "plan was blocked"


def test_a_cancelled_run_leaves_nothing_skipped(tmp_path: Path) -> None:
    outcome = run(
        Script(),
        tmp_path,
        step("plan", prompt="wait"),
        step("next", "plan"),
        step("last", "next"),
        on_event=lambda event: None,
        at_start=lambda supervisor: _soon(lambda: supervisor.cancel("stop")),
    )
    assert set(states(outcome).values()) == {State.CANCELLED}


def _soon(call: Any) -> None:
    import asyncio

    asyncio.get_running_loop().call_later(0.05, call)


def test_fail_fast_cancels_the_graph(tmp_path: Path) -> None:
    steps = step("a", prompt="broken"), step("b", "a", run_if="always"), step("c", "b")
    outcome = run(Script(), tmp_path, *steps, fail_fast=True)
    assert list(states(outcome).values()) == [FAILED, State.CANCELLED, State.CANCELLED]


# -- results --

OUTPUT: dict[str, Any] = {
    "files": ["a.py", "b.py"],
    "why": "x {{item}} {{results.plan}} \\{{ $(reboot)\n\u2028 end",
    "n": 3,
    "a.b": [{"c": 1}],
}


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("Do {{results.plan.files}}", 'Do ["a.py","b.py"]'),
        ("Do {{results.plan.files.1}} {{ results.plan.n }}", "Do b.py 3"),
        ("Do {{results.plan.a.b.0.c}}", "Do 1"),
        ("{{results.plan.why}}!", OUTPUT["why"] + "!"),  # a value is never read again
        ("{{results.say}}", "say answers"),
        (r"\{{results.say}} {{results.say}}", "{{results.say}} say answers"),
    ],
)
def test_results_in_a_prompt(prompt: str, sent: str, tmp_path: Path) -> None:
    script = Script(answers={"plan": OUTPUT})
    run(script, tmp_path, step("plan", json_schema=SCHEMA), step("say"), step("use", "plan", "say", prompt=prompt))
    assert told(script, "use") == [sent]


def test_results_in_other_texts_and_by_file(tmp_path: Path) -> None:
    script = Script(answers={"plan": OUTPUT, "say": "long text"})
    seen = []
    launch = script.launch

    async def spy(spec: Any) -> Any:
        seen.append(spec)
        return await launch(spec)

    script.launch = spy  # type: ignore[method-assign]
    keys = {"env": {"N": "{{results.plan.n}}", "P": "{{ .x }}"}, "pre_commands": ["{{results.say}}"]}
    use = step(
        "use", "plan", "say", prompt="Read {{results.say.file}}", append_system_prompt="{{results.plan.n}}", **keys
    )
    outcome = run(script, tmp_path, step("plan", json_schema=SCHEMA), step("say"), use)
    assert states(outcome)["use"] is DONE, outcome.instances[2].reason
    spec = seen[-1]
    file = str(tmp_path / "results" / "say.md")
    assert spec.turns == ("long text", f"Read {file}") and Path(file).read_text() == "long text"
    assert dict(spec.env) == {"N": "3", "P": "{{ .x }}"} and spec.private == (("append-system-prompt", "3"),)
    assert spec.argv[-1] == f"--add-dir={tmp_path / 'results'}"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("{{results.plan.filez}}", 'the result of plan has no filez; did you mean "files"?'),
        ("{{results.plan.files.7}}", "the result of plan has no files.7; there is a list of 2"),
        ("{{results.plan.n.x}}", "the result of plan has no n.x; there is 3"),
        ("{{results.plan.zzz}}", 'the result of plan has no zzz; it has "files", "why", "n", "a.b"'),
    ],
)
def test_a_missing_part_fails_the_instance_and_skips_the_next(prompt: str, why: str, tmp_path: Path) -> None:
    script = Script(answers={"plan": OUTPUT})
    steps = [step("plan", json_schema=SCHEMA), step("use", "plan", prompt=prompt), step("end", "use")]
    outcome = run(script, tmp_path, *steps)
    assert states(outcome) == {"plan": DONE, "use": FAILED, "end": SKIPPED}
    assert outcome.instances[1].reason == f"cannot be launched: command: {prompt}: {why}"
    assert launches(script) == ["plan"] and outcome.manager.budgets == ()
    assert outcome.instances[2].reason == "use failed"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("y" * 400_001, "a prompt of 400,001 characters, and at most 400,000 are sent: pass the file of a long result"),
        ("/clear", "a prompt that begins with / would be a slash command: write a word before the placeholder"),
        ("\n /exit", "a prompt that begins with / would be a slash command"),
        ("a\0b", "a NUL"),
        ("  ", "its result is missing"),
    ],
)
def test_a_result_that_cannot_be_a_prompt(answer: str, why: str, tmp_path: Path) -> None:
    outcome = run(
        Script(answers={"plan": answer}), tmp_path, step("plan"), step("use", "plan", prompt="{{results.plan}}")
    )
    assert states(outcome) == {"plan": DONE, "use": FAILED} and why in outcome.instances[1].reason


def test_a_result_that_is_too_long_for_a_variable(tmp_path: Path) -> None:
    use = step("use", "plan", env={"TEXT": "{{results.plan}}"})
    outcome = run(Script(answers={"plan": "é" * 100_001}), tmp_path, step("plan"), use)
    assert "env.TEXT: an environment variable has at most 100,000 characters" in outcome.instances[1].reason


def test_an_upstream_without_structured_output(tmp_path: Path) -> None:
    """It failed, and the next one runs nevertheless."""
    plan = step("plan", prompt="broken", json_schema=SCHEMA)
    use = step("use", "plan", prompt="{{results.plan.files}}", run_if="always")
    outcome = run(Script(), tmp_path, plan, use)
    assert "plan has no structured output: it is failed" in outcome.instances[1].reason


def test_a_long_prompt_is_not_kept_after_its_instance(tmp_path: Path) -> None:
    use = step("use", "plan", prompt="Read {{results.plan}}")
    outcome = run(Script(answers={"plan": "z" * 300_000}), tmp_path, step("plan"), use)
    assert outcome.instances[1].state is DONE and outcome.instances[1].spec.turns == ("Read {{results.plan}}",)


def test_parts_of_results() -> None:
    assert upstream.part_of("x", {"a": {"b": [1, {"c": None}]}}, "a.b.1.c") is None
    assert upstream.part_of("x", [1], "") == [1]
    assert json.loads(json.dumps(upstream.part_of("x", {"a": {}}, "a"))) == {}


# -- groups --


def test_a_group_is_waited_for_and_its_results_are_a_list(tmp_path: Path) -> None:
    fix = step("fix", "plan", prompt="Fix {{item}} as in {{results.plan}}", for_each=["a", "b {{index}}"])
    end = step("end", "fix", prompt="All: {{results.fix}}")
    script = Script(answers={"fix[a]": {"ok": True}, "fix[b {{index}}]": "done \\ {{item}}"})
    outcome = run(script, tmp_path, step("plan"), fix, end)
    assert set(states(outcome).values()) == {DONE}
    assert told(script, "fix[b {{index}}]") == ["Fix b {{index}} as in plan answers"]
    rows = json.loads(told(script, "end")[0].removeprefix("All: "))
    assert rows == [
        {"item": "a", "status": "completed", "result": {"ok": True}},
        {"item": "b {{index}}", "status": "completed", "result": "done \\ {{item}}"},
    ]


def test_a_group_by_file_and_in_parts(tmp_path: Path) -> None:
    fix = step("fix", prompt="Fix {{item}}", for_each=["a", "b"])
    end = step("end", "fix", prompt="See {{results.fix.file}}, {{results.fix.1.item}}")
    script = Script()
    run(script, tmp_path, fix, end)
    file = tmp_path / "results" / "fix.json"
    assert told(script, "end") == [f"See {file}, b"]
    assert [row["result"] for row in json.loads(file.read_text())] == ["fix[a] answers", "fix[b] answers"]


def test_one_failure_in_a_group(tmp_path: Path) -> None:
    fix = step("fix", prompt="{{item}}", for_each=["broken", "b"])
    one = step("one", "fix[b]", prompt="x {{results.fix[b]}}")
    tell = step("tell", "fix", run_if="always", prompt="x {{results.fix.0.status}}")
    script = Script()
    outcome = run(script, tmp_path, fix, step("all", "fix"), one, tell)
    assert states(outcome)["all"] is SKIPPED and outcome.instances[2].reason == "fix[broken] failed"
    assert told(script, "one") == ["x fix[b] answers"] and told(script, "tell") == ["x failed"]


def test_a_group_whose_upstream_failed_is_skipped_whole(tmp_path: Path) -> None:
    fix = step("fix", "plan", prompt="{{item}}", for_each=["a", "b"])
    outcome = run(Script(), tmp_path, step("plan", prompt="broken"), fix, step("end", "fix"))
    assert list(states(outcome).values()) == [FAILED, SKIPPED, SKIPPED, SKIPPED]
    assert outcome.instances[3].reason == "fix[a] was skipped: plan failed"


# -- groups whose items are a result --

MAP = {"result_of": "plan", "path": "files"}


def test_a_list_in_a_result_becomes_instances(tmp_path: Path) -> None:
    fix = step("fix", prompt="Fix {{item}}, {{index}}: {{results.plan.n}}", for_each=MAP, max_tokens_per_command=5_000)
    end = step("end", "fix", prompt="All: {{results.fix}}")
    script = Script(answers={"plan": {"files": ["a", "b {{index}}", "a", 7], "n": 3}})
    outcome = run(script, tmp_path, end, fix, step("plan", json_schema=SCHEMA), command_budgets=("fix=50000",))
    assert states(outcome) == dict.fromkeys(["end", "fix[a]", "fix[b {{index}}]", "fix[7]", "plan"], DONE)
    assert told(script, "fix[b {{index}}]") == ["Fix b {{index}}, 1: 3"]
    assert [row["item"] for row in json.loads(told(script, "end")[0].removeprefix("All: "))] == [
        "a",
        "b {{index}}",
        "7",
    ]
    assert "WARNING: fix: 1 repeated item left out: each item is one instance" in outcome.messages
    used = {budget.label: budget.used for budget in outcome.manager.budgets}
    assert used == {"group fix": 3003, **dict.fromkeys([f"instance fix[{i}]" for i in ("a", "b {{index}}", "7")], 1001)}
    assert [status.planned.position for status in outcome.instances] == [0, 3, 4, 5, 2]


def test_objects_of_a_group_in_a_group(tmp_path: Path) -> None:
    find = step("find", prompt="{{item}}", for_each=["x", "y"], json_schema=SCHEMA)
    fix = step("fix {{item.item}}", prompt="{{item.result.id}}", for_each={"result_of": "find"})
    script = Script(answers={"find[x]": {"id": 1}, "find[y]": {"id": 2}})
    outcome = run(script, tmp_path, find, fix, step("end", "fix"))
    assert told(script, "fix x") == ["1"] and told(script, "fix y") == ["2"] and states(outcome)["end"] is DONE


def test_an_empty_list_leaves_nothing_to_do(tmp_path: Path) -> None:
    fix, end = step("fix", prompt="{{item}}", for_each=MAP), step("end", "fix", prompt="x {{results.fix}}")
    script = Script(answers={"plan": {"files": []}})
    outcome = run(script, tmp_path, step("plan", json_schema=SCHEMA), fix, end)
    assert states(outcome) == {"plan": DONE, "end": DONE} and told(script, "end") == ["x []"]
    assert "INFO: fix: the list is empty: there is nothing to do" in outcome.messages


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ({"files": "a.py"}, 'the result of plan at files is no list but "a.py"'),
        ({"filez": []}, 'the result of plan has no files; did you mean "filez"?'),
        ({"files": ["a", None]}, "the result of plan at files: item 1: expected a text or an object, got null"),
        ({"files": ["a\0"]}, "the result of plan at files: item 0: a NUL or half a surrogate pair cannot be passed"),
        ({"files": [{"id": 1, "x": 1}, {"id": 1}]}, "name: the name fix[1] also belongs to item 0"),
        ("only text", "plan has no structured output"),
    ],
)
def test_a_result_that_is_no_list_fails_the_group(output: object, why: str, tmp_path: Path) -> None:
    fix, end = step("fix", prompt="{{item}}", for_each=MAP), step("end", "fix")
    tell = step("tell", "fix", run_if="failure", prompt="x {{results.fix}}")
    plan = step("plan", json_schema=SCHEMA)
    script = Script(answers={"plan": output})
    outcome = run(script, tmp_path, plan, fix, end, tell)
    if isinstance(output, str):  # then it has failed already
        assert states(outcome) == {"plan": FAILED, "fix": SKIPPED, "end": SKIPPED, "tell": DONE}
        return
    assert states(outcome) == {"plan": DONE, "fix": FAILED, "end": SKIPPED, "tell": DONE}
    assert outcome.instances[1].reason.startswith(f"cannot be expanded: {why}")
    assert outcome.instances[2].reason == "fix failed"
    assert told(script, "tell")[0].startswith("x failed: cannot be expanded")


def test_a_group_whose_source_failed_is_skipped(tmp_path: Path) -> None:
    plan = step("plan", prompt="broken", json_schema=SCHEMA)
    outcome = run(Script(), tmp_path, plan, step("fix", prompt="{{item}}", for_each=MAP), step("end", "fix"))
    assert states(outcome) == {"plan": FAILED, "fix": SKIPPED, "end": SKIPPED}
    assert outcome.instances[1].reason == "plan failed" and exit_code(outcome.instances) == 1


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"result_of": "plam"}, 'for_each.result_of: no instance or group is called "plam"; did you mean "plan"?'),
        ({"result_of": "fix"}, 'for_each.result_of: "fix" would wait for itself'),
        ({"result_of": "say"}, "for_each.result_of: say has no json_schema, so its result is a text and no list"),
        ({"result_of": "plan", "exclude": "x"}, "for_each.exclude: only with glob"),
        ({"glob": "x", "path": "x"}, "for_each.path: only with result_of"),
    ],
)
def test_faults_of_result_of(source: dict[str, str], why: str, tmp_path: Path) -> None:
    fix = step("fix", prompt="{{item}}", for_each=source)
    with pytest.raises(UserError, match=re.escape(why)):
        run(Script(), tmp_path, step("plan", json_schema=SCHEMA), step("say"), fix)


@pytest.mark.real_cli
def test_claude_may_read_the_file_of_a_result(claude: str, tmp_path: Path) -> None:
    """It lies outside of the instance's folder, in the default permission mode."""
    answers = AnswerFiles(tmp_path / "run", {}, pytest.fail)
    file = str(tmp_path / "run" / "results" / "say.md")
    replies: dict[str, list[Reply]] = {
        "MAUVE": [Text("a secret word")],
        "OCHRE": [Tools((Call("Read", {"file_path": file}),)), Text("I see.")],
    }
    steps = [step("say", prompt="MAUVE"), step("use", "say", prompt="OCHRE reads {{results.say.file}}")]
    with StandIn(replies) as api:
        outcome = run_real({"instances": steps}, api, claude, tmp_path, answers=answers)
    assert states(outcome) == {"say": DONE, "use": DONE} and outcome.instances[1].permission_denials == []
    sessions = [path.read_text() for path in (tmp_path / "home").glob(".claude/projects/*/*.jsonl")]
    assert ["a secret word" in session for session in sessions if "OCHRE" in session] == [True]
