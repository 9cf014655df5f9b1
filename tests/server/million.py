"""Many executions, put straight into the tables: for tests of long lists and of retention."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from orchestrator_server.sql.tables import executions, journal, outcomes

BEGIN = 1_800_000_000.0
WORKFLOWS = ("often", "seldom", "long-ago")
_AT_ONCE = 50_000


def rows(tenant: str, count: int, *, begin: float = BEGIN, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Rows of ``executions``, one a second. What is rare is spread thin, or lies all at one end: an order by time then meets none of
    it for long."""
    chance = random.Random(seed)
    for number in range(count):
        at = begin + number + chance.random()
        workflow = "long-ago" if number < count // 100 else "seldom" if chance.random() < 0.001 else "often"
        status = "succeeded"
        if chance.random() < 0.0005:
            status = chance.choice(("failed", "running", "waiting"))
        elif count * 0.4 < number < count * 0.405:
            status = "cancelled"
        ended = status not in {"running", "waiting"}
        yield {
            "tenant": tenant,
            "id": f"exe_{int(at * 1000):012x}{chance.randrange(16**8):08x}",
            "workflow": workflow,
            "version": 1,
            "status": status,
            "created_at": at,
            # Children and long waits: the order of ends is not that of beginnings.
            "finished_at": at + chance.expovariate(0.1) if ended else None,
            "error_code": "http_503" if status == "failed" else None,
            "parent": None,
            "seq": 5,
            "fence": 1,
            "claims": 0,
            "worker": None,
            "wake_at": None,
            "queued": True,
        }


def fill(url: str, tenant: str, count: int, *, events: int = 0, begin: float = BEGIN) -> None:
    """Put ``count`` executions of a tenant into a database. Fast: without the store, and on SQLite without syncs.

    Args:
        url: Whose schema is this version's.
        tenant: That is there.
        count: How many.
        events: Characters that each has in its journal and in its outcome; 0: it has none.
        begin: When the first of them began.
    """
    text = '["' + "x" * events + '"]'
    if url.startswith("sqlite"):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            batch: list[dict[str, Any]] = []
            for row in rows(tenant, count, begin=begin):
                batch.append(row)
                if len(batch) == _AT_ONCE:
                    _insert(connection, batch, text if events else None)
                    batch = []
            if batch:
                _insert(connection, batch, text if events else None)
        engine.dispose()
        return
    address = make_url(url)
    # Not as the tables' owner: row-level security holds for that one, and COPY knows none.
    with psycopg.connect(host=str(address.query["host"]), user="postgres", dbname=address.database) as connection:
        _copy(
            connection, executions, (row.values() for row in rows(tenant, count, begin=begin)), [*next(rows(tenant, 1))]
        )
        if events:
            ids = [row["id"] for row in rows(tenant, count, begin=begin)]
            _copy(connection, journal, ((tenant, name, 0, 5, 1, text) for name in ids), _JOURNAL)
            _copy(connection, outcomes, ((tenant, name, text) for name in ids), _OUTCOME)


_JOURNAL = ["tenant", "execution", "first", "count", "fence", "data"]
_OUTCOME = ["tenant", "execution", "data"]


def _insert(connection: sa.Connection, batch: list[dict[str, Any]], text: str | None) -> None:
    connection.execute(sa.insert(executions), batch)
    if text is not None:
        of = [(row["tenant"], row["id"]) for row in batch]
        connection.execute(sa.insert(journal), [dict(zip(_JOURNAL, (*one, 0, 5, 1, text), strict=True)) for one in of])
        connection.execute(sa.insert(outcomes), [dict(zip(_OUTCOME, (*one, text), strict=True)) for one in of])
    connection.commit()


def _copy(connection: psycopg.Connection, table: sa.Table, values: Any, columns: list[str]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for value in values:
            copy.write_row([*value])
