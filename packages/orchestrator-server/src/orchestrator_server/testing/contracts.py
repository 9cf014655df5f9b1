# ruff: noqa: S101 - contracts assert, that is what they are for
"""The contract of storage: what must hold of tenants, definitions and isolation; executions stand in their own module."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from orchestrator_core.errors import OrchestratorError
from orchestrator_server.errors import Conflict, Exists, ForeignTenant, Invalid, NotFound
from orchestrator_server.records import (
    Key,
    Limits,
    Message,
    NewExecution,
    Retention,
    Schedule,
    Secret,
    Slot,
    Tenant,
    Triggers,
    Variable,
    Webhook,
)
from orchestrator_server.storage import TenantStore
from orchestrator_server.testing import executions
from orchestrator_server.testing.harness import EVERYTHING, Harness, ended, new, record, refused, start, step

__all__ = ["CONTRACTS", "Contract"]

Contract = Callable[[Harness], Awaitable[None]]

# Two tenants, workflows or executions with these are two: nothing folds case, pads, or compares prefixes.
_LOOK_ALIKES = ("acme", "Acme", "ACME", "acme-", "acme_", "-acme", "acme1", "acm", "public", "a" * 64, "a" * 63)
# None of these is an id: they would be one for a store that normalises, truncates or pads.
_NO_IDS = (
    "",
    "a" * 65,
    "acme\x00",
    "acme ",
    " acme",
    "acme\n",
    "ácme",
    "a\u0301cme",
    "\uff41cme",
    "a%",
    "a/b",
    "a.b",
    "t\u0131",
    'a"b',
)


async def tenants_are_created_changed_and_listed(h: Harness) -> None:
    """A tenant is what was last said of it."""
    tenants = h.storage.tenants
    given = Tenant(
        "a",
        "Acme",
        Limits(running=3, queued=9, storage=2**40),
        Retention(86400.0, 3600.0),
        {"colour": "blue", "deny": ["code"]},
    )
    made = await tenants.create(given)
    assert made.created_at > 0, "the store says when a tenant was made"
    assert await tenants.get("a") == made == attrs.evolve(given, created_at=made.created_at)
    await refused(Exists, tenants.create(Tenant("a", "again")), "an id is taken once")
    changed = await tenants.update(made.id, name="Acme Inc", limits=Limits())
    assert await tenants.get("a") == changed
    assert changed == attrs.evolve(made, name="Acme Inc", limits=Limits()), "the rest stays"
    await refused(NotFound, tenants.update("nobody", name="x"), "an unknown tenant is not changed")
    assert await tenants.get("nobody") is None
    for name in ("c", "b"):
        await tenants.create(Tenant(name))
    assert [tenant.id for tenant in await tenants.list()] == ["a", "b", "c"]
    assert [tenant.id for tenant in await tenants.list(after="a", limit=1)] == ["b"]


async def a_tenant_is_measured(h: Harness) -> None:
    """What a tenant keeps is added up when it is asked for, and noted; what it gives up counts no more."""
    store, other = await h.tenant(), await h.tenant("other")
    await other.executions.create(new("exe_a", payload="y" * 50_000))
    measure = h.storage.tenants.measure
    assert await measure("t") == 0
    await store.executions.create(new("exe_a", payload="ä" * 1000))
    first = await measure("t")
    assert 2000 < first < 3000, "the start event counts, in bytes"
    await store.journal.append("t", "exe_a", 1, 0, [*step(1, value="x" * 5000), ended(output="z" * 7000)])
    after = await measure("t")
    # The output stands in the last event and in the outcome.
    assert first + 19_000 < after < first + 21_000
    await store.executions.create(new("exe_b", payload="x" * 400_000))
    await store.journal.append("t", "exe_child", 0, 0, [start("exe_child", payload="c" * 3000)])
    with_large = await measure("t")
    assert after + 403_000 < with_large < after + 405_000
    reference = await store.blobs.put(b"b" * 10_000)
    assert await measure("t") == with_large + 10_000
    known = await h.storage.tenants.get("t")
    assert known is not None
    assert known.size == with_large + 10_000
    await h.storage.tenants.update("t", name="T")
    changed = await h.storage.tenants.get("t")
    assert changed == attrs.evolve(known, name="T"), "a change leaves the size as it was measured"
    await store.blobs.delete(reference)
    for name in ("exe_b", "exe_child"):
        assert await store.executions.delete(name)
    assert await measure("t") == after
    assert await store.executions.delete("exe_a")
    assert await measure("t") == 0
    await refused(NotFound, measure("nobody"), "an unknown tenant is not measured")


async def old_blobs_are_pruned(h: Harness) -> None:
    """Those that were put last before a time, oldest first, so many at a time; putting the same bytes makes them new again."""
    blobs = (await h.tenant()).blobs
    others = (await h.tenant("other")).blobs
    await others.put(b"theirs")
    references = [await blobs.put(bytes([number])) for number in range(4)]
    await h.sleep(0.02)
    between = await h.storage.now()
    await h.sleep(0.02)
    assert await blobs.put(bytes([1])) == references[1]
    info = await blobs.info(references[1])
    assert info is not None
    assert info.created_at > between
    assert await blobs.prune(between, limit=2) == 2
    assert await blobs.prune(between, limit=2) == 1
    assert await blobs.prune(between) == 0
    assert [await blobs.info(reference) is not None for reference in references] == [False, True, False, False]
    assert await others.get(await others.put(b"theirs")) == b"theirs"


async def unknown_tenants_have_no_store(h: Harness) -> None:
    """There is no way to a tenant that is not there."""
    await refused(NotFound, h.storage.store("t"), "no store for a tenant that is not there")
    store = await h.tenant("t")
    await h.storage.tenants.delete("t")
    await refused(NotFound, h.storage.store("t"), "no store for a tenant that was deleted")
    await refused(NotFound, h.storage.tenants.delete("t"), "deleting twice says so")
    await refused(OrchestratorError, store.variables.put(Variable("a", 1)), "a store outlives its tenant to no use")
    await refused(OrchestratorError, store.executions.create(new("exe_a")), "a store outlives its tenant to no use")


async def keys_are_found_by_id(h: Harness) -> None:
    """Keys say whose they are, and are revoked once."""
    await h.tenant("t")
    keys = h.storage.keys
    of_tenant = Key("k1", "t", "editor", "hash-1", "ci", created_at=1.0, expires_at=9.5)
    of_operator = Key("k2", None, "admin", "hash-2")
    await keys.create(of_tenant)
    await keys.create(of_operator)
    assert await keys.get("k1") == of_tenant
    assert await keys.get("k3") is None
    assert list(await keys.list("t")) == [of_tenant]
    assert list(await keys.list(None)) == [of_operator]
    await refused(Exists, keys.create(attrs.evolve(of_operator, id="k1")), "a key's id is taken once, whoever asks")
    await refused(NotFound, keys.create(Key("k4", "nobody", "editor", "h")), "no keys for unknown tenants")
    await keys.revoke("k1", 5.0)
    await keys.revoke("k1", 7.0)
    assert await keys.get("k1") == attrs.evolve(of_tenant, revoked_at=5.0), "the first revocation counts"
    await refused(NotFound, keys.revoke("k9", 1.0), "an unknown key cannot be revoked")
    await keys.delete("k2")
    await keys.delete("k2")
    assert await keys.get("k2") is None
    await h.storage.tenants.delete("t")
    assert await keys.get("k1") is None, "a tenant's keys go with it"


def _hook(path: str, node: str = "hook", **config: Any) -> Webhook:
    return Webhook("POST", path, "ignored", 0, node, config)


async def saving_makes_versions(h: Harness) -> None:
    """Versions count from 1, are never changed, and are guarded."""
    workflows = (await h.tenant()).workflows
    document = {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "set", "config": {"deep": [1, {"é": None}]}}]}
    first = await workflows.save("w", document, name="W", expected=0, created_by="key:k1")
    document["nodes"] = []
    assert (first.number, first.created_by) == (1, "key:k1")
    stored = await workflows.version("w", 1)
    assert stored == first, "a version is read back as it was returned"
    assert stored is not None
    assert stored.document["nodes"][0]["config"] == {"deep": [1, {"é": None}]}, "later changes do not reach it"
    row = await workflows.get("w")
    assert row is not None
    assert (row.name, row.active, row.latest) == ("W", None, 1), "without triggers it is a draft"
    await refused(Conflict, workflows.save("w", {}, expected=0), "the guard: it is there already")
    await refused(Conflict, workflows.save("w", {}, expected=2), "the guard: somebody else has saved")
    second = await workflows.save("w", {"v": 2}, name="W2", expected=1, triggers=Triggers())
    row = await workflows.get("w")
    assert row is not None
    assert (second.number, row.name, row.active, row.latest) == (2, "W2", 2, 2)
    third = await workflows.save("w", {"v": 3})
    assert [version.number for version in await workflows.versions("w")] == [3, 2, 1], "newest first"
    assert list(await workflows.versions("w", before=3, limit=1)) == [second]
    row = await workflows.get("w")
    assert row is not None
    assert (row.active, row.latest, row.name) == (2, third.number, ""), "a draft leaves the active version active"
    for number in (9, 0, -1, 2**31, 2**80):
        assert await workflows.version("w", number) is None
    assert await workflows.get("v") is None


async def workflows_are_listed_by_id(h: Harness) -> None:
    """By id, byte by byte, on every database."""
    workflows = (await h.tenant()).workflows
    ids = sorted(["b", "a", "B", "_", "-", "0", "aa", "a-", "a_", "Z"])
    for workflow_id in reversed(ids):
        await workflows.save(workflow_id, {})
    assert [row.id for row in await workflows.list()] == ids
    assert [row.id for row in await workflows.list(after="B", limit=3)] == ids[ids.index("B") + 1 :][:3]


async def triggers_live_for_the_active_version(h: Harness) -> None:
    """Activating replaces all of a workflow's triggers, or changes nothing."""
    store = await h.tenant()
    workflows, webhooks, schedules = store.workflows, store.webhooks, store.schedules
    nightly = Schedule("w-nightly", "ignored", "nightly", {"cron": "0 3 * * *"}, next_at=100.0)
    await workflows.save("w", {}, triggers=Triggers((_hook("orders", respond="last"),), (nightly,)))
    assert await webhooks.get("POST", "orders") == Webhook("POST", "orders", "w", 1, "hook", {"respond": "last"})
    assert await webhooks.get("GET", "orders") is None
    assert await schedules.get("w-nightly") == attrs.evolve(nightly, workflow="w")
    taken = Triggers((_hook("free"), _hook("orders")))
    saved = workflows.save("v", {}, triggers=taken)
    await refused(Exists, saved, "a webhook path is taken by another workflow", saying="workflow 'w'")
    assert await workflows.get("v") is None, "what was refused has left no version"
    assert await webhooks.get("POST", "free") is None, "what was refused has left no webhook"
    await workflows.save("w", {}, triggers=Triggers((_hook("orders"), _hook("more", "second")), (nightly,)))
    assert [(hook.path, hook.version) for hook in await webhooks.list()] == [("more", 2), ("orders", 2)]
    row = await workflows.activate("w", 1, Triggers((_hook("first"),)))
    assert row.active == 1
    assert [(hook.path, hook.version) for hook in await webhooks.list()] == [("first", 1)]
    assert list(await schedules.list()) == []
    row = await workflows.activate("w", None, Triggers())
    assert row.active is None
    assert list(await webhooks.list()) == []
    for number in (7, 0, -1, 2**80):
        await refused(NotFound, workflows.activate("w", number, Triggers()), "an unknown version is not activated")
    await refused(NotFound, workflows.activate("x", 1, Triggers()), "nor an unknown workflow")


