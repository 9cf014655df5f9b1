"""Connections that hold up the server: they are given up, whatever they send or leave unread, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import uvicorn

from orchestrator_server.api import serving
from orchestrator_server.api.serving import listen, patient

pytestmark = pytest.mark.anyio
LONG = 20
BIG = b"x" * 1_000_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers with its size; ``/big`` with a million bytes."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = BIG if scope["path"] == "/big" else str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def server() -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        app, http=patient(60.0, 20), ws="none", lifespan="off", log_config=None, timeout_keep_alive=1
    )
    made = uvicorn.Server(config)
    made.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    sockets = listen("127.0.0.1", 0)
    made.port = sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    task = asyncio.create_task(made.serve(sockets))
    while not made.started:
        await anyio.sleep(0.01)
    yield made
    made.should_exit = True
    await task


@contextlib.asynccontextmanager
async def connected(
    server: Any, buffer: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    made = socket.socket()
    if buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.connect(("127.0.0.1", server.port))
    made.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=made, limit=100)
    yield reader, writer
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: ", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n" * 100),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", b"a: b\r\n" * 100),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=", b"y" * 1000),
    ],
    ids=["path", "header", "headers", "trailers", "extension"],
)
async def test_what_has_no_end_is_refused(server: Any, start: bytes, block: bytes) -> None:
    sent = 0
    with anyio.fail_after(LONG):
        async with connected(server) as (reader, writer):
            writer.write(start)
            with contextlib.suppress(ConnectionError):
                while sent < 5_000_000 and not reader.at_eof():
                    writer.write(block)
                    await writer.drain()
                    sent += len(block)
    assert sent < 5_000_000


async def test_it_is_told_why(server: Any) -> None:
    # More than a head may have, and not more than is read at once.
    for sent, status, code in (
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"x" * 70_000, b"431", "too_large"),
        (b"what is this\r\n\r\n", b"400", "bad_request"),
    ):
        with anyio.fail_after(LONG):
            async with connected(server) as (reader, writer):
                writer.write(sent)
                answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == code


@pytest.mark.parametrize("part", [1, 7, 65_536])
async def test_a_body_may_come_in_any_parts_and_a_connection_have_many_requests(server: Any, part: int) -> None:
    size = min(part * 20_000, 3_000_000)
    chunk = b"%x\r\n%s\r\n" % (part, b"y" * part)
    with anyio.fail_after(LONG):
        async with connected(server) as (reader, writer):
            for _ in range(2):
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(size // part):
                    writer.write(chunk)
                await writer.drain()
                writer.write(b"0\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert int(await reader.read(100)) == size // part * part
            for _ in range(2000):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(2000):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(1) == b"0"


async def test_who_does_not_read_is_given_up(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_STUCK", 0.5)
    async with contextlib.AsyncExitStack() as stack:
        with anyio.fail_after(LONG):
            for _ in range(5):
                _, writer = await stack.enter_async_context(connected(server, 4096))
                writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
            reader, writer = await stack.enter_async_context(connected(server, 4096))
            writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            got = b""
            while part := await reader.read(20_000):  # slowly, and for longer than that
                got += part
                await anyio.sleep(0.02)
            assert got.endswith(BIG)
            while server.server_state.connections:
                await anyio.sleep(0.05)


async def test_too_many_connections_are_told_so(server: Any) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack:
        with anyio.fail_after(LONG):
            for _ in range(19):
                reader, writer = await stack.enter_async_context(connected(server))
                writer.write(request)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            async with connected(server) as (reader, writer):
                writer.write(request)
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unavailable"
            while len(server.server_state.connections) > 19:
                await anyio.sleep(0.01)
        with anyio.fail_after(LONG):
            await stack.aclose()
            while server.server_state.connections:
                await anyio.sleep(0.01)
            async with connected(server) as (reader, writer):
                writer.write(request)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
