"""How each worker's conversion processes are confined"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("confinement", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    op.add_column("workers", column)
