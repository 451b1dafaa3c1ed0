"""``recast_plugins`` stands without the service, without torch, and beside a package named app."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pydantic
import pytest
import recast_plugins

NEEDED = [str(Path(package.__file__).parents[1]) for package in (recast_plugins, pydantic)]


def test_a_plugin_of_a_package_named_app_is_declared_where_neither_the_service_nor_torch_is(tmp_path: Path) -> None:
    plugin = """
        from recast_plugins import Axis, Field, InputSpec, Signature, architecture
        from app.layers import Layer

        @architecture("acme/layer", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),)))
        def layer(width: "int" = 4) -> "Layer":
            '''One layer.'''
            return Layer(width)
    """
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "layers.py").write_text("class Layer:\n    def __init__(self, width): self.width = width\n")
    (tmp_path / "acme.py").write_text(dedent(plugin))
    program = """
        import json, sys
        sys.modules["torch"] = None  # an import of it raises
        import acme, recast_plugins
        (declared,) = recast_plugins.declarations(vars(acme))
        print(json.dumps([declared.summary, declared.construct({"width": 7}).width, acme.Layer.__module__]))
    """
    path = [str(tmp_path), *NEEDED]
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {path!r}\n{dedent(program)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["One layer.", 7, "app.layers"]


@pytest.mark.parametrize("name", sorted(set(recast_plugins.__all__) - {"Declaration", "declarations"}))
def test_what_authors_imported_from_the_service_is_the_same_for_one_release(name: str) -> None:
    from app.architectures import plugins

    with pytest.warns(DeprecationWarning, match=f"Import {name} from recast_plugins"):
        assert getattr(plugins, name) is getattr(recast_plugins, name)


def test_the_service_lends_authors_nothing_else() -> None:
    from app.architectures import plugins

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = plugins.nonsense
