"""The routes of secrets, variables and node types."""

from __future__ import annotations

from orchestrator_core.codec import format_time
from orchestrator_core.configs import config_schema
from orchestrator_core.errors import Conflict
from orchestrator_core.nodes import NodeType
from orchestrator_core.types import Json
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import SecretRequest, VariableRequest
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.errors import NotFound
from orchestrator_server.records import Secret, Variable, check_name

__all__ = [
    "delete_secret",
    "delete_variable",
    "get_node_type",
    "get_variable",
    "list_node_types",
    "list_secrets",
    "list_variables",
    "put_secret",
    "put_variable",
]

_LONGEST = 65_536
_ROUNDS = 5


# --- secrets ----------------------------------------------------------------------------------------------------------


async def list_secrets(call: Call) -> Reply:
    """The names of the tenant's secrets. What they say is shown to nobody."""
    return Reply({"secrets": [_secret(secret) for secret in await call.store.secrets.list()]})


async def put_secret(call: Call) -> Reply:
    """Set a secret, or give it a new value."""
    request: SecretRequest = call.body
    name = check_name(call.path["name"], "secret")
    if not 0 < len(request.value) <= _LONGEST:
        raise Problem(422, "invalid_document", f"$.value: must have 1 to {_LONGEST} characters")
    for _ in range(_ROUNDS):
        known = await call.store.secrets.get(name)
        version = known.version + 1 if known is not None else 1
        sealed = call.services.sealer.seal(call.tenant, name, version, request.value)
        try:
            await call.store.secrets.put(sealed)
        except Conflict:
            continue  # somebody else has set it meanwhile: ours comes after theirs
        call.services.realms.changed(call.tenant)
        stored = await call.store.secrets.get(name)
        return Reply(_secret(stored or sealed))
    raise Conflict(f"secret {name!r} is being set by others: try again")


async def delete_secret(call: Call) -> Reply:
    """Remove a secret."""
    if not await call.store.secrets.delete(call.path["name"]):
        raise NotFound(f"there is no secret {call.path['name']!r}")
    call.services.realms.changed(call.tenant)
    return Reply(None, 204)


def _secret(secret: Secret) -> dict[str, Json]:
    return {"name": secret.name, "version": secret.version, "updated_at": format_time(secret.updated_at)}


# --- variables --------------------------------------------------------------------------------------------------------


async def list_variables(call: Call) -> Reply:
    """The tenant's variables."""
    return Reply({"variables": [_variable(variable) for variable in await call.store.variables.list()]})


async def get_variable(call: Call) -> Reply:
    """One variable."""
    found = await call.store.variables.get(call.path["name"])
    if found is None:
        raise NotFound(f"there is no variable {call.path['name']!r}")
    return Reply(_variable(found))


async def put_variable(call: Call) -> Reply:
    """Set a variable. Executions see the value that it has when they start."""
    request: VariableRequest = call.body
    name = check_name(call.path["name"], "variable")
    put = await call.store.variables.put(Variable(name, request.value))
    call.services.realms.changed(call.tenant)
    return Reply(_variable(put))


async def delete_variable(call: Call) -> Reply:
    """Remove a variable."""
    if not await call.store.variables.delete(call.path["name"]):
        raise NotFound(f"there is no variable {call.path['name']!r}")
    call.services.realms.changed(call.tenant)
    return Reply(None, 204)


def _variable(variable: Variable) -> dict[str, Json]:
    return {"name": variable.name, "value": variable.value, "updated_at": format_time(variable.updated_at)}


# --- node types -------------------------------------------------------------------------------------------------------


async def list_node_types(call: Call) -> Reply:
    """The node types that the tenant may use, with the schemas of their settings."""
    types = (await call.services.realms.get(call.tenant)).registry.node_types
    return Reply({"nodes": [_node_type(types[name]) for name in sorted(types)]})


async def get_node_type(call: Call) -> Reply:
    """One node type."""
    kind = (await call.services.realms.get(call.tenant)).registry.node_types.get(call.path["name"])
    if kind is None:
        raise NotFound(f"there is no node type {call.path['name']!r}")
    return Reply(_node_type(kind))


def _node_type(kind: NodeType) -> dict[str, Json]:
    return {
        "name": kind.name,
        "version": kind.version,
        "title": kind.title,
        "description": kind.description,
        "trigger": kind.trigger,
        "pure": kind.pure,
        "group": kind.group,
        "capabilities": sorted(kind.capabilities),
        # Where they depend on the config, they are not known here.
        "ports": None if kind.ports is None or callable(kind.ports) else list(kind.ports),
        "inputs": None if kind.inputs is None else list(kind.inputs),
        "plugin": kind.plugin,
        "example": dict(kind.example),
        "config": config_schema(kind),
    }
