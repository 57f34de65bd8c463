"""The connections from the gateway to the API."""

from __future__ import annotations

import contextlib
import ssl
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs
from yarl import URL

from claude_orchestrator.gateway.client import Client

PUBLIC_API = "https://api.anthropic.com"
MAX_HEADER_BYTES = 64 * 1024
CONNECT_S = 60


class Upstream:
    """A context that sends requests to the API of each client."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    async def __aenter__(self) -> Upstream:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_ssl_context(self._environ)),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            read_bufsize=256 * 1024,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    def send(
        self, client: Client, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.client._RequestContextManager:
        """A context with the API's answer."""
        return self._session.request(
            method,
            URL(client.upstream + path, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            proxy=client.proxy,
        )


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address, as other programs take it."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _ssl_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The system's certificates, and those that claude itself is told to trust."""
    context = ssl.create_default_context()
    extra = environ.get("NODE_EXTRA_CA_CERTS")
    if extra:
        with contextlib.suppress(OSError):
            context.load_verify_locations(extra)
    return context
