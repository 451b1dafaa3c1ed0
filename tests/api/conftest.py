from collections.abc import Iterator
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.settings import Settings
from tests.api.server import Backstage, serving


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("api") / "data", max_upload_bytes=8 << 20)


@pytest.fixture(scope="module")
def backstage(postgres_url: str, template_database: str, settings: Settings) -> Iterator[Backstage]:
    """The workers' side of a module's service, with the architectures described."""
    name = f"api_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
        acting = Backstage(make_url(postgres_url).set(database=name).render_as_string(hide_password=False), settings)
        acting.describe_architectures()
        yield acting
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def url(backstage: Backstage) -> Iterator[str]:
    """Address of one api for all tests of a module; each test uses weights of its own."""
    with serving(backstage.settings, backstage.database_url) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as connected:
        yield connected
