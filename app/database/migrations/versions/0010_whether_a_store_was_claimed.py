"""Whether the database has claimed its store"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("identity", sa.Column("store_claimed_at", sa.DateTime(timezone=True), nullable=True))
