"""The engine inside a web application: one engine for its lifetime, one execution for each request.

Any ASGI framework has these two places, a start and an end of the application and a handler; here they stand without one.

    uvicorn examples.asgi_app:app          # pip install uvicorn; then: curl -d '{"qty": 3}' localhost:8000/orders
    python examples/asgi_app.py            # without a server: sends itself three requests

In FastAPI the same is ``FastAPI(lifespan=...)`` with ``async with Engine() as engine: yield {"engine": engine}``, and
``await request.state.engine.run(workflow, payload)`` in the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from orchestrator_core import Engine, ExecutionStatus, Workflow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 64 * 1024


class App:
    """An ASGI application that answers ``POST /orders`` with what the workflow makes of the body."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._engine: Engine | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Speak ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            status, answer = await self._answer(scope, receive)
            await send(
                {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the start of the application to its end: the engine is open."""
        await receive()
        async with Engine() as self._engine:
            self._engine.plan(self._workflow)  # a document that cannot run stops the start, not a request
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, Any]:
        if (scope["method"], scope["path"]) != ("POST", "/orders"):
            return 404, {"message": "POST /orders is all there is"}
        if self._engine is None:
            return 503, {"message": "the application has not been started: its server must support lifespan"}
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                return 413, {"message": f"an order has {MAX_BODY} bytes at most"}
            if not message.get("more_body"):
                break
        try:
            payload = json.loads(body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return 400, {"message": "the body is not JSON"}
        result = await self._engine.run(self._workflow, payload)
        if result.status is not ExecutionStatus.SUCCEEDED:
            # What went wrong inside is for our logs; the caller gets a code and a number to ask about.
            return 500, {"message": "the order could not be taken", "execution_id": result.execution_id}
        return 200, {"answer": result.output, "execution_id": result.execution_id}


def _refuse(name: str) -> Any:
    """Python reads NaN and Infinity; JSON has no such values, and a workflow would refuse them later."""
    raise ValueError(f"{name} is not JSON")


app = App(Workflow.load(Path(__file__).parent / "order-intake.yaml"))


@contextlib.asynccontextmanager
async def running(app: App) -> Any:
    """What a server does: start the application, send requests with what is yielded, shut it down."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    await outbox.get()

    async def request(method: str, path: str, body: bytes) -> tuple[int, Any]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        await app({"type": "http", "method": method, "path": path}, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    try:
        yield request
    finally:
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await life


async def main() -> None:
    """Send requests to the application, as a browser would through a server."""
    async with running(app) as request:
        for method, path, body in (
            ("POST", "/orders", b'{"qty": 3}'),
            ("POST", "/orders", b"{qty: 3}"),
            ("GET", "/", b""),
        ):
            status, answer = await request(method, path, body)
            print(f"{method} {path} {body.decode() or '-'}: {status} {json.dumps(answer)}")


if __name__ == "__main__":
    asyncio.run(main())
