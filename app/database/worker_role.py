"""The role of PostgreSQL that workers connect as where it is not the owner of the tables: what it may, table by table.

Who takes over a worker then reads no key, no sign-in and no audit log, changes no project, and makes no table. A table
that is not named here is closed to workers.

While a fleet is upgraded, workers of two versions connect as the role: what those of the version before need stays in
GRANTED, and a change of it comes with a revision of the schema, so that an api of that version leaves the grants alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from psycopg import Connection as DriverConnection
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from app.domain.errors import RecastError

_ALL = ("select", "insert", "update", "delete")

GRANTED: Mapping[str, tuple[str, ...]] = {
    "alembic_version": ("select",),
    "catalogs": _ALL,
    "checkpoint_owners": ("select", "insert", "update"),
    "checkpoints": _ALL,
    "conversion_files": ("select", "insert", "delete"),
    "conversions": ("select", "insert", "update"),
    "deaths": ("select", "insert", "delete"),
    "deliveries": _ALL,
    "events": ("select", "insert", "delete"),
    "idempotency_keys": ("select (created_at)", "delete"),
    "identity": ("select", "update (store_claimed_at)"),
    "layouts": _ALL,
    "log_parts": ("select", "insert", "delete"),
    "metric_sums": ("select", "insert", "update"),
    "procrastinate_events": ("select", "insert"),
    "procrastinate_jobs": _ALL,
    "procrastinate_periodic_defers": ("select (job_id)", "update (job_id)"),
    "procrastinate_workers": _ALL,
    "projects": ("select (id, name, limits)",),
    "queue_migrations": ("select",),
    "recipes": ("select", "update"),
    "shares": ("select", "insert", "update"),
    "signing_keys": ("select", "insert"),
    "templates": _ALL,
    "upload_parts": ("select (sha256)",),
    "uploads": ("select (expires_at)", "delete"),
    "webhooks": ("select", "update (disabled_at)"),
    "workers": _ALL,
}
"""What workers do with each table, on some only what retention looks at and removes."""
WITHHELD = frozenset({"api_keys", "audit", "group_members", "groups", "rates", "sign_ins", "uploads_under_way"})
"""Tables of the api alone."""

_ROLE = text("""
    select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls
      or pg_has_role(oid, current_user, 'member') or pg_has_role(oid, (
        select relowner from pg_class where oid = to_regclass('alembic_version')
    ), 'member') or exists (
        select from pg_roles predefined where starts_with(predefined.rolname, 'pg_')
          and predefined.rolname <> 'pg_database_owner' and pg_has_role(pg_roles.oid, predefined.oid, 'member')
    )
    from pg_roles where rolname = :role
""")
_OWNS_SCHEMA = text("""
    select coalesce(
        (select pg_has_role(relowner, 'usage') from pg_class where oid = to_regclass('alembic_version')),
        has_schema_privilege(current_schema(), 'create'), false
    )
""")
_OURS = text("""
    select case relkind when 'S' then 'sequence' else 'table' end, format('%I', relname) from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
      and pg_has_role(relowner, 'usage')
""")
_SEQUENCES = text("""
    select format('%I', c.relname) from pg_class c join pg_depend d on d.objid = c.oid and d.deptype in ('a', 'i')
    where c.relkind = 'S' and d.refobjid = any(select to_regclass(name) from unnest(cast(:tables as text[])) name)
""")
_MAY_MAKE = text("select has_schema_privilege(:role, current_schema(), 'create')")
_BEYOND = text("""
    select relname from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm')
      and pg_has_role(relowner, 'usage') and not relname = any(:granted) and (
        has_table_privilege(:role, oid, 'select, insert, update, delete, truncate, references, trigger')
        or has_any_column_privilege(:role, oid, 'select, insert, update, references')
      )
