"""Priorities and time limits of conversions, and what projects were served"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

WAITING = sa.text("state = 'queued'")


def upgrade() -> None:
    op.add_column("conversions", sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("conversions", sa.Column("timeout", sa.Float(), nullable=True))
    op.create_index(
        "conversions_waiting", "conversions", ["project_id", sa.text("priority desc"), "id"], postgresql_where=WAITING
    )
    op.create_index("conversions_queued", "conversions", ["id"], postgresql_where=WAITING)
    unread = sa.text("queue_job_id is not null")
    op.create_index("checkpoints_unread", "checkpoints", ["sha256"], postgresql_where=unread)
    op.create_index("conversions_state", "conversions", ["state"])
    op.create_table(
        "shares",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("began", sa.Float(), nullable=False),
        sa.Column("served", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project_id"),
    )
