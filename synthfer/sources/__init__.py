"""Sources: published collections of faces. A new source is one new module here with one function.

The module holds a dataclass `Config` (its options; often none) and `find(path, config) -> Collection`: which layout
is there, and one `Entry` for every face that the collection lists, also for those that turn out to be missing. It
reads lists, labels and directories; pictures are read later, many at once, by `reading.Reader`. It is found by its
module name; a dotted name names one outside this package.
"""

from synthfer.registry import Registry

_SHARED = ("entry", "reading", "index", "tables", "labels", "layouts")

_MEMBERS = Registry("source", __name__, __path__, shared=_SHARED)
names, module = _MEMBERS.names, _MEMBERS.module
