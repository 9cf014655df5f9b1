"""``orchestrator key``: credentials of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from orchestrator_core.cli.text import Problem, say, say_json
from orchestrator_core.codec import format_time, parse_duration
from orchestrator_core.types import Json
from orchestrator_server.auth import expiry, new_key
from orchestrator_server.cli.database import same_database, where, with_storage
from orchestrator_server.cli.output import as_json_option, show_rows
from orchestrator_server.errors import NotFound
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage

__all__ = ["key"]

Command = Callable[..., Any]

_ROLES = click.Choice(["viewer", "operator", "editor", "admin"])


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


def _whose(tenant_id: str | None, operator: bool) -> str | None:
    given = click.get_current_context().get_parameter_source("tenant_id")
    if operator and given is ParameterSource.ENVIRONMENT:
        return None  # who says --operator means it, whatever the environment is for
    if (tenant_id is None) == (not operator):
        raise Problem("orchestrator key: say either --tenant ID or --operator")
    return tenant_id


def _of_whom(command: Command) -> Command:
    command = click.option("--operator", is_flag=True, help="A key of the operator: for every tenant, and the server.")(
        command
    )
    return click.option(
        "--tenant",
        "tenant_id",
        metavar="ID",
        envvar="ORCHESTRATOR_TENANT",
        show_envvar=True,
        help="A key of this tenant.",
    )(command)


@key.command("create")
@_of_whom
@click.option(
    "--role",
    type=_ROLES,
    help="What its holder may do. [default: viewer; with --operator admin, as the first key of a server]",
)
@click.option("--name", default="", help="For people.")
@click.option("--expires", metavar="DURATION", help="How long it holds, as 90d. [default: until it is revoked]")
@where
@as_json_option
def key_create(
    *, tenant_id: str | None, operator: bool, role: Any, name: str, expires: str | None, as_json: bool, **options: Any
) -> None:
    """Make a key and print it: it is shown this once."""
    owner = _whose(tenant_id, operator)
    role = role or ("viewer" if owner is not None else "admin")
    try:
        seconds = None if expires is None else float(parse_duration(expires))
    except ValueError as error:
        raise Problem(f"orchestrator key create: --expires: {error}") from None

    async def work(storage: Storage, settings: Settings) -> tuple[str, str]:
        if owner is not None and await storage.tenants.get(owner) is None:
            meant = same_database(options, settings)
            raise NotFound(f"there is no tenant {owner!r} in this database: orchestrator tenant create {owner}{meant}")
        now = await storage.now()
        made, credential = new_key(owner, role, name=name, now=now, expires_at=expiry(now, seconds))
        await storage.keys.create(made)
        return made.id, credential

    key_id, credential = with_storage(options, work)
    if as_json:
        say_json({"id": key_id, "role": role, "tenant": owner, "credential": credential})
    else:
        say(credential)


@key.command("list")
@_of_whom
@where
@as_json_option
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
    show_rows(with_storage(options, work), columns, as_json=as_json, none="there are no keys")


@key.command("revoke")
@click.argument("key_id", metavar="ID")
@where
def key_revoke(*, key_id: str, **options: Any) -> None:
    """Revoke a key: everywhere within five seconds."""

    async def work(storage: Storage, _: Settings) -> None:
        await storage.keys.revoke(key_id, await storage.now())

    with_storage(options, work)
    say(f"key {key_id} is revoked")
