"""Trials: a version is run as its webhook would run it, without being active."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_client import Api, document, make_storage, running, setting

pytestmark = pytest.mark.anyio

SHOW = setting("a", got="{{ input }}")
HEADERS = {"X-Own": "1", "Cookie": "c=1", "Authorization": "Bearer x"}


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: Any, tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage(request.param, tmp_path)
    async with running(storage, wait=2.0) as made:
        yield made
    await storage.aclose()


def hook(path: str = "in", *, name: str = "hook", **config: Any) -> dict[str, Any]:
    return {"id": name, "type": "webhook", "config": {"path": path, **config}}


async def tried(api: Api, body: Any = None, *, workflow: str = "w") -> Any:
    return await api.post(f"/executions/{workflow}/request", body)


RESPOND = {"id": "r", "type": "respond", "config": {"status": 201, "headers": {"X-A": "{{ input.body.id }}"}}}
FLOWS = {
    "immediately": [hook("in/{id}", payload="request"), SHOW],
    "shaped": [hook("in/{id}", response={"status": 203, "headers": {"X-B": "c"}})],
    "last": [hook("in/{id}", payload="request", respond="last"), SHOW],
    "last, body": [hook("in/{id}", respond="last"), SHOW],
    "last, failed": [hook("in/{id}", respond="last"), {"id": "f", "type": "fail", "config": {"message": "secret"}}],
    "node": [hook("in/{id}", payload="request", respond="node"), RESPOND, SHOW],
    "node, text": [
        hook("in/{id}", respond="node"),
        {"id": "r", "type": "respond", "config": {"headers": {"Content-Type": "text/html"}, "body": "<b>hi</b>"}},
    ],
    "node, none": [hook("in/{id}", respond="node"), {"id": "r", "type": "respond", "when": "{{ false }}"}],
    "node, waits": [
        hook("in/{id}", respond="node"),
        {"id": "w", "type": "wait", "config": {"signal": "go"}},
        {"id": "r", "type": "respond"},
    ],
}


@pytest.mark.parametrize("name", FLOWS)
async def test_a_trial_of_a_draft_answers_as_the_webhook_does_when_it_lives(api: Api, name: str) -> None:
    await api.post("/workflows?activate=false", document(*FLOWS[name]))
    body = {"id": "7", "text": "{{ 7 * 7 }}"}
    trial = await tried(api, {"path": "in/a%2Fb", "query": {"q": ["1", "2"]}, "headers": HEADERS, "body": body})
    assert (await api.get("/workflows/w"))["active"] is None, "nothing lives by it"
    assert (await api.call("POST", "/hooks/acme/in/x", body, token="", tenant=None)).status_code == 404
    await api.post("/workflows/w/activate", {"version": 1})
    real = await api.call("POST", "/hooks/acme/in/a%2Fb?q=1&q=2", body, token="", tenant=None, headers=HEADERS)
    response = trial["response"]
    assert response["status"] == real.status_code
    text = not real.headers["content-type"].startswith("application/json")
    assert alike(response["body"]) == alike(real.text if text else real.json())
    for header in ("x-a", "x-b", "content-security-policy"):
        assert response["headers"].get(header) == real.headers.get(header)


def alike(value: Any) -> Any:
    """An answer without what differs from request to request: ids, and the headers that a client adds by itself."""
    if not isinstance(value, dict):
        return value
    shown = {key: "…" if key in {"execution_id", "request_id"} else alike(item) for key, item in value.items()}
    if isinstance(shown.get("headers"), dict):
        assert not {"cookie", "authorization"} & set(shown["headers"])
        shown["headers"] = shown["headers"]["x-own"]
    return shown


async def test_it_is_an_execution_that_is_kept(api: Api) -> None:
    await api.post("/workflows", document(hook(), SHOW))
    await api.call("PUT", "/workflows/w?activate=false", document(hook(payload="request"), SHOW))
    pins = {"a": {"main": "pinned"}}
    execution = (await tried(api, {"body": 1, "pins": pins, "seed": 5}))["execution"]
    assert (execution["version"], execution["status"], execution["output"]) == (2, "succeeded", "pinned")
    assert [record["status"] for record in execution["nodes"]] == ["succeeded", "succeeded"]
    assert await api.get(f"/executions/{execution['execution_id']}") == execution
    first = (await tried(api, {"version": 1, "body": 1}))["execution"]
    assert (first["version"], first["output"]) == (1, {"got": 1})
    assert len((await api.get("/executions"))["executions"]) == 2


async def test_neither_signature_nor_idempotency_stand_in_its_way(api: Api) -> None:
    signature = {"header": "X-Sign", "secret": "{{ secrets.nope }}"}
    auth = {"type": "header", "header": "X-Key", "secret": "{{ secrets.nope }}"}
    guarded = hook(payload="request", signature=signature, auth=auth, idempotency={"header": "X-Id"}, respond="last")
    await api.call("PUT", "/secrets/nope", {"value": "a-long-secret"})
    await api.post("/workflows", document(guarded))
    for _ in range(2):
        trial = await tried(api, {"headers": {"X-KEY": "a-long-secret", "X-Id": "1"}})
        assert trial["response"]["body"]["headers"] == {"x-id": "1"}, "a credential is no data here, either"
    assert len((await api.get("/executions"))["executions"]) == 2


async def test_which_webhook_is_meant(api: Api) -> None:
    many = [
        hook("orders/{id}", name="one", payload="request", methods=["PUT", "GET"]),
        hook("orders/new", name="new", payload="request"),
        hook("orders/new", name="gone", methods=["DELETE"]),
    ]
    await api.post("/workflows", document(*many) | {"edges": []})
    for body, node, method in (
        ({"path": "orders/7"}, "one", "PUT"),
        ({"path": "orders/7", "method": "GET"}, "one", "GET"),
        ({"path": "orders/7", "method": "HEAD"}, "one", "HEAD"),
        ({"path": "orders/new"}, "new", "POST"),
        ({"path": "orders/new", "method": "GET"}, "one", "GET"),
        ({"start": "new"}, "new", "POST"),
    ):
        execution = (await tried(api, body))["execution"]
        (record,) = execution["nodes"]
        assert (record["node"], record["output"]["method"]) == (node, method), body
    gone = (await tried(api, {"path": "orders/new", "method": "DELETE"}))["execution"]
    assert [record["node"] for record in gone["nodes"]] == ["gone"]
    for body, place in (
        ({}, "$.path"),
        ({"path": "orders"}, "$.path"),
        ({"path": ""}, "$.path"),
        ({"start": "one"}, "$.path"),
        ({"start": "nope"}, "$.start"),
        ({"start": "one", "path": "orders/1/2"}, "$.path"),
        ({"path": "orders/7", "method": "PATCH"}, "$.method"),
        ({"method": "TRACE"}, "$.method"),
        ({"query": {"a": 1}}, "$.query.a"),
        ({"pins": {"nope": {"main": 1}}, "start": "new"}, "$.pins.nope"),
    ):
        answer = await api.call("POST", "/executions/w/request", body)
        assert answer.status_code == 422, body
        assert answer.json()["faults"][0]["place"] == place, body
    await api.post("/workflows", document(SHOW, name="plain"))
    assert (await api.call("POST", "/executions/plain/request")).status_code == 422
    assert (await api.call("POST", "/executions/nope/request")).status_code == 404
    assert (await api.call("POST", "/executions/w/request", {"version": 9})).status_code == 404
    assert (await api.call("POST", "/executions/w/request", {"version": 0})).status_code == 404


async def test_what_still_runs_is_shown_as_it_stands(api: Api) -> None:
    wait = {"id": "later", "type": "wait", "config": {"signal": "go"}}
    await api.post("/workflows", document(hook(), wait))
    trial = await tried(api)
    assert trial["response"]["status"] == 202
    assert trial["execution"]["status"] in {"running", "waiting"}
    assert trial["execution"]["execution_id"] == trial["response"]["body"]["execution_id"]
