"""The way to the API that an instance's environment names, and what the gateway cannot mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.address import ApiAddress, Certificates
from claude_orchestrator.gateway.choice import choose_meter
from tests.gateway.test_choice import KEY, a_plan

PROXY = "http://user:p%40ss@proxy.example:3128"
PROXIED = [
    ({"HTTPS_PROXY": PROXY}, "https://api.example/x", PROXY),
    ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, "https://api.example", PROXY),
    ({"HTTPS_PROXY": PROXY}, "http://api.example", PROXY),
    ({"HTTP_PROXY": PROXY}, "https://api.example", PROXY),
    ({"HTTP_PROXY": "http://plain", "HTTPS_PROXY": PROXY}, "http://api.example", "http://plain"),
    ({"HTTPS_PROXY": "proxy.example:3128"}, "https://api.example", "http://proxy.example:3128"),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "a.example,api.example"}, "https://api.example:444", None),
    ({"HTTPS_PROXY": PROXY, "no_proxy": "*"}, "https://api.example", None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".example"}, "https://api.example", None),
    ({}, "https://api.example", None),
]


@pytest.mark.parametrize(("environ", "url", "proxy"), PROXIED)
def test_the_proxy_is_the_one_that_the_instance_names(environ: dict[str, str], url: str, proxy: str | None) -> None:
    assert ApiAddress.of({**environ, "ANTHROPIC_BASE_URL": url}).proxy_for(url) == proxy


def test_certificates_come_from_the_instance_too() -> None:
    environ = {
        "NODE_EXTRA_CA_CERTS": "/ca.pem",
        "CLAUDE_CODE_CLIENT_CERT": "/c.pem",
        "CLAUDE_CODE_CLIENT_KEY": "/c.key",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE": "p",
        "NODE_TLS_REJECT_UNAUTHORIZED": "0",
    }
    assert ApiAddress.of(environ).certificates == Certificates(("/ca.pem",), "/c.pem", "/c.key", "p", verifies=False)
    assert not Certificates(("/none.pem",), verifies=False).context().check_hostname
    assert Certificates(("/none.pem",)).context().check_hostname  # claude ignores it too
    alone = ApiAddress.of({**environ, "HTTPS_PROXY": PROXY}, "http://127.0.0.1:5/")
    assert alone == ApiAddress("http://127.0.0.1:5") and alone.proxy_for(alone.url) is None


NOT_MIRRORED = {
    "a proxy for SOCKS": ({"HTTPS_PROXY": "socks5://localhost:1080"}, "proxy is of type socks5"),
    "a proxy that one version uses": ({"ALL_PROXY": PROXY}, "HTTPS_PROXY names the proxy"),
    "the same without a scheme": ({"all_proxy": "proxy.example:3128", "HTTP_PROXY": ""}, "some versions of claude"),
    "no address": ({"ANTHROPIC_BASE_URL": "api.example"}, "no http or https address"),
    "a port that is none": ({"ANTHROPIC_BASE_URL": "http://api.example:99999"}, "no http or https address"),
    "a query": ({"ANTHROPIC_BASE_URL": "http://api.example/?key=1"}, "has a query"),
    "a certificate that is not there": ({"CLAUDE_CODE_CLIENT_CERT": "/none.pem"}, "No such file"),
    "a Unix socket": ({"ANTHROPIC_UNIX_SOCKET": "/run/x"}, "a Unix socket"),
    "a cloud": ({"CLAUDE_CODE_USE_ANTHROPIC_AWS": "1"}, "Claude on AWS"),
}


NOT_ASKED_FOR_A_PROXY = {
    "for SOCKS": {"ALL_PROXY": "socks5://localhost:1080"},
    "beside another one": {"ALL_PROXY": "http://other", "HTTP_PROXY": PROXY},
    "to another server": {"ALL_PROXY": PROXY, "NO_PROXY": ".anthropic.com"},
}


@pytest.mark.parametrize("name", NOT_ASKED_FOR_A_PROXY)
def test_a_proxy_for_everything_that_claude_does_not_use_changes_nothing(name: str) -> None:
    assert choose_meter("api", a_plan(env=NOT_ASKED_FOR_A_PROXY[name]), KEY, rehearse=False).kind == "api"


@pytest.mark.parametrize("name", NOT_MIRRORED)
def test_what_the_gateway_cannot_mirror_is_counted_from_the_stream_with_the_reason(name: str) -> None:
    environ, reason = NOT_MIRRORED[name]
    auto = choose_meter("auto", a_plan(env=environ), KEY, rehearse=False)
    assert auto.kind == "stream" and reason in auto.reason
    with pytest.raises(UserError, match=reason):
        choose_meter("api", a_plan(env=environ), KEY, rehearse=False)


def test_a_client_certificate_that_is_none_is_found_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("no certificate")
    assert "cannot be loaded" in (ApiAddress.of({"CLAUDE_CODE_CLIENT_CERT": str(path)}).fault() or "")
