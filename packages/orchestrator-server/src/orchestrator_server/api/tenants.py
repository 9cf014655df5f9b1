"""The routes of tenants and their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from orchestrator_core.codec import format_time
from orchestrator_core.types import Json
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import LimitsBody, NewKeyRequest, RetentionBody, TenantChange, TenantRequest
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.auth import expiry, new_key
from orchestrator_server.errors import Invalid, NotFound
from orchestrator_server.realms import TenantSettings
from orchestrator_server.records import Key, Limits, Retention, Tenant

__all__ = [
    "change_tenant",
    "create_key",
    "create_tenant",
    "delete_tenant",
    "get_tenant",
    "list_keys",
    "list_tenants",
    "revoke_key",
]


async def list_tenants(call: Call) -> Reply:
    """A page of tenants, by id."""
    limit: int = call.query["limit"]
    tenants = await call.services.storage.tenants.list(after=call.query["after"] or "", limit=limit + 1)
    shown = tenants[:limit]
    after = shown[-1].id if len(tenants) > limit else None
    return Reply({"tenants": [_body(tenant) for tenant in shown], "next": after})


async def create_tenant(call: Call) -> Reply:
    """Make a tenant."""
    request: TenantRequest = call.body
    TenantSettings.of(request.settings)
    tenant = await call.services.storage.tenants.create(
        Tenant(request.id, request.name, _limits(request.limits), _retention(request.retention), request.settings)
    )
    return Reply(_body(tenant), 201, {"Location": call.url(f"/tenants/{tenant.id}")})


async def get_tenant(call: Call) -> Reply:
    """One tenant."""
    return Reply(_body(await _tenant(call)))


async def change_tenant(call: Call) -> Reply:
    """Change what is given; the rest stays."""
    request: TenantChange = call.body
    tenant = await _tenant(call)
    changes: dict[str, Any] = {}
    readers: dict[str, Callable[[Any], Any]] = {"limits": _limits, "retention": _retention}
    for field in attrs.fields(TenantChange):
        value = getattr(request, field.name)
        if value is not None:
            changes[field.name] = readers.get(field.name, lambda same: same)(value)
    TenantSettings.of(changes.get("settings", {}))
    changed = await call.services.storage.tenants.update(tenant.id, **changes)
    call.services.realms.changed(tenant.id)
    return Reply(_body(changed))


async def delete_tenant(call: Call) -> Reply:
    """Delete a tenant and everything it has."""
    services, tenant = call.services, await _tenant(call)
    keys = await services.storage.keys.list(tenant.id)
    await services.storage.tenants.delete(tenant.id)
    services.realms.changed(tenant.id)
    for key in keys:
        services.authenticator.forget(key.id)
    return Reply(None, 204)


async def list_keys(call: Call) -> Reply:
    """The keys of a tenant, without their secrets."""
    tenant = await _tenant(call)
    return Reply({"keys": [_key(key) for key in await call.services.storage.keys.list(tenant.id)]})


async def create_key(call: Call) -> Reply:
    """Make a key of a tenant. Its credential is in this answer and nowhere else."""
    request: NewKeyRequest = call.body
    tenant = await _tenant(call)
    if not call.principal.has(request.role):
        raise Problem(403, "forbidden", f"a key cannot have more rights than yours: you have {call.principal.role}")
    now = await call.services.storage.now()
    try:
        expires_at = expiry(now, request.expires_in)
    except Invalid as error:
        raise Problem(422, "invalid_document", f"$.expires_in: {error}") from None
    key, credential = new_key(tenant.id, request.role, name=request.name, now=now, expires_at=expires_at)
    await call.services.storage.keys.create(key)
    body = _key(key)
    del body["revoked_at"]
    return Reply({**body, "credential": credential}, 201)


async def revoke_key(call: Call) -> Reply:
    """Revoke a key: everywhere within five seconds."""
    key = await call.services.storage.keys.get(call.path["key_id"])
    # A key of another tenant is not there for this one, whatever the caller may do elsewhere.
    if key is None or key.tenant != call.path["tenant_id"]:
        raise NotFound(f"there is no key {call.path['key_id']!r}")
    await call.services.storage.keys.revoke(key.id, await call.services.storage.now())
    call.services.authenticator.forget(key.id)
    return Reply(None, 204)


async def _tenant(call: Call) -> Tenant:
    tenant = await call.services.storage.tenants.get(call.path["tenant_id"])
    if tenant is None:
        raise NotFound(f"there is no tenant {call.path['tenant_id']!r}")
    return tenant


def _limits(given: LimitsBody) -> Limits:
    limits = attrs.asdict(given)
    for name, value in limits.items():
        if value is not None and not 1 <= value < 2**63:
            raise Problem(422, "invalid_document", f"limits.{name} must be 1 or more, or null for no limit")
    return Limits(**limits)


def _retention(given: RetentionBody) -> Retention:
    return Retention(executions=given.executions, blobs=given.blobs)


def _body(tenant: Tenant) -> dict[str, Json]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "limits": attrs.asdict(tenant.limits),
        "retention": attrs.asdict(tenant.retention),
        "settings": dict(tenant.settings),
        "created_at": format_time(tenant.created_at),
        "size": tenant.size,
    }


def _key(key: Key) -> dict[str, Json]:
    return {
        "id": key.id,
        "role": key.role,
        "name": key.name,
        "created_at": format_time(key.created_at),
        "expires_at": format_time(key.expires_at),
        "revoked_at": format_time(key.revoked_at),
    }
