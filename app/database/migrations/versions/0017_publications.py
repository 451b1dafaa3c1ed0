"""Publications, and the request that made a conversion"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("conversions", sa.Column("request_id", sa.Text(), nullable=True))
    op.add_column("conversions", sa.Column("publications", json, server_default=sa.text("'[]'"), nullable=False))
