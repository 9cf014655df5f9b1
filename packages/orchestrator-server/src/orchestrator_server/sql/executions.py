"""Executions, their journal and their inbox in SQL. See the protocols in :mod:`orchestrator_server.storage`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import anyio
import attrs
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_core.events import Event, ExecutionStarted
from orchestrator_core.types import NodeIO
from orchestrator_server import wire
from orchestrator_server.cursors import cursor_of, place_of
from orchestrator_server.errors import ForeignTenant, NotFound, Unavailable
from orchestrator_server.records import (
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
from orchestrator_server.sql import statements
from orchestrator_server.sql.bound import Bound
from orchestrator_server.sql.hop import Reply
from orchestrator_server.sql.lists import page_of
from orchestrator_server.sql.statements import by_index, execution_row, loader
from orchestrator_server.sql.tables import (
    QUARANTINED,
    UNFINISHED,
    executions,
    idempotency,
    inbox,
    journal,
    now,
    outcomes,
    payload_uses,
    payloads,
)
from orchestrator_server.sql.writer import Append

__all__ = ["Executions", "Inbox", "SqlJournal", "forget"]

_PART: Final = 500  # ids in one statement

_UNFINISHED = ("running", "waiting")
_BUSY = 5.0  # seconds for which a message for an execution is tried to be left while others write it


@attrs.frozen
class Executions:
    """See :class:`~orchestrator_server.storage.Executions`."""

    _bound: Bound

    async def create(self, new: NewExecution) -> Created:
        check_new(new)
        encoded = wire.encode_events([new.event, *new.events], new.nodes)
        created = await self._bound.home.database.accept(self._bound.scope, new, encoded)
        if created.new and created.claim is None and encoded.ended is None:
            self._bound.ring()
        return created

    async def get(self, execution_id: str) -> ExecutionRow | None:
        where = self._one(execution_id)

        def work(connection: Connection) -> ExecutionRow | None:
            row = connection.execute(sa.select(executions).where(*where)).one_or_none()
            return None if row is None else execution_row(row)

        return await self._bound.read(work)

    def _one(self, execution_id: str) -> tuple[Any, Any]:
        return executions.c.tenant == self._bound.tenant, executions.c.id == check_execution_id(execution_id)

    async def list(self, query: ExecutionQuery) -> Page:
        place = place_of(query)
        wanted = page_of(self._bound.tenant, query, place, sqlite=self._bound.home.database.is_sqlite)
        if wanted is None:
            return Page(())

        def work(connection: Connection) -> Sequence[Any]:
            by_index(connection)
            return connection.execute(wanted).all()

        rows = [ExecutionRow(*row) for row in await self._bound.read(work)]
        shown = tuple(rows[: query.limit])
        return Page(shown, cursor_of(query, shown[-1]) if len(rows) > query.limit else None)

    async def unfinished(self, most: int) -> int:
        mine = (executions.c.tenant == self._bound.tenant, UNFINISHED)
        some = sa.select(sa.literal(1)).where(*mine).limit(most).subquery()
        wanted = sa.select(sa.func.count()).select_from(some)

        def work(connection: Connection) -> int:
            by_index(connection)
            return int(connection.execute(wanted).scalar_one())

        return await self._bound.read(work)

    async def outcome(self, execution_id: str) -> Outcome | None:
        tenant, where = self._bound.tenant, self._one(execution_id)
        mine = (outcomes.c.tenant == tenant, outcomes.c.execution == execution_id)

        def work(connection: Connection) -> Outcome | None:
            if connection.execute(sa.select(executions.c.id).where(*where, QUARANTINED)).first() is not None:
                return poisoned()
            row = connection.execute(sa.select(outcomes.c.data, outcomes.c.refs).where(*mine)).one_or_none()
            return None if row is None else wire.decode_outcome(row.data, row.refs, loader(connection, tenant))

        return await self._bound.read(work)

    async def prune(self, finished_before: float, *, limit: int = 500) -> int:
        tenant = self._bound.tenant

        def work(connection: Connection) -> int:
            by_index(connection)
            # A child is forgotten with its parent: until then that may go on, and would begin it again.
            alone = sa.or_(executions.c.queued, executions.c.parent.is_(None))
            old = (
                sa.select(executions.c.id)
                .where(executions.c.tenant == tenant, executions.c.finished_at < finished_before, alone)
                .order_by(executions.c.finished_at, executions.c.id)
                .limit(limit)
                .with_for_update(skip_locked=True)  # one may be revived this moment
            )
            return forget(connection, tenant, [*connection.execute(old).scalars()])

        return await self._bound.write(work)

    async def delete(self, execution_id: str) -> bool:
        check_execution_id(execution_id)
        tenant = self._bound.tenant
        return await self._bound.write(lambda connection: forget(connection, tenant, [execution_id])) > 0


def forget(connection: Connection, tenant: str, ids: Sequence[str]) -> int:
    """Remove executions, their children, and all they have. Returns how many there were."""
    every = _with_children(connection, tenant, ids)
    return sum(_forget(connection, tenant, part) for part in _parts(every))


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + _PART] for first in range(0, len(ids), _PART))


def _with_children(connection: Connection, tenant: str, ids: Sequence[str]) -> list[str]:
    """Executions with those that they drive, and so on."""
    every, last = [*ids], [*ids]
    child = sa.select(executions.c.id).where(executions.c.tenant == tenant, ~executions.c.queued)
    while last:
        found = [connection.execute(child.where(executions.c.parent.in_(part))).scalars() for part in _parts(last)]
        last = [name for names in found for name in names]
        every += last
    return every


def _forget(connection: Connection, tenant: str, ids: Sequence[str]) -> int:
    used = sa.select(payload_uses.c.hash).where(payload_uses.c.tenant == tenant, payload_uses.c.execution.in_(ids))
    hashes = sorted({*connection.execute(used).scalars()})
    # The row first: whoever appends meanwhile waits for it, and finds that there is none.
    gone = connection.execute(sa.delete(executions).where(executions.c.tenant == tenant, executions.c.id.in_(ids)))
    for table in (journal, outcomes, inbox, idempotency, payload_uses):
        connection.execute(sa.delete(table).where(table.c.tenant == tenant, table.c.execution.in_(ids)))
    if hashes:
        mine = (payloads.c.tenant == tenant, payloads.c.hash.in_(hashes))
        # Locked before the statement that looks for uses: it then sees those that came while it waited.
        connection.execute(sa.select(payloads.c.hash).where(*mine).order_by(payloads.c.hash).with_for_update()).all()
        use = sa.select(1).where(payload_uses.c.tenant == tenant, payload_uses.c.hash == payloads.c.hash)
        connection.execute(sa.delete(payloads).where(*mine, ~use.exists()))
    return gone.rowcount


@attrs.frozen
class SqlJournal:
    """See :class:`~orchestrator_server.storage.StoreJournal`."""

    _bound: Bound

    def _check(self, tenant: str, execution_id: str) -> None:
        if tenant != self._bound.tenant:
            raise ForeignTenant("this journal belongs to another tenant")
        check_execution_id(execution_id)

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
        self._check(tenant, execution_id)
        # Encoded here, in the event loop's thread: the writer's is busy with the disk, and a group waits for it.
        encoded = wire.encode_events(batch, nodes)
        first = batch[0] if batch else None
        start = first if not expected_seq and isinstance(first, ExecutionStarted) else None
        job = Append(self._bound.scope, execution_id, expected_seq, fence, encoded, start, Reply())
        await self._bound.home.database.append(job)

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        self._check(tenant, execution_id)
        first = max(0, after)
        wanted = (
            sa.select(journal.c.first, journal.c.data, journal.c.refs)
            .where(journal.c.tenant == tenant, journal.c.execution == execution_id)
            .where(journal.c.first + journal.c["count"] > first)
            .order_by(journal.c.first)
        )

        def work(connection: Connection) -> Sequence[Event]:
            rows = connection.execute(wanted).all()
            load = loader(connection, tenant)
            found = [event for row in rows for event in wire.decode_events(row.data, row.refs, load)]
            return found[first - rows[0].first :] if rows else []

        return await self._bound.read(work)


@attrs.frozen
class Inbox:
    """See :class:`~orchestrator_server.storage.Inbox`."""

    _bound: Bound

    async def post(self, execution_id: str, message: Message) -> bool:
        check_execution_id(execution_id)
        check_message(message)
        tenant, payload = self._bound.tenant, wire.to_text(message.payload)

        def work(connection: Connection) -> bool | None:
            line = _line_of(connection, tenant, execution_id)
            root = (executions.c.tenant == tenant, executions.c.id == line[-1])
            mine = (executions.c.tenant == tenant, executions.c.id == execution_id)
            status = sa.select(executions.c.status)
            # Locked: whoever gives the execution back waits, and then sees the message. A child is not waited for with the
            # root in hand: a group that holds the one may want the other.
            above = connection.execute(status.where(*root).with_for_update()).one_or_none()
            row = connection.execute(status.where(*mine).with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                if connection.execute(status.where(*mine)).one_or_none() is not None:
                    return None
                raise NotFound(f"there is no execution {execution_id!r}")
            if any(one is None or one.status not in _UNFINISHED for one in (above, row)):
                return False  # where the root has ended nobody drives a child any more
            if not _leave(connection, tenant, execution_id, message, payload):
                return False
            waits = sa.or_(executions.c.wake_at.is_(None), executions.c.wake_at > now())
            free = (executions.c.queued, executions.c.status.in_(_UNFINISHED), executions.c.worker.is_(None), waits)
            connection.execute(sa.update(executions).where(*root, *free).values(wake_at=now()))
            return True

        until = anyio.current_time() + _BUSY
        while True:
            left = await self._bound.write(work)
            if left:
                self._bound.ring()
            if left is not None:
                return left
            if anyio.current_time() > until:
                raise Unavailable(f"{execution_id} is written all the time: try again")
            await anyio.sleep(0.005)

    async def messages(self, execution_id: str) -> Sequence[Message]:
        mine = self._mine(execution_id)

        def work(connection: Connection) -> Sequence[Message]:
            rows = connection.execute(sa.select(inbox).where(*mine).order_by(inbox.c.position)).all()
            return [
                Message(row.id, row.kind, row.path, row.name, wire.from_text(row.payload), row.created_at)
                for row in rows
            ]

        return await self._bound.read(work)

    async def discard(self, execution_id: str, ids: Collection[str]) -> None:
        mine = self._mine(execution_id)
        if ids:
            gone = sa.delete(inbox).where(*mine, inbox.c.id.in_([*ids]))
            await self._bound.write(lambda connection: connection.execute(gone) and None)

    def _mine(self, execution_id: str) -> tuple[Any, Any]:
        return inbox.c.tenant == self._bound.tenant, inbox.c.execution == check_execution_id(execution_id)


def _line_of(connection: Connection, tenant: str, execution_id: str) -> list[str]:
    """An execution, its parent where that drives it, and so on up to the one in the queue."""
    line = [execution_id]
    while True:
        wanted = sa.select(executions.c.queued, executions.c.parent)
        found = wanted.where(executions.c.tenant == tenant, executions.c.id == line[-1])
        row = connection.execute(found).one_or_none()
        if row is None or row.queued or row.parent is None:
            return line
        line.append(row.parent)


def _leave(connection: Connection, tenant: str, execution_id: str, message: Message, payload: str) -> bool:
    """Leave a message behind those that are there. Returns whether none with its id was."""
    last = sa.select(sa.func.coalesce(sa.func.max(inbox.c.position), 0) + 1).where(
        inbox.c.tenant == tenant, inbox.c.execution == execution_id
    )
    values = {
        "tenant": tenant,
        "execution": execution_id,
        "id": message.id,
        "position": last.scalar_subquery(),
        "kind": message.kind,
        "path": message.path,
        "name": message.name,
        "payload": payload,
        "created_at": now(),
    }
    made = connection.execute(statements.insert(connection, inbox).values(values).on_conflict_do_nothing())
    return made.rowcount == 1
