"""Sources: published collections of faces. A new source is one new module here with one function.

The module holds a dataclass `Config` (its options; often none) and `find(path, config) -> Collection`: which layout
is there, and one `Entry` for every face that the collection lists, also for those that turn out to be missing. It
reads lists, labels and directories; pictures are read later, many at once, by `reading.Reader`. It is found by its
module name; a dotted name names one outside this package.
"""

import importlib
import pkgutil
from types import ModuleType

from synthfer.nearest import nearest

_SHARED = ("entry", "reading", "index", "tables", "labels", "layouts")


def names() -> list[str]:
    """The sources that ship, by name."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def module(name: str) -> ModuleType:
    """The module of a source; `ValueError` names the nearest known one."""
    if "." not in name and name not in names():
        hint = nearest(name, names()) or "."
        raise ValueError(f"unknown source {name!r}{hint} Known: {', '.join(names())}, or a dotted module name.")
    return importlib.import_module(name if "." in name else f"{__name__}.{name}")
