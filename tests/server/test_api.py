"""The API's routes, over every kind of storage: what a caller sees."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import attrs
import pytest
from api_client import Api, document, running, setting

from orchestrator_server.realms import Realms
from orchestrator_server.records import Limits
from orchestrator_server.sealing import Sealer
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio

ONE = document({"id": "a", "type": "set", "config": {"values": {"n": "{{ payload?.n }}"}}}, setting("b", last=True))
WAITS = document(setting("first", x=1), {"id": "ask", "type": "wait", "config": {"signal": "go"}}, name="waits")


@pytest.fixture
async def api(storage: Storage) -> AsyncIterator[Api]:
    async with running(storage, wait=30.0) as made:
        yield made


# --- workflows --------------------------------------------------------------------------------------------------------


async def test_a_workflow_is_created_read_changed_listed_and_deleted(api: Api) -> None:
    made = await api.call("POST", "/workflows", ONE)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/workflows/w"
    assert made.json()["document"]["nodes"][0]["type_version"] == 1, "a node keeps the meaning that its type has now"
    assert (await api.call("POST", "/workflows", ONE)).json()["code"] == "exists"
    changed = await api.call("PUT", "/workflows/w", {**ONE, "name": "Second"})
    assert (changed.json()["version"], changed.json()["name"]) == (2, "Second")
    assert [row["id"] for row in (await api.get("/workflows"))["workflows"]] == ["w"]
    versions = await api.get("/workflows/w/versions?limit=1")
    assert (versions["versions"][0]["version"], versions["next"]) == (2, 2)
    assert (await api.get("/workflows/w/versions?before=2"))["versions"][0]["active"] is False
    assert (await api.get("/workflows/w/versions/1"))["document"]["id"] == "w"
    assert (await api.call("DELETE", "/workflows/w")).status_code == 204
    assert (await api.call("GET", "/workflows/w")).status_code == 404
    assert (await api.call("PUT", "/workflows/w", ONE)).status_code == 404


async def test_what_is_wrong_with_a_document_is_told_with_its_place(api: Api) -> None:
    wrong = {**ONE, "nodes": [*ONE["nodes"], {"id": "c", "type": "sett"}], "edges": [{"source": "a", "target": "x"}]}
    answer = await api.call("POST", "/workflows", wrong)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_document"
    assert [fault["place"] for fault in answer.json()["faults"]] == ["$.edges[0].target", "$.nodes[2].type"]
    assert (await api.get("/workflows"))["workflows"] == []
    cycle = {**ONE, "edges": [{"source": "a", "target": "b"}, {"source": "b", "target": "a"}]}
    assert "cycle" in (await api.call("POST", "/workflows", cycle)).json()["message"]
    circle = document({"id": "call", "type": "workflow", "config": {"workflow": "w"}})
    assert (await api.call("POST", "/workflows", circle)).status_code == 422
    twice = {**ONE, "nodes": [setting("a"), setting("a")], "edges": []}
    answer = await api.call("POST", "/workflows", twice)
    assert [fault["place"] for fault in answer.json()["faults"]] == ["$.nodes[1].id"]
    await api.post("/workflows", ONE)
    assert (await api.call("PUT", "/workflows/w", {**ONE, "id": "other"})).status_code == 422


async def test_workflows_that_call_each_other_in_a_circle_are_refused(api: Api) -> None:
    def calls(name: str, other: str) -> dict[str, Any]:
        return document({"id": "call", "type": "workflow", "config": {"workflow": other}}, name=name)

    await api.post("/workflows", document(setting("a"), name="b"))
    await api.post("/workflows", calls("a", "b"))
    answer = await api.call("PUT", "/workflows/b", calls("b", "a"))
    assert answer.status_code == 422
    assert [fault["place"] for fault in answer.json()["faults"]] == ["$.nodes[0].config.workflow"]
    assert (await api.get("/workflows/b"))["latest"] == 1


async def test_the_answer_to_saving_names_what_was_saved(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else saved another version before the answer went out: its ETag must not let that be overwritten."""
    await api.post("/workflows", ONE)
    workflows: Any = type((await api.storage.store("acme")).workflows)
    real = workflows.save

    async def twice(*arguments: Any, **more: Any) -> Any:
        saved = await real(*arguments, **more)
        await real(*arguments, **(more | {"expected": None}))
        return saved

    with monkeypatch.context() as patched:
        patched.setattr(workflows, "save", twice)
        answer = await api.call("PUT", "/workflows/w", ONE)
    assert answer.json()["version"] == 2
    known = answer.headers["etag"]
    assert (await api.call("PUT", "/workflows/w", ONE, headers={"If-Match": known})).status_code == 412


