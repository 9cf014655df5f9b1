"""The files of tenants on SQLite: how they are emptied, and removed when nobody has them open any more.

A file must not go while another process has it open: that process would write into a file that nobody sees, and when it closes
it, take away the log of the file that has the name by then. So a file is emptied first, under SQLite's locks, which is seen by
everybody at once.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Final

from orchestrator_server.sql.faults import translate

__all__ = ["empty", "remove"]

_LOG = logging.getLogger(__name__)
_BUSY: Final = 10.0  # seconds that another process may keep it locked
_PATIENCE: Final = 10.0  # seconds until other processes have let go of it: they look at least once a second
_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def empty(path: Path) -> None:
    """Take everything out of a file, in one transaction.

    Raises:
        Unavailable: It is locked.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for (name,) in connection.execute(_TABLES).fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translate(error) from error


def remove(path: Path) -> None:
    """Remove an empty file. It stays where a tenant has moved in again, or where another process does not let go of it."""
    give_up = time.monotonic() + _PATIENCE
    while path.exists() and not _removed(path):
        if time.monotonic() > give_up:
            _LOG.warning("%s is empty, and stays: another process has it open", path.name)
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("VACUUM")
            return
        time.sleep(0.05)


def _removed(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
        try:
            # Both are only for whoever is alone with it. The first removes the log, too.
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            if connection.execute(_TABLES).fetchone() is None:
                path.unlink()
        except sqlite3.OperationalError:
            return False
    return True
