"""Signs requests to Bedrock, because claude has signed them for the gateway's address. Needs the extra `bedrock`.

The credentials are those that claude finds in the same environment: keys, a profile, or what the machine has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict

from claude_orchestrator.gateway.bedrock.paths import region_of

SIGNED_HEADERS = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")


class NoCredentials(Exception):
    """There is nothing to sign with; the text is the reason."""


class Signers:
    """Signs requests. Of each environment it looks for the credentials once, and renews them as they expire."""

    def __init__(self) -> None:
        self._found: dict[tuple[tuple[str, str], ...], Any] = {}

    async def sign(
        self, environ: Mapping[str, str], method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> CIMultiDict[str]:
        """The headers with a signature for this address. Raises NoCredentials."""
        found = await asyncio.to_thread(self._credentials, environ)
        return _signed(found, region_of(environ), method, url, headers, body)

    def _credentials(self, environ: Mapping[str, str]) -> Any:
        """Frozen credentials; where they come from a file or the machine, this reads them."""
        from botocore.exceptions import BotoCoreError

        key = tuple(sorted(environ.items()))
        try:
            if key not in self._found:
                self._found[key] = _find(environ)
            found = self._found[key]
            frozen = found.get_frozen_credentials() if found is not None else None
        except BotoCoreError as error:
            raise NoCredentials(f"no credentials for Bedrock: {str(error).splitlines()[0][:200]}") from None
        if frozen is None or not frozen.access_key:
            del self._found[key]  # a login may bring some
            raise NoCredentials("no credentials for Bedrock")
        return frozen


def _find(environ: Mapping[str, str]) -> Any:
    from botocore.credentials import Credentials
    from botocore.session import Session

    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN") or None)
    session = Session()
    for variable, name in (
        ("profile", "AWS_PROFILE"),
        ("config_file", "AWS_CONFIG_FILE"),
        ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"),
    ):
        if environ.get(name):
            session.set_config_variable(variable, environ[name])
    return session.get_credentials()


def _signed(
    credentials: Any, region: str, method: str, url: str, headers: Mapping[str, str], body: bytes
) -> CIMultiDict[str]:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    sent = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in SIGNED_HEADERS)
    # what a proxy may add or change on the way is not signed
    signed = {name: sent[name] for name in ("content-type",) if name in sent}
    request = AWSRequest(method=method, url=url, data=body, headers=signed)
    SigV4Auth(credentials, "bedrock", _region_in(url) or region).add_auth(request)
    for name, value in request.headers.items():
        if name.lower() in SIGNED_HEADERS:
            sent[name] = value
    return sent


def _region_in(url: str) -> str:
    """The region of one of Amazon's own addresses."""
    found = re.match(r"https://bedrock(?:-runtime)?\.([a-z0-9-]+)\.amazonaws\.com(?:/|$)", url)
    return found[1] if found is not None else ""
