"""The tables. What belongs to a tenant has its id first in the primary key, in every isolation.

Times are seconds since 1970 as double precision; JSON is text, because the database never looks inside. Texts that are
compared or sorted are compared byte by byte (``C`` on PostgreSQL, as SQLite does by itself).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    and_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

from orchestrator_server.records import POISON_CLAIMS, POISONED

__all__ = [
    "QUARANTINED",
    "TENANT_TABLES",
    "UNFINISHED",
    "blobs",
    "executions",
    "idempotency",
    "inbox",
    "journal",
    "keys",
    "list_index",
    "metadata",
    "now",
    "outcomes",
    "owners",
    "payload_uses",
    "payloads",
    "properties",
    "schedules",
    "secrets",
    "signatures",
    "slots",
    "tenants",
    "variables",
    "versions",
    "webhooks",
    "workflows",
]

# Constraints have names, so that a migration can change them on any database.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


class now(ColumnElement[float]):  # noqa: N801 - it reads as a function of SQL
    """The database's time in seconds since 1970, as it goes on within a transaction."""

    type = Float(53)
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: object, **options: object) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    # unixepoch('subsec') is newer than the SQLite of some Pythons that we run on.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: object, **options: object) -> str:  # noqa: ARG001 - as above
    return "(extract(epoch from clock_timestamp())::float8)"


def _bytewise(length: int) -> String:
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


def _id() -> String:
    return _bytewise(64)


def _time() -> Float[float]:
    return Float(53)


def _execution() -> String:
    return _bytewise(68)


def _tenant(*, owned: bool = False) -> Column[str]:
    """The first part of a primary key. What is ``owned`` cannot be added once the tenant is gone."""
    if owned:
        return Column("tenant", _id(), ForeignKey("owners.tenant"), primary_key=True)
    return Column("tenant", _id(), primary_key=True)


# --- the system's ---------------------------------------------------------------------------------------------------

