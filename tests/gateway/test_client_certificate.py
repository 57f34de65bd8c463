"""An API behind TLS that demands a client certificate, as in some companies."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from claude_orchestrator.gateway.server import Gateway
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
PASSPHRASE = "not a secret"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server for 127.0.0.1, and a client whose key has a passphrase."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(folder, "req", "-x509", *new, "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", *ca)
    for name, key in (("server", ("-nodes",)), ("client", ("-passout", f"pass:{PASSPHRASE}"))):
        openssl(folder, "req", *new, *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *sign, "-out", f"{name}.pem")
    return folder


async def asked(folder: Path, **shown: str) -> tuple[int, str]:
    """The answer of an API that demands a certificate, through the gateway."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None and transport.get_extra_info("peercert")["subject"] == (
            (("commonName", "client"),),
        )
        usage = {"input_tokens": 5, "output_tokens": 2}
        return web.json_response({"id": "m", "model": "m", "stop_reason": "end_turn", "usage": usage})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    environ = {"ANTHROPIC_BASE_URL": url, "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem"), **shown}
    try:
        async with Gateway(TokenBudgetManager(), Weights(), environ=environ) as gateway:
            place = gateway.open(Metered((), environ))
            async with aiohttp.ClientSession() as session:
                body = {"model": "m", "max_tokens": 5, "messages": []}
                async with session.post(f"{place.url}/v1/messages", json=body) as found:
                    return found.status, await found.text()
    finally:
        await runner.cleanup()


def test_the_gateway_shows_the_certificate_of_the_instance(certificates: Path) -> None:
    shown = {
        "CLAUDE_CODE_CLIENT_CERT": str(certificates / "client.pem"),
        "CLAUDE_CODE_CLIENT_KEY": str(certificates / "client.key"),
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE": PASSPHRASE,
    }
    status, text = asyncio.run(asked(certificates, **shown))
    assert status == 200 and '"input_tokens": 5' in text


def test_without_it_the_api_gives_no_answer_and_the_reason_is_named(certificates: Path) -> None:
    status, text = asyncio.run(asked(certificates))
    assert status == 502 and "no answer from the API" in text
