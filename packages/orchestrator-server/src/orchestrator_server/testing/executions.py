# ruff: noqa: S101 - contracts assert, that is what they are for
"""The contract of storage: what must hold of executions, their journal, the inbox and the queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import attrs

from orchestrator_core.events import CancelRequested, Event, NodeDue, SignalReceived
from orchestrator_core.results import node_io_to_json
from orchestrator_core.testing import check_journal
from orchestrator_core.types import ExecutionStatus, Failure, LogLine
from orchestrator_server.errors import Conflict, Invalid, NotFound
from orchestrator_server.records import (
    POISON_CLAIMS,
    POISONED,
    SUSPECT_CLAIMS,
    Backlog,
    Claim,
    ExecutionQuery,
    ExecutionRow,
    Limits,
    Message,
    NewExecution,
    Sort,
    Status,
    Tenant,
)
from orchestrator_server.storage import TenantStore
from orchestrator_server.testing import accepting, children
from orchestrator_server.testing.harness import (
    EVERYTHING,
    LEASE,
    Harness,
    RoutedJournal,
    claim_all,
    claim_one,
    ended,
    new,
    record,
    refused,
    row_of,
    start,
    step,
)

__all__ = ["CONTRACTS", "EVERYTHING"]

_SHORT = 0.15  # a lease that a contract waits for


async def the_journal_keeps_the_cores_contract(h: Harness) -> None:
    """See :func:`orchestrator_core.testing.check_journal`."""
    for name in ("t", "u"):
        await h.tenant(name)
    await check_journal(RoutedJournal(h.storage))


async def appends_are_fenced(h: Harness) -> None:
    """Who was overtaken cannot write any more; who has written already is told so."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    old = await claim_one(h, lease=_SHORT)
    await store.journal.append("t", "exe_a", 1, old.fence, step(1))
    await h.sleep(_SHORT * 1.5)
    fresh = await claim_one(h, "b")
    assert fresh.fence > old.fence
    assert fresh.seq == 3
    await refused(Conflict, store.journal.append("t", "exe_a", 3, old.fence, step(2)), "its lease is another's")
    await store.journal.append("t", "exe_a", 3, fresh.fence, step(2))
    await store.journal.append("t", "exe_a", 3, fresh.fence, step(2))
    await refused(Conflict, store.journal.append("t", "exe_a", 3, fresh.fence, step(3)), "other events stand there")
    await refused(
        Conflict, store.journal.append("t", "exe_a", 3, old.fence, step(2)), "the same events under an older fence"
    )
    await store.journal.append("t", "exe_a", 3, fresh.fence, step(2)[:1])
    events = [*step(2), NodeDue(2.0, "x")]
    await refused(Conflict, store.journal.append("t", "exe_a", 3, fresh.fence, events), "more than stands there")
    assert [*await store.journal.read("t", "exe_a")] == [start("exe_a"), *step(1), *step(2)]
    assert [*await store.journal.read("t", "exe_a", 2)] == [step(1)[1], *step(2)]
    assert [*await store.journal.read("t", "exe_a", 9)] == []
    await store.journal.append("t", "exe_a", 5, fresh.fence + 1, [])
    await refused(
        Conflict, store.journal.append("t", "exe_a", 5, fresh.fence, step(3)), "nothing to add moved the fence"
    )
    await refused(Conflict, store.journal.append("t", "exe_a", 3, fresh.fence + 2, []), "others have written since")
    await refused(Conflict, store.journal.append("t", "exe_z", 3, 9, step(1)), "an unknown execution")
    await refused(Conflict, store.journal.append("t", "exe_z", 0, 9, step(1)), "one that does not begin")
    assert await store.executions.get("exe_z") is None