tenants = Table(
    "tenants",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("limits", Text, nullable=False),
    Column("retention", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("size", BigInteger),
)

keys = Table(
    "keys",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("tenant", _id(), ForeignKey("tenants.id"), index=True),
    Column("role", String(32), nullable=False),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("expires_at", _time()),
    Column("revoked_at", _time()),
)

# What was decided when the database was set up: its isolation.
properties = Table(
    "properties",
    metadata,
    Column("name", _bytewise(64), primary_key=True),
    Column("value", Text, nullable=False),
)

# --- a tenant's -----------------------------------------------------------------------------------------------------

# Whose rows may be here: all tenants where they share tables, one where each has its own.
owners = Table("owners", metadata, _tenant())

workflows = Table(
    "workflows",
    metadata,
    _tenant(owned=True),
    Column("id", _id(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("active", Integer),
    Column("latest", Integer, nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("updated_at", _time(), nullable=False),
    Column("deleted_at", _time()),
)

versions = Table(
    "versions",
    metadata,
    _tenant(),
    Column("workflow", _id(), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("created_by", Text, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    _tenant(),
    Column("method", _bytewise(16), primary_key=True),
    Column("path", _bytewise(512), primary_key=True),
    Column("workflow", _id(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("node", String(64), nullable=False),
    Column("config", Text, nullable=False),
    Index(None, "tenant", "workflow"),
)

schedules = Table(
    "schedules",
    metadata,
    _tenant(owned=True),
    Column("id", _id(), primary_key=True),
    Column("workflow", _id(), nullable=False),
    Column("node", String(64), nullable=False),
    Column("spec", Text, nullable=False),
    Column("next_at", _time()),
    Column("enabled", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Index(None, "next_at"),
    Index(None, "tenant", "workflow"),
)

slots = Table(
    "slots",
    metadata,
    _tenant(),
    Column("schedule", _id(), primary_key=True),
    Column("at", _time(), primary_key=True),
    Column("execution", _execution()),
)

secrets = Table(
    "secrets",
    metadata,
    _tenant(owned=True),
    Column("name", _bytewise(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("updated_at", _time(), nullable=False),
)

variables = Table(
    "variables",
    metadata,
    _tenant(owned=True),
    Column("name", _bytewise(128), primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", _time(), nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    _tenant(owned=True),
    Column("reference", _bytewise(255), primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index(None, "tenant", "created_at"),
)

# Narrow on purpose: every append changes a row, and every list reads some. Outputs and records stand in `outcomes`.
executions = Table(
    "executions",
    metadata,
    _tenant(owned=True),
    Column("id", _execution(), primary_key=True),
    Column("workflow", _id(), nullable=False),
    Column("version", Integer),
    Column("status", _bytewise(16), nullable=False),
    Column("created_at", _time(), nullable=False),
    Column("finished_at", _time()),
    Column("error_code", Text),
    Column("parent", _execution()),
    Column("seq", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("worker", Text),
    Column("wake_at", _time()),
    Column("queued", Boolean, nullable=False),
    # Bytes of its events and its outcome, without large values: no list shows them, a tenant's size is their sum.
    Column("size", BigInteger, nullable=False, server_default="0"),
    # Room for the next version of a row on its own page: an append then touches no index.
    postgresql_with={"fillfactor": 70},
)
QUARANTINED = and_(executions.c.error_code == POISONED, executions.c.claims >= POISON_CLAIMS)
"""See :attr:`~orchestrator_server.records.ExecutionRow.quarantined`."""
UNFINISHED = and_(executions.c.queued, executions.c.finished_at.is_(None))
"""What has not ended: a child is part of what drives it."""
_DUE = executions.c.wake_at.is_not(None)
_HELD = executions.c.worker.is_not(None)
_DRIVEN = ~executions.c.queued
_ENDED = executions.c.finished_at.is_not(None)
Index("ix_executions_due", executions.c.tenant, executions.c.wake_at, sqlite_where=_DUE, postgresql_where=_DUE)
Index("ix_executions_held", executions.c.worker, executions.c.tenant, sqlite_where=_HELD, postgresql_where=_HELD)
Index(
    "ix_executions_children", executions.c.tenant, executions.c.parent, sqlite_where=_DRIVEN, postgresql_where=_DRIVEN
)
Index("ix_executions_unfinished", executions.c.tenant, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)


def list_index(at: str, *, workflow: bool, status: bool) -> str:
    """The name of the index in which a list of executions is one stretch: sorted by a time, of one workflow, of one status."""
    filters = (["workflow"] if workflow else []) + (["status"] if status else [])
    return f"ix_executions_{'_'.join(filters) or 'all'}_{at.removesuffix('_at')}"


for _workflow, _status in ((False, False), (True, False), (False, True), (True, True)):
    _head = [executions.c.tenant]
    _head += ([executions.c.workflow] if _workflow else []) + ([executions.c.status] if _status else [])
    Index(
        list_index("created_at", workflow=_workflow, status=_status),
        *_head,
        executions.c.created_at,
        executions.c.id,
    )
    Index(
        list_index("finished_at", workflow=_workflow, status=_status),
        *_head,
        executions.c.finished_at,
        executions.c.id,
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    )

# One row for each append: `count` events after the first `first`.
journal = Table(
    "journal",
    metadata,
    Column("tenant", _id()),
    Column("execution", _execution()),
    Column("first", BigInteger),
    Column("count", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
    Column("refs", Text),
    PrimaryKeyConstraint("tenant", "execution", "first"),
)

outcomes = Table(
    "outcomes",
    metadata,
    _tenant(),
    Column("execution", _execution(), primary_key=True),
    Column("data", Text, nullable=False),
    Column("refs", Text),
)

payloads = Table(
    "payloads",
    metadata,
    _tenant(),
    Column("hash", _bytewise(64), primary_key=True),
    Column("data", Text, nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Index(None, "tenant", "size"),  # behind the data: reading it from the row would read them
)

payload_uses = Table(
    "payload_uses",
    metadata,
    _tenant(),
    Column("execution", _execution(), primary_key=True),
    Column("hash", _bytewise(64), primary_key=True),
    Index(None, "tenant", "hash"),
)

inbox = Table(
    "inbox",
    metadata,
    _tenant(),
    Column("execution", _execution(), primary_key=True),
    Column("id", _bytewise(255), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", _time(), nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    _tenant(),
    Column("key", _bytewise(255), primary_key=True),
    Column("execution", _execution(), nullable=False),
    Column("fingerprint", Text, nullable=False),
    Index(None, "tenant", "execution"),
)

signatures = Table(
    "signatures",
    metadata,
    _tenant(),
    Column("digest", _bytewise(64), primary_key=True),
    Column("key", Text, nullable=False),
    Column("until", _time(), nullable=False),
    Index(None, "tenant", "until"),
)

# In the order in which they can be emptied: what refers to something stands before it.
TENANT_TABLES: tuple[Table, ...] = (
    signatures,
    idempotency,
    inbox,
    payload_uses,
    payloads,
    outcomes,
    journal,
    executions,
    blobs,
    variables,
    secrets,
    slots,
    schedules,
    webhooks,
    versions,
    workflows,
    owners,
)
