"""Realms of tenants: each sees its own, and what changes is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from engine_room import KEYS, LONG, document, ended, node, room, save, storages, tenant, until

from orchestrator_server.errors import Invalid, NotFound
from orchestrator_server.realms import TenantSettings
from orchestrator_server.records import Message, Variable
from orchestrator_server.sealing import Sealer, UnknownKey
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio
SEALER = Sealer(KEYS, "k1")
SHOWS = document(node("go", "manual"), node("s", "shows"))
TELLS = document(node("go", "manual"), node("s", "set", values={"v": "{{ vars.city }}"}), name="tells")


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with storages(request.param, tmp_path) as opened:
        yield opened


async def test_nothing_of_one_tenant_is_in_anothers_realm(storage: Storage) -> None:
    ann, bob = await tenant(storage, "ann"), await tenant(storage, "bob", deny=["network"])
    for store, city in ((ann, "Ulm"), (bob, "Bonn")):
        await store.secrets.put(SEALER.seal(store.tenant, f"of_{store.tenant}", 1, f"secret of {store.tenant}"))
        await store.variables.put(Variable("city", city))
        await save(store, SHOWS)
        await save(store, TELLS)
    await save(ann, document(node("go", "manual"), name="only_anns"))
    async with room(storage) as here:
        for name, city in (("ann", "Ulm"), ("bob", "Bonn")):
            shown = (await (await here.worker.execute(name, "w")).wait(LONG)).result
            assert shown is not None
            assert shown.output["secrets"] == [f"of_{name}"]
            told = (await (await here.worker.execute(name, "tells")).wait(LONG)).result
            assert told is not None
            assert told.output == {"v": city}
            other = "bob" if name == "ann" else "ann"
            assert await (await storage.store(other)).executions.get(told.execution_id) is None
        anns, bobs = await here.realms.get("ann"), await here.realms.get("bob")
        assert set(anns.workflows) == {"w", "tells", "only_anns"}
        assert set(bobs.workflows) == {"w", "tells"}
        assert dict(anns.secrets) == {"of_ann": "secret of ann"}
        assert "http" in anns.registry.node_types
        assert "http" not in bobs.registry.node_types
        with pytest.raises(NotFound):
            await here.worker.execute("bob", "only_anns")


async def test_a_secret_is_masked_in_records_and_events(storage: Storage) -> None:
    ann = await tenant(storage, "ann")
    await ann.secrets.put(SEALER.seal("ann", "token", 1, "s3cr3t-t0ken"))
    await save(ann, document(node("go", "manual"), node("c", "leaks")))
    async with room(storage) as here:
        answer = await (await here.worker.execute("ann", "w")).wait(LONG)
        assert answer.result is not None
        assert answer.result.output == {"token": "***"}
        assert "s3cr3t" not in str(await ann.executions.outcome(answer.result.execution_id))
        assert "s3cr3t" not in str(await ann.journal.read("ann", answer.result.execution_id))


async def test_the_same_realm_serves_until_something_changes(storage: Storage) -> None:
    ann = await tenant(storage, "ann")
    workflow = await save(ann, SHOWS)
    async with room(storage) as here:
        first = await here.realms.for_execution("ann", workflow)
        here.realms.changed("ann")
        assert await here.realms.for_execution("ann", workflow) is first
        await ann.variables.put(Variable("city", "Ulm"))
        assert (await here.realms.for_execution("ann", workflow)).variables == {}  # believed for two seconds
        here.realms.changed("ann")
        assert (await here.realms.for_execution("ann", workflow)).variables == {"city": "Ulm"}
        assert first.variables == {}  # what runs keeps what it began with
        found = await here.realms.workflow("ann", "w")
        assert await here.realms.workflow("ann", "w") is found


async def test_a_secret_that_does_not_open_is_not_there_and_others_are(storage: Storage) -> None:
    ann = await tenant(storage, "ann")
    await ann.secrets.put(SEALER.seal("ann", "good", 1, "x"))
    await ann.secrets.put(attrs.evolve(SEALER.seal("bob", "bad", 1, "y"), name="bad"))
    async with room(storage) as here:
        assert dict((await here.realms.get("ann")).secrets) == {"good": "x"}


async def test_a_key_that_was_left_out_stops_executions_and_loses_none(storage: Storage) -> None:
    ann = await tenant(storage, "ann")
    await save(ann, SHOWS)
    await ann.secrets.put(Sealer({"k2": b"2" * 32}, "k2").seal("ann", "s", 1, "x"))
    async with room(storage) as here:
        with pytest.raises(UnknownKey):
            await here.worker.execute("ann", "w")


async def test_a_tenant_that_was_deleted_is_gone(storage: Storage) -> None:
    ann = await tenant(storage, "ann")
    await save(ann, SHOWS)
    async with room(storage) as here:
        await here.realms.get("ann")
        await storage.tenants.delete("ann")
        here.realms.changed("ann")
        with pytest.raises(NotFound):
            await here.realms.get("ann")
        assert not here.realms._homes
        again = await tenant(storage, "ann")
        await save(again, document(node("go", "manual"), node("x", "set", values={"new": True})))
        assert (await here.realms.workflow("ann", "w")).nodes[1].id == "x"


@pytest.mark.parametrize(
    "settings",
    [
        {"deny": "network"},
        {"deny": ["nothing"]},
        {"code": {"timeout": 0}},
        {"code": {"memory": 1.5}},
        {"code": {"more": 1}},
        {"error_workflow": 3},
        {"error_workflows": {"w": 3}},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="settings"):
        TenantSettings.of(settings)


def test_settings_of_a_tenant() -> None:
    read = TenantSettings.of(
        {"deny": ["code"], "error_workflow": "e", "error_workflows": {"w": None, "x": "y"}, "other": 1}
    )
    assert read.deny == {"code"}
    assert [read.error_workflow_of(name) for name in ("a", "w", "x", "e")] == ["e", None, "y", None]


async def test_what_an_execution_calls_is_pinned_when_it_starts(storage: Storage) -> None:
    """Not the newest version at that time either, where a draft was newer; whatever is saved and activated later."""
    ann = await tenant(storage, "ann")

    def sub(number: int) -> dict[str, Any]:
        return document(node("in", "manual"), node("v", "set", values={"n": number}), name="sub")

    await save(ann, sub(1))
    await save(ann, sub(2), draft=True)
    waits = [node("go", "manual"), node("ask", "wait", signal="yes"), node("call", "workflow", workflow="sub")]
    await save(ann, document(*waits))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        await until(lambda: here.worker.holds == 0)  # it is parked: whoever goes on with it reads its journal
        await save(ann, sub(3))
        here.realms.changed("ann")
        await ann.inbox.post(handle.id, Message("m", "signal", "ask", "yes"))
        await ended(ann, handle.id)
        outcome = await ann.executions.outcome(handle.id)
        assert outcome is not None
        assert outcome.output == {"n": 1}