async def a_conflict_takes_out_only_itself(h: Harness) -> None:
    """Appends of many executions at once: each is judged alone."""
    store = await h.tenant()
    names = [f"exe_{number}" for number in range(24)]
    for name in names:
        await store.executions.create(new(name))
    outcomes: dict[str, str] = {}

    async def append(name: str, number: int) -> None:
        try:
            await store.journal.append("t", name, 1 if number % 3 else 7, 0, step(1))
            outcomes[name] = "done"
        except Conflict:
            outcomes[name] = "conflict"

    async with anyio.create_task_group() as group:
        for number, name in enumerate(names):
            group.start_soon(append, name, number)
    assert outcomes == {name: "done" if number % 3 else "conflict" for number, name in enumerate(names)}
    for number, name in enumerate(names):
        count = 3 if number % 3 else 1
        assert (await row_of(store, name)).seq == count
        assert len(await store.journal.read("t", name)) == count


async def one_of_two_writers_wins(h: Harness) -> None:
    """At one place of one journal, under one fence, one batch is committed."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    won: list[int] = []

    async def append(number: int) -> None:
        try:
            await store.journal.append("t", "exe_a", 1, 0, step(number))
            won.append(number)
        except Conflict:
            pass

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(append, number)
    assert len(won) == 1
    assert [*await store.journal.read("t", "exe_a")] == [start("exe_a"), *step(won[0])]


async def the_same_append_at_once_is_one(h: Harness) -> None:
    """Who sends an append again before the first was answered, and goes on, is told the same of both."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(store.journal.append, "t", "exe_a", 1, 0, step(1))
    assert [*await store.journal.read("t", "exe_a")] == [start("exe_a"), *step(1)]


async def events_are_read_as_they_were_written(h: Harness) -> None:
    """Whatever JSON they carry, however large; changed afterwards, they are not."""
    store = await h.tenant()
    large = "é\x00" * 200_000
    values: list[Any] = [
        {"a": [1, 2.5, None, True, "\u2028 {{ x }}", {"$ref": "no reference"}], "refs": []},
        large,
        {"wrapped": {"once": large}, "more": ["y" * 300_000, large]},
        [["z" * 90_000] * 3] * 2,
        list(range(60_000)),
        2**70,
    ]
    await store.executions.create(new("exe_a", payload=values))
    batches = [step(number, value=value) for number, value in enumerate(values)]
    seq = 1
    for batch in batches:
        await store.journal.append("t", "exe_a", seq, 0, batch)
        await store.journal.append("t", "exe_a", seq, 0, batch)
        seq += 2
    changed = {"list": [1]}
    await store.journal.append("t", "exe_a", seq, 0, step(90, value=changed))
    changed["list"].append(2)
    expected = [start("exe_a", payload=values), *(event for batch in batches for event in batch)]
    assert [*await store.journal.read("t", "exe_a")] == [*expected, *step(90, value={"list": [1]})]
    last = ended(output={"again": large})
    nodes = [
        record(large),
        record(values),
        attrs.evolve(record(), error=Failure("odd", "it is"), logs=(LogLine(1.0, "info", "so"),)),
    ]
    await store.journal.append("t", "exe_a", seq + 2, 0, [last], nodes=nodes)
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert outcome.output == {"again": large}
    assert outcome.nodes == tuple(map(node_io_to_json, nodes))


