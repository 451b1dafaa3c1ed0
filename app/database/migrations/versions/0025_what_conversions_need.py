"""What a conversion needs of a worker, and what each worker can do"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

NONE = sa.text("'[]'")


def upgrade() -> None:
    json = postgresql.JSONB(none_as_null=True)
    op.add_column("conversions", sa.Column("needs", json, server_default=NONE, nullable=False))
    op.add_column("catalogs", sa.Column("abilities", json, server_default=NONE, nullable=False))


def downgrade() -> None:
    op.drop_column("catalogs", "abilities")
    op.drop_column("conversions", "needs")
