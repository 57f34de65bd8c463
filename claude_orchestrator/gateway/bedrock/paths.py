"""The paths and addresses of Bedrock, as claude 2.1.197 and 2.1.332 use them. Pure.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import unquote

# patterns, which `re` compiles at their first use: a start of the program needs none of them
_INVOKE = r"/model/(?P<model>[^/?#]+)/(?:invoke|invoke-with-response-stream)"
_COUNT = r"/model/[^/?#]+/count-tokens"
_PROFILES = r"/inference-profiles(?:/[^/?#]+)?"
_REGION = r"[a-z]{2}(?:-[a-z]+)+-\d{1,2}"
FIRST_REGION = "us-east-1"  # that claude takes where none is named
CREDENTIAL_VARIABLES = ("AWS_", "HOME", "USERPROFILE")  # what leads to the keys of an instance
BEARER, SKIP = "AWS_BEARER_TOKEN_BEDROCK", "CLAUDE_CODE_SKIP_BEDROCK_AUTH"


def model_of(path: str) -> str:
    """The model that a request to invoke one names in its path; empty for any other path."""
    found = re.fullmatch(_INVOKE, path.partition("?")[0])
    return unquote(found["model"]) if found is not None else ""


def is_count(path: str) -> bool:
    """Whether a path counts tokens, which costs nothing."""
    return re.fullmatch(_COUNT, path.partition("?")[0]) is not None


def count_request(path: str, body: Mapping[str, object]) -> tuple[str, bytes]:
    """The path and body of the request that counts the tokens of an invocation."""
    import base64  # no start of the program needs it

    whole = {"max_tokens": 1, **body}  # it has to be one that could be invoked
    inner = base64.b64encode(json.dumps(whole).encode()).decode()
    counted = json.dumps({"input": {"invokeModel": {"body": inner}}}).encode()
    return path.partition("?")[0].rpartition("/")[0] + "/count-tokens", counted


def region_of(environ: Mapping[str, str]) -> str:
    """The region that a claude with this environment uses."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or FIRST_REGION


def host_of(region: str) -> str:
    """The address of Bedrock in a region; empty if that is no region."""
    return f"https://bedrock-runtime.{region}.amazonaws.com" if re.fullmatch(_REGION, region) else ""


def control_address(url: str, path: str) -> str:
    """Where a path goes: lists of profiles are those of Bedrock's other address, unless the user names an address."""
    is_own = re.fullmatch(r"https://bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com", url) is not None
    is_list = is_own and re.fullmatch(_PROFILES, path.partition("?")[0]) is not None
    return url.replace("//bedrock-runtime.", "//bedrock.", 1) if is_list else url


def is_signed(environ: Mapping[str, str]) -> bool:
    """Whether claude signs its requests, instead of showing a token or nothing."""
    skips = (environ.get(SKIP) or "").strip().lower() not in ("", "0", "false", "no", "off")
    return not environ.get(BEARER) and not skips
