"""Sources: published collections of faces. Adding a source means adding one module here with one function.

The module holds a dataclass `Config` (its options; often none) and `find(path, config) -> Collection`, which tells the
published layouts apart and gives one `Entry` for every face that the collection lists, also for those whose image is
missing. It reads lists, labels and directories only; images are read later, by many workers at once, with
`collection_reader.CollectionReader`. A source is named after its module; a name with a dot is a module outside this
package.
"""

from synthfer.registry import Registry

_SHARED = ("entry", "collection_reader", "index", "tables", "labels", "layouts", "archives", "parquet_files")

_MEMBERS = Registry("source", __name__, __path__, shared=_SHARED, function="find")
names, module, named = _MEMBERS.names, _MEMBERS.module, _MEMBERS.named
