"""What hostile or careless requests get: the answers of every status, and nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from api_client import KEY, Api, client_of, document, running, setting
from starlette.applications import Starlette
from starlette.routing import Mount

from conftest import SQL_KINDS, Place
from orchestrator_server.app import create_app
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(storage: Storage) -> AsyncIterator[Api]:
    async with running(storage, body_limit=100_000, document_limit=100_000, body_timeout=1.0, wait=30.0) as made:
        yield made


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "text",
    [
        b'{"payload": NaN}',
        b'{"payload": Infinity}',
        b'{"payload": 1e999}',
        b'{"payload": 1, "payload": 2}',
        b'{"payload": "\\ud800"}',
        b"{'payload': 1}",
        b'{"payload": 1',
        b"\xff\xfe",
        b'{"payload": ' + b"[" * 65 + b"]" * 65 + b"}",
        b"[" * 50_000,
        b'{"payload": 1}{}',
    ],
    ids=lambda text: text[:24],
)
async def test_what_is_no_strict_json_is_refused(api: Api, text: bytes) -> None:
    await api.post("/workflows", document(setting("a")))
    answer = await api.call("POST", "/executions/w/execute", content=text, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")
    assert (await api.get("/executions"))["executions"] == []


async def test_bodies_of_another_kind_are_refused(api: Api) -> None:
    body = json.dumps(document(setting("a"))).encode()
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "br"},
        {**JSON, "Content-Encoding": "gzip, identity"},
    ):
        answer = await api.call("POST", "/workflows", content=body, headers=headers)
        assert answer.status_code == 415, headers
    assert (await api.call("GET", "/workflows", content=b"x")).status_code == 400
    unknown = await api.call("POST", "/executions/w/execute", {"payloads": 1})
    assert unknown.status_code in {404, 422}


async def test_a_large_body_is_refused_before_it_is_read(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            assert sent < 100, "it reads on"
            yield b"x" * 10_000

    chunked = await api.call("POST", "/workflows", content=endless(), headers=JSON)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "too_large")
    assert sent <= 12

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    announced = {**JSON, "Content-Length": "100001"}
    assert (await api.call("POST", "/workflows", content=never(), headers=announced)).status_code == 413
    assert (await api.call("POST", "/hooks/acme/x", content=never(), headers=announced)).status_code == 404


async def test_a_slow_sender_is_given_up_and_others_do_not_wait(api: Api) -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await anyio.sleep(0.05)

    answers: list[int] = []

    async def send() -> None:
        answers.append((await api.call("POST", "/workflows", content=slow(), headers=JSON)).status_code)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(send)
            await anyio.sleep(0.1)
            assert (await api.call("GET", "/workflows")).status_code == 200
            assert answers == [], "they are still being listened to"
    assert answers == [408] * 20


async def test_nobody_without_a_credential_has_a_body_read(api: Api) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    assert (await api.call("POST", "/workflows", content=never(), headers=JSON, token="")).status_code == 401
    viewer = await api.key("acme", "viewer")
    assert (await api.call("POST", "/workflows", content=never(), headers=JSON, token=viewer)).status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_unknown_paths_and_methods_are_answered_in_the_one_shape(api: Api, method: str) -> None:
    for path in ("/nope", "/workflows/", "/workflows//x", "http://test/", "http://test/api/v2/workflows"):
        assert (await api.call(method, path)).status_code == 404, path
    answer = await api.call(method, "/executions/w/execute", **({"json": {}} if method == "POST" else {}))
    if method != "POST":
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"


async def test_a_fault_of_the_server_says_nothing_of_its_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    store = await api.parts.realms.store("acme")
    monkeypatch.setattr(type(store.variables), "list", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.call("GET", "/variables", headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "SELECT" not in answer.text
    assert "passwd" not in answer.text
    assert answer.headers["x-request-id"] == "mine-1" == answer.json()["request_id"]
    assert "mine-1" in [getattr(record, "request", None) for record in caplog.records]
    forged = await api.call("GET", "/health", headers={"X-Request-Id": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"


@pytest.mark.parametrize("bad", ["..%2f..%2fetc", "a%00b", "x" * 65, "é", "a b", "%ff", "exe_x'--"])
async def test_ids_of_another_shape_are_refused(api: Api, bad: str) -> None:
    for path in (
        f"/workflows/{bad}",
        f"/executions/{bad}",
        f"/variables/{bad}",
        f"/schedules/{bad}",
        f"/tenants/{bad}",
    ):
        answer = await api.call("GET", path, tenant=None if "tenants" in path else "acme")
        assert answer.status_code in {400, 404}, path


async def test_a_text_with_nul_is_data_like_any_other(api: Api) -> None:
    await api.post("/workflows", document(setting("a", text="{{ payload.text }}")))
    body = await api.post("/executions/w/execute", {"payload": {"text": "a\0b{{ 7 * 7 }}"}})
    assert body["output"] == {"text": "a\0b{{ 7 * 7 }}"}


async def test_it_can_be_mounted_in_another_application() -> None:
    storage = MemoryStorage()
    inner = create_app(Settings(secret_keys=KEY), storage=storage)
    host = Starlette(routes=[Mount("/flows", inner)])
    async with client_of(host) as http:
        early = await http.get("http://test/flows/api/v1/health")
        assert (early.status_code, early.json()["code"]) == (503, "not_running")
        async with inner.running() as parts:
            api = Api(inner, parts, http)
            api.token = await api.key(None, "admin")
            assert (await http.get("http://test/flows/api/v1/health")).status_code == 200
            made = await api.call("POST", "http://test/flows/api/v1/tenants", {"id": "acme"}, tenant=None)
            assert made.headers["location"] == "/flows/api/v1/tenants/acme"
            hook = document(
                {"id": "h", "type": "webhook", "config": {"path": "in/{a}", "payload": "request", "respond": "last"}}
            )
            assert (await api.call("POST", "http://test/flows/api/v1/workflows", hook)).status_code == 201
            called = await http.post("http://test/flows/api/v1/hooks/acme/in/x%2Fy")
            assert called.json()["params"] == {"a": "x/y"}
        assert (await http.get("http://test/flows/api/v1/health")).status_code == 503


@pytest.mark.parametrize("place", SQL_KINDS, indirect=True)
async def test_another_process_drives_what_this_one_accepts(storage: Storage, place: Place) -> None:
    others = await place.open()
    back = create_app(Settings(secret_keys=KEY), storage=others)
    async with running(storage, work=False, wait=30.0) as api:
        await api.post("/workflows", document(setting("a", done=True)))
        queued = await api.call("POST", "/executions/w/execute", headers={"Prefer": "wait=0"})
        assert queued.status_code == 202
        async with back.running():
            body = await api.post("/executions/w/execute", status=200)
            assert body["output"] == {"done": True}
            text = (await api.call("GET", f"/executions/{queued.json()['execution_id']}/events")).text
            assert "event: end" in text
    await others.aclose()
