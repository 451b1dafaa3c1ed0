"""Files fetched by reference"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

HELD = "case when state in ('queued', 'running') then nullif(checkpoint_sha256, '') end"


def upgrade() -> None:
    op.add_column("conversions", sa.Column("source_uri", sa.Text(), nullable=True))
    op.add_column("conversions", sa.Column("source_sha256", sa.Text(), nullable=True))
    op.drop_column("conversions", "held_checkpoint")  # with its index and its foreign key
    op.add_column(
        "conversions", sa.Column("held_checkpoint", sa.Text(), sa.Computed(HELD, persisted=True), nullable=True)
    )
    op.create_index(
        "conversions_holding",
        "conversions",
        ["held_checkpoint"],
        unique=False,
        postgresql_where=sa.text("held_checkpoint is not null"),
    )
    op.create_foreign_key("conversions_held_checkpoint", "conversions", "checkpoints", ["held_checkpoint"], ["sha256"])
