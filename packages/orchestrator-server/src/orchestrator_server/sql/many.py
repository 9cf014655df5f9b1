"""SQLite: what a group of jobs does, in one statement.

Between two statements a thread gives up the interpreter, and while the event loop is busy it waits for milliseconds until
it has it back. So a group is one statement, whatever its size, and outside of a transaction it is its own: it is written, synced and
committed in one go (docs/decisions/0014). It inserts into a view that only this connection has; triggers do with each row what is to be
done. A job that does not fit undoes the statement.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator_server import wire
from orchestrator_server.records import NewExecution
from orchestrator_server.sql.statements import JOURNAL_COLUMNS
from orchestrator_server.sql.tables import executions

__all__ = ["appending", "beginning", "prepare", "store"]

Row = tuple[Any, ...]
"""A row of the view: the columns of `executions`, and :data:`_MORE`."""

# A statement has so many rows, so that few texts are to be known to the database; what is left over is empty rows, whose first
# column is null.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_EXECUTION: Final = tuple(column.name for column in executions.c)
_MORE: Final = ("new", "first", "count", "by", "data", "refs", "outcome", "outcome_refs", "key", "fingerprint")
_COLUMNS: Final = (*_EXECUTION, *_MORE)


def beginning(row: Mapping[str, Any], encoded: wire.Encoded, *, by: int = 0, new: NewExecution | None = None) -> Row:
    """An execution that is not there yet.

    Args:
        row: Its row of `executions`.
        encoded: Its first events.
        by: Under which fence they are written.
        new: What was asked for, where there is a key for it.
    """
    key, fingerprint = (new.idempotency_key, new.fingerprint) if new is not None else (None, None)
    return (*[row.get(name) for name in _EXECUTION], 1, 0, *_texts(encoded, by), key, fingerprint)


def appending(key: tuple[str, str], expected: int, fence: int, encoded: wire.Encoded) -> Row:
    """Events for an execution that is there, has as many as expected, and was not claimed under a newer fence."""
    ended = encoded.ended
    given: dict[str, Any] = {"tenant": key[0], "id": key[1], "fence": fence, "size": encoded.weight}
    if ended is not None:
        code = ended.error.code if ended.error is not None else None
        given |= {"status": ended.status.value, "finished_at": ended.at, "error_code": code}
    return (*[given.get(name) for name in _EXECUTION], 0, expected, *_texts(encoded, fence), None, None)


def _texts(encoded: wire.Encoded, by: int) -> Row:
    text, outcome = encoded.text, encoded.outcome
    ended = (None, None) if outcome is None else (outcome.data, outcome.refs)
    return (encoded.count, by, text.data, text.refs, *ended)


def store(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
    """Do what the rows say, all or none; at most 256.

    Raises:
        sqlite3.IntegrityError: One of them does not fit: it is there already, or is not as it was expected.
    """
    size = next(size for size in _SIZES if size >= len(rows))
    values = [value for row in rows for value in row]
    cursor.execute(_statement(size), values + [None] * (len(_COLUMNS) * (size - len(rows))))


@functools.cache
def _statement(count: int) -> str:
    row = f"({', '.join('?' * len(_COLUMNS))})"
    return f"INSERT INTO jobs SELECT * FROM (VALUES {', '.join([row] * count)}) AS v WHERE v.column1 IS NOT NULL"  # noqa: S608 - constants


def prepare(connection: sqlite3.Connection) -> None:
    """Give a connection the view and its triggers, if it does not have them."""
    for statement in _VIEW:
        connection.execute(statement).close()


def _list(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f'{prefix}"{name}"' for name in names)


_JOURNAL = (
    f"INSERT INTO journal ({_list(JOURNAL_COLUMNS)}) "  # noqa: S608 - as below
    "VALUES (NEW.tenant, NEW.id, NEW.first, NEW.count, NEW.by, NEW.data, NEW.refs);"
)
_OUTCOME = (
    "INSERT INTO outcomes (tenant, execution, data, refs) "
    "SELECT NEW.tenant, NEW.id, NEW.outcome, NEW.outcome_refs WHERE NEW.outcome IS NOT NULL ON CONFLICT DO NOTHING;"
)
_KEY = (
    "INSERT INTO idempotency (tenant, key, execution, fingerprint) "
    "SELECT NEW.tenant, NEW.key, NEW.id, NEW.fingerprint WHERE NEW.key IS NOT NULL;"
)
_MOVE = "UPDATE executions SET seq = seq + NEW.count, fence = NEW.fence, claims = 0, size = size + NEW.size"
_GO_ON = "status = CASE status WHEN 'waiting' THEN 'running' ELSE status END"  # no events: a child that goes on
_END = "status = NEW.status, finished_at = NEW.finished_at, error_code = NEW.error_code, worker = NULL, wake_at = NULL"
_FITS = "WHERE tenant = NEW.tenant AND id = NEW.id AND seq = NEW.first AND fence <= NEW.fence;"
_OR_NOT = "SELECT RAISE(ABORT, 'it does not fit') WHERE changes() = 0;"
_EMPTY = "DELETE FROM inbox WHERE tenant = NEW.tenant AND execution = NEW.id;"


def _trigger(name: str, when: str, *statements: str) -> str:
    body = " ".join(statements)
    return f"CREATE TEMP TRIGGER IF NOT EXISTS {name} INSTEAD OF INSERT ON jobs WHEN {when} BEGIN {body} END"


_VIEW = (
    f"CREATE TEMP VIEW IF NOT EXISTS jobs AS SELECT {_list(_COLUMNS, 'NULL AS ')}",
    _trigger(
        "job_new",
        "NEW.new",
        f"INSERT INTO executions ({_list(_EXECUTION)}) VALUES ({_list(_EXECUTION, 'NEW.')});",  # noqa: S608 - as above
        *(_KEY, _JOURNAL, _OUTCOME),
    ),
    _trigger(
        "job_appending", "NEW.count > 0 AND NEW.status IS NULL AND NOT NEW.new", f"{_MOVE} {_FITS}", _OR_NOT, _JOURNAL
    ),
    _trigger("job_going_on", "NEW.count = 0", f"{_MOVE}, {_GO_ON} {_FITS}", _OR_NOT),
    _trigger(
        "job_ending",
        "NEW.status IS NOT NULL AND NOT NEW.new",
        f"{_MOVE}, {_END} {_FITS}",
        _OR_NOT,
        _JOURNAL,
        _OUTCOME,
        _EMPTY,
    ),
)
