"""The command ``orchestrator``, which dies at a named point: ``python run_orchestrator.py POINT COUNT WORDS…``.

A point is ``MOMENT:STEP``. The moment is ``before`` the step, ``within`` it (all is written, the commit is next), or ``after`` it
(committed, and nobody has been told). The process kills itself when it comes there for the COUNT-th time. These do
not die: ``none``, ``careless:LEVEL`` with another ``PRAGMA synchronous`` than ours, ``skew:SECONDS`` with a clock that is wrong.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_core.cli import main
from orchestrator_core.events import AttemptStarted, AttemptSucceeded, ExecutionEnded
from orchestrator_server.records import POISON_CLAIMS
from orchestrator_server.sql import database, many, queue
from orchestrator_server.sql.definitions import Schedules
from orchestrator_server.sql.executions import Executions, Inbox, SqlJournal
from orchestrator_server.sql.queue import SqlQueue


def effect(arguments: Sequence[Any]) -> bool:
    """An append with the result of an effect."""
    return any(isinstance(event, AttemptSucceeded) and "note" in event.path for event in arguments[4])


def beginning(arguments: Sequence[Any]) -> bool:
    """An append with the start of an effect."""
    return any(isinstance(event, AttemptStarted) and "note" in event.path for event in arguments[4])


def fan_out(arguments: Sequence[Any]) -> bool:
    """An append with the starts of several items."""
    return sum(isinstance(event, AttemptStarted) and "/" in event.path for event in arguments[4]) > 1


def end(arguments: Sequence[Any]) -> bool:
    return any(isinstance(event, ExecutionEnded) for event in arguments[4])


def anything(arguments: Sequence[Any]) -> bool:
    return True


STEPS: dict[str, tuple[type, str, Callable[[Sequence[Any]], bool]]] = {
    "accept": (Executions, "create", anything),
    "claim": (SqlQueue, "claim", anything),
    "start": (SqlJournal, "append", beginning),
    "result": (SqlJournal, "append", effect),
    "fan-out": (SqlJournal, "append", fan_out),
    "end": (SqlJournal, "append", end),
    "renew": (SqlQueue, "renew", lambda arguments: bool(arguments[0])),
    "park": (SqlQueue, "release", anything),
    "signal": (Inbox, "post", anything),
    "slot": (Schedules, "fire", lambda arguments: arguments[2] is not None),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def set_trap(moment: str, step: str, count: int) -> None:
    owner, name, matters = STEPS[step]
    real = getattr(owner, name)
    left, armed = count, False

    async def trapped(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal left, armed
        here = matters(arguments)
        if here and step != "claim":
            left -= 1
        if here and moment == "before" and left <= 0:
            die()
        armed = here and moment == "within" and left <= 0
        answer = await real(self, *arguments, **more)
        if step == "claim" and answer:
            left -= 1  # only those that give something count
        if here and moment == "after" and left <= 0:
            die()
        return answer

    def committing(connection: Connection) -> None:
        writes = connection.dialect.name != "sqlite" or connection.get_execution_options().get("immediate")
        if armed and writes:
            die()

    store = many.store

    def storing(cursor: sqlite3.Cursor, rows: Sequence[Any]) -> None:
        if armed and not cursor.connection.in_transaction:  # the statement would be a transaction of its own
            cursor.execute("BEGIN IMMEDIATE")
            store(cursor, rows)
            die()
        store(cursor, rows)

    setattr(owner, name, trapped)
    many.store = storing
    sa.event.listen(sa.Engine, "commit", committing)


def be_careless(level: str) -> None:
    real = database._on_sqlite_connect

    def connected(connection: Any, record: object) -> None:
        real(connection, record)
        connection.execute(f"PRAGMA synchronous={level}").close()

    database._on_sqlite_connect = connected


def _skewed(real: Callable[[], float], by: float) -> float:
    return real() + by


if __name__ == "__main__":
    point, number, *words = sys.argv[1:]
    queue.POISON_CLAIMS = int(os.environ.get("POISON_CLAIMS", POISON_CLAIMS))  # type: ignore[attr-defined]
    moment, _, step = point.partition(":")
    if moment == "careless":
        be_careless(step)
    elif moment == "skew":
        time.time = partial(_skewed, time.time, float(step))
    elif point != "none":
        set_trap(moment, step, int(number))
    sys.exit(main(words))