async def saving_keeps_the_place_of_schedules(h: Harness) -> None:
    """The same schedule in a new version goes on; one that changed has another rhythm; those made by hand stay."""
    store = await h.tenant()
    of_node = Schedule("s", "w", "nightly", {"cron": "0 3 * * *"}, next_at=100.0)
    by_hand = Schedule("hand", "w", "", {"every": 60}, next_at=50.0)
    await store.schedules.put(by_hand)
    await store.workflows.save("w", {}, triggers=Triggers(schedules=(of_node,)))
    await store.schedules.fire("s", 100.0, None, next_at=200.0, state={"buffered": 1})
    await store.workflows.save("w", {}, triggers=Triggers(schedules=(of_node,)))
    kept = await store.schedules.get("s")
    assert kept is not None
    assert (kept.next_at, kept.state) == (200.0, {"buffered": 1}), "it goes on where it was"
    await store.schedules.replace(attrs.evolve(kept, enabled=False), before=kept)
    changed = attrs.evolve(of_node, spec={"cron": "0 4 * * *"}, next_at=150.0)
    await store.workflows.save("w", {}, triggers=Triggers(schedules=(changed,)))
    kept = await store.schedules.get("s")
    assert kept is not None
    assert (kept.spec, kept.next_at) == ({"cron": "0 4 * * *"}, 150.0), "another rhythm begins anew"
    assert kept.state == {"buffered": 1}, "and knows what runs"
    assert not kept.enabled, "who switched it off did not ask for it to be switched on"
    assert await store.schedules.get("hand") == by_hand
    elsewhere = Triggers(schedules=(attrs.evolve(of_node, node="x"),))
    await refused(Exists, store.workflows.save("v", {}, triggers=elsewhere), "a schedule's id is taken")


