"""Children by their parents: they are forgotten together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index; nobody else pays for it."""
    op.create_index(
        "ix_executions_children",
        "executions",
        ["tenant", "parent"],
        sqlite_where=sa.text("queued = 0"),
        postgresql_where=sa.text("NOT queued"),
    )
