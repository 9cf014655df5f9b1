"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Names as they were when this was written: a migration does not change with the code.
_TENANT_ROLE = "orchestrator_tenant"
_QUEUE_ROLE = "orchestrator_queue"
_TENANT_TABLES = (
    "owners",
    "workflows",
    "versions",
    "webhooks",
    "schedules",
    "slots",
    "secrets",
    "variables",
    "blobs",
    "executions",
    "journal",
    "outcomes",
    "payloads",
    "payload_uses",
    "inbox",
    "idempotency",
)
# What the queue may read and change of an execution.
_ENTRY = "tenant, id, workflow, version, status, seq, fence, claims, worker, wake_at, finished_at, error_code, queued"
_CHANGED = "status, fence, claims, worker, wake_at, finished_at, error_code"


def upgrade() -> None:
    """Make every table; on PostgreSQL the roles and policies, too."""
    _system()
    _definitions()
    _values()
    _executions()
    _executions_indexes()
    _events()
    if op.get_bind().dialect.name == "postgresql":
        for role in (_TENANT_ROLE, _QUEUE_ROLE):
            _make_role(role)
        _make_policies()


def _key(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


def _system() -> None:
    """What is the system's."""
    op.create_table(
        "properties",
        sa.Column("name", _key(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_properties"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", _key(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("retention", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "keys",
        sa.Column("id", _key(64), nullable=False),
        sa.Column("tenant", _key(64)),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("revoked_at", sa.Float(53)),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name="fk_keys_tenant"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    op.create_index("ix_keys_tenant", "keys", ["tenant"])
    op.create_table(
        "owners", sa.Column("tenant", _key(64), nullable=False), sa.PrimaryKeyConstraint("tenant", name="pk_owners")
    )


def _definitions() -> None:
    """What tenants define."""
    op.create_table(
        "workflows",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("id", _key(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Integer()),
        sa.Column("latest", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("deleted_at", sa.Float(53)),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_workflows_tenant"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_workflows"),
    )
    op.create_table(
        "versions",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("workflow", _key(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "number", name="pk_versions"),
    )
    op.create_table(
        "webhooks",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("method", _key(16), nullable=False),
        sa.Column("path", _key(512), nullable=False),
        sa.Column("workflow", _key(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "method", "path", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_tenant_workflow", "webhooks", ["tenant", "workflow"])
    op.create_table(
        "schedules",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("id", _key(64), nullable=False),
        sa.Column("workflow", _key(64), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("next_at", sa.Float(53)),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_schedules_tenant"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])
    op.create_index("ix_schedules_tenant_workflow", "schedules", ["tenant", "workflow"])
    op.create_table(
        "slots",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("schedule", _key(64), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("execution", _key(68)),
        sa.PrimaryKeyConstraint("tenant", "schedule", "at", name="pk_slots"),
    )


def _values() -> None:
    """What they keep."""
    op.create_table(
        "secrets",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("name", _key(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_secrets_tenant"),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_secrets"),
    )
    op.create_table(
        "variables",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("name", _key(128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_variables_tenant"),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_variables"),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("reference", _key(255), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_blobs_tenant"),
        sa.PrimaryKeyConstraint("tenant", "reference", name="pk_blobs"),
    )


def _executions() -> None:
    """What runs, and has run."""
    op.create_table(
        "executions",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("id", _key(68), nullable=False),
        sa.Column("workflow", _key(64), nullable=False),
        sa.Column("version", sa.Integer()),
        sa.Column("status", _key(16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("error_code", sa.Text()),
        sa.Column("parent", _key(68)),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("wake_at", sa.Float(53)),
        sa.Column("queued", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["owners.tenant"], name="fk_executions_tenant"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_executions"),
        postgresql_with={"fillfactor": 70},
    )


def _executions_indexes() -> None:
    """For the queue, and for every list that is offered."""
    op.create_index("ix_executions_all_created", "executions", ["tenant", "created_at", "id"])
    op.create_index(
        "ix_executions_all_finished",
        "executions",
        ["tenant", "finished_at", "id"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_due",
        "executions",
        ["tenant", "wake_at"],
        sqlite_where=sa.text("wake_at IS NOT NULL"),
        postgresql_where=sa.text("wake_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_held",
        "executions",
        ["worker", "tenant"],
        sqlite_where=sa.text("worker IS NOT NULL"),
        postgresql_where=sa.text("worker IS NOT NULL"),
    )
    op.create_index("ix_executions_status_created", "executions", ["tenant", "status", "created_at", "id"])
    op.create_index(
        "ix_executions_status_finished",
        "executions",
        ["tenant", "status", "finished_at", "id"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("ix_executions_workflow_created", "executions", ["tenant", "workflow", "created_at", "id"])
    op.create_index(
        "ix_executions_workflow_finished",
        "executions",
        ["tenant", "workflow", "finished_at", "id"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_workflow_status_created", "executions", ["tenant", "workflow", "status", "created_at", "id"]
    )
    op.create_index(
        "ix_executions_workflow_status_finished",
        "executions",
        ["tenant", "workflow", "status", "finished_at", "id"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def _events() -> None:
    """What executions have."""
    op.create_table(
        "journal",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("execution", _key(68), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("refs", sa.Text()),
        sa.PrimaryKeyConstraint("tenant", "execution", "first", name="pk_journal"),
    )
    op.create_table(
        "outcomes",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("execution", _key(68), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("refs", sa.Text()),
        sa.PrimaryKeyConstraint("tenant", "execution", name="pk_outcomes"),
    )
    op.create_table(
        "payloads",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("hash", _key(64), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hash", name="pk_payloads"),
    )
    op.create_table(
        "payload_uses",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("execution", _key(68), nullable=False),
        sa.Column("hash", _key(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "execution", "hash", name="pk_payload_uses"),
    )
    op.create_index("ix_payload_uses_tenant_hash", "payload_uses", ["tenant", "hash"])
    op.create_table(
        "inbox",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("execution", _key(68), nullable=False),
        sa.Column("id", _key(255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "execution", "id", name="pk_inbox"),
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("key", _key(255), nullable=False),
        sa.Column("execution", _key(68), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_tenant_execution", "idempotency", ["tenant", "execution"])


def _make_role(role: str) -> None:
    """A role that cannot log in, and which whoever runs this may take on. Roles are the whole server's: it may be there."""
    op.execute(
        f"""
        DO $$ BEGIN
          IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            BEGIN
              CREATE ROLE {role} NOLOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
              NULL; -- another database of this server was made at the same time
            END;
          END IF;
          -- Since PostgreSQL 16 who makes a role may not take it on before granting that, and need not have its rights at
          -- all other times: policies for the role would hold for whoever inherits from it.
          IF current_setting('server_version_num')::int >= 160000 THEN
            IF NOT pg_has_role(current_user, '{role}', 'SET') THEN
              EXECUTE format('GRANT {role} TO %I WITH INHERIT FALSE, SET TRUE', current_user);
            END IF;
          ELSIF NOT pg_has_role(current_user, '{role}', 'MEMBER') THEN
            EXECUTE format('GRANT {role} TO %I', current_user);
          END IF;
          EXECUTE format('GRANT USAGE ON SCHEMA %I TO {role}', current_schema());
        END $$
        """  # noqa: S608 - constants
    )


def _make_policies() -> None:
    """A tenant sees and writes its own rows, and none where no tenant is set; the queue sees entries of all."""
    own = "tenant = current_setting('app.tenant', true)"
    for table in _TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} TO {_TENANT_ROLE} USING ({own}) WITH CHECK ({own})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {_TENANT_ROLE}")
    for table, columns in (
        ("owners", "tenant"),
        ("executions", _ENTRY),
        ("inbox", "tenant, execution"),
        ("schedules", "tenant, id, next_at, enabled"),
    ):
        op.execute(f"CREATE POLICY queue_reads ON {table} FOR SELECT TO {_QUEUE_ROLE} USING (true)")
        op.execute(f"GRANT SELECT ({columns}) ON {table} TO {_QUEUE_ROLE}")
    op.execute(f"CREATE POLICY queue_writes ON executions FOR UPDATE TO {_QUEUE_ROLE} USING (true) WITH CHECK (true)")
    op.execute(f"GRANT UPDATE ({_CHANGED}) ON executions TO {_QUEUE_ROLE}")