async def ending_ends_the_entry_in_the_queue(h: Harness) -> None:
    """The append that holds the end also sets status, time, error, records, and gives back the lease."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h, lease=_SHORT)
    await store.inbox.post("exe_a", Message("late", "signal", "n", "go"))
    failure = Failure("http_404", "not there", "n1", 1, {"url": "x"})
    last = attrs.evolve(ended(at=9.0, status=ExecutionStatus.FAILED), error=failure)
    await store.journal.append("t", "exe_a", 1, claim.fence, [*step(1), last], nodes=[record()])
    row = await row_of(store, "exe_a")
    assert (row.status, row.finished_at, row.error_code, row.seq) == ("failed", 9.0, "http_404", 4)
    assert (row.worker, row.wake_at) == (None, None)
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert (outcome.output, outcome.error, outcome.nodes) == (None, failure.to_json(), (node_io_to_json(record()),))
    assert list(await h.storage.queue.renew([claim], LEASE)) == [], "there is nothing to hold any more"
    assert not await h.storage.queue.release(claim, wake_in=0)
    assert list(await store.inbox.messages("exe_a")) == []
    assert not await store.inbox.post("exe_a", Message("later", "cancel")), "it is too late for messages"
    await h.sleep(_SHORT * 1.5)
    assert list(await h.storage.queue.claim("b", 5, LEASE)) == []
    again = [*step(1), last]
    await store.journal.append("t", "exe_a", 1, claim.fence, again, nodes=[record()])


async def what_a_parent_drives_is_not_queued(h: Harness) -> None:
    """An execution that begins by an append belongs to who appends."""
    store = await h.tenant()
    await store.journal.append(
        "t", "exe_child", 0, 3, [start("exe_child", at=4.0, workflow="v", version=2), NodeDue(4.0, "x")]
    )
    row = await row_of(store, "exe_child")
    assert (row.workflow, row.version, row.seq, row.fence, row.created_at) == ("v", 2, 2, 3, 4.0)
    assert not row.queued
    assert await store.inbox.post("exe_child", Message("m", "cancel"))
    assert list(await h.storage.queue.claim("a", 5, LEASE)) == []
    assert await h.storage.queue.next_due() is None


async def messages_wait_until_they_are_consumed(h: Harness) -> None:
    """Once by id, in the order they came; consumed by the append that holds their event."""
    store = await h.tenant()
    inbox = store.inbox
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h)
    payload: dict[str, Any] = {"approved": True, "by": ["x"]}
    for number, name in enumerate(("b", "a", "c")):
        assert await inbox.post("exe_a", Message(name, "signal", "wait", "approval", {**payload, "n": number}))
    payload["by"].clear()
    assert not await inbox.post("exe_a", Message("a", "signal", "wait", "approval", "again")), "the same id counts once"
    assert await inbox.post("exe_a", Message("x1", "cancel"))
    assert await inbox.post("exe_a", Message("x2", "cancel", "group"))
    messages = await inbox.messages("exe_a")
    assert [message.id for message in messages] == ["b", "a", "c", "x1", "x2"]
    assert messages[1].payload == {"approved": True, "by": ["x"], "n": 1}
    assert list(await h.storage.queue.mail("a")) == [("t", "exe_a")]
    assert list(await h.storage.queue.mail("b")) == []
    batch: list[Event] = [SignalReceived(2.0, "wait", "approval", "a", payload), CancelRequested(2.0, "group")]
    await refused(Conflict, store.journal.append("t", "exe_a", 9, claim.fence, batch), "it is too far")
    assert len(await inbox.messages("exe_a")) == 5, "a refused append consumes nothing"
    await store.journal.append("t", "exe_a", 1, claim.fence, batch)
    assert [message.id for message in await inbox.messages("exe_a")] == ["b", "c", "x1"]
    await inbox.discard("exe_a", ["b", "c", "nothing"])
    await store.journal.append("t", "exe_a", 3, claim.fence, [CancelRequested(2.0)])
    assert list(await inbox.messages("exe_a")) == []
    assert list(await h.storage.queue.mail("a")) == []
    await refused(NotFound, inbox.post("exe_b", Message("m", "cancel")), "no message for nobody")


async def a_message_wakes_what_waits(h: Harness) -> None:
    """Neither one that comes while it sleeps nor one that comes as it falls asleep is lost."""
    store, queue = await h.tenant(), h.storage.queue
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h)
    assert await queue.release(claim, wake_in=None, waiting=True)
    row = await row_of(store, "exe_a")
    assert (row.status, row.wake_at, row.worker) == ("waiting", None, None)
    assert list(await queue.claim("a", 5, LEASE)) == []
    assert await queue.next_due() is None
    await store.inbox.post("exe_a", Message("m1", "signal", "n", "go"))
    assert await queue.next_due() == 0
    claim = await claim_one(h)
    assert (await row_of(store, "exe_a")).status == "running"
    await store.journal.append("t", "exe_a", 1, claim.fence, [SignalReceived(2.0, "n", "go", "m1")])
    await store.inbox.post("exe_a", Message("m2", "signal", "n", "go"))
    assert await queue.release(claim, wake_in=1000.0, waiting=True)
    claim = await claim_one(h)
    await store.inbox.discard("exe_a", ["m2"])
    assert await queue.release(claim, wake_in=1000.0, waiting=True)
    assert list(await queue.claim("a", 5, LEASE)) == []
    due = await queue.next_due()
    assert due is not None
    assert 990 < due <= 1000
    await store.inbox.post("exe_a", Message("m3", "cancel"))
    await claim_one(h)


async def what_is_due_is_counted(h: Harness) -> None:
    """Of all tenants, and without what somebody holds or what is due later."""
    await h.storage.check()
    queue = h.storage.queue
    assert await queue.backlog() == Backlog(0, 0.0)
    store, other = await h.tenant(), await h.tenant("u")
    for name in ("exe_a", "exe_b", "exe_c"):
        await store.executions.create(new(name))
    await other.executions.create(new("exe_a"))
    await h.sleep(_SHORT)
    found = await queue.backlog()
    assert found.due == 4
    assert _SHORT <= found.oldest < 30
    claims = await queue.claim("a", 3, LEASE)
    assert (await queue.backlog()).due == 1
    assert await queue.release(claims[0], wake_in=1000.0)
    assert (await queue.backlog()).due == 1
    assert await queue.release(claims[1], wake_in=0.0)
    assert (await queue.backlog()).due == 2


async def a_claim_is_a_lease(h: Harness) -> None:
    """Held until its time is over, longer when it is renewed, and then anybody's."""
    store, queue = await h.tenant(), h.storage.queue
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h, lease=_SHORT)
    now = await h.storage.now()
    assert now < claim.lease_until <= now + _SHORT
    row = await row_of(store, "exe_a")
    assert (row.worker, row.wake_at, row.claims, row.fence) == ("a", claim.lease_until, 1, claim.fence)
    assert list(await queue.claim("b", 5, LEASE)) == []
    (renewed,) = await queue.renew([claim], _SHORT * 4)
    assert renewed.lease_until > claim.lease_until
    assert attrs.evolve(renewed, lease_until=0) == attrs.evolve(claim, lease_until=0)
    await h.sleep(_SHORT * 2)
    assert list(await queue.claim("b", 5, LEASE)) == [], "it was renewed"
    await h.sleep(_SHORT * 3)
    taken = await claim_one(h, "b")
    assert taken.fence > claim.fence
    assert list(await queue.renew([renewed, taken], LEASE)) != []
    held = await queue.renew([renewed, taken], LEASE)
    assert [item.worker for item in held] == ["b"], "who lost it is not told otherwise"
    assert not await queue.release(renewed, wake_in=0)
    assert await queue.release(taken, wake_in=0)
    row = await row_of(store, "exe_a")
    assert (row.worker, row.claims, row.status) == (None, 0, "running")
    assert await queue.next_due() == 0
    again = await claim_one(h, "a")
    assert again.fence > taken.fence
    assert await queue.release(again, wake_in=1000.0)
    assert list(await queue.claim("a", 5, LEASE)) == []