async def test_somebody_elses_change_is_not_overwritten(api: Api) -> None:
    tag = (await api.call("POST", "/workflows", ONE)).headers["etag"]
    assert (await api.call("GET", "/workflows/w", headers={"If-None-Match": tag})).status_code == 304
    second = await api.call("PUT", "/workflows/w", ONE, headers={"If-Match": tag})
    assert second.status_code == 200
    assert second.headers["etag"] != tag
    late = await api.call("PUT", "/workflows/w", ONE, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "changed")
    assert (await api.call("DELETE", "/workflows/w", headers={"If-Match": tag})).status_code == 412
    # Another active version is a change: the document that is shown is another one.
    tag = second.headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        assert (await api.call("GET", "/workflows/w", headers={"If-None-Match": known})).status_code == 304
    await api.post("/workflows/w/activate", {"version": 1}, status=200)
    shown = await api.call("GET", "/workflows/w", headers={"If-None-Match": tag})
    assert (shown.status_code, shown.json()["version"]) == (200, 1)
    assert (await api.call("PUT", "/workflows/w", ONE, headers={"If-Match": tag})).status_code == 412
    assert (await api.call("DELETE", "/workflows/w", headers={"If-Match": tag})).status_code == 412
    there = shown.headers["etag"]
    assert (await api.call("GET", "/workflows/w", headers={"If-None-Match": there})).status_code == 304
    await api.post("/workflows/w/activate", {"version": 2}, status=200)
    assert (await api.call("GET", "/workflows/w")).headers["etag"] == tag
    assert (await api.get("/workflows/w"))["latest"] == 2


async def test_a_draft_has_no_triggers_until_it_is_active(api: Api) -> None:
    hook = document({"id": "hook", "type": "webhook", "config": {"path": "in"}})
    made = await api.post("/workflows?activate=false", hook, status=201)
    assert made["active"] is None
    assert (await api.call("POST", "/hooks/acme/in", {})).status_code == 404
    assert (await api.call("POST", "/executions/w/execute")).status_code == 404
    assert (await api.post("/workflows/w/activate", {"version": 1}))["active"] == 1
    assert (await api.call("POST", "/hooks/acme/in", {})).status_code == 202
    assert (await api.post("/workflows/w/activate", {"version": None}))["active"] is None
    assert (await api.call("POST", "/hooks/acme/in", {})).status_code == 404


@pytest.mark.parametrize("place", ["memory", "sqlite-shared", "postgresql-shared"], indirect=True)  # 5 s each
async def test_a_large_document_is_judged_in_two_seconds(api: Api) -> None:
    nodes = [{"id": f"n{number}", "type": "set"} for number in range(10_000)]
    edges = [{"source": f"n{n}", "target": f"n{n + step}"} for n in range(9_989) for step in range(1, 11)]
    begun = time.process_time()  # others may be at work on this machine, too
    made = await api.call("POST", "/workflows", {"schema": 1, "id": "large", "nodes": nodes, "edges": edges})
    assert made.status_code == 201
    assert time.process_time() - begun < 6, "2 s on a machine that does nothing else"


# --- executions -------------------------------------------------------------------------------------------------------


async def test_executing_answers_with_the_records_and_the_output(api: Api) -> None:
    await api.post("/workflows", ONE)
    answer = await api.call("POST", "/executions/w/execute", {"payload": {"n": 3}})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["output"]) == ("succeeded", {"last": True})
    assert [(node["path"], node["output"]) for node in body["nodes"]] == [("a", {"n": 3}), ("b", {"last": True})]
    assert answer.headers["location"] == f"/api/v1/executions/{body['execution_id']}"
    assert await api.get(f"/executions/{body['execution_id']}") == body
    logs = await api.get("/executions/w/logs")
    assert logs == {"executions": [body], "next": None}


