"""The registry: every architecture by name, from libraries and plug-ins."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from app.architectures import construction
from app.architectures.entry import Entry, Options, Source
from app.architectures.plugins import Plugins, load_plugins
from app.architectures.recipe_trial import checked
from app.architectures.recipes import entry_of
from app.architectures.timm import TimmModels
from app.architectures.torchvision import TorchvisionModels
from app.architectures.transformers import TransformersModels
from app.domain.architecture import ArchitectureDescription, BrokenPlugin
from app.domain.catalog import unknown_architecture
from app.domain.errors import BuildFailed, InvalidOptions, RecastError
from app.domain.options import check_options, complete_options, unknown_options
from app.domain.recipe import CheckedRecipe, Recipe

Made = TypeVar("Made")


def load_registry(
    plugins_dir: Path | None = None, plugin: str | None = None, recipe: CheckedRecipe | None = None
) -> "Registry":
    """Every torchvision, timm and transformers architecture, the plug-ins installed or lying in ``plugins_dir``, and
    what the recipe makes.

    ``plugin``: of the plug-ins this one alone. A library or plug-in is imported when one of its names is first asked
    for. Raises NotADirectoryError when ``plugins_dir`` is given and is no directory.
    """
    libraries = TorchvisionModels(), TimmModels(), TransformersModels()
    return Registry(libraries, load_plugins(plugins_dir, plugin), recipe)


class Registry:
    """Architectures by name. Options are checked against the entry's schema wherever they are given."""

    def __init__(self, libraries: Iterable[Source], plugins: Plugins, recipe: CheckedRecipe | None = None) -> None:
        self._libraries = {library.prefix: library for library in libraries}
        self._plugins = plugins
        self._recipe = recipe

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """Plug-ins that could not be loaded, with their errors."""
        return self._plugins.broken

    def names(self) -> tuple[str, ...]:
        """Every name, plug-ins first. Imports all libraries: 2-3 s once."""
        return self._all_names

    @cached_property
    def _all_names(self) -> tuple[str, ...]:
        names = list(self._plugins.entries)
        for library in self._libraries.values():
            names.extend(library.names())
        return tuple(names)

    def describe(self, name: str) -> ArchitectureDescription:
        """The architecture with its default options. Raises UnknownArchitecture with the nearest names."""
        return self.resolve(name, {})

    def resolve(self, name: str, options: Mapping[str, Any]) -> ArchitectureDescription:
        """The architecture with the signature that these options give. Raises UnknownArchitecture, InvalidOptions."""
        entry = self._entry(name)
        return self._described(entry, self._complete(entry, options))

    def build(
        self,
        name: str,
        options: Mapping[str, Any],
        *,
        initialised: bool = False,
        seed: int = construction.INITIAL_SEED,
    ) -> nn.Module:
        """The module, in eval mode.

        Parameters and persistent buffers are on meta unless ``initialised``, which gives the architecture's own random
        initialisation. All other tensors are real. What is drawn at random follows from ``seed``.

        Raises UnknownArchitecture, InvalidOptions, BuildFailed.
        """
        entry = self._entry(name)
        complete = self._complete(entry, options)
        construct = construction.initialised if initialised else construction.skeleton
        return _module(entry, complete, lambda: construct(lambda: entry.construct(complete), seed))

    def outline(self, name: str, options: Mapping[str, Any]) -> nn.Module:
        """The module for the names, shapes and dtypes of its state dict alone. Raises what ``build`` does."""
        entry = self._entry(name)
        complete = self._complete(entry, options)
        return _module(entry, complete, lambda: construction.outline(lambda: entry.construct(complete)))

    def options(self, name: str, options: Mapping[str, Any]) -> Options:
        """These options with the defaults of the others. Raises UnknownArchitecture, InvalidOptions."""
        return self._complete(self._entry(name), options)

    def unknown_options(self, name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Members of a config.json among these options that the entry admits and its schema does not name."""
        return unknown_options(self._entry(name).options_schema, options)

    def converts(self, name: str) -> bool:
        """Whether the architecture's library has a conversion of its own for files in published layouts."""
        return self._entry(name).convert is not None

    def convert(
        self, name: str, module: nn.Module, options: Mapping[str, Any], tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """A state dict after its library's own conversion. Raises whatever the library raises."""
        entry = self._entry(name)
        if entry.convert is None:
            return tensors
        return entry.convert(module, self._complete(entry, options), tensors)

    def catalog(self) -> tuple[ArchitectureDescription, ...]:
        """Every architecture with its default options, ready to be stored for a process without torch."""
        return tuple(self.describe(name) for name in self.names())

    def plugin_catalog(self) -> tuple[ArchitectureDescription, ...]:
        """The same of the plug-ins alone. Raises BuildFailed when one of them cannot be loaded."""
        if self.broken:
            raise BuildFailed(self.broken[0].error)
        return tuple(self.describe(name) for name in self._plugins.entries)

    def library_catalog(self) -> tuple[ArchitectureDescription, ...]:
        """The same of the libraries alone; imports no plug-in."""
        return tuple(self.describe(name) for library in self._libraries.values() for name in library.names())

    def checked(self, recipe: Recipe) -> CheckedRecipe:
        """The recipe with all sizes. Raises UnknownArchitecture, InvalidRecipe, InvalidOptions, BuildFailed."""
        base = self._entry(recipe.base)
        return _guarded(base, lambda: checked(recipe, base))

    def _entry(self, name: str) -> Entry:
        if self._recipe is not None and name == self._recipe.recipe["name"]:
            return entry_of(self._recipe, self._entry(self._recipe.base))
        library = self._libraries.get(name.partition("/")[0] + "/")
        if library is not None and library.holds(name):
            return library.entry(name)
        entry = self._plugins.find(name)
        if entry is None:
            raise unknown_architecture(name, self.names(), self.broken)
        return entry

    @staticmethod
    def _complete(entry: Entry, options: Mapping[str, Any]) -> Options:
        check_options(entry.name, entry.options_schema, options)
        return complete_options(entry.options_schema, options)

    @staticmethod
    def _described(entry: Entry, options: Options) -> ArchitectureDescription:
        try:
            return entry.description(options)
        except RecastError:
            raise
        except Exception as error:  # a plug-in's signature function, or a library's configuration class
            raise InvalidOptions(f"{entry.name}: these options give no signature: {_words(error)}") from error


def _module(entry: Entry, options: Options, build: Callable[[], nn.Module]) -> nn.Module:
    module = _guarded(entry, build, options)
    if not isinstance(module, nn.Module):
        raise BuildFailed(f"{entry.name}: the builder returned {type(module).__name__}, not a torch.nn.Module.")
    return module


def _guarded(entry: Entry, build: Callable[[], Made], options: Options | None = None) -> Made:
    try:
        return build()
    except RecastError:
        raise
    except Exception as error:  # whatever a library's or an author's constructor raises
        raise BuildFailed(
            f"{entry.name}: the constructor raised {_words(error)}", stage="build", hint=_remedy(entry, options)
        ) from error


def _remedy(entry: Entry, options: Options | None) -> str:
    if entry.library == "transformers" and options == complete_options(entry.options_schema, {}):
        return (
            f"These are transformers' own defaults for {entry.family}, of which transformers itself cannot build the "
            "model. Send the content of your model's config.json as architecture_options."
        )
    return "Check the architecture options: this combination of them cannot be built."


def _words(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