async def claims_are_exclusive(h: Harness) -> None:
    """Any number of workers at once: each execution goes to one."""
    store = await h.tenant()
    names = {f"exe_{number}" for number in range(40)}
    for name in names:
        await store.executions.create(new(name))
    taken: list[Claim] = []

    async def work(worker: str) -> None:
        while claims := await h.storage.queue.claim(worker, 3, LEASE):
            taken.extend(claims)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(work, f"worker-{number}")
    assert sorted(claim.execution_id for claim in taken) == sorted(names)


async def claims_are_fair_between_tenants(h: Harness) -> None:
    """Who has little to do does not wait for who has much."""
    for name, count in (("many", 30), ("few", 2), ("one", 1)):
        store = await h.tenant(name)
        for number in range(count):
            await store.executions.create(new(f"exe_{number:02}"))
    first = await h.storage.queue.claim("a", 6, LEASE)
    assert len(first) == 6
    assert {claim.tenant for claim in first} == {"many", "few", "one"}
    seen: list[Claim] = [*first]
    while claims := await h.storage.queue.claim("a", 1, LEASE):
        seen += claims
    assert len(seen) == 33
    assert {"few", "one"} <= {claim.tenant for claim in seen[:9]}, "one at a time is fair, too"
    order = [claim.execution_id for claim in seen if claim.tenant == "few"]
    assert len(order) == len(set(order)) == 2