async def deleted_workflows_keep_their_versions(h: Harness) -> None:
    """What runs goes on: its version is there."""
    store = await h.tenant()
    workflows = store.workflows
    saved = await workflows.save("w", {"v": 1}, triggers=Triggers((_hook("orders"),)))
    await store.executions.create(new("exe_a"))
    await refused(Conflict, workflows.delete("w", expected=2), "the guard holds for deleting too")
    await workflows.delete("w", expected=1)
    assert await workflows.get("w") is None
    assert list(await workflows.list()) == []
    assert list(await workflows.versions("w")) == []
    assert await workflows.version("w", 1) == saved, "executions are pinned to it"
    assert await store.executions.get("exe_a") is not None
    assert list(await store.webhooks.list()) == [], "its triggers are gone"
    await refused(NotFound, workflows.delete("w"), "it cannot be deleted twice")
    await refused(NotFound, workflows.activate("w", 1, Triggers()), "nor activated")
    again = await workflows.save("w", {"v": 2}, expected=0)
    assert again.number == 2, "version numbers are never used twice"
    row = await workflows.get("w")
    assert row is not None
    assert row.active is None


async def secrets_are_guarded_by_their_version(h: Harness) -> None:
    """A secret's versions follow each other; rotation replaces one version's text."""
    secrets = (await h.tenant()).secrets
    await secrets.put(Secret("token", 1, "key-1", b"\x00\xff one"))
    await refused(Conflict, secrets.put(Secret("token", 1, "key-1", b"x")), "a version is stored once")
    await refused(Conflict, secrets.put(Secret("token", 3, "key-1", b"x")), "versions follow each other")
    await refused(Conflict, secrets.put(Secret("other", 2, "key-1", b"x")), "the first version is 1")
    await secrets.put(Secret("token", 2, "key-1", b"two"))
    before = await secrets.get("token")
    assert before is not None
    assert before.ciphertext == b"two"
    await secrets.replace(Secret("token", 2, "key-2", b"two again"))
    assert await secrets.get("token") == attrs.evolve(before, key_id="key-2", ciphertext=b"two again")
    await refused(
        Conflict, secrets.replace(Secret("token", 1, "key-2", b"old")), "rotation does not bring back the past"
    )
    await secrets.put(Secret("a", 1, "key-1", b""))
    assert [secret.name for secret in await secrets.list()] == ["a", "token"]
    assert await secrets.delete("token")
    assert not await secrets.delete("token")
    assert await secrets.get("token") is None
    assert "two" not in repr(before), "the text does not show in a repr"


