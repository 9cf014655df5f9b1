"""``orchestrator db``: the database's schema."""

from __future__ import annotations

from typing import Any

import click

from orchestrator_core.cli.text import say, say_json
from orchestrator_server.cli.database import check_there, check_writable, settings_of, where
from orchestrator_server.cli.output import as_json_option
from orchestrator_server.sql import migrations
from orchestrator_server.sql.backup import backup
from orchestrator_server.sql.storage import is_there

__all__ = ["db"]


@click.group()
def db() -> None:
    """Look after the database's schema."""


@db.command("upgrade")
@where
@as_json_option
def db_upgrade(*, as_json: bool, **options: Any) -> None:
    """Bring the database to the schema of this version. A database without one is given it."""
    settings = settings_of(options)
    check_writable(settings.database)
    before = migrations.current(settings.database)
    migrations.upgrade(settings.database)
    now = migrations.current(settings.database)
    if as_json:
        say_json({"before": before, "schema": now})
    else:
        say(f"the schema is {now} already" if before == now else f"the schema is {now} now")


@db.command("current")
@where
@as_json_option
def db_current(*, as_json: bool, **options: Any) -> None:
    """Show the schema that the database has, and the one that this version needs."""
    settings = settings_of(options)
    # A file that is not there would be made by looking into it.
    found, needed = migrations.current(settings.database) if is_there(settings.database) else None, migrations.head()
    if as_json:
        say_json({"schema": found, "needed": needed})
    else:
        say(f"the schema is {found or 'not there'}; this version needs {needed}")


@db.command("backup")
@click.argument("target", type=click.Path(dir_okay=False))
@where
@as_json_option
def db_backup(*, target: str, as_json: bool, **options: Any) -> None:
    """Copy a database of SQLite to the file TARGET while it is in use; the copy can be served as it is.

    The key that encrypts secrets is not in it: keep that apart.
    """
    database = settings_of(options).database
    check_there(database)
    made = backup(database, target)
    if as_json:
        say_json({"files": [str(path) for path in made]})
    else:
        say(f"{made[0]} is a copy of the database now, in {len(made)} file{'s' if len(made) > 1 else ''}")
