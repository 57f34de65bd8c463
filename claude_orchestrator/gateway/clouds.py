"""The providers other than Anthropic's own API: which one an instance uses, and how the gateway reaches it. Pure.

Variables, addresses and paths are those that claude 2.1.197 and 2.1.332 use (measured against loopback).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from token_budget.named_tuples import NamedTuple

SWITCH = "CLAUDE_CODE_USE_"
OFF = ("", "0", "false", "no", "off")
NO_PROVIDERS = frozenset({"CCR_V2", "COWORK_PLUGINS", "NATIVE_FILE_SEARCH", "POWERSHELL_TOOL"})  # other switches
OTHER_WAYS = {
    "ANTHROPIC_UNIX_SOCKET": "a Unix socket",
    "CLAUDE_CODE_ENABLE_PROXY_AUTH_HELPER": "a helper for its proxy's authentication",
}
VERTEX_HOST = "https://aiplatform.googleapis.com/v1"
# patterns, which `re` compiles at their first use: a start of the program needs none of them
_VERTEX_PATH = (
    r"(?P<parent>/projects/[^/?]+/locations/(?P<region>[^/?]+)/publishers/anthropic/models/)"
    r"(?P<model>[^/:?]+):(?:streamRawPredict|rawPredict)"
)
_REGION = r"[a-z]+-[a-z]+\d{1,2}"
_VERTEX_COUNT = "count-tokens"


class Cloud(NamedTuple):
    """A provider. `base` is the variable with its address, if the gateway can stand there.

    `resource` is a variable that stands for a whole address; claude takes only one of the two.
    """

    key: str
    name: str
    base: str = ""
    resource: str = ""
    why_not: str = ""

    @property
    def switch(self) -> str:
        """The variable that chooses this provider."""
        return SWITCH + self.key


SIGNED = "claude signs its requests for the host that it sends them to"
NEEDS_EXTRA = "that needs the extra bedrock (pip install 'claude-orchestrator[bedrock]')"
# in the order in which claude looks at them
CLOUDS = (
    Cloud("BEDROCK", "Bedrock", "ANTHROPIC_BEDROCK_BASE_URL"),
    Cloud("FOUNDRY", "Foundry", "ANTHROPIC_FOUNDRY_BASE_URL", "ANTHROPIC_FOUNDRY_RESOURCE"),
    Cloud("ANTHROPIC_AWS", "Claude on AWS", why_not=SIGNED),
    Cloud("ANTHROPIC_GOOGLE_CLOUD", "Claude on Google Cloud", why_not="its address is not known to the gateway"),
    Cloud("MANTLE", "Bedrock", why_not=SIGNED),
    Cloud("VERTEX", "Vertex", "ANTHROPIC_VERTEX_BASE_URL"),
    Cloud("GATEWAY", "Claude's own gateway", why_not="claude signs in there"),
)


def cloud_of(environ: Mapping[str, str]) -> Cloud | None:
    """The provider that a claude with this environment uses; None for Anthropic's API."""
    return next((cloud for cloud in CLOUDS if _is_on(environ.get(cloud.switch))), None)


def address_of(cloud: Cloud, environ: Mapping[str, str]) -> str:
    """The provider's base URL without a slash at its end; empty if the environment names none."""
    base = (environ.get(cloud.base) or "").strip().rstrip("/")
    if base or not cloud.resource:
        return base or _own_address(cloud, environ)
    resource = environ.get(cloud.resource) or ""
    return f"https://{resource}.services.ai.azure.com/anthropic" if resource else ""


def _own_address(cloud: Cloud, environ: Mapping[str, str]) -> str:
    if cloud.key != "BEDROCK":
        return VERTEX_HOST if cloud.key == "VERTEX" else ""
    from claude_orchestrator.gateway.bedrock import paths as bedrock  # most starts need none

    return bedrock.host_of(bedrock.region_of(environ))


