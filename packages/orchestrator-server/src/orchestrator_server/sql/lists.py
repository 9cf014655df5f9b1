"""Pages of executions: as text, because a page names its index.

Each is one stretch of an index, at any depth and under every filter. Databases do not find that by themselves: without
statistics SQLite takes two bounds of a range for better than one more column that is equal, and reads a whole table to find
the few of a rare status.
"""

from __future__ import annotations

from typing import Any

import attrs
import sqlalchemy as sa

from orchestrator_server.records import ExecutionQuery, ExecutionRow
from orchestrator_server.sql.tables import executions, list_index

__all__ = ["page_of"]

_UNFINISHED = ("running", "waiting")
_COLUMNS = [executions.c[field.name] for field in attrs.fields(ExecutionRow)]
_NAMES = ", ".join(column.name for column in _COLUMNS)


def page_of(tenant: str, query: ExecutionQuery, place: tuple[float, str] | None, *, sqlite: bool) -> Any:
    """The statement for a page and one row more. ``None``: there is nothing in it.

    Args:
        tenant: Whose.
        query: A query that was checked.
        place: Time and id after which the page begins.
        sqlite: Whether it is for SQLite.
    """
    at = query.sort.removeprefix("-")
    statuses: list[str | None] = sorted({*query.statuses}) or [None]  # type: ignore[assignment]  # wider
    if at == "finished_at":
        statuses = [status for status in statuses if status not in _UNFINISHED]  # none of them has that time
    if not statuses:
        return None
    conditions, values = _conditions(query, place)
    index = list_index(at, workflow=query.workflow is not None, status=statuses != [None])
    down = " DESC" if query.sort.startswith("-") else ""
    order = f"ORDER BY {at}{down}, id{down} LIMIT :more"
    stretches: list[str] = []
    for number, status in enumerate(statuses):
        wanted = list(conditions)
        if status is not None:
            wanted.append(f"status = :status{number}")
            values[f"status{number}"] = status
        hint = f"INDEXED BY {index} " if sqlite else ""
        stretches.append(f"SELECT {_NAMES} FROM executions {hint}WHERE {' AND '.join(wanted)}")  # noqa: S608 - constants
    if len(stretches) > 1 and not sqlite:
        # PostgreSQL merges what is in order already; SQLite, which takes no order here, sees that by itself.
        stretches = [f"({stretch} {order})" for stretch in stretches]
    # Merged as they are read, in one statement: an execution that goes from one status to the next meanwhile is there once.
    text = sa.text(f"{' UNION ALL '.join(stretches)} {order}")
    return text.bindparams(tenant=tenant, more=query.limit + 1, **values).columns(*_COLUMNS)


def _conditions(query: ExecutionQuery, place: tuple[float, str] | None) -> tuple[list[str], dict[str, Any]]:
    """What holds for every status, with the values.

    There is one bound at either end: of two, a database may begin at the wider one and walk to the place, however far that is.
    """
    at, down = query.sort.removeprefix("-"), query.sort.startswith("-")
    since, before = query.since, query.before
    if place is not None:
        end = before if down else since
        if end is not None and (place[0] >= end if down else place[0] < end):
            place = None
        elif down:
            before = None
        else:
            since = None
    given: list[tuple[str, dict[str, Any]]] = [("tenant = :tenant", {})]
    if at == "finished_at":
        given.append(("finished_at IS NOT NULL", {}))
    if query.workflow is not None:
        given.append(("workflow = :workflow", {"workflow": query.workflow}))
    if since is not None:
        given.append((f"{at} >= :since", {"since": since}))
    if before is not None:
        given.append((f"{at} < :before", {"before": before}))
    if place is not None:
        given.append((f"({at}, id) {'<' if down else '>'} (:at, :id)", {"at": place[0], "id": place[1]}))
    values: dict[str, Any] = {}
    for _, named in given:
        values |= named
    return [condition for condition, _ in given], values
