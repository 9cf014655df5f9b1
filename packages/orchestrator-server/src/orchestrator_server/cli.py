"""The server's commands: a plugin of the command line.

Each command reads what it needs when it is called: every engine loads this plugin, and need not load a server for it.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator_core import hookimpl
from orchestrator_core.cli.text import Problem, say, say_json, table, width_of
from orchestrator_core.codec import format_time
from orchestrator_core.types import Json

if TYPE_CHECKING:
    from orchestrator_server.app import Parts
    from orchestrator_server.settings import Settings
    from orchestrator_server.storage import Storage

__all__ = ["register_commands"]

Made = TypeVar("Made")
Command = Callable[..., Any]

_ROLES = click.Choice(["viewer", "operator", "editor", "admin"])


# --- what commands share ----------------------------------------------------------------------------------------------


def _where(command: Command) -> Command:
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


def _as_json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _metrics_port(command: Command) -> Command:
    what = "A port where /metrics, /health and /ready are answered. [default: none]"
    return click.option("--metrics-port", type=int, help=what)(command)


def _settings(options: Mapping[str, Any], **more: Json) -> Settings:
    from orchestrator_server.settings import load_settings

    given = {"database": options["database"], "isolation": options["isolation"], **more}
    return load_settings(os.environ, file=options["file"], options=given)


def _with_storage(options: Mapping[str, Any], work: Callable[[Storage, Settings], Awaitable[Made]]) -> Made:
    """Do something with the database, and close it."""
    import anyio

    settings = _settings(options)

    async def main() -> Made:
        from orchestrator_server.sql import SqlStorage

        storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
        try:
            return await work(storage, settings)
        finally:
            await storage.aclose()

    return anyio.run(main)


def _show(rows: list[dict[str, Json]], columns: tuple[str, ...], *, as_json: bool, none: str) -> None:
    """A list, for people or for programs."""
    if as_json:
        say_json(rows)
        return
    if not rows:
        say(none)
        return
    lines = [columns, *(tuple("" if row[name] is None else str(row[name]) for name in columns) for row in rows)]
    for line in table(lines, width=width_of(sys.stdout), indent=""):
        say(line)


# --- serve, worker, scheduler -----------------------------------------------------------------------------------------


@click.command(short_help="Serve the API, drive executions and start what is scheduled.")
@_where
@click.option("--host", help="The address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port. [default: 8080]")
@click.option("--no-worker", is_flag=True, help="Only accept executions: `orchestrator worker` drives them.")
@click.option("--no-scheduler", is_flag=True, help="Start nothing by schedule: `orchestrator scheduler` does.")
def serve(*, no_worker: bool, no_scheduler: bool, **options: Any) -> None:
    """Serve the API. In the same process executions are driven and schedules started, unless said otherwise.

    Without --database everything is kept in the file orchestrator.db, which is made when it is not there, and so is the key
    that encrypts secrets. At the first start an operator's API key is made and printed, once.
    """
    import anyio

    from orchestrator_server import logs
    from orchestrator_server.api.serving import make_server
    from orchestrator_server.app import create_app
    from orchestrator_server.sql.database import shown

    settings = _settings(options, host=options["host"], port=options["port"])
    logs.configure(settings)
    credential = anyio.run(_first_key, settings)
    if credential is not None:
        say("The first key of the operator, shown this once:")
        say(f"  {credential}")
    server = make_server(create_app(settings, work=not no_worker, schedule=not no_scheduler), settings)
    say(f"orchestrator: http://{settings.host}:{settings.port}/api/v1 (database {shown(settings.database)})")
    sys.stdout.flush()
    server.run()
    if not server.started:
        raise Problem("orchestrator serve: it could not begin: see the lines above", exit_code=1)


async def _first_key(settings: Settings) -> str | None:
    """A key for the operator, where there is none yet."""
    from orchestrator_server.auth import new_key
    from orchestrator_server.sql import SqlStorage

    settings.key_ring(make=True)
    settings.jwt_settings()
    storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
    try:
        if await storage.keys.list(None):
            return None
        key, credential = new_key(None, "admin", name="first", now=await storage.now())
        await storage.keys.create(key)
        return credential
    finally:
        await storage.aclose()


@click.command(short_help="Drive executions, beside a server on the same database.")
@_where
@click.option("--concurrency", type=int, help="Executions at one time. [default: 100]")
@_metrics_port
def worker(**options: Any) -> None:
    """Drive executions until it is asked to end (SIGTERM or Ctrl-C); what it held goes back to the queue then."""
    settings = _settings(options, concurrency=options["concurrency"], metrics_port=options["metrics_port"])
    _run_parts(settings, lambda parts: (parts.worker.run, parts.worker.stop))


@click.command(short_help="Start what is scheduled, beside a server on the same database.")
@_where
@_metrics_port
def scheduler(**options: Any) -> None:
    """Start executions by schedule until it is asked to end. Of several, each slot is started by one."""
    settings = _settings(options, metrics_port=options["metrics_port"])
    _run_parts(settings, lambda parts: (parts.scheduler.run, parts.scheduler.stop))


Runnable = tuple[Callable[[], Awaitable[None]], Callable[[], None]]


def _run_parts(settings: Settings, choose: Callable[[Parts], Runnable]) -> None:
    import anyio

    from orchestrator_server import logs

    logs.configure(settings)

    async def main() -> None:
        from orchestrator_server.api.serving import make_monitor
        from orchestrator_server.app import open_parts
        from orchestrator_server.sql.database import shown

        async with open_parts(settings) as parts, anyio.create_task_group() as group:
            run, stop = choose(parts)
            monitor = make_monitor(parts)
            if settings.metrics_port:
                group.start_soon(monitor.serve)

            def end() -> None:
                monitor.should_exit = True
                stop()

            group.start_soon(_until_asked, end, group.cancel_scope)
            say(f"orchestrator: at work (database {shown(settings.database)})")
            sys.stdout.flush()
            await run()
            group.cancel_scope.cancel()

    anyio.run(main)


async def _until_asked(stop: Callable[[], None], scope: Any) -> None:
    """Ask for the end on the first signal; a second one does not wait for it."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        count = 0
        async for _ in signals:
            count += 1
            if count > 1:
                scope.cancel()
            stop()