def signs(cloud: Cloud, environ: Mapping[str, str]) -> bool:
    """Whether claude signs its requests to this provider, so that the gateway has to sign them too."""
    if cloud.key != "BEDROCK":
        return False
    from claude_orchestrator.gateway.bedrock import paths as bedrock

    return bedrock.is_signed(environ)


def variables_for(cloud: Cloud, url: str) -> tuple[tuple[str, str], ...]:
    """The variables that lead a claude to this address instead."""
    return ((cloud.base, url), *(((cloud.resource, ""),) if cloud.resource else ()))


def why_not_routed(environ: Mapping[str, str], *, can_sign: bool) -> str | None:
    """Why the gateway cannot stand between a claude with this environment and its API; None if it can.

    `can_sign`: the library that signs for Bedrock is installed.
    """
    cloud = cloud_of(environ)
    if cloud is not None and signs(cloud, environ) and not can_sign:
        return f"uses {cloud.name}, whose requests the gateway has to sign: {NEEDS_EXTRA}"
    if cloud is not None and not cloud.base:
        return f"uses {cloud.name}, which the gateway does not route: {cloud.why_not}"
    other = next((name for variable, name in OTHER_WAYS.items() if _is_on(environ.get(variable))), None)
    if other is not None:
        return f"uses {other}, which the gateway does not route"
    known = {cloud.switch for cloud in CLOUDS} | {SWITCH + key for key in NO_PROVIDERS}
    unknown = next((name for name in environ if name.startswith(SWITCH) and name not in known), None)
    if unknown is not None and _is_on(environ[unknown]):
        return f"sets {unknown}, which may name a provider that the gateway does not know"
    return half_configured(environ)


def half_configured(environ: Mapping[str, str]) -> str | None:
    """What claude lacks to reach the provider that its environment names; None if it has all that it needs."""
    chosen = [cloud for cloud in CLOUDS if _is_on(environ.get(cloud.switch))]
    if len(chosen) > 1:
        return f"sets {' and '.join(cloud.switch for cloud in chosen)}: choose one provider"
    cloud = chosen[0] if chosen else None
    if cloud is None or not cloud.resource:
        return None
    if environ.get(cloud.base) and environ.get(cloud.resource):
        return f"sets {cloud.base} and {cloud.resource}: claude takes only one of them"
    if not address_of(cloud, environ):
        return f"uses {cloud.name}, but sets neither {cloud.resource} nor {cloud.base}"
    return None


def regional(url: str, path: str) -> str:
    """A base URL for a path: that of Vertex without a region gets the one that the path names."""
    if url != VERTEX_HOST:
        from claude_orchestrator.gateway.bedrock import paths as bedrock

        return bedrock.control_address(url, path)
    found = re.match(_VERTEX_PATH, path)
    region = found["region"] if found is not None else ""
    if region in ("us", "eu"):
        return f"https://aiplatform.{region}.rep.googleapis.com/v1"
    return f"https://{region}-aiplatform.googleapis.com/v1" if re.fullmatch(_REGION, region) else url


def model_in(path: str) -> str:
    """The model that a path names; empty if the body has to name it."""
    if path.startswith("/model/"):
        from claude_orchestrator.gateway.bedrock import paths as bedrock

        return bedrock.model_of(path)
    found = re.fullmatch(_VERTEX_PATH, path.partition("?")[0])
    return found["model"] if found is not None and found["model"] != _VERTEX_COUNT else ""


def is_count(path: str) -> bool:
    """Whether a path counts tokens, which costs nothing."""
    if path.startswith("/model/"):
        from claude_orchestrator.gateway.bedrock import paths as bedrock

        return bedrock.is_count(path)
    found = re.fullmatch(_VERTEX_PATH, path.partition("?")[0])
    return found is not None and found["model"] == _VERTEX_COUNT


def count_path(path: str) -> str:
    """The path that counts the tokens of a request to `path`, which names its model."""
    found = re.match(_VERTEX_PATH, path)
    assert found is not None
    return f"{found['parent']}{_VERTEX_COUNT}:rawPredict"


def _is_on(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in OFF