async def test_a_failed_execution_is_an_answer_and_no_error(api: Api) -> None:
    failing = document({"id": "f", "type": "fail", "config": {"message": "no luck", "code": "luck"}})
    await api.post("/workflows", failing)
    body = await api.post("/executions/w/execute", status=200)
    assert (body["status"], body["error"]["code"], body["nodes"][0]["status"]) == ("failed", "luck", "failed")


async def test_who_does_not_want_to_wait_gets_an_id(api: Api) -> None:
    await api.post("/workflows", WAITS)
    answer = await api.call("POST", "/executions/waits/execute", headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    short = await api.call("POST", "/executions/waits/execute", headers={"Prefer": "wait=0"})
    assert short.status_code == 202
    body = await until(api, f"/executions/{short.json()['execution_id']}", "waiting")
    assert [node["output"] for node in body["nodes"]] == [{"x": 1}, None]


async def test_a_signal_wakes_what_waits_for_it(api: Api) -> None:
    await api.post("/workflows", WAITS)
    started = await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}, status=202)
    path = f"/executions/{started['execution_id']}"
    wrong = await api.call("POST", f"{path}/signals/go", {"path": "nobody"})
    assert (wrong.status_code, wrong.json()["faults"][0]["place"]) == (422, "$.path")
    sent = await api.post(f"{path}/signals/go", {"path": "ask", "payload": {"yes": True}, "id": "s1"}, status=202)
    assert sent["new"] is True
    body = await until(api, path, "succeeded")
    assert body["nodes"][1]["status"] == "succeeded"
    late = await api.call("POST", f"{path}/signals/go", {"path": "ask"})
    assert (late.status_code, late.json()["code"]) == (409, "ended")


@pytest.mark.parametrize("how", ["denied", "uninstalled"])
async def test_records_are_read_where_their_node_types_are_not_there_any_more(
    api: Api, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"id": "hook", "type": "webhook", "config": {"path": "in"}}
    other = {"id": "other", "type": "manual"}
    ask = {"id": "ask", "type": "wait", "config": {"signal": "go"}}
    ring = {"id": "ring", "type": "http", "config": {"url": "http://example.com"}}
    document_ = document(hook, setting("first", got="{{ payload.n }}"), ask, ring)
    await api.post("/workflows", {**document_, "nodes": [*document_["nodes"], other]})
    started = await api.post("/hooks/acme/in", {"n": 7}, token="", tenant=None)
    path = f"/executions/{started['execution_id']}"
    before = await until(api, path, "waiting")
    assert [record["status"] for record in before["nodes"]] == ["succeeded", "succeeded", "waiting", "pending"]
    if how == "denied":
        await api.call("PATCH", "/tenants/acme", {"settings": {"deny": ["network"]}}, tenant=None)
    else:
        known = api.parts.engine.all_types
        left = {name: kind for name, kind in known.node_types.items() if name not in {"http", "wait", "webhook"}}
        monkeypatch.setattr(api.parts.engine, "all_types", attrs.evolve(known, node_types=left))
        api.parts.realms._homes["acme"].realms.clear()  # as after the restart that an uninstalling takes
    refused = await api.call("POST", "/executions/w/execute", {"start": "hook"})
    assert refused.status_code == 422, refused.text
    assert await api.get(path) == before
    assert (await api.get("/executions/w/logs"))["executions"] == [before]


async def test_what_waits_can_be_cancelled(api: Api) -> None:
    await api.post("/workflows", WAITS)
    started = await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}, status=202)
    path = f"/executions/{started['execution_id']}"
    assert (await api.post(f"{path}/cancel", status=202))["new"] is True
    body = await until(api, path, "cancelled")
    assert body["nodes"][1]["status"] == "cancelled"


