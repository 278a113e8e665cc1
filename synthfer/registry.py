"""Registries by name: each extension point is a package, and its modules are the members."""

import importlib
import pkgutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import ModuleType

from synthfer.suggest import nearest


@dataclass(frozen=True)
class Registry:
    """The members of `package`: its modules, without the helpers named in `shared`.

    `what` is the word for a member in error messages. A name with a dot is a module of the user's own.
    """

    what: str
    package: str
    path: Iterable[str]
    shared: Collection[str] = ()

    def names(self) -> list[str]:
        """The members that ship, by name; modules whose names begin with an underscore are left out."""
        modules = (module.name for module in pkgutil.iter_modules(self.path))
        return sorted(name for name in modules if not name.startswith("_") and name not in self.shared)

    def module(self, name: str) -> ModuleType:
        """The module of a member; `ValueError` names the nearest known one."""
        known = self.names()
        if "." not in name and name not in known:
            hint = nearest(name, known) or "."
            raise ValueError(f"unknown {self.what} {name!r}{hint} Known: {', '.join(known)}, or a dotted module name.")
        return importlib.import_module(name if "." in name else f"{self.package}.{name}")
