"""Executions, their journal and their inbox in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from orchestrator_core.events import Event, ExecutionStarted
from orchestrator_core.types import NodeIO
from orchestrator_server import wire
from orchestrator_server.cursors import cursor_of, place_of
from orchestrator_server.errors import Conflict, Exists, ForeignTenant, NotFound
from orchestrator_server.memory.world import Bound, Execution, Part
from orchestrator_server.records import (
    Claim,
    Created,
    ExecutionQuery,
    ExecutionRow,
    Message,
    NewExecution,
    Outcome,
    Page,
    check_execution_id,
    check_message,
    check_new,
    poisoned,
)

__all__ = ["Executions", "Inbox", "MemoryJournal", "create"]


_UNFINISHED = frozenset(["running", "waiting"])


class Executions(Part):
    """See :class:`~orchestrator_server.storage.Executions`."""

    async def create(self, new: NewExecution) -> Created:
        check_new(new)
        created = create(self._bound, new)
        if created.new and created.claim is None and created.execution.finished_at is None:
            self._bound.world.ring()
        return created

    async def get(self, execution_id: str) -> ExecutionRow | None:
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        return None if execution is None else execution.row

    async def list(self, query: ExecutionQuery) -> Page:
        place = place_of(query)
        by_end = query.sort.endswith("finished_at")
        rows: list[tuple[float, str, ExecutionRow]] = []
        for execution in self._bound.data.executions.values():
            row = execution.row
            at = row.finished_at if by_end else row.created_at
            if (
                at is None
                or (query.workflow is not None and row.workflow != query.workflow)
                or (query.statuses and row.status not in query.statuses)
                or (query.since is not None and at < query.since)
                or (query.before is not None and at >= query.before)
            ):
                continue
            rows.append((at, row.id, row))
        down = query.sort.startswith("-")
        rows.sort(key=lambda item: item[:2], reverse=down)
        if place is not None:
            rows = [item for item in rows if (item[:2] < place if down else item[:2] > place)]
        shown = tuple(row for _, _, row in rows[: query.limit])
        return Page(shown, cursor_of(query, shown[-1]) if len(rows) > query.limit else None)

    async def unfinished(self, most: int) -> int:
        every = self._bound.data.executions.values()
        return min(most, sum(execution.row.queued and execution.row.status in _UNFINISHED for execution in every))

    async def outcome(self, execution_id: str) -> Outcome | None:
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        if execution is None:
            return None
        return poisoned() if execution.row.quarantined else execution.outcome

    async def prune(self, finished_before: float, *, limit: int = 500) -> int:
        executions = self._bound.data.executions
        old = sorted(
            (e.row.finished_at, e.row.id)
            for e in executions.values()
            if e.row.finished_at is not None
            and e.row.finished_at < finished_before
            and (e.row.queued or e.row.parent is None)
        )[:limit]
        return sum(self._forget(execution_id) for _, execution_id in old)

    async def delete(self, execution_id: str) -> bool:
        return self._forget(check_execution_id(execution_id)) > 0

    def _forget(self, execution_id: str) -> int:
        """Remove an execution with its children. Returns how many there were."""
        data = self._bound.data
        if data.executions.pop(execution_id, None) is None:
            return 0
        data.keys = {key: used for key, used in data.keys.items() if used[0] != execution_id}
        children = [e.row.id for e in data.executions.values() if e.row.parent == execution_id and not e.row.queued]
        return 1 + sum(self._forget(name) for name in children)


def create(bound: Bound, new: NewExecution) -> Created:
    """Accept an execution. Its ids are checked."""
    data, event, now = bound.data, new.event, bound.now()
    key = new.idempotency_key
    if key is not None and key in data.keys:
        execution_id, fingerprint = data.keys[key]
        return Created(data.executions[execution_id].row, execution_id == event.execution_id, fingerprint)
    known = data.executions.get(event.execution_id)
    batch = [event, *new.events]
    encoded = wire.encode_events(batch, new.nodes)
    texts = [wire.to_text(wire.event_to_json(one)) for one in batch]
    if known is not None:
        if known.events[: len(texts)] != texts:
            raise Exists(f"there is an execution {event.execution_id} already")
        if key is not None:
            data.keys[key] = (event.execution_id, new.fingerprint)
        return Created(known.row, True, new.fingerprint)
    held = new.worker is not None
    row = ExecutionRow(
        event.execution_id,
        event.workflow,
        event.version,
        "running",
        event.at,
        parent=new.parent,
        seq=len(texts),
        fence=int(held),
        claims=int(held),
        worker=new.worker,
        wake_at=now + (new.lease if held else new.due_in),
    )
    execution = data.executions[row.id] = Execution(row, texts)
    _end(execution, encoded)
    if key is not None:
        data.keys[key] = (row.id, new.fingerprint)
    claim = None
    if new.worker is not None and encoded.ended is None:
        until = execution.row.wake_at or 0.0
        claim = Claim(bound.tenant, row.id, row.workflow, row.version, new.worker, 1, row.seq, 1, until)
    return Created(execution.row, True, new.fingerprint, claim)


def _end(execution: Execution, encoded: wire.Encoded) -> None:
    """End it, where the events do."""
    ended, outcome = encoded.ended, encoded.outcome
    if ended is None or outcome is None:
        return
    execution.row = attrs.evolve(
        execution.row,
        status=ended.status.value,
        finished_at=ended.at,
        error_code=ended.error.code if ended.error else None,
        worker=None,
        wake_at=None,
    )
    execution.inbox.clear()
    execution.outcome = wire.decode_outcome(outcome.whole, None, lambda _: {})


class MemoryJournal(Part):
    """See :class:`~orchestrator_server.storage.StoreJournal`."""

    def _check(self, tenant: str) -> None:
        if tenant != self._bound.tenant:
            raise ForeignTenant("this journal belongs to another tenant")

    async def append(
        self,
        tenant: str,
        execution_id: str,
        expected_seq: int,
        fence: int,
        batch: Sequence[Event],
        *,
        nodes: Sequence[NodeIO] | None = None,
    ) -> None:
        self._check(tenant)
        data = self._bound.data
        execution = data.executions.get(check_execution_id(execution_id))
        encoded = wire.encode_events(batch, nodes)
        texts = [wire.to_text(wire.event_to_json(event)) for event in batch]
        if execution is None:
            if expected_seq or not batch or not isinstance(batch[0], ExecutionStarted):
                raise Conflict(f"{execution_id}: there is no such execution")
            start = batch[0]
            row = ExecutionRow(
                execution_id,
                start.workflow,
                start.version,
                "running",
                start.at,
                parent=start.parent,
                fence=fence,
                queued=False,
            )
            execution = data.executions[execution_id] = Execution(row)
        row = execution.row
        if fence < row.fence:
            raise Conflict(f"{execution_id}: fence {fence} is older than {row.fence}: another worker has taken over")
        if expected_seq != row.seq:
            if fence == row.fence and execution.events[expected_seq : expected_seq + len(texts)] == texts:
                return
            raise Conflict(f"{execution_id}: expected {expected_seq} events, there are {row.seq}")
        execution.events += texts
        row = attrs.evolve(row, seq=row.seq + len(texts), fence=fence, claims=0)
        if not texts and row.status == "waiting":  # a child that goes on
            row = attrs.evolve(row, status="running")
        for signal in encoded.signals:
            if signal in execution.inbox and execution.inbox[signal].kind == "signal":
                del execution.inbox[signal]
        for message in [m for m in execution.inbox.values() if m.kind == "cancel" and m.path in encoded.cancels]:
            del execution.inbox[message.id]
        execution.row = row
        _end(execution, encoded)

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        self._check(tenant)
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        texts = execution.events[max(0, after) :] if execution is not None else []
        return wire.decode_events(f"[{','.join(texts)}]", None, lambda _: {})


class Inbox(Part):
    """See :class:`~orchestrator_server.storage.Inbox`."""

    async def post(self, execution_id: str, message: Message) -> bool:
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        check_message(message)
        if execution is None:
            raise NotFound(f"there is no execution {execution_id!r}")
        root: Execution | None = execution
        while root is not None and not root.row.queued and root.row.parent is not None:
            root = self._bound.data.executions.get(root.row.parent)
        if root is None or any(one.row.status not in _UNFINISHED for one in (execution, root)):
            return False
        if message.id in execution.inbox:
            return False
        now = self._bound.now()
        payload = wire.from_text(wire.to_text(message.payload))
        execution.inbox[message.id] = attrs.evolve(message, payload=payload, created_at=now)
        row = root.row
        if row.queued and row.status in _UNFINISHED and (row.worker is None or row.wake_at is None):
            root.row = attrs.evolve(row, wake_at=now if row.wake_at is None else min(row.wake_at, now))
        self._bound.world.ring()
        return True

    async def messages(self, execution_id: str) -> Sequence[Message]:
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        return [] if execution is None else [*execution.inbox.values()]

    async def discard(self, execution_id: str, ids: Collection[str]) -> None:
        execution = self._bound.data.executions.get(check_execution_id(execution_id))
        for message_id in ids if execution is not None else ():
            execution.inbox.pop(message_id, None)  # type: ignore[union-attr]  # the loop is empty without one
