"""``orchestrator tenant``: who uses the server."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator_core.cli.text import Problem, say, say_json
from orchestrator_core.codec import format_time
from orchestrator_core.types import Json
from orchestrator_server.cli.database import same_database, where, with_storage
from orchestrator_server.cli.output import as_json_option, show_rows
from orchestrator_server.records import Limits, Tenant
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage, every_tenant

__all__ = ["tenant"]


@click.group()
def tenant() -> None:
    """Make, list and delete tenants."""


@tenant.command("create")
@click.argument("tenant_id", metavar="ID")
@click.option("--name", default="", help="For people.")
@click.option("--running", type=click.IntRange(min=1), help="Executions that are worked on at one time, at most.")
@click.option("--queued", type=click.IntRange(min=1), help="Executions that have not ended, at most.")
@click.option("--storage", type=click.IntRange(min=1), metavar="BYTES", help="Bytes that are kept, at most.")
@where
@as_json_option
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
    limits = Limits(running, queued, storage)

    async def work(opened: Storage, settings: Settings) -> tuple[Tenant, str]:
        return await opened.tenants.create(Tenant(tenant_id, name, limits)), same_database(options, settings)

    made, meant = with_storage(options, work, make=True)
    if as_json:
        say_json({"id": made.id, "name": made.name, "created_at": format_time(made.created_at)})
    else:
        first = f"orchestrator key create --tenant {made.id} --role admin{meant}"
        say(f"tenant {made.id} is there now; its first key: {first}")


@tenant.command("list")
@where
@as_json_option
def tenant_list(*, as_json: bool, **options: Any) -> None:
    """List the tenants."""

    async def work(storage: Storage, _: Settings) -> list[dict[str, Json]]:
        return [
            {"id": found.id, "name": found.name, "created_at": format_time(found.created_at)}
            async for found in every_tenant(storage)
        ]

    show_rows(with_storage(options, work), ("id", "name", "created_at"), as_json=as_json, none="there are no tenants")


@tenant.command("delete")
@click.argument("tenant_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@where
def tenant_delete(*, tenant_id: str, yes: bool, **options: Any) -> None:
    """Delete a tenant and everything it has: workflows, executions, secrets, keys."""
    if not yes:
        if not sys.stdin.isatty():
            raise Problem(f"orchestrator tenant delete: there is nobody to ask: say --yes to delete {tenant_id}")
        click.confirm(f"delete tenant {tenant_id} and everything it has?", abort=True)

    async def work(storage: Storage, _: Settings) -> None:
        await storage.tenants.delete(tenant_id)

    with_storage(options, work)
    say(f"tenant {tenant_id} is gone")
