from tests.api.conftest import backstage, client, settings, url  # noqa: F401 - the api of these tests, as fixtures
