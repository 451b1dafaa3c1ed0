from tests.service.conftest import places, service  # noqa: F401 - a running service, as fixtures
