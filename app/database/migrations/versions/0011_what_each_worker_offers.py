"""What each worker offers, and which plug-ins it has not described yet"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("pending", "late"):
        json = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
        op.add_column("catalogs", sa.Column(name, json, server_default=sa.text("'[]'"), nullable=False))
    op.add_column("workers", sa.Column("catalog", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "catalog")
    for name in ("late", "pending"):
        op.drop_column("catalogs", name)
