"""A copy of an embedded database while it is in use: the system's file, and those of tenants that have one each."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL

from orchestrator_server.errors import Exists, Invalid, Unavailable
from orchestrator_server.sql.database import make_private
from orchestrator_server.sql.places import database_of, folder_of
from orchestrator_server.sql.storage import check_url

__all__ = ["backup"]

_BUSY = 30.0  # seconds that somebody else may keep the database locked


def backup(url: str, target: str | Path) -> list[Path]:
    """Copy a database of SQLite, with all that was committed when this began. Others go on writing meanwhile.

    The copy is a database like the one it was made from: it can be served as it is. It is there as a whole or not at all, and
    nobody else may read it. Keys that encrypt secrets are not in it.

    Args:
        url: The database.
        target: The file to be made; tenants with a file each have theirs in the folder ``TARGET.tenants``.

    Returns:
        The files that were made.

    Raises:
        Exists: The target is there already.
        Invalid: The database is none of SQLite's or none of ours, or the target cannot be written.
        Unavailable: Somebody keeps the database locked.
    """
    system = check_url(url)
    if system.get_backend_name() != "sqlite":
        raise Invalid("database: only SQLite is copied here; PostgreSQL has pg_dump, see the documentation")
    whole = Path(target)
    folder = folder_of(system.set(database=str(whole)))
    for path in (whole, folder):
        if path.exists():
            raise Exists(f"{path} is there already: a backup is made anew, never over another one")
    if not whole.parent.is_dir():
        raise Invalid(f"{whole.parent}: there is no such folder")
    part = system.set(database=f"{whole}.part")
    try:
        made = _copy_all(system, part)
        if made:
            folder_of(part).rename(folder)
        Path(f"{whole}.part").rename(whole)
        _sync(whole.parent)
    except OSError as error:
        raise Invalid(f"{whole}: cannot be written: {error.strerror or error}") from None
    finally:
        Path(f"{whole}.part").unlink(missing_ok=True)
        shutil.rmtree(folder_of(part), ignore_errors=True)
    return [whole, *(folder / name for name in made)]


def _copy_all(system: URL, part: URL) -> list[str]:
    """Copy every file. Returns the names of those of tenants."""
    _copy(str(system.database), str(part.database))
    made: list[str] = []
    with _opened(str(part.database)) as copy:
        rows = copy.execute("SELECT value FROM properties WHERE name = 'isolation'").fetchall()
        if rows != [("database",)]:
            return made
        # The system's file was first: each tenant that it knows was there. One that was deleted since has no file any more.
        folder_of(part).mkdir(mode=0o700)
        for (tenant_id,) in copy.execute("SELECT id FROM tenants ORDER BY id").fetchall():
            source, into = (Path(str(database_of(one, tenant_id).database)) for one in (system, part))
            try:
                _copy(str(source), str(into))
            except Invalid:
                if source.exists():
                    raise
                into.unlink(missing_ok=True)
                copy.execute("DELETE FROM keys WHERE tenant = ?", (tenant_id,))
                copy.execute("DELETE FROM tenants WHERE id = ?", (tenant_id,))
                copy.commit()
            else:
                made.append(source.name)
    _sync(folder_of(part))
    return made


def _copy(source: str, into: str) -> None:
    """Copy one file in one read transaction: a state that was committed as a whole."""
    if not Path(source).exists():
        raise Invalid(f"{source}: there is no such database")
    make_private(into)
    try:
        with _opened(source) as read, _opened(into) as written:
            if not read.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall():
                raise Invalid(f"{source}: this is no database of orchestrator")
            read.backup(written)
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{source}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Invalid(f"{source}: {error}") from error
    _sync(Path(into))


@contextlib.contextmanager
def _opened(file: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, timeout=_BUSY)
    try:
        yield connection
    finally:
        connection.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