# --- db ---------------------------------------------------------------------------------------------------------------


@click.group(short_help="Look after the database.")
def db() -> None:
    """Look after the database's schema."""


@db.command("upgrade")
@_where
@_as_json
def db_upgrade(*, as_json: bool, **options: Any) -> None:
    """Bring the database to the schema of this version. A database without one is given it."""
    from orchestrator_server.sql import migrations

    settings = _settings(options)
    before = migrations.current(settings.database)
    migrations.upgrade(settings.database)
    now = migrations.current(settings.database)
    if as_json:
        say_json({"before": before, "schema": now})
    else:
        say(f"the schema is {now} already" if before == now else f"the schema is {now} now")


@db.command("current")
@_where
@_as_json
def db_current(*, as_json: bool, **options: Any) -> None:
    """Show the schema that the database has, and the one that this version needs."""
    from orchestrator_server.sql import migrations

    settings = _settings(options)
    found, needed = migrations.current(settings.database), migrations.head()
    if as_json:
        say_json({"schema": found, "needed": needed})
    else:
        say(f"the schema is {found or 'not there'}; this version needs {needed}")


@db.command("backup")
@click.argument("target", type=click.Path(dir_okay=False))
@_where
@_as_json
def db_backup(*, target: str, as_json: bool, **options: Any) -> None:
    """Copy a database of SQLite to the file TARGET while it is in use; the copy can be served as it is.

    The key that encrypts secrets is not in it: keep that apart.
    """
    from orchestrator_server.sql.backup import backup

    made = backup(_settings(options).database, target)
    if as_json:
        say_json({"files": [str(path) for path in made]})
    else:
        say(f"{made[0]} is a copy of the database now, in {len(made)} file{'s' if len(made) > 1 else ''}")


# --- tenant -----------------------------------------------------------------------------------------------------------


@click.group(short_help="Make, list and delete tenants.")
def tenant() -> None:
    """Make, list and delete tenants."""


