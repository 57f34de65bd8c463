"""The setting `approvals`: who decides about tools that need consent. Pure."""

from __future__ import annotations

from claude_orchestrator.config.compound_kinds import read_object
from claude_orchestrator.config.instance_kinds import TOOLS
from token_budget.fields import BadValue, Kind, choice, expected
from token_budget.named_tuples import NamedTuple

ASK, DENY = "ask", "deny"
_WHO = choice(ASK, DENY)
_KEYS = {"default": _WHO, "allow": TOOLS, "deny": TOOLS}


class ApprovalRules(NamedTuple):
    """Rules that answer first, and what happens if none matches: a person is asked (`ask`), or the tool is denied
    (`deny`)."""

    default: str = DENY
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    @property
    def handled(self) -> bool:
        """Whether the program answers. If it does not, Claude denies each tool."""
        return self.default == ASK or bool(self.allow)


def _read(value: object) -> ApprovalRules:
    if isinstance(value, ApprovalRules):
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        import json  # only for rules

        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadValue(("", f"is not JSON: {error}")) from None
    if isinstance(value, dict):
        return ApprovalRules(**{"default": ASK, **read_object(value, _KEYS)})
    if value not in (ASK, DENY):
        raise expected('ask, deny, or an object such as {"allow": ["Bash(npm test *)"]}', value)
    return ApprovalRules(str(value))


def _show(rules: ApprovalRules) -> str:
    if not (rules.allow or rules.deny):
        return rules.default
    import json

    lists = {"allow": list(rules.allow), "deny": list(rules.deny)}
    return json.dumps({"default": rules.default, **{key: value for key, value in lists.items() if value}})


APPROVALS = Kind(
    _read,
    {
        "anyOf": [
            {"enum": [ASK, DENY]},
            {
                "type": "object",
                "properties": {key: kind.schema for key, kind in _KEYS.items()},
                "patternProperties": {"^//": {}},
                "additionalProperties": False,
            },
        ]
    },
    _show,
)
