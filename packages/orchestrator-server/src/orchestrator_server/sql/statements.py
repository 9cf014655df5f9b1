"""What is written together with events: the frequent statements as text, the others through SQLAlchemy.

All of them run inside somebody's transaction, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from orchestrator_core.events import Event, ExecutionEnded, ExecutionStarted
from orchestrator_server import wire
from orchestrator_server.errors import Conflict, Exists, Unavailable
from orchestrator_server.records import Claim, Created, ExecutionRow, NewExecution
from orchestrator_server.sql.tables import (
    executions,
    idempotency,
    inbox,
    journal,
    now,
    outcomes,
    payload_uses,
    payloads,
)

__all__ = [
    "APPEND",
    "FIELDS",
    "JOURNAL_COLUMNS",
    "Appended",
    "begun",
    "by_index",
    "create",
    "created_of",
    "database_time",
    "end_of",
    "execution_row",
    "extras",
    "finish",
    "insert",
    "judge",
    "loader",
    "row_of",
    "store_large",
    "store_outcome",
    "wakes_in",
]

JOURNAL_COLUMNS: tuple[str, ...] = ("tenant", "execution", "first", "count", "fence", "data", "refs")

# PostgreSQL: a whole group moves on and its events are stored, in one statement, which says whom it has moved. It locks its executions in
# whatever order the plan has: to take them in the order of their ids first costs a fifth. So nobody else may wait for one of them while it
# holds another (see `SqlQueue.renew` and `Inbox.post`).
APPEND = """
WITH given AS MATERIALIZED (
  SELECT * FROM unnest(%s::text[], %s::bigint[], %s::int[], %s::bigint[], %s::text[], %s::text[])
    AS g (id, seq, number, fence, data, refs)
), moved AS (
  UPDATE executions AS e SET seq = e.seq + g.number, fence = g.fence, claims = 0, size = e.size + octet_length(g.data),
      status = CASE WHEN g.number = 0 AND e.status = 'waiting' THEN 'running' ELSE e.status END
    FROM given AS g
    WHERE e.tenant = %s AND e.id = g.id AND e.seq = g.seq AND e.fence <= g.fence
    RETURNING e.id
), stored AS (
  INSERT INTO journal (tenant, execution, first, count, fence, data, refs)
    SELECT %s, g.id, g.seq, g.number, g.fence, g.data, g.refs
      FROM given AS g JOIN moved AS m ON m.id = g.id WHERE g.number > 0
)
SELECT id FROM moved
"""


class Appended(Protocol):
    """See :class:`orchestrator_server.sql.writer.Append`."""

    @property
    def key(self) -> tuple[str, str]: ...
    @property
    def expected(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def encoded(self) -> wire.Encoded: ...
    @property
    def start(self) -> ExecutionStarted | None: ...


def insert(connection: Connection, table: sa.Table) -> Any:
    """An ``INSERT`` that knows ``ON CONFLICT``, and says how many rows it made."""
    made: Any = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    return made.execution_options(preserve_rowcount=True)


def database_time(connection: Connection) -> float:
    """The database's clock."""
    time: float = connection.execute(sa.select(now())).scalar_one()
    return time


def by_index(connection: Connection) -> None:
    """Read what follows in this transaction in the order of an index.

    A table that was filled quickly has no statistics yet, and PostgreSQL then sorts all of it for one page.
    """
    if connection.dialect.name == "postgresql":
        settings = "set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
        connection.exec_driver_sql(f"SELECT {settings}")


def execution_row(row: Any) -> ExecutionRow:
    """A row of ``executions``."""
    return ExecutionRow(**{name: row._mapping[name] for name in FIELDS})  # noqa: SLF001 - SQLAlchemy's public name


FIELDS = tuple(column.name for column in executions.c if column.name not in {"tenant", "size"})


def judge(connection: Connection, job: Appended) -> bool:
    """What to make of an append that did not fit the row.

    Returns:
        Whether it begins an execution, whose row now is there: its events are to be stored. If not, it had been
        committed before: somebody has lost the reply.

    Raises:
        Conflict: Neither.
    """
    tenant, execution = job.key
    where = (executions.c.tenant == tenant, executions.c.id == execution)
    row = connection.execute(sa.select(executions.c.seq, executions.c.fence).where(*where)).one_or_none()
    if row is None:
        if job.start is None:
            raise Conflict(f"{execution}: there is no such execution")
        values = {**begun(job.key, job.fence, job.start), "seq": job.encoded.count, "size": job.encoded.text.weight}
        made = connection.execute(insert(connection, executions).values(values).on_conflict_do_nothing())
        if made.rowcount != 1:
            raise Conflict(f"{execution}: somebody else has begun it")
        return True
    if job.fence < row.fence:
        raise Conflict(f"{execution}: fence {job.fence} is older than {row.fence}: another worker has taken over")
    if job.fence == row.fence and _stands(connection, job):
        return False
    raise Conflict(f"{execution}: expected {job.expected} events, there are {row.seq}")