""")
_MAY = text("select coalesce(has_table_privilege(to_regclass(:table), :privilege), false)")
_MAY_COLUMN = text("select coalesce(has_column_privilege(to_regclass(:table), :column, :privilege), false)")


class WorkerRoleRefused(RecastError):
    code, status, title = "worker_role_refused", 409, "The role of workers cannot be given what they need"
    hint = "RECAST_WORKER_ROLE names a role of PostgreSQL that only workers connect as."


@dataclass(frozen=True)
class WorkerRole:
    """``password``: makes the role, or is given to it; None: the role is there."""

    name: str
    password: str | None = None


def owns_schema(connection: Connection) -> bool:
    """Whether who is connected may change the tables, or make them where there are none."""
    return bool(connection.scalar(_OWNS_SCHEMA))


def grant(connection: Connection, role: WorkerRole) -> None:
    """Let the role do what GRANTED says and nothing else, within the transaction of the owner of the tables.

    Raises WorkerRoleRefused.
    """
    quoted = connection.dialect.identifier_preparer.quote_identifier(role.name)
    if role.password is not None:
        _give_password(connection, role.name, quoted, role.password)
    _refuse_unbound(connection, role.name)
    for kind, name in connection.execute(_OURS).all():
        connection.exec_driver_sql(f"revoke all on {kind} {name} from {quoted}")
    schema = connection.scalar(text("select format('%I', current_schema())"))
    connection.exec_driver_sql(f"revoke all on schema {schema} from {quoted}")
    connection.exec_driver_sql(f"grant usage on schema {schema} to {quoted}")
    for table, privileges in GRANTED.items():
        connection.exec_driver_sql(f"grant {', '.join(privileges)} on table {table} to {quoted}")
    growing = [table for table, privileges in GRANTED.items() if "insert" in privileges]
    for sequence in connection.scalars(_SEQUENCES, {"tables": growing}).all():
        connection.exec_driver_sql(f"grant usage on sequence {sequence} to {quoted}")
    _refuse_more(connection, role.name)


def lacking(connection: Connection) -> list[str]:
    """Of GRANTED, what who is connected may not do, or has no table for yet."""
    return [
        f"{privilege} on {table}{f' ({column})' if column else ''}"
        for table, privilege, column in _granted()
        if not connection.scalar(
            _MAY_COLUMN if column else _MAY, {"table": table, "privilege": privilege, "column": column}
        )
    ]


def _granted() -> Iterator[tuple[str, str, str | None]]:
    """Table, privilege, and the column that it is limited to."""
    for table, privileges in GRANTED.items():
        for told in privileges:
            privilege, _, columns = told.partition(" ")
            for column in columns.strip("()").split(", "):
                yield table, privilege, column or None


def _give_password(connection: Connection, name: str, quoted: str, password: str) -> None:
    """The server, and what it logs, are told what follows from it (SCRAM) and not the password."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, DriverConnection)
    kept = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    known = connection.scalar(text("select exists (select from pg_roles where rolname = :role)"), {"role": name})
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"{'alter' if known else 'create'} role {quoted} login password '{kept}'")
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise WorkerRoleRefused(
            f"RECAST_DATABASE_URL names a role that may not make {name!r} or give it a password.",
            hint="Do so as one that may, and leave RECAST_WORKER_ROLE_PASSWORD out.",
        ) from None


def _refuse_unbound(connection: Connection, name: str) -> None:
    unbound = connection.scalar(_ROLE, {"role": name})
    if unbound is None:
        raise WorkerRoleRefused(
            f"There is no role {name!r}.",
            hint="Make it: create role ... login password '...'; or tell `recast migrate` RECAST_WORKER_ROLE_PASSWORD.",
        )
    if unbound:
        raise WorkerRoleRefused(
            f"Grants do not bind the role {name!r}: it is a superuser, may make roles or databases, replicate or pass "
            "over policies, is a member of a role of PostgreSQL's own (pg_...), or may do what the owner may."
        )


def _refuse_more(connection: Connection, name: str) -> None:
    """What the role may by a grant to everybody or to a role that it is a member of is not ours to take back."""
    beyond = [f"use {table}" for table in connection.scalars(_BEYOND, {"role": name, "granted": list(GRANTED)})]
    if connection.scalar(_MAY_MAKE, {"role": name}):
        beyond.append("make tables and functions")
    if beyond:
        raise WorkerRoleRefused(
            f"The role {name!r} may {', '.join(beyond)}: everybody may, or a role that it is a member of.",
            hint="Revoke that. Before PostgreSQL 15: revoke create on schema public from public.",
        )
