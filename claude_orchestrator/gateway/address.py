"""Where an instance reaches the API, and how: address, proxy and certificates, from its own environment.

The variables are those of Claude Code: https://docs.claude.com/en/docs/claude-code/corporate-proxy. Needs no extra.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from claude_orchestrator.gateway.clouds import Cloud, address_of, cloud_of, regional, signs, variables_for
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    import ssl

PUBLIC_API = "https://api.anthropic.com"
PROXY_SCHEMES = ("http", "https")


class Certificates(NamedTuple):
    """What a TLS connection trusts beside the system, and what it shows. Paths of PEM files."""

    trusted: tuple[str, ...] = ()
    shown: str | None = None
    key: str | None = None
    passphrase: str | None = None
    verifies: bool = True

    def context(self) -> ssl.SSLContext:
        """A context for connections. Raises OSError and ValueError where a shown certificate cannot be loaded."""
        import ssl

        context = ssl.create_default_context()
        for path in self.trusted:
            with contextlib.suppress(OSError):  # claude ignores a file that it cannot read
                context.load_verify_locations(path)
        if self.shown is not None:
            context.load_cert_chain(self.shown, self.key, self.passphrase or "")
        if not self.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class ApiAddress(NamedTuple):
    """The API's base URL without a slash at its end, the proxies on the way, and the certificates.

    `last_proxy` is the proxy that some versions of claude use where no other is named. `cloud` is the provider, unless
    that is Anthropic itself. `signs_with` is the environment with the credentials that requests are signed with.
    """

    url: str
    proxies: tuple[tuple[str, str], ...] = ()
    no_proxy: str = ""
    certificates: Certificates = Certificates()
    last_proxy: str = ""
    cloud: Cloud | None = None
    signs_with: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str], url: str | None = None) -> ApiAddress:
        """The address that a claude with this environment uses; `url` replaces it, and is reached directly."""
        if url is not None:
            return cls(url.rstrip("/"), no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY") or "")

        def get(*names: str) -> str:
            return next((environ[name] for name in names if environ.get(name)), "")

        # claude uses either proxy for both schemes where it has no other (measured)
        for_https, for_http = get("https_proxy", "HTTPS_PROXY"), get("http_proxy", "HTTP_PROXY")
        proxies = [("https", for_https or for_http), ("http", for_http or for_https)]
        certificates = Certificates(
            tuple(filter(None, (get("SSL_CERT_FILE"), get("NODE_EXTRA_CA_CERTS")))),
            get("CLAUDE_CODE_CLIENT_CERT") or None,
            get("CLAUDE_CODE_CLIENT_KEY") or None,
            get("CLAUDE_CODE_CLIENT_KEY_PASSPHRASE") or None,
            verifies=get("NODE_TLS_REJECT_UNAUTHORIZED") != "0",
        )
        cloud = cloud_of(environ)
        base = (get("ANTHROPIC_BASE_URL") or PUBLIC_API).strip().rstrip("/")
        base = base if cloud is None else address_of(cloud, environ)
        # 2.1.332 uses these without another proxy, and skips those for SOCKS; 2.1.197 never does (measured)
        last = ("all_proxy", "ALL_PROXY") if not (for_https or for_http) else ()
        usable = (proxy for proxy in map(get, last) if proxy and _scheme(proxy) in PROXY_SCHEMES)
        signs_with = _credentials(environ) if cloud is not None and signs(cloud, environ) else ()
        last_proxy = next(usable, "")
        return cls(base, tuple(proxies), get("no_proxy", "NO_PROXY"), certificates, last_proxy, cloud, signs_with)

    def url_for(self, path: str) -> str:
        """Where a request for this path goes."""
        return regional(self.url, path) + path

    @property
    def is_first_party(self) -> bool:
        """Whether it is Anthropic's own API."""
        return self.cloud is None and self.url == PUBLIC_API

    def variables(self, url: str) -> tuple[tuple[str, str], ...]:
        """The variables that lead an instance to `url` instead."""
        return (("ANTHROPIC_BASE_URL", url),) if self.cloud is None else variables_for(self.cloud, url)

    def proxy_for(self, url: str) -> str | None:
        """The proxy on the way to this address, if there is one."""
        parts = urlsplit(url)
        proxy = dict(self.proxies).get(parts.scheme)
        if not proxy or self._is_direct(parts.netloc):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _is_direct(self, netloc: str) -> bool:
        """Whether no proxy is used on the way to this host."""
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # it takes long to import

        return bool(proxy_bypass_environment(netloc, {"no": self.no_proxy}))

    @property
    def _variable(self) -> str:
        return "ANTHROPIC_BASE_URL" if self.cloud is None else self.cloud.base

    def fault(self) -> str | None:
        """Why the gateway cannot reach the API as claude would; None if it can."""
        try:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1:
                raise ValueError
            proxy = self.proxy_for(self.url)
            scheme = "http" if proxy is None else urlsplit(proxy).scheme
        except ValueError:
            return f"its {self._variable} or its proxy is no http or https address"
        if parts.query or parts.fragment:
            return f"its {self._variable} has a query"
        if scheme not in PROXY_SCHEMES:
            return f"its proxy is of type {scheme}, and the gateway uses http and https proxies"
        if self.last_proxy and not self._is_direct(parts.netloc):
            return "only some versions of claude use its ALL_PROXY: HTTPS_PROXY names the proxy for all"
        if self.certificates.shown is None:
            return None
        try:
            self.certificates.context()
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
            return f"its client certificate (CLAUDE_CODE_CLIENT_CERT) cannot be loaded: {why}"
        return None


def _credentials(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    from claude_orchestrator.gateway.bedrock.paths import CREDENTIAL_VARIABLES

    return tuple(sorted(pair for pair in environ.items() if pair[0].startswith(CREDENTIAL_VARIABLES)))


def _scheme(proxy: str) -> str:
    """The type of a proxy, which is HTTP where nothing else is named."""
    return proxy.partition("://")[0].lower() if "://" in proxy else "http"
