"""Whoever connects to the gateway without the secret of an instance cannot starve those that have one."""

from __future__ import annotations

import asyncio
import socket
import sys
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from claude_orchestrator.gateway import door
from claude_orchestrator.gateway.door import BATCH
from claude_orchestrator.launch.local import FILES_OF_GATEWAY
from tests.gateway.test_server import ASK, answering, place
from tests.limits import HUNG_S
from token_budget.serving import door as serving_door
from token_budget.serving.door import MAX_STRANGERS, STRANGERS_EACH, Door, OwnerOf


def said(owner: int | None, *ends: tuple[str, int]) -> int | None:
    return owner


async def connect(port: int, send: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(send)
    return reader, writer


async def until_dropped(reader: asyncio.StreamReader) -> bytes:
    """What came before the end."""
    try:
        return await asyncio.wait_for(reader.read(), HUNG_S)
    except ConnectionResetError:
        return b""


def test_idle_connections_do_not_keep_instances_out() -> None:
    async def main() -> None:
        async with place(answering()) as here:
            idle = [await connect(here.gateway.port) for _ in range(3 * MAX_STRANGERS)]
            async with here.session.post(here.client.url + "/v1/messages", json=ASK) as answer:
                assert answer.status == 200
            for reader, _ in idle[:MAX_STRANGERS]:
                assert await until_dropped(reader) == b""
            assert len(here.gateway._door.connections) <= MAX_STRANGERS + STRANGERS_EACH + 2
            for _, writer in idle:
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(("instances", "connections"), [(1, 140), (40, 640)])
def test_instances_that_connect_at_once_are_all_served(instances: int, connections: int) -> None:
    """Also with the connections of many subagents, which a busy server reads late."""

    async def main() -> None:
        async with place(answering()) as here:
            here.gateway._door.expect(instances)
            waiting = [await connect(here.gateway.port) for _ in range(connections)]
            path = here.client.url.split("/", 3)[3]
            for reader, writer in waiting:
                writer.write(f"GET /{path}/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert (await reader.readline()).startswith(b"HTTP/1.1")
                writer.close()

    asyncio.run(main())


def test_a_connection_without_the_secret_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_door, "SHOW_SECRET_S", 0.05)

    async def main() -> None:
        async with place(answering()) as here:
            silent = await connect(here.gateway.port)
            slow = await connect(here.gateway.port, b"POST /x HTTP/1.1\r\nHost: x\r\n")
            wrong = await connect(here.gateway.port, b"GET /wrong/v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            url = here.client.url + "/v1/messages"
            async with here.session.post(url, json=ASK) as answer:
                assert answer.status == 200
            assert await until_dropped(silent[0]) == await until_dropped(slow[0]) == b""
            assert (await until_dropped(wrong[0])).startswith(b"HTTP/1.1 404 ")
            assert [handler.transport is not None for handler in here.gateway._door.connections] == [True]
            async with here.session.post(url, json=ASK) as answer:  # on the same connection
                assert answer.status == 200

    asyncio.run(main())


def test_connections_of_other_users_are_dropped() -> None:
    async def main() -> None:
        for owner, admitted in ((61001, False), (None, True)):
            served = asyncio.Event()

            async def handle(request: aiohttp.web.BaseRequest, served: asyncio.Event = served) -> aiohttp.web.Response:
                served.set()
                return aiohttp.web.Response()

            server = Door(handle, owner_of=partial(said, owner), max_header_bytes=8_190)
            listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
            reader, writer = await connect(listening.sockets[0].getsockname()[1], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if admitted:
                assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            else:
                assert await until_dropped(reader) == b""
            assert served.is_set() is admitted
            writer.close()
            listening.close()
            await server.shutdown(0)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("ask", [door._ask_kernel, door._look_up])
def test_the_kernel_tells_whose_a_connection_is(ask: OwnerOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, peer = server.accept()
        with accepted:
            assert ask(peer, accepted.getsockname()) == Path("/proc/self").stat().st_uid
            assert client.getsockname() == peer


def test_the_server_does_not_name_its_software() -> None:
    async def main() -> None:
        async with place(answering()) as here:
            for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01 nonsense\r\n\r\n"):
                reader, writer = await connect(here.gateway.port, request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                assert b"server: gateway\r\n" in head and b"python" not in head and b"aiohttp" not in head
                writer.close()
            async with here.session.post(here.client.url + "/v1/messages", json=ASK) as answer:
                assert "aiohttp" not in answer.headers["Server"].lower() or "server" in here.upstream.heads[0]

    asyncio.run(main())


def test_files_are_reserved_for_the_door() -> None:
    assert FILES_OF_GATEWAY >= MAX_STRANGERS + 2 * BATCH  # that the door may have open at once