def begun(key: tuple[str, str], fence: int, start: ExecutionStarted) -> dict[str, Any]:
    """The row of an execution that begins by an append, without its events: driven by whoever appends, not by the queue."""
    return {
        "tenant": key[0],
        "id": key[1],
        "workflow": start.workflow,
        "version": start.version,
        "status": "running",
        "created_at": start.at,
        "parent": start.parent,
        "seq": 0,
        "fence": fence,
        "claims": 0,
        "queued": False,
        "size": 0,
    }


def _stands(connection: Connection, job: Appended) -> bool:
    """Whether exactly these events stand at their place."""
    tenant, execution = job.key
    first, count, text = job.expected, job.encoded.count, job.encoded.text
    rows = connection.execute(
        sa.select(journal.c.first, journal.c["count"], journal.c.data, journal.c.refs)
        .where(journal.c.tenant == tenant, journal.c.execution == execution)
        .where(journal.c.first < first + count, journal.c.first + journal.c["count"] > first)
        .order_by(journal.c.first)
    ).all()
    if len(rows) == 1 and rows[0][:] == (first, count, text.data, text.refs):
        return True
    if not rows or rows[0].first > first:
        return False
    load = loader(connection, tenant)
    stored = [event for row in rows for event in wire.decode_events(row.data, row.refs, load)]
    large = dict(text.large)
    begin = first - rows[0].first
    given: list[Event] = wire.decode_events(text.data, text.refs, lambda _: large)
    return stored[begin : begin + count] == given


def loader(connection: Connection, tenant: str) -> Callable[[Iterable[str]], Mapping[str, str]]:
    """Reads large values by their hashes."""

    def load(hashes: Iterable[str]) -> Mapping[str, str]:
        wanted = sa.select(payloads.c.hash, payloads.c.data).where(
            payloads.c.tenant == tenant, payloads.c.hash.in_([*hashes])
        )
        return {row.hash: row.data for row in connection.execute(wanted)}

    return load


def store_large(connection: Connection, tenant: str, execution: str, text: wire.Text) -> None:
    """Store large values that the tenant does not have yet, and note who uses them."""
    if not text.large:
        return
    rows = [
        {"tenant": tenant, "hash": digest, "data": data, "size": len(data.encode())}
        for digest, data in sorted(text.large)
    ]
    statement = insert(connection, payloads)
    if connection.dialect.name == "sqlite":
        statement = statement.on_conflict_do_nothing()
    else:
        # Takes the row's lock, so that whoever prunes it meanwhile sees that it is used.
        keep = {"hash": statement.excluded.hash}
        statement = statement.on_conflict_do_update(index_elements=["tenant", "hash"], set_=keep)
    connection.execute(statement, rows)
    uses = [{"tenant": tenant, "execution": execution, "hash": digest} for digest, _ in text.large]
    connection.execute(insert(connection, payload_uses).on_conflict_do_nothing(), uses)


def finish(connection: Connection, job: Appended) -> None:
    """End the execution of an append that holds its end."""
    tenant, execution = job.key
    ended = job.encoded.ended
    if ended is None:
        return
    mine = (executions.c.tenant == tenant, executions.c.id == execution)
    weight = job.encoded.outcome.weight if job.encoded.outcome is not None else 0
    values = {**end_of(ended), "worker": None, "wake_at": None, "size": executions.c.size + weight}
    connection.execute(sa.update(executions).where(*mine).values(values))
    connection.execute(sa.delete(inbox).where(inbox.c.tenant == tenant, inbox.c.execution == execution))
    store_outcome(connection, tenant, execution, job.encoded.outcome)


def end_of(event: ExecutionEnded | None) -> dict[str, Any]:
    """What the row says of an end, if there is one."""
    if event is None:
        return {}
    code = event.error.code if event.error is not None else None
    return {"status": event.status.value, "finished_at": event.at, "error_code": code}


def store_outcome(connection: Connection, tenant: str, execution: str, outcome: wire.Text | None) -> None:
    """Store how an execution ended, where that was given."""
    if outcome is None:
        return
    store_large(connection, tenant, execution, outcome)
    values = {"tenant": tenant, "execution": execution, "data": outcome.data, "refs": outcome.refs}
    connection.execute(insert(connection, outcomes).values(values).on_conflict_do_nothing())


