"""Which verdicts are accepted"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "conversions",
        sa.Column(
            "accept",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("""'["pass", "pass_with_notes"]'"""),
            nullable=False,
        ),
    )
