"""Commands that work on the database itself: the options that say which one, and opening it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from orchestrator_core.types import Json
from orchestrator_server.errors import Invalid
from orchestrator_server.settings import Settings, load_settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.storage import check_url
from orchestrator_server.storage import Storage

__all__ = ["check_there", "is_there", "settings_of", "where", "with_storage"]

Made = TypeVar("Made")
Command = Callable[..., Any]


def where(command: Command) -> Command:
    """The options that say which database and settings are meant."""
    for option in (
        click.option(
            "--isolation", type=click.Choice(["shared", "schema", "database"]), help="How tenants are kept apart."
        ),
        click.option("--database", metavar="URL", help="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."),
        click.option("--settings", "file", metavar="FILE", type=click.Path(dir_okay=False), help="A TOML file."),
    ):
        command = option(command)
    return command


def settings_of(options: Mapping[str, Any], **more: Json) -> Settings:
    """The settings, as the options, the environment and the file say."""
    given = {"database": options["database"], "isolation": options["isolation"], **more}
    return load_settings(os.environ, file=options["file"], options=given)


def check_there(database: str) -> None:
    """See to it that a file of SQLite is there: in a wrong folder, a new one would be empty, and nobody would know why.

    Raises:
        Invalid: It is not.
    """
    if not is_there(database):
        file = Path(str(check_url(database).database))
        where = "" if file.is_absolute() else f" in {Path.cwd()}"
        raise Invalid(f"there is no database {file}{where}: go to the server's folder, or say --database")


def is_there(database: str) -> bool:
    """Whether the file of a database of SQLite is there; of another nobody knows before it is asked."""
    address = check_url(database)
    return address.get_backend_name() != "sqlite" or Path(str(address.database)).exists()


def with_storage(
    options: Mapping[str, Any], work: Callable[[Storage, Settings], Awaitable[Made]], *, make: bool = False
) -> Made:
    """Do something with the database, and close it. Only where it is to `make` one may a file not be there."""
    settings = settings_of(options)
    if not make:
        check_there(settings.database)

    async def main() -> Made:
        storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
        try:
            return await work(storage, settings)
        finally:
            await storage.aclose()

    return anyio.run(main)
