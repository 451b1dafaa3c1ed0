"""The role of workers: what it may and may not, and who gives it that."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from app.database.embedded import SUPERUSER, USER
from app.database.migrations import NotTheOwner, migrate, missing_for_worker
from app.database.tables import Table
from app.database.worker_role import GRANTED, WITHHELD, WorkerRole, WorkerRoleRefused
from tests.conftest import WORKERS

OF_OTHERS = (
    "select digest from api_keys",
    "update api_keys set revoked_at = null",
    "insert into api_keys (id, project_id, name, digest, shown, scopes) values ('k', 'default', '', '', '', '[]')",
    "select digest from sign_ins",
    "select subject from audit",
    "insert into audit (project_id, action, subject, outcome, client, request_id) values ('', '', '', '', '', '')",
    "delete from audit",
    "update projects set limits = '{}'",
    "select key from idempotency_keys",
    "select filename from uploads",
    "select key from rates",
    "delete from conversions",
    "update webhooks set url = 'https://elsewhere.example'",
    "update signing_keys set seed = null",
    "update identity set id = 'another'",
    "delete from alembic_version",
    "create table mine (id int)",
    "create function mine() returns int language sql as 'select 1'",
    "create role mine",
    "alter role recast_worker superuser",
    "set role recast",
    "copy (select 1) to program 'true'",
    "copy workers from '/etc/passwd'",
    "select pg_read_file('/etc/passwd')",
)


def queue_tables(url: str) -> set[str]:
    """Tables that are not described in tables.py."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'")
        return {name for (name,) in rows} - set(Table.metadata.tables)


def test_of_every_table_it_is_decided_what_workers_may_do_with_it(database_url: str) -> None:
    assert not set(GRANTED) & WITHHELD
    assert set(GRANTED) | WITHHELD == set(Table.metadata.tables) | queue_tables(database_url)


def test_the_database_refuses_a_worker_what_is_not_its_own(worker_url: str) -> None:
    permitted = []
    with psycopg.connect(worker_url, autocommit=True) as connection:
        for statement in OF_OTHERS:
            try:
                connection.execute(statement)
            except errors.InsufficientPrivilege:
                continue
            permitted.append(statement)
    assert permitted == []


def test_a_worker_finds_nothing_missing_and_migrates_nothing(worker_url: str) -> None:
    assert missing_for_worker(worker_url) is None
    with pytest.raises(NotTheOwner):
        migrate(worker_url)


def test_a_table_that_nobody_decided_of_is_closed_and_a_grant_too_many_is_taken_back(
    database_url: str, worker_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("create table later (id int)")
        connection.execute(f"grant all on all tables in schema public to {WORKERS.name}")
        connection.execute(f"grant select (digest) on api_keys to {WORKERS.name}")
    migrate(database_url, role=WorkerRole(WORKERS.name))
    for query in ("select id from later", "select digest from api_keys"):
        with psycopg.connect(worker_url) as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.execute(query)


@pytest.mark.parametrize("grant", ["select on api_keys", "update (name) on projects_of_all", "create on schema public"])
def test_what_everybody_may_is_not_overlooked(database_url: str, grant: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("create table projects_of_all (name text)")
        connection.execute(f"grant {grant} to public")
    with pytest.raises(WorkerRoleRefused, match="everybody"):
        migrate(database_url, role=WorkerRole(WORKERS.name))


def test_a_worker_is_told_what_others_have_to_do_first(database_url: str, worker_url: str) -> None:
    for statement, missing in (
        ("delete from queue_migrations where name = (select max(name) from queue_migrations)", "of the queue"),
        ("update alembic_version set version_num = '0024'", "migrations"),
        ("revoke update (store_claimed_at) on identity from recast_worker", "update on identity (store_claimed_at)"),
        ("drop table recipes", "select on recipes"),
    ):
        with psycopg.connect(database_url) as connection:
            connection.execute(statement)
        assert missing in (missing_for_worker(worker_url) or "")


def test_a_later_versions_grants_are_left_alone(database_url: str, worker_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update alembic_version set version_num = 'of a later version'")
        connection.execute("create table later (id int)")
        connection.execute(f"grant select on later to {WORKERS.name}")
    migrate(database_url, role=WorkerRole(WORKERS.name))
    assert missing_for_worker(worker_url) is None
    with psycopg.connect(worker_url) as connection:
        connection.execute("select id from later")


@pytest.fixture
def roles(superuser_url: str) -> Iterator[tuple[str, str]]:
    """Names of one that may make roles and do all that the owner may, and of none yet. Before a database."""
    maker, name = f"maker_{uuid4().hex}", f'of"{uuid4().hex}'
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"create role {maker} login createrole password 'm' in role {USER}")
        yield maker, name
        connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))
        connection.execute(f"drop role {maker}")


def logged_in(url: str, name: str, password: str) -> str:
    return make_url(url).set(username=name, password=password).render_as_string(hide_password=False)


def test_who_may_make_roles_makes_it_with_its_password_and_changes_that(
    roles: tuple[str, str], database_url: str
) -> None:
    maker, name = roles
    for password in ("it's", 'anoth"er'):
        migrate(logged_in(database_url, maker, "m"), role=WorkerRole(name, password))
        assert missing_for_worker(logged_in(database_url, name, password)) is None
    with pytest.raises(OperationalError, match="authentication failed"):
        missing_for_worker(logged_in(database_url, name, "it's"))


def test_a_role_that_is_not_there_or_that_grants_do_not_bind_is_refused(
    roles: tuple[str, str], superuser_url: str, database_url: str
) -> None:
    maker, name = roles
    for wrong, reason in ((name, "no role"), (USER, "do not bind"), (SUPERUSER, "do not bind"), (maker, "do not bind")):
        with pytest.raises(WorkerRoleRefused, match=reason):
            migrate(database_url, role=WorkerRole(wrong))
    with pytest.raises(WorkerRoleRefused, match="do not bind"):  # the owner's, when another migrates
        migrate(logged_in(database_url, maker, "m"), role=WorkerRole(USER))
    migrate(logged_in(database_url, maker, "m"), role=WorkerRole(name, "password"))
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        for more, less in (
            ("grant pg_read_all_data to {}", "revoke pg_read_all_data from {}"),
            ("grant pg_execute_server_program to {}", "revoke pg_execute_server_program from {}"),
            *(
                (f"alter role {{}} {what}", f"alter role {{}} no{what}")
                for what in ("replication", "bypassrls", "createdb")
            ),
        ):
            connection.execute(sql.SQL(more).format(sql.Identifier(name)))
            with pytest.raises(WorkerRoleRefused, match="do not bind"):
                migrate(database_url, role=WorkerRole(name))
            connection.execute(sql.SQL(less).format(sql.Identifier(name)))
    migrate(database_url, role=WorkerRole(name))
    with pytest.raises(WorkerRoleRefused, match="may not make"):
        migrate(database_url, role=WorkerRole(name, "password"))