async def claims_of_one_take_turns(h: Harness) -> None:
    """Workers that take one at a time serve every tenant alike."""
    for name in ("a", "b", "c"):
        store = await h.tenant(name)
        for number in range(6):
            await store.executions.create(new(f"exe_{number}"))
    served = [(await claim_one(h)).tenant for _ in range(9)]
    assert {name: served.count(name) for name in "abc"} == {"a": 3, "b": 3, "c": 3}, served


async def the_oldest_comes_first(h: Harness) -> None:
    """Within a tenant, by the time it became due."""
    store = await h.tenant()
    for name in ("exe_c", "exe_a", "exe_b"):
        await store.executions.create(new(name))
        await h.sleep(0.005)
    order = [(await claim_one(h)).execution_id for _ in range(3)]
    assert order == ["exe_c", "exe_a", "exe_b"]


async def tenants_have_limits(h: Harness) -> None:
    """No more than ``limits.running`` are held at one time; others do not suffer."""
    await h.storage.tenants.create(Tenant("small", limits=Limits(running=2)))
    small, large = await h.storage.store("small"), await h.tenant("large")
    for number in range(5):
        await small.executions.create(new(f"exe_{number}"))
        await large.executions.create(new(f"exe_{number}"))
    claims = await h.storage.queue.claim("a", 100, LEASE)
    held = [claim for claim in claims if claim.tenant == "small"]
    assert (len(held), len(claims)) == (2, 7)
    assert list(await h.storage.queue.claim("b", 100, LEASE)) == []
    await small.journal.append("small", held[0].execution_id, 1, held[0].fence, [ended()])
    (more,) = await h.storage.queue.claim("b", 100, LEASE)
    assert more.tenant == "small"
    await h.storage.tenants.update("small", limits=Limits(running=4))
    assert len(await h.storage.queue.claim("b", 100, LEASE)) == 2, "a new limit counts at once"


async def unfinished_executions_are_counted(h: Harness) -> None:
    """Those that run or wait, up to a number; the tenant's own."""
    store, other = await h.tenant(), await h.tenant("other")
    await other.executions.create(new("exe_a"))
    assert await store.executions.unfinished(10) == 0
    for number in range(5):
        await store.executions.create(new(f"exe_{number}"))
    mine = [claim for claim in await h.storage.queue.claim("a", 4, LEASE) if claim.tenant == "t"]
    assert await h.storage.queue.release(mine[0], wake_in=None, waiting=True)
    assert [await store.executions.unfinished(most) for most in (3, 5, 100)] == [3, 5, 5]
    await store.journal.append("t", mine[1].execution_id, 1, mine[1].fence, [ended()])
    assert await store.executions.unfinished(100) == 4
    await store.journal.append(
        "t", "exe_child", 0, mine[2].fence, [attrs.evolve(start("exe_child"), parent=mine[2].execution_id)]
    )
    assert await store.executions.unfinished(100) == 4, "a child is part of its parent"
    await store.executions.delete(mine[0].execution_id)
    assert await store.executions.unfinished(100) == 3


