"""Unfinished conversions hold their checkpoints, a database has an identity, and workers' counts have a place"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GONE = (
    '{"code": "unknown_checkpoint", "title": "No checkpoint of that sha256", "status": 404,'
    ' "detail": "The checkpoint of this conversion is no longer there; upload it again.", "extra": {}}'
)


def upgrade() -> None:
    # What was queued for a checkpoint that is gone waited for ever.
    op.execute(
        sa.text(
            "update conversions c set state = 'failed', finished_at = now(), updated_at = now(),"
            " problem = cast(:gone as jsonb) where state in ('queued', 'running')"
            " and not exists (select from checkpoints k where k.sha256 = c.checkpoint_sha256)"
        ).bindparams(gone=GONE)
    )
    op.add_column(
        "conversions",
        sa.Column(
            "held_checkpoint",
            sa.Text(),
            sa.Computed("case when state in ('queued', 'running') then checkpoint_sha256 end", persisted=True),
            nullable=True,
        ),
    )
    op.create_foreign_key("conversions_held_checkpoint", "conversions", "checkpoints", ["held_checkpoint"], ["sha256"])
    op.create_index(
        "conversions_holding",
        "conversions",
        ["held_checkpoint"],
        unique=False,
        postgresql_where=sa.text("held_checkpoint is not null"),
    )
    op.create_table("identity", sa.Column("id", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("id"))
    op.execute("insert into identity values (gen_random_uuid()::text)")
    op.create_table(
        "metric_sums",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels"),
    )
