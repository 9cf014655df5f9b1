"""What has not ended, without children: it is counted when something new is accepted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        "ix_executions_unfinished",
        "executions",
        ["tenant"],
        sqlite_where=sa.text("queued = 1 AND finished_at IS NULL"),
        postgresql_where=sa.text("queued AND finished_at IS NULL"),
    )