async def variables_hold_json(h: Harness) -> None:
    """What goes in comes out."""
    variables = (await h.tenant()).variables
    values: Sequence[Any] = (
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        1e-300,
        "",
        "\x00\ud7ff\U0001f600",
        [],
        {},
        {"a": [1, {"b": None}]},
    )
    for value in values:
        await variables.put(Variable("v", value))
        stored = await variables.get("v")
        assert stored is not None
        assert stored.value == value, f"{value!r} is read back as {stored.value!r}"
        assert type(stored.value) is type(value)
    given = {"list": [1]}
    await variables.put(Variable("B", given))
    given["list"].append(2)
    assert [(item.name, item.value) for item in await variables.list()] == [("B", {"list": [1]}), ("v", values[-1])]
    assert await variables.delete("B")
    assert not await variables.delete("B")


async def slots_are_dealt_with_once(h: Harness) -> None:
    """Of any number of schedulers one starts the execution of a slot."""
    store = await h.tenant()
    schedules = store.schedules
    await schedules.put(Schedule("s", "w", next_at=10.0, spec={"every": 60}))
    created = await schedules.fire("s", 10.0, new("exe_a"), next_at=70.0, state={"n": 1})
    assert created is not None
    assert created.new
    assert await schedules.fire("s", 10.0, new("exe_b"), next_at=999.0) is None, "the slot is taken"
    assert await store.executions.get("exe_b") is None, "who comes second starts nothing"
    schedule = await schedules.get("s")
    assert schedule is not None
    assert (schedule.next_at, schedule.state) == (70.0, {"n": 1}), "and changes nothing"
    assert await schedules.fire("s", 70.0, None, next_at=None) is None
    assert [(slot.at, slot.execution_id) for slot in await schedules.slots("s")] == [(70.0, None), (10.0, "exe_a")]
    assert [slot.at for slot in await schedules.slots("s", limit=1)] == [70.0]
    assert await store.executions.get("exe_a") is not None
    await refused(NotFound, schedules.fire("x", 1.0, None, next_at=None), "an unknown schedule has no slots")
    assert await schedules.delete("s")
    assert not await schedules.delete("s")
    assert list(await schedules.slots("s")) == []


