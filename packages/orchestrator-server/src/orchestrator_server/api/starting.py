"""Idempotency keys: what they are stored as, and how a request is told from another one with the same key."""

from __future__ import annotations

import hashlib

from orchestrator_core.codec import dump_json
from orchestrator_core.types import Json
from orchestrator_server.errors import NotFound
from orchestrator_server.records import check_text
from orchestrator_server.storage import TenantStore

__all__ = ["fingerprint_of", "life_of", "stored_key"]


def fingerprint_of(*parts: Json) -> str:
    """What tells one request from another."""
    return hashlib.sha256(dump_json(list(parts)).encode()).hexdigest()


async def life_of(store: TenantStore, workflow_id: str) -> str:
    """A text that tells a workflow from another one that has its id later, for keys that belong to it.

    Raises:
        NotFound: It was deleted meanwhile.
    """
    row = await store.workflows.get(workflow_id)
    if row is None:
        raise NotFound(f"there is no workflow {workflow_id!r}")
    return f"{workflow_id} {row.created_at!r}"


def stored_key(kind: str, scope: str, key: str) -> str:
    """An idempotency key as it is stored: the same key for another workflow or webhook is another one.

    Raises:
        Invalid: It is empty, too long, or holds control characters.
    """
    check_text(key, "idempotency key")
    digest = hashlib.sha256(f"{scope}\n{key}".encode()).hexdigest()
    return f"{kind}:{digest}"
