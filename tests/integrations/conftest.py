from tests.service.conftest import client, places, service  # noqa: F401 - a running service, as fixtures
