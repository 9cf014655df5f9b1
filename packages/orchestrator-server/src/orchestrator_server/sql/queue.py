"""The queue in SQL: an execution's row is its entry. See :class:`~orchestrator_server.storage.Queue`.

The queue's transactions see all tenants, but little of them: on PostgreSQL their role may read and change the columns of
``executions`` that are the entry, and see who has messages and schedules, no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import anyio
import attrs
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_server.errors import NotFound
from orchestrator_server.records import (
    MOST_COUNTED,
    POISON_CLAIMS,
    POISONED,
    SUSPECT_CLAIMS,
    Backlog,
    Claim,
    DueSchedule,
    Limits,
    check_execution_id,
    check_id,
)
from orchestrator_server.sql.bell import Bell
from orchestrator_server.sql.bound import Home
from orchestrator_server.sql.database import Database
from orchestrator_server.sql.statements import by_index
from orchestrator_server.sql.tables import QUARANTINED, executions, inbox, now, owners, schedules

__all__ = ["Places", "SqlQueue"]

_LOG = logging.getLogger(__name__)
_SELDOM: Final = 60.0  # seconds between two times that it is logged that a database fails

Value = TypeVar("Value")


class Places(Protocol):
    """Where tenants are at home."""

    async def homes(self) -> Sequence[Home]:
        """Every home, each once."""
        ...

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:
        """That of one tenant, if there is one. Who was ``claimed`` for is not looked up where nothing hangs on it."""
        ...

    async def limits(self) -> Mapping[str, Limits]:
        """The limits of the tenants that have any."""
        ...


@attrs.frozen
class _Line:
    """A tenant that has something due."""

    tenant: str
    home: Home
    most: int | None


class SqlQueue:
    """See :class:`~orchestrator_server.storage.Queue`."""

    def __init__(self, places: Places, bell: Bell) -> None:
        self._places = places
        self._bell = bell
        self._last = ""  # the tenant that was served last
        # Until when it is not logged again that a database fails, by the monotonic clock.
        self._silent: WeakKeyDictionary[Database, float] = WeakKeyDictionary()

    async def claim(self, worker: str, limit: int, lease: float, *, suspects: bool = False) -> Sequence[Claim]:
        lines = await self._lines()
        taken: list[Claim] = []
        while lines and len(taken) < limit:
            left = limit - len(taken)
            share, more = divmod(left, len(lines))
            shares = {line.tenant: share + (number < more) for number, line in enumerate(lines)}
            asked = [line for line in lines if shares[line.tenant]]
            claims: list[Claim] = []
            for home in {line.home: None for line in asked}:
                here = [(line, shares[line.tenant]) for line in asked if line.home == home]
                claims += await self._at(
                    home, home.database.write(home.queue_scope, _claimer(here, worker, lease, suspects))
                )
            taken += claims
            served = {claim.tenant for claim in claims}
            self._last = next((line.tenant for line in reversed(asked) if line.tenant in served), self._last)
            # Who could not fill its share has nothing more.
            short = {
                line.tenant for line in asked if sum(c.tenant == line.tenant for c in claims) < shares[line.tenant]
            }
            lines = [line for line in lines if line.tenant not in short]
        return taken

    async def _lines(self) -> list[_Line]:
        """Tenants with something due, those first whose turn it is."""
        lines: list[_Line] = []
        limits: Mapping[str, Limits] | None = None
        for home in await self._places.homes():
            for tenant, wait in await self._at(home, home.database.read(home.queue_scope, _next_of_each)):
                if wait <= 0:
                    limits = await self._places.limits() if limits is None else limits
                    lines.append(_Line(tenant, home, limits[tenant].running if tenant in limits else None))
        return sorted(lines, key=lambda line: (line.tenant <= self._last, line.tenant))

    async def _at(
        self, home: Home, answer: Awaitable[Sequence[Value]], failing: Sequence[Value] = ()
    ) -> Sequence[Value]:
        """What a home answers, or ``failing``: one that is damaged, or is being removed, is not to stop the others.

        Raises:
            Exception: What went wrong, where all are in one database.
        """
        try:
            return await answer
        except NotFound:
            return ()
        except Exception as error:
            homes = await self._places.homes()
            if home not in homes:
                return ()
            if all(other.database is home.database for other in homes):
                raise
            now = time.monotonic()
            if now >= self._silent.get(home.database, now):
                self._silent[home.database] = now + _SELDOM
                _LOG.exception("a tenant's database is left out: %s", error)
            return failing

    async def renew(self, claims: Collection[Claim], lease: float) -> Sequence[Claim]:
        held: list[Claim] = []
        for home, mine in (await self._by_home(claims)).items():
            here: Sequence[Claim] = mine
            with anyio.move_on_after(lease / 4):
                here = await self._at(home, _renewed(home, mine, lease), failing=mine)
            held += here
        order = {(claim.tenant, claim.execution_id, claim.fence): number for number, claim in enumerate(claims)}
        return sorted(held, key=lambda claim: order[claim.tenant, claim.execution_id, claim.fence])

    async def _by_home(self, claims: Collection[Claim]) -> dict[Home, list[Claim]]:
        homes: dict[Home, list[Claim]] = {}
        for claim in claims:
            home = await self._places.home_or_none(claim.tenant, claimed=True)
            if home is not None:
                homes.setdefault(home, []).append(claim)
        return homes

    async def release(
        self,
        claim: Claim,
        *,
        wake_in: float | None,
        waiting: bool = False,
        failed: bool = False,
        children: Collection[str] = (),
    ) -> bool:
        home = await self._places.home_or_none(claim.tenant, claimed=True)
        if home is None:
            return False

        def work(connection: Connection) -> tuple[bool, bool]:
            where = (executions.c.tenant == claim.tenant, executions.c.id == claim.execution_id)
            mine = (*where, executions.c.worker == claim.worker, executions.c.fence == claim.fence)
            # Locked before the inbox is looked at: whoever leaves a message waits, or has left it.
            if connection.execute(sa.select(executions.c.id).where(*mine).with_for_update()).one_or_none() is None:
                return False, False
            box = (inbox.c.tenant == claim.tenant, inbox.c.execution.in_([claim.execution_id, *children]))
            left = sa.select(inbox.c.execution).where(*box).limit(1)
            # What could not be worked on is not worked on sooner because of it.
            mail = waiting and connection.execute(left).first() is not None
            values: dict[str, Any] = {"worker": None}
            values["wake_at"] = now() if mail else None if wake_in is None else now() + wake_in
            if waiting:
                values["status"] = "waiting"
            if not failed:
                values["claims"] = 0
            connection.execute(sa.update(executions).where(*mine).values(values))
            if waiting and children:
                these = (executions.c.tenant == claim.tenant, executions.c.id.in_(children))
                going_on = sa.select(executions.c.id).where(*these, executions.c.status == "running")
                # Not waited for, as others may wait for this lock: one that is written to this moment is shown as running.
                free = connection.execute(going_on.with_for_update(skip_locked=True)).scalars().all()
                mark = sa.update(executions).where(executions.c.tenant == claim.tenant, executions.c.id.in_(free))
                connection.execute(mark.values(status="waiting"))
            return True, mail or (wake_in is not None and wake_in <= 0)

        held, due = await home.database.write(home.queue_scope, work)
        if due:
            self._bell.ring()
        return held

    async def revive(self, tenant_id: str, execution_id: str) -> bool:
        check_execution_id(execution_id)
        home = await self._places.home_or_none(check_id(tenant_id, "tenant"))
        if home is None:
            return False
        where = (executions.c.tenant == tenant_id, executions.c.id == execution_id, QUARANTINED)
        values = {"status": "running", "claims": 0, "finished_at": None, "error_code": None, "wake_at": now()}
        changed = sa.update(executions).where(*where).values(values)
        revived = await home.database.write(
            home.queue_scope, lambda connection: connection.execute(changed).rowcount == 1
        )
        if revived:
            self._bell.ring()
        return revived

    async def next_due(self) -> float | None:
        waits: list[float] = []
        for home in await self._places.homes():
            rows = await self._at(home, home.database.read(home.queue_scope, _next_of_each))
            waits += [wait for _, wait in rows]
        return max(0.0, min(waits)) if waits else None

    async def backlog(self) -> Backlog:
        due, oldest = 0, 0.0
        for home in await self._places.homes():
            for tenant_due, wait in await self._at(home, home.database.read(home.queue_scope, _due_of_each)):
                due, oldest = due + tenant_due, max(oldest, -wait)
        return Backlog(min(due, MOST_COUNTED), oldest)

    async def mail(self, worker: str) -> Sequence[tuple[str, str]]:
        box = sa.select(1).where(inbox.c.tenant == executions.c.tenant, inbox.c.execution == executions.c.id)
        wanted = sa.select(executions.c.tenant, executions.c.id).where(executions.c.worker == worker, box.exists())
        found: list[tuple[str, str]] = []
        for home in await self._places.homes():
            every = home.database.read(home.queue_scope, lambda connection: connection.execute(wanted).all())
            rows = await self._at(home, every)
            found += [(row.tenant, row.id) for row in rows]
        return sorted(found)

    async def due_schedules(self, limit: int = 100) -> Sequence[DueSchedule]:
        wanted = (
            sa.select(schedules.c.tenant, schedules.c.id, schedules.c.next_at)
            .where(schedules.c.enabled, schedules.c.next_at <= now())
            .order_by(schedules.c.next_at, schedules.c.tenant, schedules.c.id)
            .limit(limit)
        )
        found: list[DueSchedule] = []
        for home in await self._places.homes():
            every = home.database.read(home.queue_scope, lambda connection: connection.execute(wanted).all())
            rows = await self._at(home, every)
            found += [DueSchedule(row.tenant, row.id, row.next_at) for row in rows]
        return sorted(found, key=lambda item: (item.next_at, item.tenant, item.schedule_id))[:limit]

    async def wait_for_work(self, timeout: float) -> bool:
        with anyio.move_on_after(timeout) as scope:
            await self._bell.wait()
        return not scope.cancelled_caught


def _next_of_each(connection: Connection) -> list[tuple[str, float]]:
    """Tenant and seconds until its next entry is due, for those that have one: one look into an index for each tenant."""
    mine = (executions.c.tenant == owners.c.tenant, executions.c.wake_at.is_not(None))
    earliest = sa.select(sa.func.min(executions.c.wake_at)).where(*mine).scalar_subquery()
    found = sa.select(owners.c.tenant, earliest.label("at")).subquery()
    wanted = sa.select(found.c.tenant, (found.c.at - now()).label("wait")).where(found.c.at.is_not(None))
    return [(row.tenant, row.wait) for row in connection.execute(wanted)]


def _due_of_each(connection: Connection) -> list[tuple[int, float]]:
    """How many entries of a tenant are due, and seconds until the next one is, for those that have any."""
    mine = (executions.c.tenant == owners.c.tenant, executions.c.wake_at <= now())
    some = sa.select(executions.c.wake_at).where(*mine).correlate(owners).limit(MOST_COUNTED).subquery()
    count = sa.select(sa.func.count()).select_from(some).scalar_subquery()
    earliest = sa.select(sa.func.min(executions.c.wake_at)).where(*mine).scalar_subquery()
    found = sa.select(count.label("due"), earliest.label("at")).select_from(owners).subquery()
    wanted = sa.select(found.c.due, (found.c.at - now()).label("wait")).where(found.c.due > 0)
    return [(row.due, row.wait) for row in connection.execute(wanted)]


def _claimer(
    lines: Sequence[tuple[_Line, int]], worker: str, lease: float, suspects: bool
) -> Callable[[Connection], list[Claim]]:
    def work(connection: Connection) -> list[Claim]:
        by_index(connection)
        claims: list[Claim] = []
        for line, share in lines:
            claims += _claim_for(connection, line, share, worker, lease, suspects=suspects)
        return claims

    return work


def _claim_for(
    connection: Connection, line: _Line, share: int, worker: str, lease: float, *, suspects: bool
) -> list[Claim]:
    tenant = line.tenant
    room = share if line.most is None else min(share, _room(connection, tenant, line.most))
    if room <= 0:
        return []
    suspected = executions.c.claims.between(SUSPECT_CLAIMS, POISON_CLAIMS - 1)
    wanted = suspected if suspects else sa.not_(suspected)
    due = (
        sa.select(executions.c.id, executions.c.claims)
        .where(executions.c.tenant == tenant, executions.c.wake_at <= now(), wanted)
        .order_by(executions.c.wake_at, executions.c.id)
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(due).all()
    poison = [row.id for row in rows if row.claims >= POISON_CLAIMS]
    ids = [row.id for row in rows if row.claims < POISON_CLAIMS]
    if poison:
        values = {
            "status": "failed",
            "error_code": POISONED,
            "finished_at": now(),
            "fence": executions.c.fence + 1,
            "worker": None,
            "wake_at": None,
        }
        where = (executions.c.tenant == tenant, executions.c.id.in_(poison))
        connection.execute(sa.update(executions).where(*where).values(values))
    if not ids:
        # Nothing but poison: there may be more behind it.
        return _claim_for(connection, line, share, worker, lease, suspects=suspects) if poison else []
    taken = {
        "status": "running",
        "fence": executions.c.fence + 1,
        "claims": executions.c.claims + 1,
        "worker": worker,
        "wake_at": now() + lease,
    }
    where = (executions.c.tenant == tenant, executions.c.id.in_(ids))
    columns = [executions.c[name] for name in _CLAIM]
    made = connection.execute(sa.update(executions).where(*where).values(taken).returning(*columns)).all()
    order = {execution_id: number for number, execution_id in enumerate(ids)}
    return [
        Claim(tenant, row.id, row.workflow, row.version, worker, row.fence, row.seq, row.claims, row.wake_at)
        for row in sorted(made, key=lambda row: order[row.id])
    ]


_CLAIM = ("id", "workflow", "version", "fence", "seq", "claims", "wake_at")


def _room(connection: Connection, tenant: str, most: int) -> int:
    """How many more executions workers may hold for a tenant."""
    if connection.dialect.name == "postgresql":
        # Two workers that count at one time would both find room: one counts, the other passes by.
        lock = sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(f"orchestrator/{tenant}", 0))
        if not connection.execute(sa.select(lock)).scalar_one():
            return 0
    held = sa.select(sa.func.count()).where(
        executions.c.tenant == tenant, executions.c.worker.is_not(None), executions.c.wake_at > now()
    )
    return most - int(connection.execute(held).scalar_one())


async def _renewed(home: Home, claims: Sequence[Claim], lease: float) -> Sequence[Claim]:
    """Renew claims of one home."""
    held = await home.database.write(home.queue_scope, _renewer(claims, lease))
    # Those that are written just now are waited for one by one, with nothing else in hand: a group locks several.
    kept = {(claim.tenant, claim.execution_id) for claim in held}
    for claim in claims if len(claims) > 1 else ():
        if (claim.tenant, claim.execution_id) not in kept:
            held += await home.database.write(home.queue_scope, _renewer([claim], lease))
    return held


def _renewer(claims: Sequence[Claim], lease: float) -> Callable[[Connection], list[Claim]]:
    """Renew claims of one home, those of a tenant in one statement."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in sorted(claims, key=lambda claim: claim.execution_id):
        groups.setdefault((claim.tenant, claim.worker), []).append(claim)

    def work(connection: Connection) -> list[Claim]:
        held: list[Claim] = []
        for (tenant, worker), mine in groups.items():
            pairs = sa.tuple_(executions.c.id, executions.c.fence).in_([(c.execution_id, c.fence) for c in mine])
            found = sa.select(executions.c.id).where(
                executions.c.tenant == tenant, executions.c.worker == worker, pairs
            )
            free = found.with_for_update(skip_locked=len(mine) > 1, key_share=True)
            renewed = (
                sa.update(executions)
                .where(executions.c.tenant == tenant, executions.c.worker == worker, pairs)
                .where(executions.c.id.in_(connection.execute(free).scalars().all()))
                .values(wake_at=now() + lease)
                .returning(executions.c.id, executions.c.fence, executions.c.wake_at)
            )
            until = {(row.id, row.fence): row.wake_at for row in connection.execute(renewed)}
            held += [
                attrs.evolve(claim, lease_until=until[claim.execution_id, claim.fence])
                for claim in mine
                if (claim.execution_id, claim.fence) in until
            ]
        return held

    return work
