"""The floors of benchmarks/server.py: the least that an ASGI server has to do, without and with the work itself."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def answer(send: Send, data: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def hello(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await answer(send, b"{}")


def order(value: dict[str, Any]) -> dict[str, Any]:
    return {"item": value["item"], "qty": value["qty"]}


def many(value: dict[str, Any]) -> bool:
    more: bool = value["qty"] > 2
    return more


def price(value: dict[str, Any]) -> dict[str, Any]:
    return {"item": value["item"], "total": value["qty"] * 3}


def status(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "status": "priced"}


async def inline(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    value = order(json.loads(body))
    await answer(send, json.dumps(status(price(value)) if many(value) else value).encode())
