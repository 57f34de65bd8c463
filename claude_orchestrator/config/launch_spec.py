"""One instance, ready to be launched, and what is left of it when its session was interrupted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from claude_orchestrator.claude.argv import argv_in_worktree, asks_for_worktree, resume_argv
from claude_orchestrator.config.approvals import ApprovalRules
from claude_orchestrator.config.config import Check, InstanceConfig, Rehearsal
from claude_orchestrator.config.item_sources import ResultOf
from claude_orchestrator.config.subagent_limits import SubagentLimits
from token_budget.models import Amount, Unit
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.config.items import Item
    from token_budget.forecast import Forecast

CONTINUE_PROMPT = "You were interrupted. Continue where you left off."


class LaunchSpec(NamedTuple):
    """One instance, ready to be launched. `turns` are the prompts, sent one after the other in one session.

    `late` is the instance itself, if some of its texts are only filled at its launch. With `grows` it stands for the
    group that a result of another instance makes of it.
    `private` has the options that are passed in files, because everybody on the machine can read a process's arguments.
    `origin` is the folder that it would work in if it had no `worktree`, once it works in that.
    `node` has the resources that a node of the cluster has to declare.
    `folder_free`: claude is asked to leave the folder out of its system prompt, so that worktrees share it.
    `resumed`: an earlier attempt began this session, and its first `turns_before` turns are done. `group`, `item` and
    `item_index` say which item of which `for_each` the instance was made for.
    """

    position: int
    name: str
    description: str
    command: str
    base_command: str | None
    argv: tuple[str, ...]
    private: tuple[tuple[str, str], ...]
    turns: tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...]
    estimate: Amount
    timeout_s: float | None
    retries: int
    session_id: str | None
    rehearsal: Rehearsal
    json_schema: str | None = None
    unknown_command: str = "fail"
    depends_on: tuple[str, ...] = ()
    run_if: str = "success"
    check: Check | None = None
    late: InstanceConfig | None = None
    worktree: str | bool = False
    base: str | None = None
    fail_on_denied: bool = False
    subagent_limits: SubagentLimits = ()
    approvals: ApprovalRules = ApprovalRules()
    race_of: str | None = None
    origin: str = ""
    grows: ResultOf | None = None
    turns_before: int = 0
    resumed: bool = False
    forecasts: Mapping[Unit, Forecast] = MappingProxyType({})
    group: str | None = None
    item: Item | None = None
    item_index: int | None = None
    folder_free: bool = False
    node: tuple[tuple[str, float], ...] = ()


class InterruptedSession(NamedTuple):
    """A session that was interrupted: its id, how many turns are done in it, and the folder that it worked in.

    `fix` is the turn that answers a failed check, if that has not ended.
    """

    id: str
    turns_done: int
    folder: str | None = None
    fix: str | None = None


def continued(spec: LaunchSpec, session: InterruptedSession) -> LaunchSpec:
    """What is left of an instance whose session was interrupted.

    If claude worked in a worktree, it continues there, where its work is, and makes no other one. The turn in progress
    has its prompt in the session already, so it is asked to continue; `/clear` and `/compact` are sent again. Where all
    turns are done, only the check is left, or the turn that answers its failure.
    """
    turns_done = min(session.turns_done, len(spec.turns) - (spec.check is None))
    first, *rest = spec.turns[turns_done:] or (session.fix,)
    argv, cwd = spec.argv, spec.cwd
    if session.folder and asks_for_worktree(argv):
        argv, cwd = argv_in_worktree(argv, cwd), session.folder
    return spec._replace(
        argv=resume_argv(argv, session.id),
        cwd=cwd,
        turns=tuple(text for text in (_again(first, session.fix), *rest) if text is not None),
        session_id=session.id,
        turns_before=turns_done,
        resumed=True,
    )


def in_worktree(spec: LaunchSpec, folder: str) -> LaunchSpec:
    """The same instance in a folder of its worktree; the files that its arguments name stay where they are."""
    if spec.origin:
        return spec._replace(cwd=folder)
    return spec._replace(argv=argv_in_worktree(spec.argv, spec.cwd), cwd=folder, origin=spec.cwd)


def _again(turn: str | None, fix: str | None) -> str | None:
    """What is sent in the place of a turn that was interrupted; None if there is none."""
    return turn if turn in ("/clear", "/compact", fix) else CONTINUE_PROMPT
