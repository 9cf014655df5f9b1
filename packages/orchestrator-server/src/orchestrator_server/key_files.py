"""The file with the key of an embedded database: made once, and never in place of one that is only missing.

A database that comes back without its key would get another one otherwise: what was sealed before would not open, and nobody
would know why.
"""

from __future__ import annotations

from orchestrator_server.errors import Invalid
from orchestrator_server.sealing import KeyRing
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.storage import check_url, is_there
from orchestrator_server.storage import every_tenant

__all__ = ["key_ring_of"]


async def key_ring_of(settings: Settings) -> KeyRing:
    """The keys that encrypt secrets. Where an embedded database has no file with one yet, it is made.

    Raises:
        Invalid: There are none, or the file cannot be read; or it is missing, and the database holds what its key has sealed.
        SchemaVersion: As :meth:`SqlStorage.open`, which looks into a database without a key.
    """
    check_url(settings.database)  # before a key is made for it
    missing = settings.missing_key_file()
    if missing is not None and is_there(settings.database) and await _holds_secrets(settings):
        raise Invalid(
            f"secret_keys: the key file {missing} is missing, and the database holds secrets that were encrypted with it: "
            f"put it back; if it is lost, begin with another (`orchestrator secret new-key > {missing}`), and set every "
            "secret again"
        )
    return settings.key_ring(make=True)


async def _holds_secrets(settings: Settings) -> bool:
    """Whether a tenant has a secret."""
    storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
    try:
        return any([await (await storage.store(found.id)).secrets.list() async for found in every_tenant(storage)])
    finally:
        await storage.aclose()
