"""Commands that work on the database itself: the options that say which one, and opening it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from orchestrator_core.cli.text import complain
from orchestrator_core.types import Json
from orchestrator_server.errors import Invalid
from orchestrator_server.settings import ENVIRONMENT, Settings, load_settings, read_file
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.database import shown
from orchestrator_server.sql.storage import check_url, is_there
from orchestrator_server.storage import Storage

__all__ = ["check_there", "check_writable", "same_database", "settings_of", "where", "with_storage"]

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


def same_database(options: Mapping[str, Any], settings: Settings) -> str:
    """The words by which another command means the same database, for hints: ``""`` where it does so without any.

    In another terminal the variables that say it here may not be set.
    """
    usual: dict[str, Json] = {"database": Settings().database, "isolation": Settings().isolation}
    words: list[str] = []
    file = options["file"] or os.environ.get(f"{ENVIRONMENT}SETTINGS")
    if file:
        alone = {name: value for name, value in read_file(Path(file)).items() if name in usual}
        if not alone.items() <= usual.items():
            usual |= alone
            words += ["--settings", str(file)]
    if settings.database != usual["database"]:
        words += ["--database", shown(settings.database)]
    if settings.isolation != usual["isolation"]:
        words += ["--isolation", settings.isolation]
    return "".join(f" {shlex.quote(word)}" for word in words)


def check_there(database: str) -> None:
    """See to it that a file of SQLite is there: in a wrong folder, a new one would be empty, and nobody would know why.

    Raises:
        Invalid: It is not.
    """
    if not is_there(database):
        raise Invalid(f"there is no database {_file_of(database)}: go to the server's folder, or say --database")


def _file_of(database: str) -> str:
    """The file of a database of SQLite, and where it is."""
    file = Path(str(check_url(database).database))
    return str(file) if file.is_absolute() else f"{file} in {Path.cwd()}"


def check_writable(database: str) -> None:
    """See to it that a file of SQLite can be written, and its folder: its log stands beside it.

    Raises:
        Invalid: It cannot be.
    """
    address = check_url(database)
    if address.get_backend_name() != "sqlite":
        return
    file = Path(str(address.database))
    for what, path in (("the database", file), ("the folder of the database", file.absolute().parent)):
        if path.exists() and not os.access(path, os.W_OK):
            shown = _file_of(database) if path is file else path
            raise Invalid(f"{what}, {shown}, cannot be written by this user: see to its permissions, or say --database")


def with_storage(
    options: Mapping[str, Any], work: Callable[[Storage, Settings], Awaitable[Made]], *, make: bool = False
) -> Made:
    """Do something with the database, and close it. Only where it is to `make` one may a file not be there; it is told then."""
    settings = settings_of(options)
    if not make:
        check_there(settings.database)
    check_writable(settings.database)
    new = not is_there(settings.database)

    async def main() -> Made:
        storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
        if new:
            complain(f"orchestrator: there was no database {_file_of(settings.database)}: a new one was made")
        try:
            return await work(storage, settings)
        finally:
            await storage.aclose()

    return anyio.run(main)
