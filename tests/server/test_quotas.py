"""Quotas: what a tenant may have at most, and that only new things are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from api_client import Api, document, make_storage, running, setting
from engine_room import document as chain
from engine_room import ended, node, room, save, until

from orchestrator_core import NodeContext, node_type
from orchestrator_server.errors import TooMany
from orchestrator_server.realms import Realms
from orchestrator_server.records import ExecutionQuery, Limits, Retention, Schedule, Tenant
from orchestrator_server.scheduler import Scheduler

pytestmark = pytest.mark.anyio

WAITS = {"id": "ask", "type": "wait", "config": {"signal": "yes"}}


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage(request.param, tmp_path)
    async with running(storage) as client:
        yield client
    await storage.aclose()


async def limit(api: Api, **limits: int | None) -> Any:
    changed = await api.call("PATCH", "/tenants/acme", {"limits": limits})
    assert changed.status_code == 200, changed.text
    return changed.json()


async def test_executions_that_have_not_ended_are_limited(api: Api) -> None:
    await api.post("/workflows", document(setting("a"), WAITS, name="waits"))
    assert (await limit(api, queued=5))["limits"] == {"running": None, "queued": 5, "storage": None}
    answers: list[Any] = []

    async def start() -> None:
        answers.append(await api.call("POST", "/executions/waits/execute", headers={"Prefer": "respond-async"}))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(start)
    refused = [answer for answer in answers if answer.status_code == 429]
    started = [answer.json()["execution_id"] for answer in answers if answer.status_code == 202]
    assert (len(started), len(refused)) == (5, 15)
    assert refused[0].json()["code"] == "too_many"
    assert refused[0].headers["retry-after"] == "1"
    assert len((await api.get("/executions"))["executions"]) == 5
    other = await api.call("POST", "/workflows", document(setting("a"), name="w"), tenant="Acme")
    assert other.status_code == 201
    assert (await api.call("POST", "/executions/w/execute", tenant="Acme")).status_code == 200, "others have their own"
    # What runs goes on, and makes room.
    store = await api.storage.store("acme")
    await until(lambda: _waits(api, started[0]))
    await api.post(f"/executions/{started[0]}/signals/yes", {"path": "ask", "payload": 1})
    assert await ended(store, started[0]) == "succeeded"

    async def accepted() -> bool:
        answer = await api.call("POST", "/executions/waits/execute", headers={"Prefer": "respond-async"})
        return answer.status_code == 202

    await until(accepted, seconds=10)
    assert await store.executions.unfinished(100) == 5


async def _waits(api: Api, execution_id: str) -> bool:
    return bool((await api.get(f"/executions/{execution_id}"))["status"] == "waiting")


async def test_who_keeps_too_much_may_start_nothing_new(api: Api) -> None:
    hook = {"id": "hook", "type": "webhook", "config": {"path": "in", "respond": "last"}}
    await api.post("/workflows", document(hook, setting("a"), name="w"))
    await api.post("/workflows", document(setting("a"), WAITS, name="waits"))
    waits = (await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}))["execution_id"]
    assert (await api.get("/tenants/acme"))["size"] is None
    await limit(api, storage=50_000)
    scheduler = Scheduler(api.storage, api.parts.realms)
    image = {"content": b"\xff" * 60_000, "headers": {"content-type": "image/png"}}
    taken = await api.call("POST", "/hooks/acme/in", tenant=None, token="", **image)
    assert taken.status_code == 200
    await scheduler.measure()
    api.parts.realms.changed("acme")
    assert (await api.get("/tenants/acme"))["size"] > 60_000
    for path, more in (
        ("/executions/w/execute", {}),
        ("/hooks/acme/in", {"content": b"{}", "headers": {"content-type": "application/json"}}),
        ("/hooks/acme/in", {"content": b"\xfe", "headers": {"content-type": "image/png"}}),
    ):
        answer = await api.call("POST", path, **more)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert not any(digit in answer.json()["message"] for digit in "0123456789"), "senders are told no figures"
    assert (await api.get("/tenants/Acme", tenant=None))["size"] is None, "who has no limit is not measured"
    await until(lambda: _waits(api, waits))
    await api.post(f"/executions/{waits}/signals/yes", {"path": "ask", "payload": 1})
    assert await ended(await api.storage.store("acme"), waits) == "succeeded", "what runs goes on"
    # Forgetting makes room.
    await api.call("PATCH", "/tenants/acme", {"retention": {"blobs": 0.001, "executions": 0.001}})
    await anyio.sleep(0.05)
    assert await scheduler.forget() == 3
    await scheduler.measure()
    api.parts.realms.changed("acme")
    assert (await api.call("POST", "/executions/w/execute")).status_code == 200


@pytest.mark.parametrize(
    "limits", [{"queued": 0}, {"storage": -1}, {"storage": 2**63}, {"queued": "many"}, {"disk": 1}]
)
async def test_limits_that_are_none_are_refused(api: Api, limits: dict[str, Any]) -> None:
    answer = await api.call("PATCH", "/tenants/acme", {"limits": limits})
    assert answer.status_code in {400, 422}
    assert next(iter(limits)) in answer.text


@attrs.frozen
class Empty:
    pass


@node_type("keeps", capabilities=("blobs",))
async def keeps(ctx: NodeContext, config: Empty, input: Any) -> Any:
    """Keeps bytes."""
    return await ctx.blobs.put(b"x" * 100)


async def test_a_node_may_keep_nothing_more_either(tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    await storage.tenants.create(Tenant("ann", limits=Limits(storage=1)))
    store = await storage.store("ann")
    await save(store, chain(node("n", "nap", seconds=0.3), node("k", "keeps"), name="w"))
    async with room(storage, nodes=[keeps]) as here:
        handle = await here.worker.execute("ann", "w")
        await Scheduler(storage, here.realms).measure()
        here.realms.changed("ann")
        await handle.wait(10)
        outcome = await store.executions.outcome(handle.id)
        assert outcome is not None
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.error["node"]) == ("storage_full", "k")
    await storage.aclose()


async def test_a_slot_waits_for_room(tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    await storage.tenants.create(Tenant("ann", limits=Limits(queued=1)))
    store = await storage.store("ann")
    await save(store, chain(node("go", "manual"), node("ask", "wait", signal="yes"), name="w"))
    async with room(storage, work=False) as here:
        waits = await here.worker.execute("ann", "w")
        now = await storage.now()
        await store.schedules.put(Schedule("s", "w", "go", {"every": 3600, "overlap": "allow"}, next_at=now - 10))
        scheduler = Scheduler(storage, here.realms)
        assert await scheduler.step() == 0
        assert not await store.schedules.slots("s"), "it is neither started nor left out"
        with pytest.raises(TooMany):
            await here.worker.execute("ann", "w")
        await store.executions.delete(waits.id)
        scheduler = Scheduler(storage, here.realms)
        await until(lambda: _dealt(scheduler, store), seconds=10)
        assert len((await store.executions.list(ExecutionQuery())).executions) == 1
    await storage.aclose()


async def _dealt(scheduler: Scheduler, store: Any) -> bool:
    scheduler._blocked.clear()
    return await scheduler.step() == 1


async def test_blobs_are_kept_as_long_as_the_tenant_wants(tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    for name, retention in (("ann", Retention(blobs=0.2)), ("bob", Retention())):
        await storage.tenants.create(Tenant(name, retention=retention))
    ann, bob = await storage.store("ann"), await storage.store("bob")
    async with room(storage, work=False) as here:
        old, again = await ann.blobs.put(b"old"), await ann.blobs.put(b"again")
        theirs = await bob.blobs.put(b"old")
        await anyio.sleep(0.25)
        assert await ann.blobs.put(b"again") == again
        assert isinstance(here.realms, Realms)
        assert await Scheduler(storage, here.realms).forget() == 1
        assert await ann.blobs.info(old) is None
        assert await ann.blobs.get(again) == b"again"
        assert await bob.blobs.get(theirs) == b"old"
    await storage.aclose()
