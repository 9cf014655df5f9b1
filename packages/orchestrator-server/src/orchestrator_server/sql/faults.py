"""Errors of the database in the words of the store."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc

from orchestrator_core.errors import OrchestratorError
from orchestrator_server.errors import Invalid, NotFound, Unavailable

__all__ = ["lost", "translate", "translated"]

# Classes of SQLSTATE: connection, rollback by the server, resources, object state, operator, system.
_PASSING = frozenset(["08", "40", "53", "55", "57", "58"])
_SLEPT = "25P03"  # the server ended a session that did nothing in a transaction: this process was stopped, and woken


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what :func:`translate` makes of an error."""
    try:
        yield
    except (exc.SQLAlchemyError, UnicodeEncodeError) as error:
        told = translate(error)
        if told is error:
            raise
        raise told from error


def translate(error: BaseException) -> BaseException:
    """An error of the database in the words of the store; what is no such error is passed on."""
    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, UnicodeEncodeError):
        return Invalid("a text holds half of a surrogate pair, which is no character")
    if isinstance(error, exc.TimeoutError):
        return Unavailable("every connection to the database is busy: ask again")
    original = _original(error)
    state, kind = _state(original), type(original).__name__
    if state in {"42P01", "3F000", "3D000"} or "no such table" in str(original):
        return NotFound("there is no such tenant any more")
    if state == "23503" or "FOREIGN KEY constraint failed" in str(original):
        return NotFound("there is no such tenant")
    if "file is not a database" in str(original):
        return Invalid("database: this file is none of SQLite's: say which one is meant")
    if "malformed" in str(original):
        return Unavailable("the database is damaged: stop the server and restore a backup")
    if lost(error) or isinstance(original, sqlite3.OperationalError):
        return Unavailable(f"the database does not answer: {_first_line(original)}")
    if kind == "DataError":
        return Invalid(f"the database cannot hold this: {_first_line(original)}")
    return error


def lost(error: BaseException) -> bool:
    """Whether the database was not there, or busy: trying again may help."""
    original = _original(error)
    text = str(original)
    if isinstance(original, sqlite3.Error):
        return "database is locked" in text or "database is busy" in text
    state = _state(original)
    return (
        state == _SLEPT
        or state[:2] in _PASSING
        or (not state and type(original).__name__ in {"OperationalError", "InterfaceError"})
    )


def _original(error: BaseException) -> Any:
    return error.orig if isinstance(error, exc.DBAPIError) else error


def _state(original: Any) -> str:
    return getattr(original, "sqlstate", None) or ""


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]