async def a_schedule_is_changed_only_as_it_was_read(h: Harness) -> None:
    """Whoever changes a schedule overwrites neither a slot that was dealt with meanwhile nor somebody else's change."""
    store = await h.tenant()
    schedules = store.schedules
    first = Schedule("s", "w", "", {"every": 60}, next_at=60.0)
    await refused(NotFound, schedules.replace(first, before=None), "its workflow is not there")
    await store.workflows.save("w", {})
    await refused(Conflict, schedules.replace(first, before=first), "there is none to be changed")
    await schedules.replace(first, before=None)
    assert await schedules.get("s") == first
    await refused(Conflict, schedules.replace(first, before=None), "there is one already")
    await schedules.fire("s", 60.0, None, next_at=120.0, state={"last": "exe_a"})
    off = attrs.evolve(first, enabled=False)
    await refused(Conflict, schedules.replace(off, before=first), "a slot was dealt with")
    read = await schedules.get("s")
    assert read is not None
    await schedules.replace(attrs.evolve(read, enabled=False), before=read)
    late = schedules.fire("s", 120.0, new("exe_a"), next_at=180.0, before=read)
    await refused(Conflict, late, "it was switched off meanwhile")
    assert list(await schedules.slots("s", limit=1)) == [Slot("s", 60.0, None)]
    assert await store.executions.get("exe_a") is None
    assert await schedules.get("s") == attrs.evolve(read, enabled=False)
    await schedules.delete("s")
    await refused(Conflict, schedules.replace(first, before=read), "it was removed")
    assert await schedules.get("s") is None