@tenant.command("create")
@click.argument("tenant_id", metavar="ID")
@click.option("--name", default="", help="For people.")
@click.option("--running", type=click.IntRange(min=1), help="Executions that are worked on at one time, at most.")
@click.option("--queued", type=click.IntRange(min=1), help="Executions that have not ended, at most.")
@click.option("--storage", type=click.IntRange(min=1), metavar="BYTES", help="Bytes that are kept, at most.")
@_where
@_as_json
def tenant_create(
    *,
    tenant_id: str,
    name: str,
    running: int | None,
    queued: int | None,
    storage: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a tenant."""
    from orchestrator_server.records import Limits, Tenant

    limits = Limits(running, queued, storage)

    async def work(opened: Storage, _: Settings) -> Tenant:
        return await opened.tenants.create(Tenant(tenant_id, name, limits))

    made = _with_storage(options, work)
    if as_json:
        say_json({"id": made.id, "name": made.name, "created_at": format_time(made.created_at)})
    else:
        say(f"tenant {made.id} is there now; its first key: orchestrator key create --tenant {made.id} --role admin")


@tenant.command("list")
@_where
@_as_json
def tenant_list(*, as_json: bool, **options: Any) -> None:
    """List the tenants."""

    async def work(storage: Storage, _: Settings) -> list[dict[str, Json]]:
        rows: list[dict[str, Json]] = []
        after = ""
        while page := await storage.tenants.list(after=after):
            rows += [{"id": t.id, "name": t.name, "created_at": format_time(t.created_at)} for t in page]
            after = page[-1].id
        return rows

    _show(_with_storage(options, work), ("id", "name", "created_at"), as_json=as_json, none="there are no tenants")


@tenant.command("delete")
@click.argument("tenant_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_where
def tenant_delete(*, tenant_id: str, yes: bool, **options: Any) -> None:
    """Delete a tenant and everything it has: workflows, executions, secrets, keys."""
    if not yes:
        click.confirm(f"delete tenant {tenant_id} and everything it has?", abort=True)

    async def work(storage: Storage, _: Settings) -> None:
        await storage.tenants.delete(tenant_id)

    _with_storage(options, work)
    say(f"tenant {tenant_id} is gone")


# --- key --------------------------------------------------------------------------------------------------------------


@click.group(short_help="Make, list and revoke API keys.")
def key() -> None:
    """Make, list and revoke API keys."""


def _whose(tenant_id: str | None, operator: bool) -> str | None:
    if (tenant_id is None) == (not operator):
        raise Problem("orchestrator key: say either --tenant ID or --operator")
    return tenant_id


def _of_whom(command: Command) -> Command:
    command = click.option("--operator", is_flag=True, help="A key of the operator: for every tenant, and the server.")(
        command
    )
    return click.option("--tenant", "tenant_id", metavar="ID", help="A key of this tenant.")(command)


@key.command("create")
@_of_whom
@click.option("--role", type=_ROLES, default="viewer", show_default=True, help="What its holder may do.")
@click.option("--name", default="", help="For people.")
@click.option("--expires", metavar="DURATION", help="How long it holds, as 90d. [default: until it is revoked]")
@_where
@_as_json
def key_create(
    *, tenant_id: str | None, operator: bool, role: Any, name: str, expires: str | None, as_json: bool, **options: Any
) -> None:
    """Make a key and print it: it is shown this once."""
    from orchestrator_core.codec import parse_duration
    from orchestrator_server.auth import new_key

    owner = _whose(tenant_id, operator)
    try:
        seconds = None if expires is None else float(parse_duration(expires))
    except ValueError as error:
        raise Problem(f"orchestrator key create: --expires: {error}") from None

    async def work(storage: Storage, _: Settings) -> tuple[str, str]:
        now = await storage.now()
        made, credential = new_key(
            owner, role, name=name, now=now, expires_at=None if seconds is None else now + seconds
        )
        await storage.keys.create(made)
        return made.id, credential

    key_id, credential = _with_storage(options, work)
    if as_json:
        say_json({"id": key_id, "role": role, "tenant": owner, "credential": credential})
    else:
        say(credential)


@key.command("list")
@_of_whom
@_where
@_as_json
def key_list(*, tenant_id: str | None, operator: bool, as_json: bool, **options: Any) -> None:
    """List keys, without their secrets."""
    owner = _whose(tenant_id, operator)

    async def work(storage: Storage, _: Settings) -> list[dict[str, Json]]:
        return [
            {
                "id": k.id,
                "role": k.role,
                "name": k.name,
                "created_at": format_time(k.created_at),
                "expires_at": format_time(k.expires_at),
                "revoked_at": format_time(k.revoked_at),
            }
            for k in await storage.keys.list(owner)
        ]

    columns = ("id", "role", "name", "created_at", "expires_at", "revoked_at")
    _show(_with_storage(options, work), columns, as_json=as_json, none="there are no keys")


@key.command("revoke")
@click.argument("key_id", metavar="ID")
@_where
def key_revoke(*, key_id: str, **options: Any) -> None:
    """Revoke a key: everywhere within five seconds."""

    async def work(storage: Storage, _: Settings) -> None:
        await storage.keys.revoke(key_id, await storage.now())

    _with_storage(options, work)
    say(f"key {key_id} is revoked")


# --- secret -----------------------------------------------------------------------------------------------------------


@click.group(short_help="Set, list and remove secrets.")
def secret() -> None:
    """Set, list and remove the secrets of a tenant."""


_tenant_option = click.option("--tenant", "tenant_id", metavar="ID", required=True, help="Whose.")


@secret.command("set")
@click.argument("name")
@_tenant_option
@click.option(
    "--from", "source", metavar="@env:NAME|@file:PATH", help="Where the value stands. [default: standard input]"
)
@_where
@_as_json
def secret_set(*, name: str, tenant_id: str, source: str | None, as_json: bool, **options: Any) -> None:
    """Set a secret. Its value is never written on the command line."""
    from orchestrator_core.errors import Conflict
    from orchestrator_server.sealing import Sealer

    value = _value_from(source)

    async def work(storage: Storage, settings: Settings) -> int:
        ring = settings.key_ring(make=True)
        sealer = Sealer(ring.keys, ring.current)
        store = await storage.store(tenant_id)
        for _ in range(5):
            known = await store.secrets.get(name)
            version = known.version + 1 if known is not None else 1
            try:
                await store.secrets.put(sealer.seal(tenant_id, name, version, value))
            except Conflict:
                continue
            return version
        raise Problem(f"orchestrator secret set: {name} is being set by others: try again", exit_code=1)

    version = _with_storage(options, work)
    if as_json:
        say_json({"name": name, "version": version})
    else:
        say(f"secret {name} of tenant {tenant_id}: version {version}")


def _value_from(source: str | None) -> str:
    if source is None:
        value = click.prompt("value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    else:
        kind, _, what = source.partition(":")
        if kind == "@env" and what in os.environ:
            value = os.environ[what]
        elif kind == "@file" and what:
            value = Path(what).read_text(encoding="utf-8").removesuffix("\n")
        else:
            raise Problem(
                f"orchestrator secret set: --from {source}: write @env:NAME, of a variable that is set, or @file:PATH"
            )
    if not value:
        raise Problem("orchestrator secret set: the value is empty")
    return str(value)


@secret.command("list")
@_tenant_option
@_where
@_as_json
def secret_list(*, tenant_id: str, as_json: bool, **options: Any) -> None:
    """List the names of secrets. What they say is shown to nobody."""

    async def work(storage: Storage, _: Settings) -> list[dict[str, Json]]:
        store = await storage.store(tenant_id)
        return [
            {"name": s.name, "version": s.version, "key": s.key_id, "updated_at": format_time(s.updated_at)}
            for s in await store.secrets.list()
        ]

    columns = ("name", "version", "key", "updated_at")
    _show(_with_storage(options, work), columns, as_json=as_json, none="there are no secrets")


@secret.command("delete")
@click.argument("name")
@_tenant_option
@_where
def secret_delete(*, name: str, tenant_id: str, **options: Any) -> None:
    """Remove a secret."""

    async def work(storage: Storage, _: Settings) -> bool:
        return await (await storage.store(tenant_id)).secrets.delete(name)

    if not _with_storage(options, work):
        raise Problem(f"orchestrator secret delete: tenant {tenant_id} has no secret {name!r}")
    say(f"secret {name} of tenant {tenant_id} is gone")


@secret.command("new-key")
@click.option("--id", "key_id", default="k1", show_default=True, help="Its id: another one for each key.")
def secret_new_key(*, key_id: str) -> None:
    """Print a new key for encrypting secrets, as ORCHESTRATOR_SECRET_KEYS and the key file have it."""
    from orchestrator_server.sealing import new_key

    say(new_key(key_id))


@secret.command("rotate")
@_where
@_as_json
def secret_rotate(*, as_json: bool, **options: Any) -> None:
    """Encrypt the secrets of all tenants with the first key of the settings. It may be stopped and begun again."""
    from orchestrator_server.sealing import Sealer, rotate

    async def work(storage: Storage, settings: Settings) -> int:
        ring = settings.key_ring()
        sealer = Sealer(ring.keys, ring.current)
        changed, after = 0, ""
        while page := await storage.tenants.list(after=after):
            for found in page:
                changed += await rotate(sealer, found.id, (await storage.store(found.id)).secrets)
            after = page[-1].id
        return changed

    changed = _with_storage(options, work)
    if as_json:
        say_json({"changed": changed})
    else:
        say(f"{changed} secrets were encrypted anew")


# --- the plugin -------------------------------------------------------------------------------------------------------


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the server's commands."""
    for command in (serve, worker, scheduler, db, tenant, key, secret):
        cli.add_command(command)