async def test_what_is_in_quarantine_goes_on_when_it_is_revived(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that it has done is done again, and nothing that was sent to it is lost."""
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.02)
    await api.post("/workflows", WAITS)
    started = await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}, status=202)
    path = f"/executions/{started['execution_id']}"
    before = await until(api, path, "waiting")
    refused = await api.call("POST", f"{path}/revive")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_quarantined")
    store = await api.storage.store("acme")
    with anyio.fail_after(30):
        while (row := await store.executions.get(started["execution_id"])) is None or row.worker is not None:
            await anyio.sleep(0.02)

    async def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no worker survives this")

    with monkeypatch.context() as broken:
        broken.setattr(Realms, "for_execution", crash)
        await api.post(f"{path}/signals/go", {"path": "ask", "payload": 7}, status=202)
        assert (await until(api, path, "failed"))["error"]["code"] == "poisoned"
    assert await api.post(f"{path}/revive", status=202) == {"execution_id": started["execution_id"]}
    after = await until(api, path, "succeeded")
    assert after["nodes"][0] == before["nodes"][0]
    assert after["output"] == 7
    assert (await api.call("POST", f"{path}/revive")).status_code == 409


async def test_nothing_is_left_for_a_child_that_nobody_drives(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so, and not that it will be seen to."""
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.02)
    await api.post("/workflows", WAITS)
    await api.post(
        "/workflows", document({"id": "c", "type": "workflow", "config": {"workflow": "waits"}}, name="outer")
    )
    started = await api.post("/executions/outer/execute", headers={"Prefer": "respond-async"}, status=202)
    root = started["execution_id"]
    store = await api.storage.store("acme")
    with anyio.fail_after(30):
        while (row := await store.executions.get(root)) is None or row.worker is not None:
            await anyio.sleep(0.02)
    (child,) = (await api.get("/executions?workflow=waits"))["executions"]

    async def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no worker survives this")

    path = f"/executions/{child['execution_id']}"
    with monkeypatch.context() as broken:
        broken.setattr(Realms, "for_execution", crash)
        await api.post(f"{path}/signals/go", {"path": "ask"}, status=202)
        await until(api, f"/executions/{root}", "failed")
    for left, body in (("cancel", {}), ("signals/go", {"path": "ask"})):
        answer = await api.call("POST", f"{path}/{left}", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "ended")
        assert answer.json()["message"] == "what drives the execution has ended: it is failed"


async def test_a_document_may_be_larger_than_a_request(storage: Storage) -> None:
    async with running(storage, wait=30.0, body_limit=1000, document_limit=20_000) as api:
        await api.post("/workflows", document(setting("a", text="x" * 5000)))
        large = await api.call("POST", "/executions/w/execute", {"payload": "x" * 5000})
        assert (large.status_code, large.json()["code"]) == (413, "too_large")
        assert "1000 bytes" in large.json()["message"]
        too_large = await api.call("PUT", "/workflows/w", document(setting("a", text="x" * 30_000)))
        assert too_large.status_code == 413


async def until(api: Api, path: str, status: str) -> Any:
    with anyio.fail_after(30):
        while (body := await api.get(path))["status"] != status:
            await anyio.sleep(0.02)
    return body


async def test_retrying_from_a_node_keeps_what_stands_before_it(api: Api) -> None:
    steps = document(
        {"id": "a", "type": "code", "config": {"source": "return Math.random()"}},
        {"id": "b", "type": "code", "config": {"source": "return [context.input, Math.random()]"}},
    )
    await api.post("/workflows", steps)
    first = await api.post("/executions/w/execute")
    again = await api.post(f"/executions/{first['execution_id']}/retry", {"node": "b"})
    assert again["execution_id"] != first["execution_id"]
    assert again["nodes"][0]["output"] == first["nodes"][0]["output"]
    assert again["nodes"][0]["attempts"] == []
    assert again["output"][1] != first["output"][1]
    whole = await api.post(f"/executions/{first['execution_id']}/retry")
    assert whole["nodes"][0]["output"] != first["nodes"][0]["output"]
    assert (await api.call("POST", f"/executions/{first['execution_id']}/retry", {"node": "z"})).status_code == 422
    listed = await api.get("/executions")
    assert {row["parent"] for row in listed["executions"]} == {None, first["execution_id"]}


