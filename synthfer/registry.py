"""Registries by name: each extension point is a package, and its modules are the members.

A member that ships goes by its plain name, also where the name comes out of a file. A dotted name is a module of the
user's own and is imported, so it must come from the user's command line or config, never from a file that travels with
data or weights: such a name goes through `named`, with the modules that the user gave.
"""

import importlib
import pkgutil
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, is_dataclass
from types import ModuleType

from synthfer.suggest import nearest

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Registry:
    """The members of `package`: its modules, without the helpers named in `shared`.

    `what` is the word for a member in error messages, `function` what every member has beside its dataclass `Config`.
    A name with a dot is a module of the user's own.
    """

    what: str
    package: str
    path: Iterable[str]
    shared: Collection[str] = ()
    function: str = "build"

    def names(self) -> list[str]:
        """The members that ship, by name; modules whose names begin with an underscore are left out."""
        modules = (module.name for module in pkgutil.iter_modules(self.path))
        return sorted(name for name in modules if not name.startswith("_") and name not in self.shared)

    def module(self, name: str) -> ModuleType:
        """The module of a member that the user named; `ValueError` names the nearest known one.

        A dotted name is imported. `ValueError`: it is none, it cannot be imported, or the module is no member.
        """
        if not isinstance(name, str):
            raise ValueError(f"a {self.what} is given by its name, not by a list or a map")
        plain = name.removeprefix(f"{self.package}.")
        return self._own(name) if "." in plain else self._shipped(plain, ", or a dotted module name")

    def named(self, name: str, modules: Collection[str] = ()) -> ModuleType:
        """The module of a member by a name that stands in a file: one that ships, or one of the user's `modules`.

        `ValueError`: it is neither. Nothing is imported by the word of a file.
        """
        if name in modules:
            return self.module(name)
        own = ", or a dotted module that you name by modules=[NAME]" if "." in name else ""
        return self._shipped(name, own)

    def _shipped(self, name: str, others: str) -> ModuleType:
        known = self.names()
        if name not in known:
            hint = nearest(name, known) or "."
            raise ValueError(f"unknown {self.what} {_shown(name)}{hint} Known: {', '.join(known)}{others}.")
        return importlib.import_module(f"{self.package}.{name}")

    def _own(self, name: str) -> ModuleType:
        if len(name) > _LONGEST_NAME or not _DOTTED.fullmatch(name):
            raise ValueError(f"{self.what} {_shown(name)} is not the dotted name of a module, as my_package.my_module.")
        try:
            module = importlib.import_module(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise ValueError(f"{self.what} {name} cannot be imported: {reason}") from error
        lacking = [] if _is_schema(getattr(module, "Config", None)) else ["a dataclass Config"]
        if not callable(getattr(module, self.function, None)):
            lacking.append(f"a function {self.function}")
        if lacking:
            raise ValueError(f"{name} is no {self.what}: it has not {' and '.join(lacking)}.")
        return module


def _is_schema(value: object) -> bool:
    return isinstance(value, type) and is_dataclass(value)


def _shown(name: str) -> str:
    return repr(name) if len(name) <= _LONGEST_NAME else f"{name[:40]!r}... ({len(name):,} characters)"
