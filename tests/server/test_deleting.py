"""Deleting a workflow or a tenant that is running: what goes on, what stops, and that nothing is left."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from api_client import KEY, Api, client_of, document, running, setting
from sqlalchemy.engine import URL, make_url

from conftest import SQL_KINDS, Place
from orchestrator_server.app import create_app
from orchestrator_server.records import Tenant, Variable
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio

ASK = {"id": "ask", "type": "wait", "config": {"signal": "go"}}
ASYNC = {"Prefer": "respond-async"}
LARGE = "x" * 300_000


@pytest.fixture
async def api(storage: Storage) -> AsyncIterator[Api]:
    async with running(storage, wait=30.0) as made:
        yield made


async def until(api: Api, path: str, status: str, **more: Any) -> Any:
    with anyio.fail_after(30):
        while (body := await api.get(path, **more))["status"] != status:
            await anyio.sleep(0.02)
    return body


# --- workflows --------------------------------------------------------------------------------------------------------


async def test_what_runs_of_a_deleted_workflow_goes_on_and_stays_readable(api: Api) -> None:
    hook = {"id": "hook", "type": "webhook", "config": {"path": "in"}}
    pause = {"id": "pause", "type": "wait", "config": {"for": 0.2}}
    await api.post("/workflows", document(hook, ASK, pause, setting("last", got="{{ payload.n }}")))
    started = [(await api.post("/hooks/acme/in", {"n": n}, token="", tenant=None))["execution_id"] for n in (1, 2)]
    for name in started:
        await until(api, f"/executions/{name}", "waiting")
    assert (await api.call("DELETE", "/workflows/w")).status_code == 204
    for n, name in enumerate(started, 1):
        path = f"/executions/{name}"
        assert (await api.get(path))["nodes"][1]["status"] == "waiting"
        await api.post(f"{path}/signals/go", {"path": "ask"}, status=202)
        body = await until(api, path, "succeeded")
        assert body["output"] == {"got": n}
        assert "ExecutionEnded" in (await api.call("GET", f"{path}/events")).text
    logs = (await api.get("/executions/w/logs"))["executions"]
    assert {body["execution_id"] for body in logs} == {*started}
    assert (await api.get("/executions/w/logs?status=cancelled"))["executions"] == []
    # Nobody can start it any more, by a version or by a retry.
    versioned = await api.call("POST", "/executions/w/execute", {"version": 1, "start": "hook"})
    again = await api.call("POST", f"/executions/{started[0]}/retry", {})
    assert (versioned.status_code, again.status_code) == (404, 404)
    # A workflow of the same name later is another one, and changes nothing of them.
    await anyio.sleep(0.01)
    await api.post("/workflows", document(setting("other")), status=201)
    assert (await api.get(f"/executions/{started[0]}"))["output"] == {"got": 1}
    assert [one["version"] for one in (await api.get("/workflows/w/versions"))["versions"]] == [2]
    for method, path, body in (
        ("GET", "/workflows/w/versions/1", None),
        ("POST", "/workflows/w/activate", {"version": 1}),
        ("POST", "/executions/w/execute", {"version": 1, "start": "hook"}),
        ("POST", f"/executions/{started[0]}/retry", {}),
    ):
        assert (await api.call(method, path, body)).status_code == 404, path


async def test_a_deleted_workflow_is_started_by_nobody_any_more(api: Api) -> None:
    hook = {"id": "hook", "type": "webhook", "config": {"path": "in"}}
    tick = {"id": "tick", "type": "schedule", "config": {"every": 1}}
    last = setting("last")
    both = {
        **document(hook, last),
        "nodes": [hook, tick, last],
        "edges": [{"source": "hook", "target": "last"}, {"source": "tick", "target": "last"}],
    }
    await api.post("/workflows", both)
    with anyio.fail_after(30):
        while not (await api.get("/executions"))["executions"]:
            await anyio.sleep(0.05)
    assert (await api.call("DELETE", "/workflows/w")).status_code == 204
    before = {row["execution_id"] for row in (await api.get("/executions"))["executions"]}
    assert (await api.call("POST", "/hooks/acme/in", {}, token="", tenant=None)).status_code == 404
    assert (await api.call("POST", "/executions/w/execute")).status_code == 404
    assert (await api.get("/schedules"))["schedules"] == []
    await anyio.sleep(1.3)
    assert {row["execution_id"] for row in (await api.get("/executions"))["executions"]} == before


# --- tenants ----------------------------------------------------------------------------------------------------------


async def test_nothing_of_a_deleted_tenant_is_left_though_it_ran(
    api: Api, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    at_first = traces(place, "gone")
    keys = await furnish(api, "gone")
    if place.url:
        assert set(traces(place, "gone")) - set(at_first), "there is something to lose"
    resting = await api.post("/executions/w/execute", {"payload": {"who": "rests"}}, headers=ASYNC, tenant="gone")
    parked = await api.post("/executions/asks/execute", headers=ASYNC, tenant="gone")
    await until(api, f"/executions/{parked['execution_id']}", "waiting", tenant="gone")
    answers: list[Any] = []

    async def wait_for_it() -> None:
        answers.append(await api.call("POST", "/executions/w/execute", {"payload": {"who": "asks"}}, tenant="gone"))

    async def listen() -> None:
        answers.append(await api.call("GET", f"/executions/{resting['execution_id']}/events", tenant="gone"))

    with caplog.at_level(logging.ERROR), anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_it)
            group.start_soon(listen)
            await anyio.sleep(0.5)
            assert (await api.call("DELETE", "/tenants/gone", tenant=None)).status_code == 204
            for key in keys:
                assert (await api.call("GET", "/workflows", token=key, tenant="gone")).status_code == 401
            assert traces(place, "gone") == at_first
        # By now each has tried to commit what came after its pause.
        assert sorted(answer.status_code for answer in answers) == [200, 404]
        assert "event: end" not in next(answer.text for answer in answers if answer.status_code == 200)
        while any(held.claim.tenant == "gone" for held in api.parts.worker._held.values()):
            await anyio.sleep(0.05)
    assert not caplog.records, "losing what was deleted is no fault"
    assert traces(place, "gone") == at_first
    for path in ("/workflows", "/executions", f"/executions/{resting['execution_id']}"):
        assert (await api.call("GET", path, tenant="gone")).status_code == 404
    assert (await api.call("POST", "/hooks/gone/in", {}, token="", tenant=None)).status_code == 404


async def test_a_tenant_made_again_sees_nothing_of_the_old_one(api: Api) -> None:
    old_keys = await furnish(api, "gone")
    once = {"Idempotency-Key": "once"}
    first = await api.post("/executions/asks/execute", headers={**ASYNC, **once}, tenant="gone")
    assert (await api.call("DELETE", "/tenants/gone", tenant=None)).status_code == 204
    await api.post("/tenants", {"id": "gone"}, tenant=None, status=201)
    assert (await api.get("/tenants/gone", tenant=None))["settings"] == {}
    assert (await api.get("/tenants/gone/keys", tenant=None))["keys"] == []
    for path in ("/workflows", "/executions", "/variables", "/secrets", "/schedules"):
        body = await api.get(path, tenant="gone")
        assert [rows for rows in body.values() if rows is not None] == [[]], path
    for key in old_keys:
        assert (await api.call("GET", "/workflows", token=key, tenant="gone")).status_code == 401
    assert (await api.call("GET", f"/executions/{first['execution_id']}", tenant="gone")).status_code == 404
    assert (await api.call("POST", "/hooks/gone/in", {}, token="", tenant=None)).status_code == 404
    # The same ids, version and idempotency key: all of it the new one's.
    await api.post("/workflows", document(setting("new", city="{{ vars.city ?? 'none' }}"), name="asks"), tenant="gone")
    body = await api.post("/executions/asks/execute", headers=once, tenant="gone", status=200)
    assert body["execution_id"] != first["execution_id"]
    assert (body["version"], body["output"]) == (1, {"city": "none"})


async def test_a_tenant_is_deleted_while_it_is_busy(api: Api, place: Place) -> None:
    at_first = traces(place, "gone")
    await furnish(api, "gone")
    await api.post("/workflows", document(setting("a"), name="quick"), tenant="gone")
    statuses: Counter[int] = Counter()
    deleted = anyio.Event()

    async def execute() -> None:
        late = 0
        while late < 2:
            late += deleted.is_set()
            answer = await api.call("POST", "/executions/quick/execute", {"payload": LARGE}, tenant="gone")
            statuses[answer.status_code] += 1

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(execute)
            while statuses[200] < 8:
                await anyio.sleep(0.01)
            answer = await api.call("DELETE", "/tenants/gone", tenant=None)
            deleted.set()
    assert answer.status_code == 204, answer.text
    # Where its schema is dropped under them, some are told to ask again.
    assert set(statuses) <= {200, 404, 503}
    assert statuses[404] >= 8
    assert traces(place, "gone") == at_first


@pytest.mark.parametrize("place", SQL_KINDS, indirect=True)
async def test_other_processes_notice(api: Api, place: Place) -> None:
    at_first = traces(place, "gone")
    others = await place.open()
    app = create_app(Settings(secret_keys=KEY, wait=30.0), storage=others)
    async with app.running() as parts, client_of(app) as http:
        there = Api(app, parts, http, tenant="gone", token=api.token)
        (key, *_) = await furnish(api, "gone")
        assert (await there.get("/variables/city", token=key))["value"] == "Ulm"
        assert (await api.call("DELETE", "/tenants/gone", tenant=None)).status_code == 204
        assert traces(place, "gone") == at_first, "it has let go of the file, too"
        with anyio.fail_after(5):
            while (await there.call("GET", "/variables", token=key)).status_code != 401:
                await anyio.sleep(0.1)
            while (await there.call("GET", "/variables")).status_code != 404:
                await anyio.sleep(0.1)
        await api.post("/tenants", {"id": "gone"}, tenant=None, status=201)
        assert (await there.get("/variables"))["variables"] == []
        await there.call("PUT", "/variables/city", {"value": "Bonn"})
        assert (await api.get("/variables/city", tenant="gone"))["value"] == "Bonn"
    await others.aclose()
    await api.call("PUT", "/variables/more", {"value": 1}, tenant="gone")
    again = await place.open()
    names = [variable.name for variable in await (await again.store("gone")).variables.list()]
    await again.aclose()
    assert names == ["city", "more"], "closing the old one has taken nothing away"


@pytest.mark.parametrize("place", SQL_KINDS, indirect=True)
async def test_a_process_that_has_the_tenant_in_use_sees_the_new_one(storage: Storage, place: Place) -> None:
    others = await place.open()
    for city in ("Ulm", "Bonn"):
        await storage.tenants.create(Tenant("gone"))
        # The queue is what every worker looks at, whether or not anybody asks for the tenant.
        await others.queue.next_due()
        assert list(await (await others.store("gone")).variables.list()) == []
        await (await storage.store("gone")).variables.put(Variable("city", city))
        (found,) = await (await others.store("gone")).variables.list()
        assert found.value == city
        if city == "Ulm":
            async with anyio.create_task_group() as group:
                group.start_soon(storage.tenants.delete, "gone")
                while await others.tenants.get("gone") is not None:
                    await others.queue.next_due()
                await others.queue.next_due()
    await others.aclose()


@pytest.mark.parametrize("place", SQL_KINDS, indirect=True)
async def test_a_deletion_that_was_cut_off_goes_on(api: Api, place: Place) -> None:
    at_first = traces(place, "gone")
    await furnish(api, "gone")
    assert isinstance(api.storage, SqlStorage)
    await api.storage._rooms.remove("gone")  # the process died behind this
    assert (await api.call("GET", "/tenants/gone", tenant=None)).status_code == 200
    assert (await api.call("POST", "/executions/quick/execute", tenant="gone")).status_code == 404
    assert (await api.call("DELETE", "/tenants/gone", tenant=None)).status_code == 204
    assert traces(place, "gone") == at_first


# --- looking for what is left -----------------------------------------------------------------------------------------


async def furnish(api: Api, tenant: str) -> list[str]:
    """A new tenant with something of everything; gives the credentials of its keys."""
    await api.post("/tenants", {"id": tenant, "settings": {"deny": ["network"]}}, tenant=None, status=201)
    roles = ("admin", "viewer")
    path = f"/tenants/{tenant}/keys"
    keys = [(await api.post(path, {"role": role}, tenant=None))["credential"] for role in roles]
    for key in keys:
        assert (await api.call("GET", "/workflows", token=key, tenant=tenant)).status_code == 200
    hook = {"id": "hook", "type": "webhook", "config": {"path": "in", "payload": "request"}}
    daily = {"id": "daily", "type": "schedule", "config": {"cron": "0 9 * * *"}}
    await api.post("/workflows", document(hook, setting("a"), name="hooked"), tenant=tenant)
    await api.post("/workflows", document(daily, setting("a"), name="daily"), tenant=tenant)
    pause = {"id": "pause", "type": "wait", "config": {"for": 2}}
    await api.post("/workflows", document(setting("a", who="{{ payload.who }}"), pause, setting("b")), tenant=tenant)
    await api.post("/workflows", document(ASK, name="asks"), tenant=tenant)
    await api.call("PUT", "/variables/city", {"value": "Ulm"}, tenant=tenant)
    await api.call("PUT", "/secrets/token", {"value": "s3cret"}, tenant=tenant)
    quick = document(setting("a", large="{{ payload }}"), name="first")
    await api.post("/workflows", quick, tenant=tenant)
    await api.post("/executions/first/execute", {"payload": LARGE}, tenant=tenant, headers={"Idempotency-Key": "k"})
    image = {"content": b"\xff\x00", "headers": {"Content-Type": "image/png"}}
    assert (await api.call("POST", f"/hooks/{tenant}/in", token="", tenant=None, **image)).status_code == 202
    return keys


def traces(place: Place, tenant: str) -> Counter[str]:
    """What there is of a tenant: rows that name it in any table, and whole schemas, databases and files of tenants."""
    if not place.url:
        return Counter()
    url = make_url(place.url)
    return _in_files(url, tenant) if url.get_backend_name() == "sqlite" else _in_databases(url, tenant)


def _in_files(url: URL, tenant: str) -> Counter[str]:
    found: Counter[str] = Counter()
    system = Path(str(url.database))
    folder = Path(f"{system}.tenants")
    for path in (system, *(folder.iterdir() if folder.exists() else ())):
        if path != system:
            found[path.name.partition("-")[0]] = 1  # its logs come and go with it
        if path.suffix != ".db":
            continue
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
                column = "id" if table == "tenants" else "tenant"
                if column in columns:
                    query = f'SELECT count(*) FROM "{table}" WHERE "{column}" = ?'
                    found[f"{path.name} {table}"] = connection.execute(query, [tenant]).fetchone()[0]
    return +found


def _in_databases(url: URL, tenant: str) -> Counter[str]:
    """As a superuser sees it: for others, row-level security might hide what is left."""
    found: Counter[str] = Counter()
    root = f"postgresql://postgres@/{{}}?host={url.query['host']}"
    with psycopg.connect(root.format(url.database)) as connection:
        names = [row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'tenant_%'")]
    for name in (str(url.database), *names):
        if name in names:
            found[name] = 1
        with psycopg.connect(root.format(name)) as connection:
            schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant_%'").fetchall()
            found.update(f"{name} {schema}" for (schema,) in schemas)
            tables = connection.execute(
                "SELECT table_schema, table_name, column_name FROM information_schema.columns"
                " WHERE column_name = 'tenant' OR (table_name = 'tenants' AND column_name = 'id')"
            ).fetchall()
            for schema, table, column in tables:
                query = f'SELECT count(*) FROM "{schema}"."{table}" WHERE "{column}" = %s'
                row = connection.execute(query, [tenant]).fetchone()
                found[f"{name} {schema}.{table}"] = row[0] if row else 0
    return +found
