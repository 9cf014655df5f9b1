# ruff: noqa: S101 - contracts assert, that is what they are for
"""What accepting an execution does. Part of the contract in :mod:`orchestrator_server.testing.contracts`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

from orchestrator_core.results import node_io_to_json
from orchestrator_server.errors import Exists
from orchestrator_server.records import NewExecution, Outcome
from orchestrator_server.testing.harness import (
    EVERYTHING,
    LEASE,
    Harness,
    ended,
    new,
    record,
    refused,
    row_of,
    start,
    step,
)

__all__ = ["CONTRACTS"]


async def creating_writes_row_and_start_together(h: Harness) -> None:
    """An accepted execution is there with its first event, and due."""
    store = await h.tenant()
    event = start("exe_a", at=12.5, payload={"n": 1}, version=3)
    created = await store.executions.create(NewExecution(event))
    row = await row_of(store, "exe_a")
    assert created.new
    assert created.execution == row
    assert (row.workflow, row.version, row.status, row.created_at) == ("w", 3, "running", 12.5)
    assert (row.seq, row.fence, row.claims, row.worker, row.finished_at) == (1, 0, 0, None, None)
    assert row.wake_at is not None
    assert row.wake_at <= await h.storage.now(), "it is due at once"
    assert list(await store.journal.read("t", "exe_a")) == [event]
    again = await store.executions.create(NewExecution(event))
    assert (again.new, again.execution) == (True, row), "the same again (the reply was lost) changes nothing"
    other = NewExecution(start("exe_a", payload={"n": 2}))
    await refused(Exists, store.executions.create(other), "an id is taken once")
    assert await store.executions.get("exe_b") is None
    assert await store.executions.outcome("exe_a") is None
    later = await store.executions.create(NewExecution(start("exe_c"), due_in=100.0, parent="exe_a"))
    assert later.execution.parent == "exe_a"
    assert [claim.execution_id for claim in await h.storage.queue.claim("a", 5, LEASE)] == ["exe_a"], "not due yet"


async def idempotency_keys_make_one_execution(h: Harness) -> None:
    """A hundred callers at once with one key: one execution, and all are told of it."""
    store = await h.tenant()
    results = []

    async def call(number: int) -> None:
        given = NewExecution(start(f"exe_{number}"), idempotency_key="order-7", fingerprint="f")
        results.append(await store.executions.create(given))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(call, number)
    assert sum(created.new for created in results) == 1
    assert len({created.execution.id for created in results}) == 1
    assert {created.fingerprint for created in results} == {"f"}
    assert len((await store.executions.list(EVERYTHING)).executions) == 1
    other = await store.executions.create(NewExecution(start("exe_x"), idempotency_key="order-8"))
    assert other.new


async def an_execution_can_be_claimed_as_it_is_created(h: Harness) -> None:
    """Whoever accepts it may run it without asking the queue."""
    store = await h.tenant()
    created = await store.executions.create(NewExecution(start("exe_a"), worker="me", lease=LEASE))
    claim = created.claim
    assert claim is not None
    assert (claim.fence, claim.seq, claim.claims, claim.worker, claim.version) == (1, 1, 1, "me", 1)
    assert list(await h.storage.queue.claim("you", 5, LEASE)) == [], "it is held"
    await store.journal.append("t", "exe_a", 1, claim.fence, step(1))
    assert len(await h.storage.queue.renew([claim], LEASE)) == 1


async def what_came_before_is_accepted_too(h: Harness) -> None:
    """An execution may have run before it is accepted, even to its end: all of it is stored, or none."""
    store = await h.tenant()
    begun = NewExecution(start("exe_a"), events=tuple(step(1)), worker="me", lease=LEASE)
    created = await store.executions.create(begun)
    assert created.claim is not None
    assert (created.claim.fence, created.claim.seq, created.execution.seq) == (1, 3, 3)
    assert list(await store.journal.read("t", "exe_a")) == [start("exe_a"), *step(1)]
    await store.journal.append("t", "exe_a", 3, 1, step(2))
    over = [*step(1, value="x" * 300_000), ended(output={"n": 1})]
    nodes = (record({"n": 1}),)
    for name, key in (("exe_b", None), ("exe_c", "k")):
        given = NewExecution(start(name), events=tuple(over), nodes=nodes, worker="me", idempotency_key=key)
        created = await store.executions.create(given)
        row = await row_of(store, name)
        assert (created.execution, created.claim) == (row, None)
        assert (row.status, row.finished_at, row.worker, row.wake_at, row.seq) == ("succeeded", 3.0, None, None, 4)
        assert await store.executions.outcome(name) == Outcome({"n": 1}, None, tuple(map(node_io_to_json, nodes)))
        assert list(await store.journal.read("t", name)) == [start(name), *over]
        assert (await store.executions.create(given)).new, "the same again (the reply was lost) changes nothing"
    other = NewExecution(start("exe_d"), events=tuple(over), worker="me", idempotency_key="k")
    again = await store.executions.create(other)
    assert (again.new, again.execution.id) == (False, "exe_c"), "its key was used: nothing of it is stored"
    assert await store.executions.get("exe_d") is None
    assert list(await store.journal.read("t", "exe_d")) == []
    await refused(Exists, store.executions.create(NewExecution(start("exe_b", payload=2))), "an id is taken once")
    assert [claim.execution_id for claim in await h.storage.queue.claim("a", 5, LEASE)] == [], "nothing is due"


async def many_are_accepted_at_once(h: Harness) -> None:
    """Callers that come together do not stand in each other's way: what is wrong with one is told to that one."""
    store = await h.tenant()
    await store.executions.create(new("exe_taken"))
    told: dict[str, Any] = {}

    async def create(name: str, given: NewExecution) -> None:
        try:
            told[name] = (await store.executions.create(given)).new
        except Exists:
            told[name] = "exists"

    async with anyio.create_task_group() as group:
        for number in range(70):
            over = (*step(1), ended(output=number)) if number % 2 else ()
            key = f"k{number % 10}" if number < 20 else None
            name = f"exe_{number}"
            group.start_soon(create, name, NewExecution(start(name), events=over, idempotency_key=key))
        group.start_soon(create, "exe_taken", NewExecution(start("exe_taken", payload=1)))
    assert told.pop("exe_taken") == "exists"
    assert sum(told.values()) == 60, "of two with one key there is one"
    page = await store.executions.list(attrs.evolve(EVERYTHING, limit=100))
    assert {row.id for row in page.executions} == {"exe_taken", *(name for name, fresh in told.items() if fresh)}
    assert sum(row.status == "succeeded" for row in page.executions) == 25 + sum(
        told[f"exe_{number}"] for number in range(1, 20, 2)
    )


CONTRACTS: tuple[Callable[[Harness], Awaitable[None]], ...] = (
    creating_writes_row_and_start_together,
    idempotency_keys_make_one_execution,
    an_execution_can_be_claimed_as_it_is_created,
    what_came_before_is_accepted_too,
    many_are_accepted_at_once,
)
