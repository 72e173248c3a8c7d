"""Alembic's entry: runs the steps on the connection and in the transaction that `gateway.database.schema` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
