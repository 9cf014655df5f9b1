"""``orchestrator secret``: the secrets of tenants, and the keys that encrypt them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from orchestrator_core.cli.text import Problem, say, say_json
from orchestrator_core.codec import format_time
from orchestrator_core.errors import Conflict
from orchestrator_core.types import Json
from orchestrator_server.cli.database import where, with_storage
from orchestrator_server.cli.output import as_json_option, show_rows
from orchestrator_server.key_files import key_ring_of
from orchestrator_server.sealing import Sealer, new_key, rotate
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage, every_tenant

__all__ = ["secret"]


@click.group()
def secret() -> None:
    """Set, list and remove the secrets of a tenant."""


_tenant_option = click.option(
    "--tenant", "tenant_id", metavar="ID", required=True, envvar="ORCHESTRATOR_TENANT", show_envvar=True, help="Whose."
)


@secret.command("set")
@click.argument("name")
@_tenant_option
@click.option(
    "--from", "source", metavar="@env:NAME|@file:PATH", help="Where the value stands. [default: standard input]"
)
@where
@as_json_option
def secret_set(*, name: str, tenant_id: str, source: str | None, as_json: bool, **options: Any) -> None:
    """Set a secret. Its value is never written on the command line."""
    value = _value_from(source)

    async def work(storage: Storage, settings: Settings) -> int:
        ring = await key_ring_of(settings)
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

    version = with_storage(options, work)
    if as_json:
        say_json({"name": name, "version": version})
    else:
        say(f"secret {name} of tenant {tenant_id}: version {version}")


def _value_from(source: str | None) -> str:
    if source is None:
        value = click.prompt("value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    else:
        kind, _, what = source.partition(":")
        if kind == "@env" and what:
            if what not in os.environ:
                raise Problem(f"orchestrator secret set: --from {source}: the variable {what} is not set")
            value = os.environ[what]
        elif kind == "@file" and what:
            value = Path(what).read_text(encoding="utf-8").removesuffix("\n")
        else:
            raise Problem(f"orchestrator secret set: --from {source}: write @env:NAME or @file:PATH")
    if not value:
        raise Problem("orchestrator secret set: the value is empty")
    return str(value)


@secret.command("list")
@_tenant_option
@where
@as_json_option
def secret_list(*, tenant_id: str, as_json: bool, **options: Any) -> None:
    """List the names of secrets. What they say is shown to nobody."""

    async def work(storage: Storage, _: Settings) -> list[dict[str, Json]]:
        store = await storage.store(tenant_id)
        return [
            {"name": s.name, "version": s.version, "key": s.key_id, "updated_at": format_time(s.updated_at)}
            for s in await store.secrets.list()
        ]

    columns = ("name", "version", "key", "updated_at")
    show_rows(with_storage(options, work), columns, as_json=as_json, none="there are no secrets")


@secret.command("delete")
@click.argument("name")
@_tenant_option
@where
def secret_delete(*, name: str, tenant_id: str, **options: Any) -> None:
    """Remove a secret."""

    async def work(storage: Storage, _: Settings) -> bool:
        return await (await storage.store(tenant_id)).secrets.delete(name)

    if not with_storage(options, work):
        raise Problem(f"orchestrator secret delete: tenant {tenant_id} has no secret {name!r}")
    say(f"secret {name} of tenant {tenant_id} is gone")


@secret.command("new-key")
@click.option("--id", "key_id", help="Its id: another one for each key. [default: k and eight digits at random]")
def secret_new_key(*, key_id: str | None) -> None:
    """Print a new key for encrypting secrets, as ORCHESTRATOR_SECRET_KEYS and the key file have it."""
    say(new_key(key_id))


@secret.command("rotate")
@where
@as_json_option
def secret_rotate(*, as_json: bool, **options: Any) -> None:
    """Encrypt the secrets of all tenants with the first key of the settings. It may be stopped and begun again."""

    async def work(storage: Storage, settings: Settings) -> int:
        ring = settings.key_ring()
        sealer = Sealer(ring.keys, ring.current)
        changed = 0
        async for found in every_tenant(storage):
            changed += await rotate(sealer, found.id, (await storage.store(found.id)).secrets)
        return changed

    changed = with_storage(options, work)
    if as_json:
        say_json({"changed": changed})
    else:
        say(f"{changed} secrets were encrypted anew")
