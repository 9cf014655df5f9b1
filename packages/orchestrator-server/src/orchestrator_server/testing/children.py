# ruff: noqa: S101 - contracts assert, that is what they are for
"""What holds of children: executions that another one drives. Part of the contract in :mod:`orchestrator_server.testing.contracts`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from orchestrator_server.records import POISON_CLAIMS, POISONED, Message
from orchestrator_server.testing.harness import (
    EVERYTHING,
    LEASE,
    Harness,
    claim_all,
    claim_one,
    ended,
    new,
    row_of,
    start,
)

__all__ = ["CONTRACTS"]


async def a_message_for_a_child_wakes_its_root(h: Harness) -> None:
    """What a parent drives is in no queue: the execution at the root is, and goes on with all of them."""
    store, queue = await h.tenant(), h.storage.queue
    await store.executions.create(new("exe_root"))
    claim = await claim_one(h)
    for name, parent in (("exe_child", "exe_root"), ("exe_a_grandchild", "exe_child"), ("exe_other", None)):
        event = attrs.evolve(start(name), parent=parent)
        await store.journal.append("t", name, 0, claim.fence, [event])
        assert (await row_of(store, name)).parent == parent
    family = ("exe_child", "exe_a_grandchild")
    assert await queue.release(claim, wake_in=None, waiting=True, children=family)
    statuses = [(await row_of(store, name)).status for name in ("exe_root", *family, "exe_other")]
    assert statuses == ["waiting", "waiting", "waiting", "running"]
    assert await store.inbox.post("exe_other", Message("m0", "signal", "n", "go"))
    assert list(await queue.claim("a", 5, LEASE)) == [], "it is nobody's child"
    assert await store.inbox.post("exe_a_grandchild", Message("m1", "signal", "n", "go"))
    claim = await claim_one(h)
    assert claim.execution_id == "exe_root"
    assert await queue.release(claim, wake_in=None, waiting=True, children=family), "nobody has consumed it"
    claim = await claim_one(h)
    await store.inbox.discard("exe_a_grandchild", ["m1"])
    assert await store.inbox.post("exe_child", Message("m2", "cancel")), "it came as the root was given back"
    assert await queue.release(claim, wake_in=1000.0, waiting=True, children=family)
    claim = await claim_one(h)
    await store.inbox.discard("exe_child", ["m2"])
    for name in family:
        await store.journal.append("t", name, 1, claim.fence, [])
        assert (await row_of(store, name)).status == "running", "it goes on"
    await store.journal.append("t", "exe_child", 1, claim.fence, [ended()])
    assert not await store.inbox.post("exe_child", Message("m3", "cancel")), "it has ended"
    assert await queue.release(claim, wake_in=1000.0, waiting=True, children=family)
    await store.journal.append("t", "exe_child", 2, claim.fence, [])
    assert (await row_of(store, "exe_child")).status == "succeeded", "it has ended"
    assert list(await queue.claim("a", 5, LEASE)) == []
    await store.journal.append("t", "exe_root", 1, claim.fence, [ended()])
    assert not await store.inbox.post("exe_a_grandchild", Message("m4", "cancel")), "nobody drives it any more"
    assert list(await queue.claim("a", 5, LEASE)) == [], "what has ended is not woken"


async def children_are_forgotten_with_their_parent(h: Harness) -> None:
    """One that goes on would begin a child again that was forgotten; one that was given up leaves none behind."""
    store, queue = await h.tenant(), h.storage.queue
    await store.executions.create(new("exe_root"))
    claim = await claim_one(h)
    for name, parent in (("exe_child", "exe_root"), ("exe_other", "exe_root"), ("exe_a_grandchild", "exe_child")):
        await store.journal.append("t", name, 0, claim.fence, [attrs.evolve(start(name), parent=parent)])
    await store.journal.append("t", "exe_other", 1, claim.fence, [ended(at=10.0)])
    assert await store.executions.prune(11.0) == 0, "their parent has not ended"
    for _ in range(POISON_CLAIMS):
        assert await queue.release(claim, wake_in=0.0, failed=True)
        claims = await claim_all(h)
        claim = claims[0] if claims else claim
    assert (await row_of(store, "exe_root")).error_code == POISONED
    assert not await store.inbox.post("exe_a_grandchild", Message("m", "cancel")), "nobody drives it any more"
    assert await queue.revive("t", "exe_root")
    assert await store.inbox.post("exe_a_grandchild", Message("m", "cancel"))
    claim = await claim_one(h)
    await store.journal.append("t", "exe_root", 1, claim.fence, [ended(at=12.0)])
    assert await store.executions.prune(13.0) == 4
    assert (await store.executions.list(EVERYTHING)).executions == ()
    assert list(await store.journal.read("t", "exe_a_grandchild")) == []


CONTRACTS: tuple[Callable[[Harness], Awaitable[None]], ...] = (
    a_message_for_a_child_wakes_its_root,
    children_are_forgotten_with_their_parent,
)
