"""The connections from the gateway to the API: one request, and the redirects that it leads to."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from claude_orchestrator.gateway.address import ApiAddress, Certificates
from claude_orchestrator.gateway.requests import MESSAGES, READING, plain_path

if TYPE_CHECKING:
    from claude_orchestrator.gateway.bedrock.signing import Signers

MAX_HEADER_BYTES = 64 * 1024
CONNECT_S = 60
MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
SAME_METHOD = (307, 308)
OWN_HEADERS = (hdrs.AUTHORIZATION, hdrs.COOKIE)  # what no client gives to another server


class NotSent(Exception):
    """The request was not sent; the text is the reason."""


class RedirectRefused(NotSent):
    """The API answers with a redirect that the gateway does not follow; the text is the reason."""


class UpstreamClient:
    """A context that sends requests to the API of each instance."""

    def __init__(self) -> None:
        self._contexts: dict[Certificates, ssl.SSLContext] = {}
        self._signers: Signers | None = None

    async def __aenter__(self) -> UpstreamClient:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_left)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            read_bufsize=256 * 1024,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trace_configs=[tracing],
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def send(
        self,
        address: ApiAddress,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        left: Callable[[], None] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The API's answer. Raises NotSent, and OSError and aiohttp's errors where none comes.

        `left` is called once there is a connection and the request is on its way.
        """
        url, sent = URL(address.url_for(path), encoded=True), CIMultiDict(headers)
        for _ in range(MAX_REDIRECTS):
            signed = await self._signed(address, method, url, sent, body)
            async with self._request(address, method, url, signed, body, left) as answer:
                if answer.status not in REDIRECTS:
                    yield answer
                    return
                target = _target(method, url, answer)
            if target.origin() != url.origin():
                for name in OWN_HEADERS:
                    sent.popall(name, None)
            url = target
        raise RedirectRefused(f"the API redirects more than {MAX_REDIRECTS} times")

    async def _signed(
        self, address: ApiAddress, method: str, url: URL, headers: CIMultiDict[str], body: bytes
    ) -> CIMultiDict[str]:
        """The headers with a signature for this address, if it wants one. Raises NotSent."""
        if not address.signs_with:
            return headers
        from claude_orchestrator.gateway.bedrock.signing import NoCredentials, Signers  # seldom needed

        self._signers = self._signers or Signers()
        try:
            return await self._signers.sign(dict(address.signs_with), method, str(url), headers, body)
        except NoCredentials as error:
            raise NotSent(str(error)) from None

    def _request(
        self,
        address: ApiAddress,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        left: Callable[[], None] | None,
    ) -> aiohttp.client._RequestContextManager:
        proxy = address.proxy_for(str(url))
        is_tls = url.scheme == "https" or (proxy or "").startswith("https:")
        return self._session.request(
            method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._context(address.certificates) if is_tls else True,
            trace_request_ctx=left,
        )

    def _context(self, certificates: Certificates) -> ssl.SSLContext:
        if certificates not in self._contexts:
            try:
                self._contexts[certificates] = certificates.context()
            except ValueError as error:
                raise OSError(0, "the client certificate cannot be loaded") from error
        return self._contexts[certificates]


async def _left(session: object, context: SimpleNamespace, params: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx()


def _target(method: str, url: URL, answer: aiohttp.ClientResponse) -> URL:
    """Where a redirect leads, if the gateway may follow it: to the same kind of request, never out of TLS."""
    try:
        target = url.join(URL(answer.headers.get(hdrs.LOCATION, "")))
        is_address = target.scheme in ("http", "https") and bool(target.host)
    except ValueError:
        is_address = False
    if not is_address:
        raise RedirectRefused(f"the API redirects (status {answer.status}) to no address")
    if url.scheme == "https" and target.scheme != "https":
        raise RedirectRefused("the API redirects from https to http")
    if method in READING:
        return target
    if answer.status not in SAME_METHOD:
        raise RedirectRefused(f"the API redirects with status {answer.status}, which turns {method} into GET")
    if _kind_of(url) != _kind_of(target):
        raise RedirectRefused(f"the API redirects {url.path} to {target.path}")
    return target


def _kind_of(url: URL) -> str:
    """What a path asks for, below whatever base: a free request must not become one that is billed."""
    path = plain_path(url.raw_path)
    return path[path.rfind(MESSAGES) :] if MESSAGES in path else path.rpartition("/")[2]
