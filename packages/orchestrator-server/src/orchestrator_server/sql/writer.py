"""Group commit: one thread takes all appends that are waiting and commits them together.

An append waits for a sync of the disk, which costs more than everything else together; so all that have come while the
last one was going on share the next. Each is judged alone: its own count of events, its own fence. What is wrong with one
takes out that one.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import attrs
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from orchestrator_core.events import ExecutionStarted
from orchestrator_server import wire
from orchestrator_server.errors import Unavailable
from orchestrator_server.records import Created, ExecutionRow, NewExecution
from orchestrator_server.sql import many, statements
from orchestrator_server.sql.faults import lost, translate
from orchestrator_server.sql.hop import Reply, answer
from orchestrator_server.sql.tables import journal

__all__ = ["Accept", "Append", "Lane", "Meter", "PostgresLane", "SqliteLane", "Work"]

_MOST = 256
_MOST_CHARACTERS = 4 * 1024 * 1024
_IDLE = 20.0
_COMMITS_OF_A_LOG = 48  # of a SQLite database, until its log is copied
# The database's clock, as `tables.now` has it.
_NOW = "SELECT (julianday('now') - 2440587.5) * 86400.0"
_BACK_OFF = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class ScopeLike(Protocol):
    """See :class:`orchestrator_server.sql.database.Scope`."""

    @property
    def tenant(self) -> str: ...
    @property
    def settings(self) -> tuple[str, tuple[str, ...]]: ...


@attrs.define(eq=False)
class Append:
    """Events for one execution."""

    scope: ScopeLike
    execution: str
    expected: int
    fence: int
    encoded: wire.Encoded
    start: ExecutionStarted | None  # the batch begins an execution that nobody has created
    reply: Reply

    @property
    def key(self) -> tuple[str, str]:
        """Which execution."""
        return self.scope.tenant, self.execution

    @property
    def size(self) -> int:
        """Characters that it brings."""
        return self.encoded.size

    @property
    def plain(self) -> bool:
        """Whether it is nothing but events, and perhaps an outcome."""
        encoded = self.encoded
        return not (encoded.large or encoded.signals or encoded.cancels)


@attrs.define(eq=False)
class Accept:
    """A new execution."""

    scope: ScopeLike
    new: NewExecution
    encoded: wire.Encoded
    reply: Reply

    @property
    def size(self) -> int:
        """Characters that it brings."""
        return self.encoded.size

    @property
    def plain(self) -> bool:
        """Whether it brings nothing large."""
        return not self.encoded.large

    def run(self, connection: Connection) -> Created:
        """Accept it by itself."""
        return statements.create(connection, self.scope.tenant, self.new, self.encoded)


@attrs.define(eq=False)
class Work:
    """Anything else that is written on SQLite."""

    run: Callable[[Connection], Any]
    reply: Reply
    size: int = 0
    plain: bool = False


Job = Append | Accept | Work
Meter = Callable[[int, float], None]
Answer = tuple[Reply, Any, BaseException | None]


class Lane:
    """A writer: one queue, one thread, one connection. The thread begins when there is something to do.

    Args:
        engine: Where to connect.
        patience: Seconds for which a group is tried again while the database does not answer.
        meter: Told of every commit, in this thread.
    """

    def __init__(self, engine: sa.Engine, *, patience: float, meter: Meter | None = None) -> None:
        self._engine = engine
        self._meter = meter
        self._patience = patience
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: list[Job] = []  # taken from the queue, but not into the last group
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._expected = 1  # how many came in the last groups
        self._missing = 0  # so many more end the wait for them
        self._enough = threading.Event()
        self._pace = 0.0  # seconds that a commit takes

    def submit(self, job: Job) -> None:
        """Hand in a job. Its reply is given when it is committed, or has failed."""
        with self._lock:
            if self._closed:
                raise Unavailable("this storage is closed")
            self._queue.put(job)
            if self._missing and self._queue.qsize() >= self._missing:
                self._enough.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orchestrator-writer", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Commit what was handed in and end. Blocks until then."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._queue.put(None)
                self._enough.set()
        if thread is not None:
            thread.join()

    # --- for the two kinds --------------------------------------------------------------------------------------------

    def commit(self, group: Sequence[Job]) -> Iterable[Answer]:
        """Commit a group in one transaction. Raising means that nothing was committed, as far as is known."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Give the connection back."""
        raise NotImplementedError

    def together(self, job: Job, group: Sequence[Job]) -> bool:
        """Whether a job may be in one transaction with a group."""
        raise NotImplementedError

    def tend(self) -> None:
        """Do what is due between two groups, when the last one was answered."""

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (group := self._gather()) is not None:
            began = time.perf_counter()
            answers = self._settle(group)
            seconds = time.perf_counter() - began
            self._pace += (seconds - self._pace) / 8
            self._expected = max(len(group), (self._expected + len(group)) // 2)
            answer(answers)
            if self._meter is not None:
                self._meter(len(group), seconds)
            del group, answers
            self.tend()

    def _gather(self) -> list[Job] | None:
        """The next group; ``None`` when there is nothing more to do.

        Who was answered just now needs a moment to come back: the group waits for as many as came before, at most
        half as long as a commit takes.
        """
        group: list[Job] = []
        seen: set[Any] = set()
        size = 0
        held, self._held = self._held, []
        for kept in held:
            size += self._admit(kept, group, seen)
        waited = False
        job: Job | None
        while len(group) < _MOST and size < _MOST_CHARACTERS:
            try:
                if group:
                    if not waited and self._queue.empty():
                        waited = True
                        self._wait_for(self._expected - len(group))
                    job = self._queue.get_nowait()
                else:
                    job = self._queue.get(timeout=_IDLE)
            except queue.Empty:
                if group:
                    break
                if self._retire():
                    return None
                continue
            if job is None:
                # Closing: nothing comes after this.
                if group:
                    self._queue.put(None)
                    break
                self._leave()
                return None
            size += self._admit(job, group, seen)
        return group

    def _wait_for(self, missing: int) -> None:
        """Wait until so many have come, half as long as a commit takes at most. One wake-up for all: each costs the event loop time."""
        self._missing = missing
        if missing > 0 and self._queue.qsize() < missing:
            self._enough.wait(self._pace / 2)
        self._missing = 0
        self._enough.clear()

    def _leave(self) -> None:
        with contextlib.suppress(Exception):
            self.disconnect()

    def _retire(self) -> bool:
        # Before anybody can start another thread, which will make a connection of its own.
        self._leave()
        with self._lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True

    def _admit(self, job: Job, group: list[Job], seen: set[Any]) -> int:
        key = job.key if isinstance(job, Append) else None
        if (key is not None and key in seen) or not self.together(job, group):
            # One append of an execution in a group: the next must see what came of it.
            self._held.append(job)
            return 0
        if key is not None:
            seen.add(key)
        group.append(job)
        return job.size

    def _settle(self, group: Sequence[Job]) -> list[Answer]:
        until = time.monotonic() + self._patience
        tries = 0
        while True:
            try:
                return list(self.commit(group))
            except Exception as error:  # noqa: BLE001 - it is answered to whoever asked
                with contextlib.suppress(Exception):
                    self.disconnect()
                if lost(error):
                    if time.monotonic() < until:
                        time.sleep(_BACK_OFF[min(tries, len(_BACK_OFF) - 1)])
                        tries += 1
                        continue
                elif len(group) > 1:
                    # Something is wrong with one of them, nobody knows which: each on its own.
                    return [item for job in group for item in self._settle([job])]
                told = translate(error)
                return [(job.reply, None, told) for job in group]


class SqliteLane(Lane):
    """The writer of a SQLite database: everything that is written goes through it."""

    _connection: Connection | None = None
    _commits = 0  # since the log was copied into the database
    _copier: threading.Thread | None = None

    def tend(self) -> None:
        """Copy the log into the database beside the writing, and then, quickly, what has come meanwhile: the log begins anew.

        SQLite would do it within a commit, which takes ten times as long then.
        """
        self._commits += 1
        if self._copier is None:
            if self._commits >= _COMMITS_OF_A_LOG:
                self._copier = threading.Thread(target=self._copy, name="orchestrator-checkpoint", daemon=True)
                self._copier.start()
        elif not self._copier.is_alive():
            self._copier, self._commits = None, 0
            if self._connection is not None:
                _checkpoint(self._connection)

    def _copy(self) -> None:
        with contextlib.suppress(exc.SQLAlchemyError), self._engine.connect() as connection:
            _checkpoint(connection)

    def together(self, job: Job, group: Sequence[Job]) -> bool:  # noqa: ARG002 - the base's signature
        """Nothing sets a tenant per transaction here."""
        return True

    def disconnect(self) -> None:
        """See the base."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._copier is not None:
            self._copier.join()

    def commit(self, group: Sequence[Job]) -> Iterable[Answer]:
        """See the base."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(immediate=True)
            many.prepare(_raw(self._connection))
        plain = all(job.plain for job in group)
        if plain:
            with contextlib.suppress(sqlite3.IntegrityError):
                return _store(self._connection, group)
        with self._connection.begin():
            return self._with_care(self._connection, group, together=not plain)

    def _with_care(self, connection: Connection, group: Sequence[Job], *, together: bool) -> list[Answer]:
        """In a transaction: what is plain, all ``together`` if all of it fits, else each on its own; then the rest."""
        answers: list[Answer] = []
        plain = [job for job in group if job.plain]
        if together and plain:
            with contextlib.suppress(sqlite3.IntegrityError):
                answers = _store(connection, plain)
        alone = [job for job in group if not (answers and job.plain)]
        return answers + [
            _append(connection, job) if isinstance(job, Append) else _work(connection, job) for job in alone
        ]


def _raw(connection: Connection) -> sqlite3.Connection:
    raw: Any = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - it says so to readers and type checkers
    return raw


def _checkpoint(connection: Connection) -> None:
    """Copy into the database what no reader needs the log for. Nobody waits for it."""
    raw: Any = connection.connection.driver_connection
    with contextlib.suppress(sqlite3.Error):  # whatever it is, the next commit shows it
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").close()


def _store(connection: Connection, jobs: Sequence[Job]) -> list[Answer]:
    """Do what is plain in jobs, all of it or nothing, in one statement: outside of a transaction it is one.

    Raises:
        sqlite3.IntegrityError: One of the jobs does not fit, and nothing is done.
    """
    rows: list[Any] = []
    answers: list[Answer] = []
    with contextlib.closing(_raw(connection).cursor()) as cursor:
        now: float | None = None
        for job in jobs:
            created: Created | None = None
            if isinstance(job, Accept):
                row = statements.row_of(job.scope.tenant, job.new, job.encoded)
                wakes = statements.wakes_in(job.new, job.encoded)
                if wakes is not None:
                    # What has ended already never wakes: the database's clock is asked only for the others.
                    now = float(cursor.execute(_NOW).fetchone()[0]) if now is None else now
                    row["wake_at"] = now + wakes
                rows.append(many.beginning(row, job.encoded, new=job.new))
                shown = ExecutionRow(**{name: row[name] for name in statements.FIELDS})
                created = statements.created_of(job.scope.tenant, job.new, shown)
            elif isinstance(job, Append) and job.start is None:
                rows.append(many.appending(job.key, job.expected, job.fence, job.encoded))
            elif isinstance(job, Append) and job.start is not None:
                row = {**statements.begun(job.key, job.fence, job.start), **statements.end_of(job.encoded.ended)}
                row |= {"seq": job.encoded.count, "size": job.encoded.weight}
                rows.append(many.beginning(row, job.encoded, by=job.fence))
            answers.append((job.reply, created, None))
        many.store(cursor, rows)
    return answers


def _append(connection: Connection, job: Append) -> Answer:
    """Store one append by itself, with what else it does."""
    try:
        (stored,) = _store(connection, [job])
    except sqlite3.IntegrityError:
        judged = _judge(connection, job)
        if judged is None:
            raise  # it is not there, and cannot be begun
        return judged
    if not job.plain:
        statements.extras(connection, job)
        statements.store_outcome(connection, *job.key, job.encoded.outcome)
    return stored


def _row(job: Append) -> tuple[Any, ...]:
    text = job.encoded.text
    return (job.scope.tenant, job.execution, job.expected, job.encoded.count, job.fence, text.data, text.refs)


def _judge(connection: Connection, job: Append) -> Answer | None:
    """What becomes of an append that did not fit. ``None``: it begins an execution, and its events are to be stored."""
    try:
        with connection.begin_nested():
            return None if statements.judge(connection, job) else (job.reply, None, None)
    except exc.OperationalError:
        raise
    except Exception as error:  # noqa: BLE001 - it is answered to whoever asked
        return (job.reply, None, translate(error))


def _work(connection: Connection, job: Work | Accept) -> Answer:
    """Do it in a savepoint: what is wrong with it is its own."""
    try:
        with connection.begin_nested():
            return (job.reply, job.run(connection), None)
    except exc.OperationalError:
        raise  # the database's, not the job's
    except Exception as error:  # noqa: BLE001 - it is answered to whoever asked
        return (job.reply, None, translate(error))


class PostgresLane(Lane):
    """A writer of a PostgreSQL database: appends of one tenant at a time, in two round trips."""

    _connection: Connection | None = None

    def together(self, job: Job, group: Sequence[Job]) -> bool:
        """A transaction is for one tenant."""
        return not group or (
            isinstance(job, Append) and isinstance(group[0], Append) and job.scope.tenant == group[0].scope.tenant
        )

    def disconnect(self) -> None:
        """See the base."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def commit(self, group: Sequence[Job]) -> Iterable[Answer]:
        """See the base."""
        appends = [job for job in group if isinstance(job, Append)]
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        # The driver begins with the first statement.
        with connection.begin():
            return self._append(connection, appends)

    def _append(self, connection: Connection, appends: Sequence[Append]) -> list[Answer]:
        raw: Any = connection.connection.driver_connection
        columns = zip(*(_row(job)[1:] for job in appends), strict=True)
        with raw.cursor() as scope, raw.cursor() as cursor, raw.pipeline():
            scope.execute(*appends[0].scope.settings)
            cursor.execute(statements.APPEND, [*map(list, columns), *[appends[0].scope.tenant] * 2])
            moved = {row[0] for row in cursor.fetchall()}
        answers: list[Answer] = []
        done: list[Append] = []
        late: list[Append] = []
        for job in appends:
            if job.execution in moved:
                done.append(job)
            else:
                judged = _judge(connection, job)
                if judged is None:
                    late.append(job)
                else:
                    answers.append(judged)
        if late:
            rows = [dict(zip(statements.JOURNAL_COLUMNS, _row(job), strict=True)) for job in late]
            connection.execute(sa.insert(journal), rows)
        for job in [*done, *late]:
            if not job.plain:
                statements.extras(connection, job)
            statements.finish(connection, job)
            answers.append((job.reply, None, None))
        return answers
