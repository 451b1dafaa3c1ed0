"""Which plug-in offers an architecture, which plug-ins are broken, and which start of the service they are of"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, default in (("plugins", "'{}'"), ("broken", "'[]'")):
        json = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
        op.add_column("catalogs", sa.Column(name, json, server_default=sa.text(default), nullable=False))
    op.add_column("catalogs", sa.Column("supervisor", sa.Text(), nullable=True))


def downgrade() -> None:
    for name in ("supervisor", "broken", "plugins"):
        op.drop_column("catalogs", name)
