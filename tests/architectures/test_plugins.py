"""Plug-ins: how they are found, declared, and told to be broken."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from recast_plugins import InputSpec, Signature, architecture

from app.architectures.calling import EagerModel, call
from app.architectures.plugin_files import find_plugins, names_in
from app.architectures.plugins import load_plugins
from app.architectures.registry import load_registry
from app.architectures.sample import sample_inputs
from app.domain.errors import BuildFailed, InvalidOptions, UnknownArchitecture

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
HEADER = """
    from torch import nn
    from recast_plugins import InputSpec, Signature, architecture
    SIGNATURE = Signature(inputs=(InputSpec(name="input", shape=("batch", 4)),))
"""
WORKING = """
    @architecture("{name}", signature=SIGNATURE)
    def build() -> nn.Module:
        return nn.Linear(4, 2)
"""
X = Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),))


def write(path: Path, *parts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(dedent(part) for part in parts))


def test_the_documented_example_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "acme.py").write_text(example)
    registry = load_registry(tmp_path)

    assert registry.broken == ()
    description = registry.resolve("acme/scorer", {"features": 5})
    assert description.summary == "Scores rows of measurements."
    assert description.options_schema["properties"]["hidden"]["maximum"] == 4096
    module = registry.build("acme/scorer", {"features": 5}, initialised=True)
    inputs = sample_inputs(description.signature, {"batch": 3}, torch.Generator().manual_seed(0))
    assert call(EagerModel(module, description.signature), inputs)["score"].shape == (3,)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("import a_module_that_is_nowhere", "ModuleNotFoundError"),
        ("VALUE = 1", "declares no architecture"),
        (HEADER + WORKING.format(name="good/linear"), "already taken"),
        (HEADER + WORKING.format(name="torchvision/resnet18"), "not a name for a plug-in"),
        (HEADER + WORKING.format(name="../escape"), "not a name for a plug-in"),
        (
            HEADER
            + """
    @architecture("bad/undescribed", signature=lambda: 1 / 0)
    def build() -> nn.Module:
        return nn.Identity()
""",
            "ZeroDivisionError",
        ),
    ],
)
def test_a_broken_plugin_hides_no_other_and_says_why(tmp_path: Path, source: str, error: str) -> None:
    write(tmp_path / "good.py", HEADER, WORKING.format(name="good/linear"))
    write(tmp_path / "zbad.py", source)
    registry = load_registry(tmp_path)

    assert registry.build("good/linear", {}).weight.is_meta
    assert [plugin.name for plugin in registry.broken] == ["zbad"]
    assert error in registry.broken[0].error
    with pytest.raises(UnknownArchitecture, match="could not be loaded"):
        registry.describe("zbad/anything")


def test_packages_and_private_files_of_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "kit" / "layers.py", "from torch import nn\nclass Block(nn.Linear): ...")
    write(
        tmp_path / "kit" / "__init__.py",
        HEADER,
        """
        from .layers import Block

        @architecture("kit/block", signature=SIGNATURE)
        def build() -> nn.Module:
            return Block(4, 2)
        """,
    )
    write(tmp_path / "_private.py", "raise RuntimeError")
    write(tmp_path / "notes.txt", "not a module")
    plugins = load_plugins(tmp_path)

    assert list(plugins.entries) == ["kit/block"]
    assert plugins.broken == ()

    digest = plugins.entries["kit/block"].source_digest
    write(tmp_path / "kit" / "layers.py", "from torch import nn\nclass Block(nn.Linear):\n    scale = 2")
    assert load_plugins(tmp_path).entries["kit/block"].source_digest != digest


def test_installed_plugins_are_found_by_their_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "installed_models.py", HEADER, WORKING.format(name="installed/linear"))
    write(
        tmp_path / "installed_models-2.5.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: installed-models\nVersion: 2.5\n",
    )
    write(
        tmp_path / "installed_models-2.5.dist-info" / "entry_points.txt",
        "[recast.architectures]\ninstalled = installed_models\n",
    )
    monkeypatch.syspath_prepend(tmp_path)

    description = load_registry().describe("installed/linear")
    assert (description.library, description.library_version) == ("installed-models", "2.5")
    assert description.source_digest is not None
    assert load_registry().build("installed/linear", {}).weight.shape == (2, 4)


def test_a_plugin_is_imported_for_its_own_architectures_alone(tmp_path: Path) -> None:
    write(tmp_path / "good.py", HEADER, WORKING.format(name="good/linear"))
    write(tmp_path / "hangs.py", "raise KeyboardInterrupt  # what no import survives")

    assert load_registry(tmp_path).build("good/linear", {}).weight.is_meta
    assert load_registry(tmp_path).describe("torchvision/resnet18").plugin is None
    assert load_registry(tmp_path, "good").describe("good/linear").plugin == "good"
    assert [entry.name for entry in load_registry(tmp_path, "good").plugin_catalog()] == ["good/linear"]
    with pytest.raises(UnknownArchitecture):
        load_registry(tmp_path, "").describe("good/linear")


def test_a_plugin_whose_names_are_not_its_own_name_is_found(tmp_path: Path) -> None:
    write(tmp_path / "models.py", HEADER, WORKING.format(name="acme/linear"))
    write(tmp_path / "other.py", HEADER, WORKING.format(name="other/linear"))
    assert load_registry(tmp_path).describe("acme/linear").plugin == "models"


def test_what_a_broken_plugin_would_declare_is_read_from_its_source(tmp_path: Path) -> None:
    write(tmp_path / "models.py", "1 / 0", HEADER, WORKING.format(name="acme/linear"))
    (plugin,) = find_plugins(tmp_path)
    assert names_in(plugin) == ("acme/linear",)


def test_a_plugins_directory_that_does_not_exist_is_an_error_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        load_plugins(tmp_path / "missing")


def test_builders_whose_parameters_cannot_be_options_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="needs an annotation and a default"):
        architecture("a/b", signature=X)(lambda width: torch.nn.Identity())
    with pytest.raises(TypeError, match="cannot be an option"):
        architecture("a/b", signature=X)(lambda *layers: torch.nn.Identity())
    with pytest.raises(TypeError, match="the builder has not"):
        architecture("a/b", signature=lambda depth: X)(lambda: torch.nn.Identity())


def test_what_an_author_returns_and_raises_is_told(tmp_path: Path) -> None:
    write(
        tmp_path / "odd.py",
        HEADER,
        """
        from typing import Literal

        @architecture("odd/builder", signature=SIGNATURE)
        def build(kind: Literal["number", "raises"] = "number") -> nn.Module:
            if kind == "raises":
                raise KeyError("missing part")
            return 3
        """,
    )
    registry = load_registry(tmp_path)
    with pytest.raises(BuildFailed, match="KeyError: 'missing part'"):
        registry.build("odd/builder", {"kind": "raises"})
    with pytest.raises(BuildFailed, match="int"):
        registry.build("odd/builder", {})
    with pytest.raises(InvalidOptions):
        registry.build("odd/builder", {"kind": "other"})


def test_names_of_plugins_are_never_shadowed_by_a_directory_entry_twice(tmp_path: Path) -> None:
    write(tmp_path / "one.py", HEADER, WORKING.format(name="same/name"))
    write(tmp_path / "two.py", HEADER, WORKING.format(name="same/name"))
    plugins = load_plugins(tmp_path)
    assert list(plugins.entries) == ["same/name"]
    assert [plugin.name for plugin in plugins.broken] == ["two"]