async def deleting_a_workflow_takes_its_schedules(h: Harness) -> None:
    """With a workflow go the schedules of its triggers and those made for it by hand; those of others stay."""
    store = await h.tenant()
    of_node = Schedule("s", "w", "nightly", {"cron": "0 3 * * *"}, next_at=100.0)
    await store.workflows.save("w", {}, triggers=Triggers(schedules=(of_node,)))
    other = Schedule("other", "v", "", {"every": 60}, next_at=50.0)
    for by_hand in (Schedule("hand", "w", "", {"every": 60}, next_at=50.0), other):
        await store.schedules.put(by_hand)
    await store.schedules.fire("hand", 50.0, None, next_at=110.0)
    await store.workflows.delete("w")
    assert list(await store.schedules.list()) == [other]
    assert list(await store.schedules.slots("hand")) == []


async def due_schedules_come_from_every_tenant(h: Harness) -> None:
    """Enabled ones whose time has come, earliest first."""
    now = await h.storage.now()
    for name, ago in (("a", 10.0), ("b", 20.0)):
        schedules = (await h.tenant(name)).schedules
        await schedules.put(Schedule("due", "w", next_at=now - ago))
        await schedules.put(Schedule("later", "w", next_at=now + 1000))
        await schedules.put(Schedule("never", "w"))
        await schedules.put(Schedule("off", "w", next_at=now - 50, enabled=False))
    due = await h.storage.queue.due_schedules()
    assert [(item.tenant, item.schedule_id, item.next_at) for item in due] == [
        ("b", "due", now - 20.0),
        ("a", "due", now - 10.0),
    ]
    assert len(await h.storage.queue.due_schedules(limit=1)) == 1


async def blobs_are_their_bytes(h: Harness) -> None:
    """Bytes come back as they were, under a reference that comes from them."""
    blobs = (await h.tenant()).blobs
    data = bytes(range(256)) * 40
    reference = await blobs.put(data, media_type="image/png")
    assert await blobs.put(data, media_type="image/png") == reference, "the same bytes are kept once"
    assert await blobs.put(data) != reference, "another media type is another blob"
    assert await blobs.get(reference) == data
    info = await blobs.info(reference)
    assert info is not None
    assert (info.media_type, info.size) == ("image/png", len(data))
    assert await blobs.get(await blobs.put(b"")) == b""
    assert await blobs.delete(reference)
    assert not await blobs.delete(reference)
    await refused(NotFound, blobs.get(reference), "what was removed is gone")
    assert await blobs.info(reference) is None


async def a_signature_is_noted_for_a_while(h: Harness) -> None:
    """The first key that it came with is known until its time is over, to its tenant."""
    store, other = await h.tenant(), await h.tenant("other")
    webhooks = store.webhooks
    assert await webhooks.came("a") is None
    assert await webhooks.note("a", "first", 3600.0) == "first"
    assert await webhooks.note("a", "second", 3600.0) == "first"
    assert await webhooks.note("A", "second", 0.5) == "second", "another one"
    assert [await webhooks.came("a"), await webhooks.came("A")] == ["first", "second"]
    assert await other.webhooks.came("a") is None
    assert await other.webhooks.note("a", "theirs", 3600.0) == "theirs"
    await h.sleep(0.6)
    assert [await webhooks.came("a"), await webhooks.came("A")] == ["first", None]
    assert await webhooks.note("A", "third", 3600.0) == "third"


async def fill(store: TenantStore, mark: str) -> None:
    """Put something into every part of a tenant, all under the same ids, told apart by ``mark``."""
    schedule = Schedule("nightly", "w", "nightly", {"mark": mark}, next_at=5.0)
    await store.workflows.save(
        "w", {"mark": mark}, name=mark, triggers=Triggers((_hook("orders", mark=mark),), (schedule,))
    )
    await store.schedules.fire("nightly", 5.0, None, next_at=None, state={"mark": mark})
    await store.secrets.put(Secret("token", 1, mark, mark.encode()))
    await store.variables.put(Variable("mark", mark))
    await store.webhooks.note("signed", mark, 3600.0)
    await store.blobs.put(mark.encode())
    large = mark + "x" * 300_000
    event = start("exe_a", payload={"mark": mark, "large": large})
    await store.executions.create(NewExecution(event, idempotency_key="once", fingerprint=mark))
    await store.inbox.post("exe_a", Message("m", "signal", "n", "go", mark))
    event = start("exe_b", payload=mark)
    await store.executions.create(NewExecution(event))
    await store.journal.append(
        store.tenant, "exe_b", 1, 0, [*step(1, value=large), ended(output=mark)], nodes=[record(mark)]
    )


