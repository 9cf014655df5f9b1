"""Webhooks: every method, every way to answer, and bodies that are only bytes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from api_client import Api, document, make_storage, running, setting

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
WAIT = {"id": "later", "type": "wait", "config": {"signal": "go"}}


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: Any, tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage(request.param, tmp_path)
    async with running(storage, wait=0.5) as made:
        yield made
    await storage.aclose()


def hook(path: str = "in", *, name: str = "hook", **config: Any) -> dict[str, Any]:
    return {"id": name, "type": "webhook", "config": {"path": path, **config}}


async def send(api: Api, path: str = "in", method: str = "POST", **more: Any) -> httpx.Response:
    if method == "HEAD":  # has no body to be held against the document
        return await api.http.head(f"/hooks/acme/{path}")
    return await api.call(method, f"/hooks/acme/{path}", token="", tenant=None, **more)


async def test_a_webhook_takes_its_methods_and_no_others(api: Api) -> None:
    for method in METHODS:
        shown = hook(method.lower(), methods=[method], payload="request", respond="last")
        await api.post("/workflows", document(shown, setting("a", by="{{ input.method }}"), name=method))
    for method in METHODS:
        for used in METHODS:
            answer = await send(api, method.lower(), used)
            taken = used == method or (used, method) == ("HEAD", "GET")
            assert answer.status_code == (200 if taken else 405), (method, used)
            if taken and used != "HEAD":
                assert answer.json() == {"by": used}
            if not taken:
                assert answer.headers["allow"] == method
    assert (await send(api, "get", "OPTIONS")).status_code == 405
    assert len((await api.get("/executions?limit=100"))["executions"]) == 7


async def test_methods_of_one_path_may_belong_to_several_workflows(api: Api) -> None:
    for method in ("GET", "DELETE"):
        shown = hook("orders/{id}", methods=[method], respond="last")
        await api.post("/workflows", document(shown, setting("a", by=method), name=method))
    assert (await send(api, "orders/7", "GET")).json() == {"by": "GET"}
    assert (await send(api, "orders/7", "DELETE")).json() == {"by": "DELETE"}
    other = await send(api, "orders/7", "PUT")
    assert (other.status_code, other.headers["allow"]) == (405, "DELETE, GET")


@pytest.mark.parametrize("respond", ["immediately", "last", "node"])
async def test_what_takes_too_long_is_answered_with_its_id(api: Api, respond: str) -> None:
    respond_node = {"id": "r", "type": "respond"}
    await api.post("/workflows", document(hook(respond=respond), WAIT, respond_node))
    answer = await send(api, json={"n": 1})
    assert answer.status_code == 202
    execution_id = answer.json()["execution_id"]
    await api.post(f"/executions/{execution_id}/signals/go", {"path": "later"})
    assert (await api.get(f"/executions/{execution_id}"))["workflow"] == "w"


@pytest.mark.parametrize("config", [{"signal": "go"}, {"for": 60}])
async def test_nobody_waits_for_what_has_to_wait_longer_itself(tmp_path: Path, config: dict[str, Any]) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage, wait=60.0) as patient:
        later = {"id": "later", "type": "wait", "config": config}
        await patient.post("/workflows", document(hook(respond="last"), later))
        with anyio.fail_after(10):
            assert (await send(patient, json={"n": 1})).status_code == 202
            assert (await patient.post("/executions/w/execute", {}, status=202))["status"] == "waiting"
    await storage.aclose()


async def test_a_wait_of_a_child_is_a_wait(api: Api) -> None:
    """Answered at once, however short the wait; lists and bodies call it waiting, the parent's too."""
    brief = {"id": "brief", "type": "wait", "config": {"for": 0.2}}
    for inner, outer, wait in (("in_brief", "brief", brief), ("inner", "w", WAIT)):
        call = {"id": "call", "type": "workflow", "config": {"workflow": inner}}
        await api.post("/workflows", document(wait, name=inner))
        ends = (hook(outer, respond="node"), call, {"id": "r", "type": "respond"})
        await api.post("/workflows", document(*ends, name=outer))
    assert (await send(api, "brief", json={"n": 1})).status_code == 202
    answer = await send(api, "w", json={"n": 1})
    path = f"/executions/{answer.json()['execution_id']}"
    with anyio.fail_after(30):
        while len(listed := (await api.get("/executions?status=waiting"))["executions"]) < 2:
            await anyio.sleep(0.05)
    assert {one["workflow"] for one in listed} == {"w", "inner"}
    assert (await api.get(path))["status"] == "waiting"
    assert [body["status"] for body in (await api.get("/executions/w/logs?status=waiting"))["executions"]] == [
        "waiting"
    ]


async def test_an_immediate_answer_has_the_status_and_headers_that_are_wanted(api: Api) -> None:
    shaped = {"status": 200, "headers": {"X-A": "b", "X-Request-Id": "mine", "Connection": "close"}}
    await api.post("/workflows", document(hook(response=shaped)))
    answer = await send(api, json={})
    assert (answer.status_code, answer.headers["x-a"]) == (200, "b")
    assert answer.headers["x-request-id"] != "mine"
    assert "connection" not in answer.headers
    assert answer.json()["execution_id"].startswith("exe_")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none(api: Api, status: int) -> None:
    nothing = {"id": "r", "type": "respond", "config": {"status": status, "headers": {"X-A": "b"}, "body": "text"}}
    await api.post("/workflows", document(hook(respond="node"), nothing))
    answer = await send(api, json={})
    assert (answer.status_code, answer.content, answer.headers["x-a"]) == (status, b"", "b")


async def test_a_signature_covers_the_bytes_of_any_body(api: Api) -> None:
    signature = {"header": "X-Sign", "secret": "{{ secrets.hook }}"}
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    await api.post("/workflows", document(hook(signature=signature, respond="last")))
    store = await api.storage.store("acme")
    for media, body in (
        ("image/png", b"\x89PNG\x00\xff"),
        ("application/x-www-form-urlencoded", b"a=%20&a=+"),
        ("text/plain", b"\xef\xbb\xbftext\r\n"),
        ("application/json", b'{"a": 1.0 }'),
    ):
        digest = hmac.new(b"shared-key", body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": media, "X-Sign": digest}
        answer = await send(api, content=body, headers=headers)
        assert answer.status_code == 200, media
        assert (await send(api, content=body + b" ", headers=headers)).status_code == 401
        if media == "image/png":
            assert await store.blobs.get(answer.json()["blob"]) == body