async def test_the_same_idempotency_key_a_hundred_times_is_one_execution(api: Api) -> None:
    await api.post("/workflows", ONE)
    bodies: list[Any] = []

    async def send() -> None:
        bodies.append(await api.post("/executions/w/execute", {"payload": {"n": 1}}, headers={"Idempotency-Key": "k"}))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(send)
    assert len({body["execution_id"] for body in bodies}) == 1
    assert {body["status"] for body in bodies} == {"succeeded"}
    assert len((await api.get("/executions"))["executions"]) == 1
    other = await api.call("POST", "/executions/w/execute", {"payload": 2}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_lists_are_paged_filtered_and_sorted(api: Api) -> None:
    await api.post("/workflows", ONE)
    await api.post("/workflows", document({"id": "f", "type": "fail"}, name="bad"))
    made = [(await api.post("/executions/w/execute"))["execution_id"] for _ in range(3)]
    failed = (await api.post("/executions/bad/execute"))["execution_id"]
    seen: list[str] = []
    cursor = ""
    while True:
        page = await api.get(f"/executions?sort=created_at&limit=2{cursor}")
        seen += [row["execution_id"] for row in page["executions"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [*made, failed]
    rows = (await api.get("/executions?status=failed&status=cancelled"))["executions"]
    assert [(row["execution_id"], row["error_code"]) for row in rows] == [(failed, "failed")]
    assert len((await api.get("/executions?workflow=w"))["executions"]) == 3
    assert (await api.get("/executions?before=2020-01-01T00:00:00Z"))["executions"] == []
    for wrong in ("sort=name", "limit=0", "limit=x", "status=odd", "q=1", "limit=1&limit=2", "cursor=zzz", "since=now"):
        answer = await api.call("GET", f"/executions?{wrong}")
        assert answer.status_code == 400, wrong


async def test_what_nobody_has_is_not_found(api: Api) -> None:
    for method, path in (
        ("GET", "/executions/exe_nobody"),
        ("GET", "/executions/exe_nobody/events"),
        ("POST", "/executions/exe_nobody/cancel"),
        ("POST", "/executions/exe_nobody/retry"),
        ("POST", "/executions/nobody/execute"),
        ("GET", "/executions/nobody/logs"),
        ("GET", "/workflows/nobody/versions"),
        ("DELETE", "/workflows/nobody"),
        ("GET", "/variables/nobody"),
        ("DELETE", "/variables/nobody"),
        ("DELETE", "/secrets/nobody"),
        ("GET", "/schedules/nobody"),
        ("GET", "/nodes/nobody"),
        ("GET", "/tenants/nobody"),
        ("DELETE", "/tenants/nobody"),
    ):
        assert (await api.call(method, path, tenant=None if "tenants" in path else "acme")).status_code == 404, path


# --- events -----------------------------------------------------------------------------------------------------------


def parsed(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in blocks]


async def test_events_are_streamed_until_the_end_and_go_on_where_they_broke_off(api: Api) -> None:
    await api.post("/workflows", WAITS)
    started = await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}, status=202)
    path = f"/executions/{started['execution_id']}"
    answers: list[Any] = []

    async def listen() -> None:
        answers.append(await api.call("GET", f"{path}/events"))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.sleep(0.05)
        await api.post(f"{path}/signals/go", {"path": "ask"}, status=202)
    assert answers[0].headers["content-type"].startswith("text/event-stream")
    events = parsed(answers[0].text)[1:]
    assert [event["id"] for event in events[:-1]] == [str(number) for number in range(1, len(events))]
    assert events[0]["event"] == "ExecutionStarted"
    assert [event["event"] for event in events[-2:]] == ["ExecutionEnded", "end"]
    again = parsed((await api.call("GET", f"{path}/events", headers={"Last-Event-ID": "3"})).text)[1:]
    assert again == events[3:]
    assert (await api.call("GET", f"{path}/events", headers={"Last-Event-ID": "x"})).status_code == 400


# --- values -----------------------------------------------------------------------------------------------------------


async def test_a_secret_is_set_used_and_never_shown(api: Api) -> None:
    assert (await api.call("PUT", "/secrets/token", {"value": "s3cret-value"})).json()["version"] == 1
    assert (await api.call("PUT", "/secrets/token", {"value": "s3cret-value-2"})).json()["version"] == 2
    listed = await api.call("GET", "/secrets")
    assert [secret["name"] for secret in listed.json()["secrets"]] == ["token"]
    assert "s3cret" not in listed.text
    stored = await (await api.storage.store("acme")).secrets.get("token")
    assert stored is not None
    assert b"s3cret" not in stored.ciphertext
    assert (await api.parts.realms.get("acme")).secrets == {"token": "s3cret-value-2"}
    assert (await api.parts.realms.get("Acme")).secrets == {}
    assert (await api.call("DELETE", "/secrets/token")).status_code == 204
    assert (await api.parts.realms.get("acme")).secrets == {}
    assert (await api.call("PUT", "/secrets/9bad", {"value": "x"})).status_code == 400
    assert (await api.call("PUT", "/secrets/empty", {"value": ""})).status_code == 422


async def test_variables_are_seen_by_what_starts_after_them(api: Api) -> None:
    await api.post("/workflows", document(setting("a", city="{{ vars.city }}")))
    await api.call("PUT", "/variables/city", {"value": {"name": "Ulm"}})
    assert (await api.post("/executions/w/execute"))["output"] == {"city": {"name": "Ulm"}}
    assert (await api.get("/variables/city"))["value"] == {"name": "Ulm"}
    assert [row["name"] for row in (await api.get("/variables"))["variables"]] == ["city"]
    assert (await api.call("DELETE", "/variables/city")).status_code == 204


async def test_a_schedule_lives_with_its_version_and_can_be_switched_off(api: Api) -> None:
    await api.post("/workflows", document({"id": "daily", "type": "schedule", "config": {"cron": "0 9 * * *"}}))
    (found,) = (await api.get("/schedules"))["schedules"]
    assert (found["id"], found["workflow"], found["node"]) == ("w-daily", "w", "daily")
    assert found["next_at"] is not None
    off = (await api.call("PATCH", "/schedules/w-daily", {"enabled": False})).json()
    assert (off["enabled"], off["next_at"]) == (False, None)
    assert (await api.call("PATCH", "/schedules/w-daily", {"enabled": True})).json()["next_at"] is not None
    await api.call("DELETE", "/workflows/w")
    assert (await api.get("/schedules"))["schedules"] == []


async def test_the_node_types_are_shown_with_their_schemas(api: Api) -> None:
    kinds = {kind["name"]: kind for kind in (await api.get("/nodes"))["nodes"]}
    assert "url" in kinds["http"]["config"]["properties"]
    assert await api.get("/nodes/http") == kinds["http"]
    await api.call("PATCH", "/tenants/acme", {"settings": {"deny": ["network"]}}, tenant=None)
    assert (await api.call("GET", "/nodes/http")).status_code == 404
    refused = await api.call("POST", "/workflows", document({"id": "h", "type": "http", "config": {"url": "http://x"}}))
    assert "denied" in refused.json()["message"]


async def test_a_list_of_too_many_items_is_refused(storage: Storage) -> None:
    """They all start at once, and whoever else is served waits meanwhile."""
    async with running(storage, wait=30.0, for_each_limit=3) as api:
        await api.post("/workflows", document({**setting("each", x=1), "for_each": "{{ payload }}"}))
        for count, status in ((3, "succeeded"), (4, "failed")):
            body = await api.post("/executions/w/execute", {"payload": [0] * count})
            assert body["status"] == status
        assert body["error"]["code"] == "too_large"
        assert "for_each has 4 items: 3 are allowed here" in body["error"]["message"]


async def test_a_key_that_was_left_out_is_told_to_whoever_needs_it(api: Api) -> None:
    await api.post("/workflows", ONE)
    store = await api.storage.store("acme")
    await store.secrets.put(Sealer({"gone": b"1" * 32}, "gone").seal("acme", "token", 1, "x"))
    api.parts.realms.changed("acme")
    refused = await api.call("POST", "/executions/w/execute", {})
    assert (refused.status_code, refused.json()["code"]) == (503, "unknown_key")
    assert "'gone'" in refused.json()["message"]
    for path in ("/workflows", "/executions", "/executions/w/logs", "/secrets"):
        assert (await api.call("GET", path)).status_code == 200, "what needs no secret is there"
    assert (await api.call("DELETE", "/secrets/token")).status_code == 204
    await api.post("/executions/w/execute", {})


async def test_what_was_set_is_answered_whatever_others_do(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a change is what it did, and not what somebody else has made of it since."""
    await api.call("PUT", "/variables/x", {"value": 1})
    store = await api.storage.store("acme")
    variables: Any = type(store.variables)
    real = variables.put

    async def and_deleted(self: Any, variable: Any) -> Any:
        put = await real(self, variable)
        await self.delete(variable.name)
        return put

    monkeypatch.setattr(variables, "put", and_deleted)
    answer = await api.call("PUT", "/variables/x", {"value": 2})
    assert (answer.status_code, answer.json()["value"]) == (200, 2)


# --- tenants ----------------------------------------------------------------------------------------------------------


async def test_changes_of_a_tenant_at_one_time_are_all_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.post("/tenants", {"id": "beta"}, tenant=None, status=201)
    tenants: Any = type(api.storage.tenants)
    real = tenants.update

    async def after_another(self: Any, tenant_id: str, **changes: Any) -> Any:
        await real(self, tenant_id, limits=Limits(running=7))
        return await real(self, tenant_id, **changes)

    monkeypatch.setattr(tenants, "update", after_another)
    changed = (await api.call("PATCH", "/tenants/beta", {"name": "B"}, tenant=None)).json()
    assert (changed["name"], changed["limits"]["running"]) == ("B", 7)
    for bad in ("../x", "\0", 7):
        answer = await api.call("PATCH", "/tenants/beta", {"settings": {"error_workflow": bad}}, tenant=None)
        assert answer.status_code == 400, "it is the id of a workflow"


async def test_tenants_and_keys_are_made_changed_and_removed(api: Api) -> None:
    body = {"id": "beta", "name": "Beta", "limits": {"running": 2}, "retention": {"executions": "7d"}}
    made = await api.post("/tenants", body, tenant=None, status=201)
    assert made["limits"] == {"running": 2, "queued": None, "storage": None}
    assert made["retention"] == {"executions": 604800.0, "blobs": None}
    assert (await api.call("POST", "/tenants", {"id": "beta"}, tenant=None)).status_code == 409
    changed = await api.call("PATCH", "/tenants/beta", {"name": "B"}, tenant=None)
    assert (changed.json()["name"], changed.json()["limits"]) == ("B", made["limits"])
    key = await api.post("/tenants/beta/keys", {"role": "editor", "name": "ci"}, tenant=None, status=201)
    assert (await api.call("GET", "/workflows", token=key["credential"], tenant="beta")).status_code == 200
    for seconds in (0, 3.8e16):  # a time that nobody could write
        refused = await api.call("POST", "/tenants/beta/keys", {"expires_in": seconds}, tenant=None)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_document")
    listed = await api.call("GET", "/tenants/beta/keys", tenant=None)
    assert [row["id"] for row in listed.json()["keys"]] == [key["id"]]
    assert key["credential"].partition(".")[2] not in listed.text
    assert (await api.call("DELETE", f"/tenants/acme/keys/{key['id']}", tenant=None)).status_code == 404
    assert (await api.call("DELETE", f"/tenants/beta/keys/{key['id']}", tenant=None)).status_code == 204
    assert (await api.call("GET", "/workflows", token=key["credential"], tenant="beta")).status_code == 401
    assert (await api.call("DELETE", "/tenants/beta", tenant=None)).status_code == 204
    assert (await api.call("GET", "/tenants/beta", tenant=None)).status_code == 404
    assert (await api.call("GET", "/workflows", tenant="beta")).status_code == 404
    assert (await api.call("PATCH", "/tenants/acme", {"settings": {"deny": ["all"]}}, tenant=None)).status_code == 400


async def test_the_server_says_how_it_is(api: Api) -> None:
    for path in ("/health", "/ready"):
        assert (await api.call("GET", path, token="", tenant=None)).json() == {"status": "ok"}
        assert (await api.http.get(f"http://test{path}")).status_code == 200
    assert (await api.call("GET", "/metrics", token="")).status_code == 401
    assert (await api.call("GET", "/metrics", token=await api.key("acme", "admin"))).status_code == 403
    text = (await api.call("GET", "/metrics")).text
    assert 'orchestrator_http_requests_total{method="GET",route="/health",status="200"} 2' in text
    assert "acme" not in text
