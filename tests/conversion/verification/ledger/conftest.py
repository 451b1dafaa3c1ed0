"""Artifacts that several tests look at are exported once."""

from collections.abc import Callable

import pytest

from tests.conversion.verification.ledger.cases import Exports, build, export_all


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exports]:
    """Artifacts of a network of cases.py, by every way of exporting."""
    made: dict[str, Exports] = {}

    def export(network: str) -> Exports:
        if network not in made:
            made[network] = export_all(build(network), network, tmp_path_factory.mktemp(network))
        return made[network]

    return export
