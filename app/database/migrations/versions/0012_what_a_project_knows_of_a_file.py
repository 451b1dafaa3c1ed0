"""What a project knows of a file"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
MOVED = ("inspection", "problem", "parameters", "inspected_at")


def upgrade() -> None:
    """What was read of a file is true for all who have it; what a conversion told of it, for one that nobody noted."""
    _add("checkpoint_owners")
    op.execute("""
        update checkpoint_owners o
        set inspection = c.inspection, problem = c.problem, inspected_at = c.inspected_at,
            parameters = case when o.project_id = 'default' then c.parameters end
        from checkpoints c where c.sha256 = o.sha256
    """)
    for column in MOVED:
        op.drop_column("checkpoints", column)
    op.execute("delete from templates")  # they are built again, each for a project and an architecture


def downgrade() -> None:
    _add("checkpoints")
    op.execute("""
        update checkpoints c
        set inspection = o.inspection, problem = o.problem, inspected_at = o.inspected_at, parameters = o.parameters
        from checkpoint_owners o where o.sha256 = c.sha256
    """)
    for column in MOVED:
        op.drop_column("checkpoint_owners", column)
    op.execute("delete from templates")


def _add(table: str) -> None:
    for column in MOVED:
        kind = sa.DateTime(timezone=True) if column == "inspected_at" else JSON
        op.add_column(table, sa.Column(column, kind, nullable=True))
