"""Who may ask the page's server for what: a table of headers, malformed ones too."""

from __future__ import annotations

import pytest

from claude_orchestrator.ui.web.assets import assets
from claude_orchestrator.ui.web.routes import ROUTES
from token_budget.serving.checks import (
    POLICY,
    Access,
    Visitor,
    cookie_of,
    is_loopback,
    is_our_name,
    is_same_origin,
    names_of,
    refusal,
)

HERE = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8000", True),
        ("127.0.0.1", True),
        ("localhost:9999", True),  # the local end of an SSH tunnel
        ("LOCALHOST:8000", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("10.0.0.1:8000", False),
        ("", False),
        ("127.0.0.1:8000@evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1:port", False),
        ("127.0.0.1:99999", False),
        ("127.0.0.1/x", False),
        ("[::1", False),
        ("127.0.0.1, evil.example", False),
        ("127.0.0.1:8000 ", False),
    ],
)
def test_a_page_on_loopback_answers_to_loopback_names_only(host: str, is_ours: bool) -> None:
    assert is_our_name(host, names_of("127.0.0.1"), any_address=False) is is_ours


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("10.1.2.3:8000", True), ("box:8000", True), ("Box", True), ("evil.example", False), ("[fe80::1]:80", True)],
)
def test_an_open_page_answers_to_addresses_and_to_its_own_names(host: str, is_ours: bool) -> None:
    assert is_our_name(host, names_of("0.0.0.0", ["box"]), any_address=True) is is_ours


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)],
)
def test_loopback_addresses_are_recognised(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


@pytest.mark.parametrize(
    ("origin", "site", "reads", "changes"),
    [
        (None, "same-origin", True, True),
        (f"http://{HERE}", "same-origin", True, True),
        (None, "none", True, False),  # typed into the address bar
        (None, "same-site", False, False),  # another port of this machine
        (None, "cross-site", False, False),
        (f"http://{HERE}", "cross-site", False, False),
        (None, "", False, False),
        (None, "Same-Origin", False, False),
        (f"http://{HERE}", None, True, True),
        (f"https://{HERE}", None, True, True),  # behind a proxy that does TLS
        ("http://127.0.0.1:9000", None, False, False),
        ("http://evil.example", None, False, False),
        ("null", None, False, False),
        ("", None, False, False),
        (f"ftp://{HERE}", None, False, False),
        (f"http://{HERE}.evil.example", None, False, False),
        (None, None, True, False),  # no browser: it may read with the cookie, and changes need a page
    ],
)
def test_requests_of_other_pages_are_recognised(
    origin: str | None, site: str | None, reads: bool, changes: bool
) -> None:
    visitor = Visitor(HERE, origin, site, "application/json", True)
    assert is_same_origin(visitor, changes=False) is reads
    assert is_same_origin(visitor, changes=True) is changes


@pytest.mark.parametrize(
    ("access", "visitor", "read_only", "status"),
    [
        (Access.PUBLIC, Visitor(HERE, "http://evil.example", "cross-site", "", False), True, None),
        (Access.READ, Visitor(HERE, None, "same-origin", "", True), True, None),
        (Access.READ, Visitor(HERE, None, "same-origin", "", False), False, 401),
        (Access.READ, Visitor(HERE, None, "same-site", "", True), False, 403),
        (Access.ACT, Visitor(HERE, None, "same-origin", "application/json", True), False, None),
        (Access.ACT, Visitor(HERE, None, "same-origin", "application/json", True), True, 403),
        (Access.ACT, Visitor(HERE, None, "same-origin", "application/json", False), False, 401),
        (Access.ACT, Visitor(HERE, None, "same-origin", "text/plain", True), False, 415),
        (Access.ACT, Visitor(HERE, None, "cross-site", "application/json", True), False, 403),
        (Access.ACT, Visitor(HERE, None, None, "application/json", True), False, 403),
    ],
)
def test_each_kind_of_route_refuses_what_it_should(
    access: Access, visitor: Visitor, read_only: bool, status: int | None
) -> None:
    refused = refusal(access, visitor, read_only=read_only)
    assert (refused.status if refused else None) == status


def test_every_route_says_who_may_use_it() -> None:
    public = {path for (_, path), route in ROUTES.items() if route.access is Access.PUBLIC}
    assert public == {"/open", "/api/sign-in", "/api/about", *assets()}
    assert {key for key, route in ROUTES.items() if route.access is Access.ACT} == {("POST", "/api/act")}
    assert all(method == "GET" for (method, _), route in ROUTES.items() if route.access is Access.READ)


def test_the_page_runs_no_inline_script_and_asks_no_other_host() -> None:
    directives = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert directives["default-src"] == "'none'" and directives["script-src"] == "'self'"
    assert directives["connect-src"] == "'self'" and "unsafe" not in POLICY and "http" not in POLICY
    html = assets()["/"].data.decode()
    assert "<script>" not in html and "onclick" not in html and "style=" not in html


@pytest.mark.parametrize(
    ("header", "value"),
    [("a=1; b=2", "2"), ("b=2", "2"), ("", ""), ("bb=2", ""), ("b", ""), ("b=x=y", "x=y"), ("a=1;b=2;c=3", "2")],
)
def test_the_cookie_is_found_by_its_whole_name(header: str, value: str) -> None:
    assert cookie_of(header, "b") == value
