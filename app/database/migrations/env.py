"""What Alembic runs: migrations on the connection that migrate() opened and locked."""

from alembic import context

from app.database.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    include_name=lambda name, kind, _: kind != "table" or name in Table.metadata.tables,  # the queue's are not ours
)
context.run_migrations()
