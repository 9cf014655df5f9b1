"""How the schemas, databases and files of tenants are called."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sqlalchemy.engine import URL

__all__ = ["database_of", "folder_of", "schema_of"]


def schema_of(tenant_id: str) -> str:
    """A tenant's schema: short, in lower case, and another one for every tenant."""
    return _name(tenant_id, tenant_id)


def database_of(system: URL, tenant_id: str) -> URL:
    """A tenant's own database: a file beside the system's, or a database of its server.

    Its name comes from the system's, too: two systems on one server may have tenants of the same id.
    """
    if system.get_backend_name() == "sqlite":
        return system.set(database=str(folder_of(system) / f"{_name(tenant_id, tenant_id)}.db"))
    return system.set(database=_name(tenant_id, f"{system.database}/{tenant_id}"))


def folder_of(system: URL) -> Path:
    """Where the files of tenants are: beside the system's file."""
    return Path(f"{system.database}.tenants")


def _name(readable: str, whole: str) -> str:
    start = re.sub("[^a-z0-9]", "_", readable.lower())[:24]
    return f"tenant_{start}_{hashlib.sha256(whole.encode()).hexdigest()[:20]}"