async def read(store: TenantStore) -> list[Any]:
    """Everything that can be read of a tenant after :func:`fill`."""
    journal = [event for name in ("exe_a", "exe_b") for event in await store.journal.read(store.tenant, name)]
    webhook, schedule = await store.webhooks.get("POST", "orders"), await store.schedules.get("nightly")
    secret, variable = await store.secrets.get("token"), await store.variables.get("mark")
    outcome, version = await store.executions.outcome("exe_b"), await store.workflows.version("w", 1)
    mark = variable.value if variable else ""
    blob = f"blob_{hashlib.sha256(b'application/octet-stream' + bytes([0]) + str(mark).encode()).hexdigest()}"
    return [
        mark,
        [row.name for row in await store.workflows.list()],
        version and version.document,
        webhook and webhook.config,
        schedule and (schedule.spec, schedule.state),
        [slot.at for slot in await store.schedules.slots("nightly")],
        secret and (secret.key_id, secret.ciphertext),
        await store.webhooks.came("signed"),
        await store.blobs.get(blob) if mark else None,
        journal,
        [message.payload for message in await store.inbox.messages("exe_a")],
        outcome and (outcome.output, outcome.nodes),
    ]


async def look_alike_tenants_are_apart(h: Harness) -> None:
    """Tenants whose ids differ in case, by a character, or by a prefix share nothing, under the same ids of everything."""
    marks = [name for name in _LOOK_ALIKES if name not in ("-acme", "acme1", "acm", "ACME", "a" * 63)]
    stores = [await h.tenant(name) for name in marks]
    empty = await read(stores[0])
    for store in stores[:-1]:
        await fill(store, store.tenant)
    for store in stores[:-1]:
        seen = await read(store)
        assert seen[0] == store.tenant, f"{store.tenant} reads its own variable"
        for other in marks:
            if other != store.tenant and not store.tenant.startswith(other):
                assert f"'{other}'" not in repr(seen), f"{store.tenant} sees something of {other}"
        created = await store.executions.create(NewExecution(start("exe_z"), idempotency_key="once"))
        assert (created.new, created.fingerprint) == (False, store.tenant), "idempotency keys are the tenant's own"
    assert await read(stores[-1]) == empty, "who has nothing sees nothing"
    page = await stores[-1].executions.list(EVERYTHING)
    assert page.executions == ()


async def look_alike_ids_are_apart(h: Harness) -> None:
    """The same for workflows and executions of one tenant."""
    store = await h.tenant()
    for name in _LOOK_ALIKES:
        await store.workflows.save(name, {"id": name})
        await store.executions.create(new(f"exe_{name}", workflow=name))
    for name in _LOOK_ALIKES:
        version = await store.workflows.version(name, 1)
        assert version is not None
        assert version.document == {"id": name}
        page = await store.executions.list(attrs.evolve(EVERYTHING, workflow=name))
        assert [row.id for row in page.executions] == [f"exe_{name}"]


