"""Name -> plug-in, found by listing a folder: adding one is one new file and nothing else."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from glmmnet.errors import OptionError, hint

T = TypeVar("T")


def plugin_modules(package: str) -> tuple[str, ...]:
    """Names of the modules that register the plug-ins of a package, which is not imported for it."""
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else spec.submodule_search_locations
    return tuple(module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_"))


class Registry(Generic[T]):
    """Plug-ins of one kind, registered by the modules of one package.

    Parameters
    ----------
    kind : str
        What a plug-in is called in messages, e.g. ``"family"``.
    package : str
        Import path of the package whose modules register the plug-ins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._plugins: dict[str, T] = {}
        self._listed = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that makes a plug-in known under `name`."""

        def add(plugin: T) -> T:
            self._plugins[name] = plugin
            return plugin

        return add

    def __getitem__(self, name: str) -> T:
        """The plug-in called `name`; OptionError names the nearest one that exists."""
        self._list_package()
        if name not in self._plugins:
            raise OptionError(f"There is no {self._kind} {name!r}; {hint(name, self._plugins)}")
        return self._plugins[name]

    def __iter__(self) -> Iterator[str]:
        self._list_package()
        return iter(sorted(self._plugins))

    def __contains__(self, name: object) -> bool:
        self._list_package()
        return name in self._plugins

    def _list_package(self) -> None:
        if self._listed:
            return
        for module in plugin_modules(self._package):
            importlib.import_module(f"{self._package}.{module}")
        self._listed = True
