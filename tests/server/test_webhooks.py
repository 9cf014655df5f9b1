"""Webhooks: which request starts what, who is let in, and what the sender is answered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from api_client import KEY, Api, client_of, document, running, setting

from conftest import Place
from orchestrator_server.app import create_app
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(storage: Storage) -> AsyncIterator[Api]:
    async with running(storage, wait=30.0) as made:
        yield made


def hook(path: str = "in", **config: Any) -> dict[str, Any]:
    return {"id": "hook", "type": "webhook", "config": {"path": path, **config}}


async def send(api: Api, path: str = "in", json: Any = None, *, method: str = "POST", **more: Any) -> httpx.Response:
    """A request from outside: without credential and tenant."""
    return await api.call(method, f"/hooks/acme/{path}", json, token="", tenant=None, **more)


async def executions(api: Api) -> list[Any]:
    rows: list[Any] = (await api.get("/executions"))["executions"]
    return rows


# --- which ------------------------------------------------------------------------------------------------------------


async def test_a_request_starts_its_workflow_and_is_answered_at_once(api: Api) -> None:
    await api.post("/workflows", document(hook(), setting("a", got="{{ input }}")))
    answer = await send(api, json={"qty": 3})
    assert answer.status_code == 202
    body = await ended(api, answer.json()["execution_id"])
    assert body["output"] == {"got": {"qty": 3}}
    root = await api.http.post("http://test/hooks/acme/in", json={})
    assert root.status_code == 202, "webhooks are there without /api/v1, too"


async def ended(api: Api, execution_id: str) -> Any:
    with anyio.fail_after(30):
        while (body := await api.get(f"/executions/{execution_id}"))["finished_at"] is None:
            await anyio.sleep(0.02)
    return body


async def test_paths_parameters_and_methods_choose_the_workflow(api: Api) -> None:
    show = setting("a", by="{{ execution.workflow ?? 'x' }}", params="{{ input.params }}")
    for name, path in (("one", "orders/{id}"), ("new", "orders/new"), ("deep", "orders/{id}/items/{item}")):
        config = {"payload": "request", "respond": "last", "methods": ["POST", "PUT"]}
        await api.post(
            "/workflows",
            document(
                hook(path, **config), {**show, "config": {"values": {"n": name, "p": "{{ input.params }}"}}}, name=name
            ),
        )
    assert (await send(api, "orders/7", {})).json() == {"n": "one", "p": {"id": "7"}}
    assert (await send(api, "orders/new", {})).json() == {"n": "new", "p": {}}
    assert (await send(api, "orders/a%2Fb/items/%C3%A9", {}, method="PUT")).json()["p"] == {"id": "a/b", "item": "é"}
    other = await send(api, "orders/7", method="GET")
    assert (other.status_code, other.headers["allow"]) == (405, "POST, PUT")
    for path in (
        "orders",
        "orders/",
        "orders//items/1",
        "orders/7/items",
        "in",
        "orders/%ff",
        "x" * 3000,
        "{}",
        "orders/{}/x",
    ):
        assert (await send(api, path, {})).status_code == 404, path
    nobody = await api.call("POST", "/hooks/nobody/orders/7", {}, token="", tenant=None)
    unknown = await send(api, "nope", {})
    assert nobody.json()["message"] == unknown.json()["message"], "whether there is such a tenant is not told"
    assert (await api.call("POST", "/hooks/Acme/orders/7", {}, token="")).status_code == 404


async def test_a_path_that_is_taken_is_refused(api: Api) -> None:
    await api.post("/workflows", document(hook("orders/{id}"), name="first"))
    for path in ("orders/{id}", "orders/{name}"):
        taken = await api.call("POST", "/workflows", document(hook(path), name="second"))
        assert (taken.status_code, taken.json()["code"]) == (409, "exists"), path
    assert (
        await api.call("POST", "/workflows", document(hook("orders/{id}"), name="first"), tenant="Acme")
    ).status_code == 201
    await api.call("DELETE", "/workflows/first")
    assert (await api.call("POST", "/workflows", document(hook("orders/{id}"), name="second"))).status_code == 201


async def test_the_request_is_data_whatever_it_claims(api: Api) -> None:
    await api.post("/workflows", document(hook(payload="request", respond="last")))
    claim = {"files": {"x": {"filepath": "/etc/passwd"}}, "text": "{{ 7 * 7 }}"}
    answer = await send(
        api, "in?a=1&a=2&b=", claim, headers={"X-Own": "1", "Cookie": "c=1", "Authorization": "Basic eA=="}
    )
    body = answer.json()
    assert body["body"] == claim
    assert body["query"] == {"a": ["1", "2"], "b": ""}
    assert (body["method"], body["path"], body["headers"]["x-own"]) == ("POST", "in", "1")
    assert not {"cookie", "authorization"} & set(body["headers"])
    form = await send(api, content=b"a=1&b=%C3%A9&a=2", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert form.json()["body"] == {"a": ["1", "2"], "b": "é"}
    text = await send(api, content="grüße".encode(), headers={"Content-Type": "text/plain"})
    assert text.json()["body"] == "grüße"
    raw = await send(api, content=b"\xff\x00\xfe", headers={"Content-Type": "image/png"})
    blob = raw.json()["body"]
    store = await api.storage.store("acme")
    assert await store.blobs.get(blob["blob"]) == b"\xff\x00\xfe"
    assert (await send(api)).json()["body"] is None
    for wrong in (b"{", b'{"a":1,"a":2}', b"NaN"):
        assert (await send(api, content=wrong, headers={"Content-Type": "application/json"})).status_code == 400


# --- who --------------------------------------------------------------------------------------------------------------


def signed(body: bytes, *, key: str = "shared-key", at: float | None = None, **more: str) -> dict[str, str]:
    sent = str(int(time.time() if at is None else at))
    digest = hmac.new(key.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Sign": f"sha256={digest}", "X-Time": sent, "Content-Type": "application/json", **more}


SIGNATURE = {
    "header": "X-Sign",
    "secret": "{{ secrets.hook }}",
    "prefix": "sha256=",
    "timestamp_header": "X-Time",
}


async def test_only_signed_fresh_requests_are_let_in_and_each_once(api: Api) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    await api.post("/workflows", document(hook(signature=SIGNATURE)))
    body = b'{"a": 1}'
    now = time.time()
    good = signed(body)
    refused = {
        "none": {"Content-Type": "application/json"},
        "no time": {key: value for key, value in good.items() if key != "X-Time"},
        "no signature": {key: value for key, value in good.items() if key != "X-Sign"},
        "no prefix": {**good, "X-Sign": good["X-Sign"].removeprefix("sha256=")},
        "empty": {**good, "X-Sign": "sha256="},
        "wrong": {**good, "X-Sign": good["X-Sign"][:-1] + ("0" if good["X-Sign"][-1] != "0" else "1")},
        "other key": signed(body, key="other"),
        "other body": signed(b'{"a": 2}'),
        "old": signed(body, at=now - 302),
        "early": signed(body, at=now + 302),
        "odd time": {**good, "X-Time": "nan"},
        "time moved": {**good, "X-Time": str(int(now) + 1)},
    }
    for name, headers in refused.items():
        answer = await send(api, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), name
    assert await executions(api) == []
    assert (await send(api, content=body, headers=good)).status_code == 202
    assert (await send(api, content=body, headers=good)).status_code == 401, "replayed"
    assert (await send(api, content=body, headers=signed(body, at=now - 290))).status_code == 202
    assert len(await executions(api)) == 2


@pytest.mark.parametrize("secret", ["{{ secrets.missing }}", "{{ vars.key }}", "{{ secrets.hook + '' }}"])
async def test_a_secret_that_is_not_there_lets_nobody_in(api: Api, secret: str) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    workflow = document(hook(signature={**SIGNATURE, "secret": secret}))
    made = await api.call("POST", "/workflows", workflow)
    if made.status_code == 201:
        for key in ("", "undefined", "null", secret, "shared-key"):
            assert (await send(api, content=b"{}", headers=signed(b"{}", key=key))).status_code == 401
    assert await executions(api) == []


async def test_a_signature_without_a_time_covers_the_raw_body(api: Api) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    plain = {"header": "X-Sign", "secret": "{{ secrets.hook }}", "algorithm": "sha512", "encoding": "base64"}
    await api.post("/workflows", document(hook(signature=plain)))
    body = b'{ "a":1 }\n'
    digest = base64.b64encode(hmac.new(b"shared-key", body, hashlib.sha512).digest()).decode()
    headers = {"X-Sign": digest, "Content-Type": "application/json"}
    assert (await send(api, content=body, headers=headers)).status_code == 202
    assert (await send(api, content=body.strip(), headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("auth", "good", "bad"),
    [
        ({"type": "bearer"}, {"Authorization": "Bearer s3"}, {"Authorization": "Bearer s4"}),
        ({"type": "header", "header": "X-Key"}, {"X-Key": "s3"}, {"X-Key": ""}),
        (
            {"type": "basic", "user": "ann"},
            {"Authorization": "Basic " + base64.b64encode(b"ann:s3").decode()},
            {"Authorization": "Basic " + base64.b64encode(b"bob:s3").decode()},
        ),
    ],
)
async def test_only_who_has_the_secret_is_let_in(api: Api, auth: Any, good: Any, bad: Any) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "s3"})
    secured = hook(auth={**auth, "secret": "{{ secrets.hook }}"}, payload="request", respond="last")
    await api.post("/workflows", document(secured))
    for headers in (bad, {}, {"Authorization": "Basic ä".encode()}):
        assert (await send(api, json={}, headers=headers)).status_code == 401
    assert await executions(api) == []
    answer = await send(api, json={}, headers=good)
    assert answer.status_code == 200
    assert "s3" not in json.dumps(answer.json()["headers"]), "credentials do not become data"


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "idempotency", [{"header": "X-Delivery"}, {"key": "{{ payload.id }}"}, {"key": "{{ payload.id.trim() }}"}], ids=str
)
async def test_the_same_delivery_a_hundred_times_is_one_execution(api: Api, idempotency: Any) -> None:
    done = setting("a", by="{{ execution.id }}")
    await api.post("/workflows", document(hook(idempotency=idempotency, respond="last"), done))
    answers: list[Any] = []

    async def deliver() -> None:
        answers.append(await send(api, json={"id": "d1"}, headers={"X-Delivery": "d1"}))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(deliver)
    (one,) = await executions(api)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"by": one["execution_id"]})] * 100
    await send(api, json={"id": "d2"}, headers={"X-Delivery": "d2"})
    assert len(await executions(api)) == 2
    missing = await send(api, json={})
    assert (missing.status_code, missing.json()["code"]) == (400, "no_idempotency_key")


@pytest.mark.parametrize("respond", ["last", "node", "immediately"])
@pytest.mark.parametrize("place", ["sqlite-shared", "postgresql-shared"], indirect=True)  # keys are kept alike in all
async def test_a_delivery_that_two_processes_get_is_one_execution(api: Api, place: Place, respond: str) -> None:
    config = {"idempotency": {"key": "{{ payload.id }}"}, "respond": respond}
    answer = {"id": "a", "type": "respond", "config": {"body": {"by": "{{ execution.id }}"}}}
    done = answer if respond == "node" else setting("a", by="{{ execution.id }}")
    await api.post("/workflows", document(hook(**config), done))
    others = await place.open()
    app = create_app(Settings(secret_keys=KEY, wait=30.0), storage=others)
    answers: list[Any] = []

    async with app.running() as parts, client_of(app) as http:
        there = Api(app, parts, http)

        async def deliver(number: int) -> None:
            answers.append(await send((api, there)[number % 2], json={"id": "d1"}))

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(deliver, number)
    await others.aclose()
    (one,) = await executions(api)
    name, status = ("execution_id", 202) if respond == "immediately" else ("by", 200)
    assert [(told.status_code, told.json()) for told in answers] == [(status, {name: one["execution_id"]})] * 100


@pytest.mark.parametrize("place", ["sqlite-shared", "postgresql-shared"], indirect=True)
async def test_a_delivery_whose_reply_was_lost_gets_it_when_it_comes_again(storage: Storage, place: Place) -> None:
    others = await place.open()
    back = create_app(Settings(secret_keys=KEY), storage=others)
    answer = {"id": "a", "type": "respond", "config": {"status": 201, "body": {"by": "{{ execution.id }}"}}}
    async with running(storage, work=False, wait=0.2) as api:
        await api.post("/workflows", document(hook(idempotency={"header": "X-Delivery"}, respond="node"), answer))
        first = await send(api, json={}, headers={"X-Delivery": "d1"})
        assert first.status_code == 202, "nobody drives it yet"
        name = first.json()["execution_id"]
        async with back.running():
            await ended(api, name)
        again = await send(api, json={}, headers={"X-Delivery": "d1"})
        assert (again.status_code, again.json()) == (201, {"by": name})
        assert len(await executions(api)) == 1
    await others.aclose()


async def test_a_signature_cannot_be_replayed_with_another_key(api: Api) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    await api.post("/workflows", document(hook(signature=SIGNATURE, idempotency={"header": "X-Delivery"})))
    headers = signed(b"{}")
    first = await send(api, content=b"{}", headers={**headers, "X-Delivery": "a"})
    again = await send(api, content=b"{}", headers={**headers, "X-Delivery": "a"})
    assert first.json() == again.json(), "the same delivery again"
    assert (await send(api, content=b"{}", headers={**headers, "X-Delivery": "b"})).status_code == 401
    assert len(await executions(api)) == 1


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_signature_is_known_when_its_execution_is_forgotten(api: Api, keyed: bool) -> None:
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    more = {"idempotency": {"header": "X-Delivery"}} if keyed else {}
    await api.post("/workflows", document(hook(signature=SIGNATURE, respond="last", **more)))
    headers = signed(b"{}")
    first = await send(api, content=b"{}", headers={**headers, "X-Delivery": "a"})
    assert first.status_code == 200
    (row,) = await executions(api)
    store = await api.storage.store("acme")
    assert await store.executions.delete(row["execution_id"])
    assert (await send(api, content=b"{}", headers={**headers, "X-Delivery": "b"})).status_code == 401
    assert await executions(api) == []


async def test_a_signature_counts_once_whatever_it_comes_to(api: Api) -> None:
    """It says nothing of the method, nor of the path."""
    await api.call("PUT", "/secrets/hook", {"value": "shared-key"})
    await api.post("/workflows", document(hook(methods=["POST", "PUT"], signature=SIGNATURE)))
    await api.post("/workflows", document(hook("other", signature=SIGNATURE), name="other"))
    headers = signed(b"{}")
    assert (await send(api, content=b"{}", headers=headers)).status_code == 202
    assert (await send(api, content=b"{}", headers=headers, method="PUT")).status_code == 401
    assert (await send(api, "other", content=b"{}", headers=headers)).status_code == 401
    assert len(await executions(api)) == 1


async def test_a_key_leads_to_no_execution_of_another_workflow(api: Api) -> None:
    """Not where it has the same path, nor where it has the same id, since the other one was deleted."""
    last = hook(idempotency={"header": "X-Delivery"}, respond="last")
    key = {"X-Delivery": "a", "Idempotency-Key": "a"}
    outputs: list[Any] = []
    for name, says in (("first", 1), ("second", 2), ("second", 3)):
        await api.post("/workflows", document(last, setting("s", says=says), name=name))
        outputs.append((await send(api, json={}, headers=key)).json())
        body = await api.post(f"/executions/{name}/execute", {"start": "hook"}, headers=key)
        outputs.append(body["output"])
        await api.call("DELETE", f"/workflows/{name}")
    assert outputs == [{"says": says} for says in (1, 1, 2, 2, 3, 3)]


# --- and back ---------------------------------------------------------------------------------------------------------


async def test_a_respond_node_answers_before_the_execution_ends(api: Api) -> None:
    respond = {
        "id": "answer",
        "type": "respond",
        "config": {"status": 201, "headers": {"X-Order": "{{ input.id }}"}, "body": {"id": "{{ input.id }}"}},
    }
    wait = {"id": "later", "type": "wait", "config": {"signal": "go"}}
    await api.post("/workflows", document(hook(respond="node"), respond, wait))
    answer = await send(api, json={"id": "o1"})
    assert (answer.status_code, answer.json(), answer.headers["x-order"]) == (201, {"id": "o1"}, "o1")
    assert (await executions(api))[0]["finished_at"] is None


@pytest.mark.parametrize(
    ("nodes", "status", "code"),
    [
        ([{"id": "f", "type": "fail"}, {"id": "r", "type": "respond"}], 500, None),
        (
            [{"id": "s", "type": "if", "config": {"condition": False}}, {"id": "r", "type": "respond"}],
            500,
            "no_response",
        ),
        ([{"id": "w", "type": "wait", "config": {"signal": "go"}}, {"id": "r", "type": "respond"}], 202, None),
    ],
    ids=["failed", "skipped", "waits"],
)
async def test_what_a_sender_gets_when_nothing_responds(api: Api, nodes: Any, status: int, code: str | None) -> None:
    workflow = document(hook(respond="node"), *nodes)
    for edge in workflow["edges"]:
        if edge["source"] == "s":
            edge["port"] = "true"
    await api.post("/workflows", workflow)
    answer = await send(api, json={})
    assert answer.status_code == status, answer.text
    assert answer.json()["execution_id"].startswith("exe_")
    if code:
        assert answer.json()["code"] == code


async def test_last_answers_with_the_output_and_tells_nobody_why_it_failed(api: Api) -> None:
    shaped = hook("ok", respond="last", response={"status": 203, "headers": {"X-A": "b"}})
    await api.post("/workflows", document(shaped, setting("a", n=1)))
    answer = await send(api, "ok", {})
    assert (answer.status_code, answer.json(), answer.headers["x-a"]) == (203, {"n": 1}, "b")
    failing = document(
        hook("bad", respond="last"), {"id": "f", "type": "fail", "config": {"message": "db password"}}, name="bad"
    )
    await api.post("/workflows", failing)
    failed = await send(api, "bad", {})
    assert (failed.status_code, failed.json()["code"]) == (500, "execution_failed")
    assert "password" not in failed.text
    waiting = document(
        hook("wait", respond="last"), {"id": "w", "type": "wait", "config": {"signal": "go"}}, name="wait"
    )
    await api.post("/workflows", waiting)


async def test_a_workflows_page_cannot_act_at_this_address(api: Api) -> None:
    headers = {
        "Content-Type": "text/html",
        "Set-Cookie": "session=1",
        "Content-Security-Policy": "default-src *",
        "Clear-Site-Data": '"*"',
        "Service-Worker-Allowed": "/",
        "X-Content-Type-Options": "off",
        "Location": "https://example.com/",
    }
    page = {"id": "r", "type": "respond", "config": {"headers": headers, "body": "<script>alert(1)</script>"}}
    await api.post("/workflows", document(hook(respond="node", methods=["GET"]), page))
    answer = await send(api, method="GET")
    assert answer.text == "<script>alert(1)</script>"
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["location"] == "https://example.com/"
    assert not {"set-cookie", "clear-site-data", "service-worker-allowed"} & set(answer.headers)
