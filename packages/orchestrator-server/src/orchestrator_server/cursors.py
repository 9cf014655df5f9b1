"""Queries for executions: checked, and the cursor that leads from one page to the next."""

from __future__ import annotations

import base64
import binascii
import json
import math

from orchestrator_server.errors import Invalid
from orchestrator_server.records import ExecutionQuery, ExecutionRow, check_execution_id

__all__ = ["MAX_PAGE", "cursor_of", "place_of"]

MAX_PAGE = 500
_SORTS = ("created_at", "-created_at", "finished_at", "-finished_at")
_STATUSES = frozenset(["running", "waiting", "succeeded", "failed", "cancelled"])


def cursor_of(query: ExecutionQuery, last: ExecutionRow) -> str:
    """The cursor for what follows a row."""
    at = last.created_at if query.sort.endswith("created_at") else last.finished_at
    return base64.urlsafe_b64encode(json.dumps([query.sort, at, last.id]).encode()).decode().rstrip("=")


def place_of(query: ExecutionQuery) -> tuple[float, str] | None:
    """Check a query. Returns the time and id after which it goes on, where it has a cursor.

    Raises:
        Invalid: The query asks for what is not offered, or its cursor was made for another sort.
    """
    if query.sort not in _SORTS:
        raise Invalid(f"sort: {query.sort!r} is not offered; there is {', '.join(_SORTS)}")
    unknown = set(query.statuses) - _STATUSES
    if unknown:
        raise Invalid(f"status: {min(unknown)!r} is none; there is {', '.join(sorted(_STATUSES))}")
    if not 1 <= query.limit <= MAX_PAGE:
        raise Invalid(f"limit: 1 to {MAX_PAGE}")
    if query.after is None:
        return None
    try:
        padded = query.after + "=" * (-len(query.after) % 4)
        sort, at, execution_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        at = float(at) if isinstance(at, int | float) else float("nan")
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise Invalid("cursor: it is none of ours; begin again without one") from None
    if not math.isfinite(at) or not isinstance(execution_id, str):
        raise Invalid("cursor: it is none of ours; begin again without one")
    if sort != query.sort:
        raise Invalid(f"cursor: it was made for sort={sort}; begin again without one")
    return at, check_execution_id(execution_id)
