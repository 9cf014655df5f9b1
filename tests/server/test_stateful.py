"""Random histories: what SQL does is what the reference does."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator_core.errors import OrchestratorError
from orchestrator_core.events import CancelRequested, NodeDue, SignalReceived
from orchestrator_core.types import ExecutionStatus
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import Claim, ExecutionQuery, Message, NewExecution, Tenant
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage, TenantStore
from orchestrator_server.testing.harness import ended, record, start, step

TENANTS = ("acme", "Acme")
tenants = st.sampled_from(TENANTS)
names = st.sampled_from(["exe_a", "exe_A", "exe_b"])
seqs = st.integers(0, 8)
waits = st.sampled_from([None, 0.0, 3600.0])
message_ids = st.sampled_from(["m1", "m2", "M1"])
EVENTS = {
    "start": start("exe_a", at=5.0),
    "succeeded": step(1, value={"n": [1, "x" * 10]})[0],
    "started": step(1)[1],
    "large": step(2, value="y" * 300_000)[0],
    "due": NodeDue(2.0, "x"),
    "signal m1": SignalReceived(2.0, "n", "go", "m1"),
    "signal M1": SignalReceived(2.0, "n", "go", "M1"),
    "cancel": CancelRequested(2.0),
    "cancel group": CancelRequested(2.0, "group"),
    "ended": ended(at=7.0, output="z" * 300_000),
    "cancelled": ended(at=6.0, status=ExecutionStatus.CANCELLED),
}
batches = st.lists(st.sampled_from(sorted(EVENTS)), min_size=1, max_size=3)
queries = st.builds(
    ExecutionQuery,
    workflow=st.sampled_from([None, "w", "v"]),
    statuses=st.sampled_from([(), ("running",), ("failed", "succeeded"), ("waiting", "cancelled")]),
    sort=st.sampled_from(["created_at", "-created_at"]),
    since=st.sampled_from([None, 1.0, 2.0]),
    limit=st.integers(1, 3),
)


def timeless(value: Any) -> Any:
    """Results without what depends on the clock, and in an order of their own where none is promised."""
    if isinstance(value, Claim):
        return attrs.evolve(value, lease_until=0.0)
    if isinstance(value, Message):
        return attrs.evolve(value, created_at=0.0)
    if attrs.has(type(value)):
        changes = {field.name: timeless(getattr(value, field.name)) for field in attrs.fields(type(value))}
        if "wake_at" in changes:
            changes["wake_at"] = changes["wake_at"] is not None
        if changes.get("error_code") == "poisoned":
            changes["finished_at"] = None
        return type(value)(**changes)
    if isinstance(value, list | tuple):
        items = [timeless(item) for item in value]
        return sorted(items, key=repr) if items and isinstance(items[0], Claim) else items
    return value


class Histories(RuleBasedStateMachine):
    """Does the same to both, and compares the answers."""

    runner: asyncio.Runner
    sql: SqlStorage

    @initialize()
    def begin(self) -> None:
        self.memory = MemoryStorage()
        self.claims: list[tuple[Claim, Claim]] = []
        for name in TENANTS:
            self.both(lambda storage, name=name: storage.tenants.create(Tenant(name)), compare=False)

    def teardown(self) -> None:
        for name in TENANTS:
            self.runner.run(self.sql.tenants.delete(name))

    def both(self, call: Callable[[Any], Awaitable[Any]], *, compare: bool = True) -> tuple[Any, Any]:
        """The answers of the reference and of SQL."""
        found = []
        for storage in (self.memory, self.sql):

            async def work(storage: Storage = storage) -> Any:
                try:
                    return await call(storage)
                except OrchestratorError as error:
                    return type(error).__name__

            found.append(self.runner.run(work()))
        if compare:
            assert timeless(found[0]) == timeless(found[1])
        return found[0], found[1]

    def of(self, tenant: str, call: Callable[[TenantStore], Awaitable[Any]]) -> tuple[Any, Any]:
        async def work(storage: Storage) -> Any:
            return await call(await storage.store(tenant))

        return self.both(work)

    @rule(
        tenant=tenants,
        name=names,
        at=st.sampled_from([1.0, 2.0]),
        key=st.sampled_from([None, "k", "K"]),
        workflow=st.sampled_from("wv"),
        due_in=st.sampled_from([0.0, 3600.0]),
        worker=st.sampled_from([None, "w1"]),
    )
    def create(self, *, tenant, name, at, key, workflow, due_in, worker):
        event = start(name, at=at, workflow=workflow, payload="p" * (300_000 if at == 2.0 else 1))
        new = NewExecution(event, idempotency_key=key, due_in=due_in, worker=worker, lease=3600.0)
        answers = self.of(tenant, lambda store: store.executions.create(new))
        if not isinstance(answers[0], str) and answers[0].claim is not None:
            self.claims.append((answers[0].claim, answers[1].claim))

    @rule(tenant=tenants, name=names, seq=seqs, fence=st.integers(0, 4), batch=batches)
    def append(self, tenant, name, seq, fence, batch):
        batch = [EVENTS[event] for event in batch]
        self.of(tenant, lambda store: store.journal.append(tenant, name, seq, fence, batch, nodes=[record()]))

    @rule(tenant=tenants, name=names, batch=batches)
    def append_rightly(self, tenant, name, batch):
        batch = [EVENTS[event] for event in batch]
        row, _ = self.of(tenant, lambda store: store.executions.get(name))
        if row is not None:
            call = lambda store: store.journal.append(tenant, name, row.seq, row.fence, batch)  # noqa: E731
            self.of(tenant, call)
            self.of(tenant, call)

    @rule(worker=st.sampled_from(["w1", "w2"]), lease=st.sampled_from([0.0, 3600.0]), suspects=st.booleans())
    def claim(self, worker, lease, suspects):
        mine, theirs = self.both(lambda storage: storage.queue.claim(worker, 100, lease, suspects=suspects))
        pairs = zip(sorted(mine, key=repr_key), sorted(theirs, key=repr_key), strict=True)
        self.claims += pairs

    @rule(data=st.data(), wake_in=waits, waiting=st.booleans(), failed=st.booleans())
    def release(self, data, wake_in, waiting, failed):
        if self.claims:
            pair = data.draw(st.sampled_from(self.claims))
            options = {"wake_in": wake_in, "waiting": waiting, "failed": failed}
            self.both(lambda storage: storage.queue.release(pair[storage is self.sql], **options))

    @rule()
    def renew(self):
        for number in (0, len(self.claims)):
            some = self.claims[number // 2 :]
            self.both(
                lambda storage, some=some: storage.queue.renew([pair[storage is self.sql] for pair in some], 3600.0)
            )

    @rule(
        tenant=tenants,
        name=names,
        message=message_ids,
        kind=st.sampled_from(["signal", "cancel"]),
        path=st.sampled_from(["", "group"]),
    )
    def post(self, tenant, name, message, kind, path):
        self.of(tenant, lambda store: store.inbox.post(name, Message(message, kind, path, "go", {"x": 1})))

    @rule(tenant=tenants, name=names, ids=st.lists(message_ids, max_size=2))
    def discard(self, tenant, name, ids):
        self.of(tenant, lambda store: store.inbox.discard(name, ids))

    @rule(tenant=tenants, name=names)
    def revive(self, tenant, name):
        self.both(lambda storage: storage.queue.revive(tenant, name))

    @rule(tenant=tenants, name=names)
    def delete(self, tenant, name):
        self.of(tenant, lambda store: store.executions.delete(name))

    @rule(tenant=tenants, before=st.sampled_from([6.5, 7.5]), limit=st.integers(1, 2))
    def prune(self, tenant, before, limit):
        # What is in quarantine has ended by the clock on the wall, long after these.
        self.of(tenant, lambda store: store.executions.prune(before, limit=limit))

    @rule(tenant=tenants, query=queries)
    def listed(self, tenant, query):
        page, _ = self.of(tenant, lambda store: store.executions.list(query))
        while page.next is not None:
            query = attrs.evolve(query, after=page.next)
            page, _ = self.of(tenant, lambda store, query=query: store.executions.list(query))

    @invariant()
    def everything_reads_the_same(self):
        if not hasattr(self, "memory"):
            return
        for tenant in TENANTS:
            for name in ("exe_a", "exe_A", "exe_b"):
                self.of(tenant, lambda store, name=name: store.executions.get(name))
                self.of(tenant, lambda store, name=name: store.journal.read(store.tenant, name))
                self.of(tenant, lambda store, name=name: store.executions.outcome(name))
                self.of(tenant, lambda store, name=name: store.inbox.messages(name))
        self.both(lambda storage: storage.queue.mail("w1"))


def repr_key(claim: Claim) -> tuple[str, str, int]:
    return claim.tenant, claim.execution_id, claim.fence


def test_sqlite_does_what_the_reference_does():
    folder = Path(tempfile.mkdtemp())
    try:
        with asyncio.Runner() as runner:
            storage = runner.run(SqlStorage.open(f"sqlite:///{folder}/a.db"))
            Histories.runner, Histories.sql = runner, storage
            machine = Histories.TestCase
            machine.settings = settings(
                max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[*HealthCheck]
            )
            machine("runTest").runTest()
            runner.run(storage.aclose())
    finally:
        shutil.rmtree(folder)


def test_postgresql_does_what_the_reference_does(postgresql_url: Callable[[str], str]):
    with asyncio.Runner() as runner:
        storage = runner.run(SqlStorage.open(postgresql_url("stateful")))
        Histories.runner, Histories.sql = runner, storage
        machine = Histories.TestCase
        machine.settings = settings(
            max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=[*HealthCheck]
        )
        machine("runTest").runTest()
        runner.run(storage.aclose())