def extras(connection: Connection, job: Appended) -> None:
    """What an append does beside storing its events, once it is known to hold: large values, messages that are consumed."""
    tenant, execution = job.key
    encoded = job.encoded
    store_large(connection, tenant, execution, encoded.text)
    mine = (inbox.c.tenant == tenant, inbox.c.execution == execution)
    if encoded.signals:
        found = (inbox.c.kind == "signal", inbox.c.id.in_(encoded.signals))
        connection.execute(sa.delete(inbox).where(*mine, *found))
    if encoded.cancels:
        found = (inbox.c.kind == "cancel", inbox.c.path.in_(encoded.cancels))
        connection.execute(sa.delete(inbox).where(*mine, *found))


def row_of(tenant: str, new: NewExecution, encoded: wire.Encoded) -> dict[str, Any]:
    """The row of a new execution, but for when it is due."""
    event, ended = new.event, encoded.ended
    held = new.worker is not None
    row = {
        "tenant": tenant,
        "id": event.execution_id,
        "workflow": event.workflow,
        "version": event.version,
        "status": "running",
        "created_at": event.at,
        "finished_at": None,
        "error_code": None,
        "parent": new.parent,
        "seq": encoded.count,
        "fence": int(held),
        "claims": int(held),
        "worker": new.worker,
        "wake_at": None,
        "queued": True,
        "size": encoded.weight,
    }
    return row if ended is None else {**row, **end_of(ended), "worker": None}


def wakes_in(new: NewExecution, encoded: wire.Encoded) -> float | None:
    """Seconds until a worker may claim a new execution; ``None``: it has ended."""
    if encoded.ended is not None:
        return None
    return new.due_in if new.worker is None else new.lease


def created_of(tenant: str, new: NewExecution, row: ExecutionRow) -> Created:
    """What a new execution gives to whoever asked for it."""
    claim = None
    if new.worker is not None and row.finished_at is None:
        until = row.wake_at or 0.0
        claim = Claim(tenant, row.id, row.workflow, row.version, new.worker, 1, row.seq, 1, until)
    return Created(row, True, new.fingerprint, claim)


def create(connection: Connection, tenant: str, new: NewExecution, encoded: wire.Encoded) -> Created:
    """Accept an execution: its row, its first events, its idempotency key; and its outcome, where it has ended already.

    Raises:
        Exists: The id is taken by another execution.
    """
    execution_id = new.event.execution_id
    if new.idempotency_key is not None:
        given = {
            "tenant": tenant,
            "key": new.idempotency_key,
            "execution": execution_id,
            "fingerprint": new.fingerprint,
        }
        made = connection.execute(insert(connection, idempotency).values(given).on_conflict_do_nothing())
        if made.rowcount != 1:
            known = _known(connection, tenant, new.idempotency_key, execution_id)
            if known is None:
                raise Unavailable("the execution of this idempotency key is about to be forgotten: ask again")
            return known
    values, seconds = row_of(tenant, new, encoded), wakes_in(new, encoded)
    if seconds is not None:
        values["wake_at"] = now() + seconds
    statement = insert(connection, executions).values(values).on_conflict_do_nothing()
    row = connection.execute(statement.returning(*executions.c)).one_or_none()
    if row is None:
        return _again(connection, tenant, new, encoded)
    text = encoded.text
    first = (tenant, execution_id, 0, encoded.count, 0, text.data, text.refs)
    connection.execute(sa.insert(journal).values(dict(zip(JOURNAL_COLUMNS, first, strict=True))))
    store_large(connection, tenant, execution_id, text)
    store_outcome(connection, tenant, execution_id, encoded.outcome)
    return created_of(tenant, new, execution_row(row))


def _known(connection: Connection, tenant: str, key: str, execution_id: str) -> Created | None:
    """The execution that an idempotency key has made already; ``None``: it was forgotten meanwhile."""
    used = connection.execute(
        sa.select(idempotency.c.execution, idempotency.c.fingerprint).where(
            idempotency.c.tenant == tenant, idempotency.c.key == key
        )
    ).one_or_none()
    if used is None:
        return None
    where = (executions.c.tenant == tenant, executions.c.id == used.execution)
    row = connection.execute(sa.select(executions).where(*where)).one_or_none()
    if row is None:
        return None
    return Created(execution_row(row), used.execution == execution_id, used.fingerprint)


def _again(connection: Connection, tenant: str, new: NewExecution, encoded: wire.Encoded) -> Created:
    """The id is there: by the same call, whose reply was lost, or by another."""
    execution_id = new.event.execution_id
    stands = connection.execute(
        sa.select(journal.c["count"], journal.c.data, journal.c.refs).where(
            journal.c.tenant == tenant, journal.c.execution == execution_id, journal.c.first == 0
        )
    ).one_or_none()
    if stands is None or stands[:] != (encoded.count, encoded.text.data, encoded.text.refs):
        raise Exists(f"there is an execution {execution_id} already")
    where = (executions.c.tenant == tenant, executions.c.id == execution_id)
    row = connection.execute(sa.select(executions).where(*where)).one()
    return Created(execution_row(row), True, new.fingerprint)
