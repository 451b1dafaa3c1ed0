"""What several workers offer together."""

from app.api.catalog import together
from app.database.catalogs import Described
from tests.domain.test_catalog import entry


def test_a_target_that_one_of_the_workers_lacks_is_lacking() -> None:
    whole = Described("one", [entry("a/b", "c")])
    less = Described("two", [entry("a/b", "c").without({"openvino": "pip install it"})])
    for offers in ((whole, less), (less, whole)):
        told = together(offers).get("a/b")
        assert told.lacking == {"openvino": "pip install it"}
        assert "openvino" not in told.targets
    assert together((whole, whole)).get("a/b") == entry("a/b", "c")