async def a_message_does_not_hurry_what_could_not_be_worked_on(h: Harness) -> None:
    """Its time is what keeps it from being tried, and given up, many times a second."""
    store, queue = await h.tenant(), h.storage.queue
    for failed in (True, False):
        name = f"exe_{failed}"
        await store.executions.create(new(name))
        claim = await claim_one(h)
        assert await store.inbox.post(name, Message("m", "cancel"))
        assert await queue.release(claim, wake_in=1000.0, failed=failed)
        assert list(await claim_all(h)) == []
        assert [message.id for message in await store.inbox.messages(name)] == ["m"]


async def a_code_of_its_own_is_no_quarantine(h: Harness) -> None:
    """A node may fail with any code: what has ended stays so, and says what it said."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h)
    failed = attrs.evolve(ended(status=ExecutionStatus.FAILED), error=Failure(POISONED, "says a node"))
    await store.journal.append("t", "exe_a", 1, claim.fence, [failed])
    row = await row_of(store, "exe_a")
    assert (row.status, row.error_code, row.quarantined) == ("failed", POISONED, False)
    assert not await h.storage.queue.revive("t", "exe_a")
    assert await row_of(store, "exe_a") == row
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error["message"] == "says a node"


async def poison_is_quarantined(h: Harness) -> None:
    """What takes down one worker after the other is set aside; progress and an orderly release clear the count."""
    store, queue = await h.tenant(), h.storage.queue
    await store.executions.create(new("exe_a"))
    await store.executions.create(new("exe_b"))
    claims: Sequence[Claim] = []
    for number in range(POISON_CLAIMS):
        suspects = number >= SUSPECT_CLAIMS
        assert list(await queue.claim("a", 5, 0.0, suspects=not suspects)) == []
        claims = await queue.claim("a", 5, 0.0, suspects=suspects)
        assert {claim.claims for claim in claims} == {number + 1}
        assert len(claims) == 2
    good = next(claim for claim in claims if claim.execution_id == "exe_b")
    await store.journal.append("t", "exe_b", 1, good.fence, step(1))
    assert list(await queue.claim("a", 5, 0.0, suspects=True)) == []
    later = await queue.claim("a", 5, 0.0)
    assert [claim.execution_id for claim in later] == ["exe_b"], "an event of its own is progress"
    row = await row_of(store, "exe_a")
    assert (row.status, row.error_code, row.worker, row.wake_at) == ("failed", POISONED, None, None)
    assert row.finished_at is not None
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error["code"] == POISONED
    late = store.journal.append("t", "exe_a", 1, row.fence - 1, step(1))
    await refused(Conflict, late, "a success is not written over a quarantine, nor the other way round")
    assert not await queue.revive("t", "exe_b")
    assert await queue.revive("t", "exe_a")
    row = await row_of(store, "exe_a")
    assert (row.status, row.error_code, row.finished_at, row.claims) == ("running", None, None, 0)
    assert await store.executions.outcome("exe_a") is None
    claims = [claim for claim in await queue.claim("a", 5, 0.0) if claim.execution_id == "exe_a"]
    for _ in range(POISON_CLAIMS + 2):
        assert await queue.release(claims[0], wake_in=0)
        claims = [claim for claim in await queue.claim("a", 5, LEASE) if claim.execution_id == "exe_a"]
        assert len(claims) == 1, "given back in order, it may come as often as it likes"
    for _ in range(POISON_CLAIMS - 1):
        assert await queue.release(claims[0], wake_in=0, failed=True)
        claims = [claim for claim in await claim_all(h) if claim.execution_id == "exe_a"]
    assert await queue.release(claims[0], wake_in=0, failed=True)
    assert [claim for claim in await claim_all(h) if claim.execution_id == "exe_a"] == []
    assert (await row_of(store, "exe_a")).error_code == POISONED, "given back as failed, it counts"


async def waiting_for_work_ends_when_there_is_some(h: Harness) -> None:
    """A new execution, and a message, wake whoever waits; nothing does not."""
    store = await h.tenant()
    await store.executions.create(new("exe_a"))
    claim = await claim_one(h)
    hints = [await h.storage.queue.wait_for_work(0.02) for _ in range(20)]
    assert not all(hints), "nothing happens, and it returns"
    for happen in (
        lambda: store.executions.create(new("exe_b")),
        lambda: store.inbox.post("exe_a", Message("m", "cancel")),
        lambda: h.storage.queue.release(claim, wake_in=0),
    ):
        hints = []
        async with anyio.create_task_group() as group:

            async def wait(hints: list[bool] = hints) -> None:
                hints.append(await h.storage.queue.wait_for_work(5.0))

            group.start_soon(wait)
            await anyio.sleep(0.02)
            await happen()
        assert hints == [True]


async def _many(store: TenantStore) -> list[ExecutionRow]:
    statuses = (None, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
    for number in range(24):
        name = f"exe_{number * 7 % 24:02}"
        workflow = "wv"[number % 2]
        await store.executions.create(new(name, at=float(100 + number // 3), workflow=workflow))
        status = statuses[number % 4]
        if status is not None:
            await store.journal.append("t", name, 1, 0, [ended(at=float(200 - number // 5), status=status)])
    return [row for row in (await store.executions.list(EVERYTHING)).executions if row is not None]


async def lists_are_pages_of_an_order(h: Harness) -> None:
    """Every filter and sort: all pages together are what one large page is, each row once."""
    store = await h.tenant()
    everything = await _many(store)
    assert len(everything) == 24
    choices: tuple[tuple[Status, ...], ...] = ((), ("succeeded",), ("running", "failed"), ("waiting",))
    sorts: tuple[Sort, ...] = ("created_at", "-created_at", "finished_at", "-finished_at")
    for workflow in (None, "w"):
        for statuses in choices:
            for sort in sorts:
                for since, before in ((None, None), (103.0, 106.0), (196.0, None), (None, 198.0)):
                    query = ExecutionQuery(workflow, statuses, sort, since, before, limit=500)
                    await _check_pages(store, query, everything)


async def _check_pages(store: TenantStore, query: ExecutionQuery, everything: list[ExecutionRow]) -> None:
    by_end = query.sort.endswith("finished_at")

    def at(row: ExecutionRow) -> float:
        return (row.finished_at if by_end else row.created_at) or 0.0

    expected = [
        row
        for row in everything
        if (query.workflow is None or row.workflow == query.workflow)
        and (not query.statuses or row.status in query.statuses)
        and (not by_end or row.finished_at is not None)
        and (query.since is None or at(row) >= query.since)
        and (query.before is None or at(row) < query.before)
    ]
    expected.sort(key=lambda row: (at(row), row.id), reverse=query.sort.startswith("-"))
    page = await store.executions.list(query)
    assert [row.id for row in page.executions] == [row.id for row in expected], query
    assert page.next is None
    if len(expected) > 3 and query.before is None:
        paged: list[ExecutionRow] = []
        cursor: str | None = None
        while True:
            page = await store.executions.list(attrs.evolve(query, limit=3, after=cursor))
            paged += page.executions
            cursor = page.next
            if cursor is None:
                break
        assert paged == expected, query


async def lists_refuse_what_is_not_offered(h: Harness) -> None:
    """Sorts and statuses from an allow-list; cursors are ours, and belong to their sort."""
    store = await h.tenant()
    for number in range(3):
        await store.executions.create(new(f"exe_{number}"))
    cursor = (await store.executions.list(ExecutionQuery(limit=1))).next
    assert cursor is not None
    for query in (
        ExecutionQuery(sort="id"),  # type: ignore[arg-type]  # on purpose
        ExecutionQuery(statuses=("running' OR 1=1",)),  # type: ignore[arg-type]  # on purpose
        ExecutionQuery(limit=0),
        ExecutionQuery(limit=100_000),
        ExecutionQuery(sort="created_at", after=cursor),
        ExecutionQuery(after="garbage!"),
        ExecutionQuery(after="é"),
        ExecutionQuery(after="W10"),
        ExecutionQuery(after=cursor[:-3]),
        ExecutionQuery(after=""),
    ):
        await refused(Invalid, store.executions.list(query), f"{query} is refused")


async def old_executions_are_pruned(h: Harness) -> None:
    """Those that ended before a time, oldest first, so many at a time, with all they have."""
    store = await h.tenant()
    large = "x" * 300_000
    for number in range(6):
        created = NewExecution(start(f"exe_{number}", payload=large), idempotency_key=f"key-{number}")
        await store.executions.create(created)
        if number < 4:
            await store.journal.append(
                "t", f"exe_{number}", 1, 0, [ended(at=10.0 + number, output=large)], nodes=[record(large)]
            )
    await store.inbox.post("exe_4", Message("m", "cancel"))
    assert await store.executions.prune(13.0, limit=2) == 2
    assert [row.id for row in (await store.executions.list(EVERYTHING)).executions] == [
        "exe_2",
        "exe_3",
        "exe_4",
        "exe_5",
    ]
    assert await store.executions.prune(13.0) == 1
    assert await store.executions.prune(13.0) == 0
    assert list(await store.journal.read("t", "exe_0")) == []
    assert await store.executions.outcome("exe_0") is None
    outcome = await store.executions.outcome("exe_3")
    assert outcome is not None
    assert (outcome.output, outcome.nodes) == (large, (node_io_to_json(record(large)),)), (
        "a large value stays while anybody refers to it"
    )
    created_again = await store.executions.create(NewExecution(start("exe_9"), idempotency_key="key-0"))
    assert created_again.new, "its idempotency key went with it"
    claim = next(claim for claim in await h.storage.queue.claim("a", 5, LEASE) if claim.execution_id == "exe_4")
    assert await store.executions.delete("exe_4")
    assert not await store.executions.delete("exe_4")
    assert list(await store.inbox.messages("exe_4")) == []
    await refused(Conflict, store.journal.append("t", "exe_4", 1, claim.fence, step(1)), "its worker is told")
    assert list(await h.storage.queue.renew([claim], LEASE)) == []
    for name in ("exe_3", "exe_5", "exe_9"):
        assert await store.executions.delete(name)
    assert (await store.executions.list(EVERYTHING)).executions == ()


CONTRACTS: tuple[Callable[[Harness], Awaitable[None]], ...] = (
    *accepting.CONTRACTS,
    *children.CONTRACTS,
    the_journal_keeps_the_cores_contract,
    appends_are_fenced,
    a_conflict_takes_out_only_itself,
    one_of_two_writers_wins,
    the_same_append_at_once_is_one,
    events_are_read_as_they_were_written,
    ending_ends_the_entry_in_the_queue,
    what_a_parent_drives_is_not_queued,
    messages_wait_until_they_are_consumed,
    a_message_wakes_what_waits,
    what_is_due_is_counted,
    a_claim_is_a_lease,
    claims_are_exclusive,
    claims_are_fair_between_tenants,
    claims_of_one_take_turns,
    the_oldest_comes_first,
    tenants_have_limits,
    unfinished_executions_are_counted,
    a_message_does_not_hurry_what_could_not_be_worked_on,
    a_code_of_its_own_is_no_quarantine,
    poison_is_quarantined,
    waiting_for_work_ends_when_there_is_some,
    lists_are_pages_of_an_order,
    lists_refuse_what_is_not_offered,
    old_executions_are_pruned,
)
