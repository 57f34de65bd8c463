"""Who may ask the page's server for what, by the headers of a request. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "page",
}


class Access(StrEnum):
    """Who may use a route: anybody, who is signed in, or who is signed in and may change the run."""

    PUBLIC = "public"
    READ = "read"
    ACT = "act"


class Visitor(NamedTuple):
    """What decides about a request: its headers that matter, and whether its cookie is good."""

    host: str
    origin: str | None
    fetch_site: str | None
    content_type: str
    signed_in: bool


class HttpRefusal(NamedTuple):
    """Why a request is refused, and the HTTP status that says it."""

    status: int
    text: str


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server on this address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, own_names: Iterable[str] = ()) -> frozenset[str]:
    """The names that a server on this address answers to. `own_names` are those of the machine."""
    if is_loopback(host):
        return LOOPBACK_NAMES | {host.lower()}
    return LOOPBACK_NAMES | {host.lower(), *(name.lower() for name in own_names if name)}


def is_our_name(host_header: str, names: frozenset[str], *, any_address: bool) -> bool:
    """Whether a `Host` header names this server.

    A page of another site can make its own name lead here, but that name stays in the header. `any_address`: an IP
    address is good too, because no such page has one.
    """
    name = _name_of(host_header)
    if name is None:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return any_address


def _name_of(host_header: str) -> str | None:
    """The host without its port, in small letters; None for a header that is malformed."""
    if not host_header or any(char in host_header for char in "@/\\?# \t,"):
        return None
    try:
        parts = urlsplit(f"//{host_header}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def is_same_origin(visitor: Visitor, *, changes: bool) -> bool:
    """Whether a request comes from this page, or by the hand of the user; `changes`: from this page for certain."""
    if visitor.fetch_site is not None:
        return visitor.fetch_site == "same-origin" or (visitor.fetch_site == "none" and not changes)
    if visitor.origin is not None:
        return visitor.origin.lower() in {f"{scheme}://{visitor.host.lower()}" for scheme in ("http", "https")}
    return not changes


def refusal(access: Access, visitor: Visitor, *, read_only: bool) -> HttpRefusal | None:
    """Why a visitor may not use a route of this kind; None if he may. The host was checked before."""
    if access is Access.PUBLIC:
        return None
    changes = access is Access.ACT
    if not is_same_origin(visitor, changes=changes):
        return HttpRefusal(403, "this request comes from another page")
    if not visitor.signed_in:
        return HttpRefusal(401, "sign in with the address that the program has printed")
    if changes and read_only:
        return HttpRefusal(403, "this page is read-only")
    if changes and visitor.content_type != "application/json":
        return HttpRefusal(415, "expected application/json")
    return None


def cookie_of(header: str, name: str) -> str:
    """The value of a cookie in a `Cookie` header; empty if it is not there."""
    for part in header.split(";"):
        key, separator, value = part.strip().partition("=")
        if separator and key == name:
            return value
    return ""


def sign_in_headers(cookie: str, value: str) -> Mapping[str, str]:
    """The header that signs a browser in."""
    return {"Set-Cookie": f"{cookie}={value}; Path=/; HttpOnly; SameSite=Strict"}