async def no_store_takes_what_is_no_id(h: Harness) -> None:
    """Refused before anything is looked up: nothing can be folded into somebody else's id."""
    store = await h.tenant("acme")
    for name in _NO_IDS:
        calls: list[Awaitable[Any]] = [
            h.storage.tenants.create(Tenant(name)),
            h.storage.tenants.get(name),
            h.storage.tenants.delete(name),
            h.storage.store(name),
            h.storage.keys.get(name),
            h.storage.queue.revive(name, "exe_a"),
            store.workflows.save(name, {}),
            store.workflows.get(name),
            store.workflows.version(name, 1),
            store.workflows.delete(name),
            store.executions.create(new(f"exe_{name}")),
            store.executions.create(new("exe_a", workflow=name or "\x00")),
            store.executions.get(f"exe_{name}"),
            store.executions.get(name),
            store.executions.delete(f"exe_{name}"),
            store.journal.read("acme", f"exe_{name}"),
            store.journal.append("acme", f"exe_{name}", 0, 0, [start(f"exe_{name}")]),
            store.inbox.post(f"exe_{name}", Message("m", "cancel")),
            store.secrets.put(Secret(f"{name}-", 1, "k", b"")),
            store.secrets.get(f"{name}-"),
            store.variables.put(Variable(f"{name}-", 1)),
            store.schedules.put(Schedule(name, "w")),
            store.schedules.fire(name, 1.0, None, next_at=None),
        ]
        for call in calls:
            await refused(Invalid, call, f"{name!r} is no id")
    assert await store.executions.get("exe_a") is None


async def keys_of_idempotency_are_compared_byte_by_byte(h: Harness) -> None:
    """Texts that only look alike are two keys; control characters are refused."""
    store = await h.tenant()
    for number, key in enumerate(("é", "e\u0301", "E\u0301", "e", "e ", " e", "%", "_", "'; --")):
        created = await store.executions.create(NewExecution(start(f"exe_{number}"), idempotency_key=key))
        assert created.new, f"{key!r} is another key"
    for key in ("", "a\x00", "a\nb", "x" * 256, "\ud800"):
        call = store.executions.create(NewExecution(start("exe_x"), idempotency_key=key))
        await refused(Invalid, call, f"{key!r} is refused")


async def a_store_names_no_other_tenant(h: Harness) -> None:
    """The journal's protocol has a tenant in it; a bound one takes its own only."""
    mine, other = await h.tenant("mine"), await h.tenant("other")
    await other.executions.create(new("exe_a"))
    await refused(ForeignTenant, mine.journal.read("other", "exe_a"), "reading another tenant's journal")
    await refused(ForeignTenant, mine.journal.append("other", "exe_a", 1, 0, step(1)), "writing to it")
    assert len(await other.journal.read("other", "exe_a")) == 1


async def deleting_a_tenant_leaves_nothing(h: Harness) -> None:
    """All of it is gone, also when the id is used again; others keep theirs."""
    first, other = await h.tenant("t"), await h.tenant("T")
    empty = await read(first)
    await fill(first, "t")
    await fill(other, "T")
    kept = await read(other)
    await h.storage.queue.claim("worker", 1, 30.0)
    await h.storage.tenants.delete("t")
    again = await h.tenant("t")
    assert await read(again) == empty
    assert (await again.executions.list(EVERYTHING)).executions == ()
    assert await read(other) == kept
    claims = await h.storage.queue.claim("worker", 10, 30.0)
    assert all(claim.tenant == "T" for claim in claims), "its entries in the queue are gone"


CONTRACTS: tuple[Contract, ...] = (
    tenants_are_created_changed_and_listed,
    a_tenant_is_measured,
    unknown_tenants_have_no_store,
    keys_are_found_by_id,
    saving_makes_versions,
    workflows_are_listed_by_id,
    triggers_live_for_the_active_version,
    a_signature_is_noted_for_a_while,
    saving_keeps_the_place_of_schedules,
    deleted_workflows_keep_their_versions,
    secrets_are_guarded_by_their_version,
    variables_hold_json,
    slots_are_dealt_with_once,
    a_schedule_is_changed_only_as_it_was_read,
    deleting_a_workflow_takes_its_schedules,
    due_schedules_come_from_every_tenant,
    blobs_are_their_bytes,
    old_blobs_are_pruned,
    look_alike_tenants_are_apart,
    look_alike_ids_are_apart,
    no_store_takes_what_is_no_id,
    keys_of_idempotency_are_compared_byte_by_byte,
    a_store_names_no_other_tenant,
    deleting_a_tenant_leaves_nothing,
    *executions.CONTRACTS,
)
