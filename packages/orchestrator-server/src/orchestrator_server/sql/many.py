"""SQLite: what a group of jobs does to a table, in one statement.

Between two statements a thread gives up the interpreter, and while the event loop is busy it waits for milliseconds until
it has it back. So a group is not written job by job: each table is written once, whatever the size of the group
(docs/decisions/0011).
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator_server.records import NewExecution
from orchestrator_server.sql.statements import JOURNAL_COLUMNS, Appended
from orchestrator_server.sql.tables import executions

__all__ = ["accept", "move", "store_events", "store_outcomes"]

Row = Sequence[Any]

# A statement has so many rows, so that few texts are to be known to the database; what is left over is empty rows, whose first
# column is null.
_SIZES = (1, 2, 4, 8, 16, 32, 64)

_COLUMNS = tuple(column.name for column in executions.c)
_OUTCOME = ("tenant", "execution", "data", "refs")
_KEY = ("tenant", "key", "execution", "fingerprint")


def accept(
    cursor: sqlite3.Cursor, rows: Sequence[Mapping[str, Any]], keys: Sequence[tuple[str, str, NewExecution]]
) -> bool:
    """Store new executions and their idempotency keys; ``False``: one of either is there already, and all is to be undone.

    Args:
        cursor: In a transaction.
        rows: The rows of ``executions``.
        keys: For those that have a key: tenant, execution, what was asked for.
    """
    values = [[row[name] for name in _COLUMNS] for row in rows]
    if _insert(cursor, "executions", _COLUMNS, values, "ON CONFLICT DO NOTHING") != len(rows):
        return False
    given = [(tenant, new.idempotency_key, execution, new.fingerprint) for tenant, execution, new in keys]
    return _insert(cursor, "idempotency", _KEY, given, "ON CONFLICT DO NOTHING") == len(given)


def move(cursor: sqlite3.Cursor, jobs: Sequence[Appended]) -> bool:
    """Move executions on by their appends; ``False``: one of them does not fit, and all is to be undone.

    Those that end are ended: their lease and their messages go.
    """
    going: list[Row] = []
    ending: list[Row] = []
    for job in jobs:
        ended = job.encoded.ended
        moved = (*job.key, job.encoded.count, job.fence, job.expected, job.encoded.weight)
        if ended is None:
            going.append(moved)
        else:
            code = ended.error.code if ended.error is not None else None
            ending.append((*moved, ended.status.value, ended.at, code))
    if _update(cursor, _GO_ON, going) + _update(cursor, _END, ending) != len(jobs):
        return False
    _update(cursor, _EMPTY, [row[:2] for row in ending])
    return True


_MOVE = "seq = e.seq + v.column3, fence = v.column4, claims = 0, size = e.size + v.column6"
_FITS = "FROM (VALUES {}) AS v WHERE e.tenant = v.column1 AND e.id = v.column2 AND e.seq = v.column5 AND e.fence <= v.column4"
_GO_ON = f"UPDATE executions AS e SET {_MOVE} {_FITS}"  # noqa: S608 - constants
_END = (
    f"UPDATE executions AS e SET {_MOVE}, status = v.column7, finished_at = v.column8, error_code = v.column9, "  # noqa: S608 - constants
    f"worker = NULL, wake_at = NULL {_FITS}"
)
# CROSS: the few executions are looked up among the messages, however many there are.
_EMPTY = (
    "DELETE FROM inbox WHERE rowid IN (SELECT i.rowid FROM (VALUES {}) AS v "
    "CROSS JOIN inbox AS i ON i.tenant = v.column1 AND i.execution = v.column2)"
)


def store_events(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
    """Store rows of ``journal``."""
    _insert(cursor, "journal", JOURNAL_COLUMNS, rows)


def store_outcomes(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
    """Store rows of ``outcomes``; those that are there stay."""
    _insert(cursor, "outcomes", _OUTCOME, rows, "ON CONFLICT DO NOTHING")


# --- many rows, few statements ----------------------------------------------------------------------------------------


def _insert(cursor: sqlite3.Cursor, table: str, columns: tuple[str, ...], rows: Sequence[Row], end: str = "") -> int:
    """Insert rows; returns how many there are now that were not there before."""
    what = f"SELECT * FROM (VALUES {{}}) AS v WHERE v.column1 IS NOT NULL {end}"  # noqa: S608 - names of this package
    return _update(cursor, f"INSERT INTO {table} ({', '.join(columns)}) {what}", rows)


def _update(cursor: sqlite3.Cursor, statement: str, rows: Sequence[Row]) -> int:
    """Do something with rows; returns how many rows of the table it has changed."""
    changed = 0
    for begin in range(0, len(rows), _SIZES[-1]):
        part = rows[begin : begin + _SIZES[-1]]
        width = len(part[0])
        size = next(size for size in _SIZES if size >= len(part))
        values = [value for row in part for value in row]
        cursor.execute(_many(statement, width, size), values + [None] * (width * (size - len(part))))
        changed += cursor.rowcount
    return changed


@functools.lru_cache(maxsize=128)
def _many(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.format(", ".join([row] * count))
