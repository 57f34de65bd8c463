"""The stand-in API as a claude without any base URL reaches it: by a proxy, at Anthropic's own address, over TLS.

The proxy asks for a password, and the certificate is one of its own. Each request is kept as it came. Everything stays
on loopback.
"""

from __future__ import annotations

import base64
import contextlib
import io
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.stand_in import Script, StandIn, _Handler, _Server

HOST = "api.anthropic.com"
PASSWORD = "user:secret"


class Request(NamedTuple):
    """A request for a message: its line, its headers in order, its body."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class DirectApi(StandIn):
    """A context; `environ` leads a claude here. `requests` has what came for messages."""

    def __init__(self, script: Script, folder: Path) -> None:
        super().__init__(script)
        self.requests: list[Request] = []
        self.certificate, key = folder / "ca.pem", folder / "key.pem"
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"]
        names = ["-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run([*words, *names], check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, key)
        self._server.server_close()
        self._server = _Server(("127.0.0.1", 0), _Proxy)
        self._server.stand_in = self  # type: ignore[attr-defined]
        self._thread._target = self._server.serve_forever  # type: ignore[attr-defined]

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a claude here."""
        proxy = f"http://{PASSWORD}@{self.url.removeprefix('http://')}"
        return {"HTTPS_PROXY": proxy, "NODE_EXTRA_CA_CERTS": str(self.certificate)}


class _Proxy(_Handler):
    def do_CONNECT(self) -> None:
        expected = "Basic " + base64.b64encode(PASSWORD.encode()).decode()
        if self.headers.get("proxy-authorization") != expected:
            self._send(407, b"")
            return
        if self.path != f"{HOST}:443":
            self._send(403, b"")
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError, ssl.SSLError):
            self.connection = self.direct.context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.close_connection = False
            while not self.close_connection:
                self.handle_one_request()
        self.close_connection = True

    @property
    def direct(self) -> DirectApi:
        return self.server.stand_in  # type: ignore[attr-defined,no-any-return]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.partition("?")[0] == "/v1/messages":
            self.direct.requests.append(Request(self.requestline, tuple(self.headers.items()), body))
        reading, self.rfile = self.rfile, io.BytesIO(body)
        try:
            super().do_POST()
        finally:
            self.rfile = reading
