"""Projects, keys and labels"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limits", JSON, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.execute("insert into projects (id, name) values ('default', 'default')")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_project", "audit", ["project_id", "id"], unique=False)
    op.create_table(
        "rates",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "checkpoint_owners",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("labels", JSON, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("uploaded_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["checkpoints.sha256"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sha256", "project_id"),
    )
    op.create_index("checkpoint_owners_project", "checkpoint_owners", ["project_id", "created_at"], unique=False)
    op.execute("""
        insert into checkpoint_owners (sha256, project_id, filename, created_at, uploaded_at)
        select sha256, 'default', filename, created_at, uploaded_at from checkpoints
    """)
    default = sa.text("'default'")
    op.add_column("conversions", sa.Column("project_id", sa.Text(), server_default=default, nullable=False))
    op.add_column("conversions", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("conversions", sa.Column("labels", JSON, server_default=sa.text("'{}'"), nullable=False))
    op.add_column("conversions", sa.Column("parity", JSON, nullable=True))
    op.create_index("conversions_project", "conversions", ["project_id", "id"], unique=False)
    op.create_index("conversions_labels", "conversions", ["labels"], unique=False, postgresql_using="gin")
