"""Signatures of webhooks that have come: they do not come again, whatever becomes of what they started."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TENANT_ROLE = "orchestrator_tenant"


def upgrade() -> None:
    """Make the table; on PostgreSQL its policy, too."""
    op.create_table(
        "signatures",
        sa.Column("tenant", _key(64), nullable=False),
        sa.Column("digest", _key(64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("until", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest", name="pk_signatures"),
    )
    op.create_index("ix_signatures_tenant_until", "signatures", ["tenant", "until"])
    if op.get_bind().dialect.name == "postgresql":
        own = "tenant = current_setting('app.tenant', true)"
        op.execute("ALTER TABLE signatures ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE signatures FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON signatures TO {_TENANT_ROLE} USING ({own}) WITH CHECK ({own})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON signatures TO {_TENANT_ROLE}")


def _key(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
