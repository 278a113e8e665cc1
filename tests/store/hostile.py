"""Datasets and views that somebody has tampered with, for tables of cases: each changes one object of a sound one."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.canonical import sha256
from synthfer.cli import main
from synthfer.dataset_commands import COMMANDS
from synthfer.report.command import COMMAND as GALLERY

DEEP = "[" * 100_000 + "]" * 100_000
Change = Callable[[Path], object]


def call(name: str, *words: str) -> int:
    """The exit code of a command that looks at datasets."""
    commands = {**COMMANDS, "gallery": GALLERY}
    return main(commands, [name, *words, "--json"])


def text(value: str | bytes) -> Change:
    """The object has this content."""
    return lambda path: path.write_bytes(value if isinstance(value, bytes) else value.encode())


def edit(change: Callable[[dict[str, Any]], object]) -> Change:
    """A JSON object is changed."""

    def edited(path: Path) -> None:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return edited


def contract(change: Callable[[dict[str, Any]], object]) -> Change:
    """`_dataset.json` with another spec, and the hash and totals that belong to it: only its content gives it away."""

    def changed(value: dict[str, Any]) -> None:
        change(value["spec"])
        spec = value["spec"]
        value["spec_sha256"] = sha256(spec)
        if all(type(spec.get(name)) is int and spec[name] > 0 for name in ("rows", "unit_size")):
            value["totals"] = {"rows": spec["rows"], "units": -(-spec["rows"] // spec["unit_size"])}

    return edit(changed)


def gone(path: Path) -> None:
    """There is nothing."""
    path.unlink()


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    """A link to a device without an end."""
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    """A folder with a file in it."""
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def loop(path: Path) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    """A link that leads nowhere."""
    path.unlink()
    path.symlink_to("nothing-there")


SPECIAL: dict[str, Change] = {
    "a pipe": pipe, "a device": device, "a folder": folder, "a loop": loop, "a dangling link": dangling,
}  # fmt: skip


def sparse(size: int) -> Change:
    """A file of a huge size that takes no room."""
    return lambda path: os.truncate(path, size)


def table(change: Callable[[pa.Table], pa.Table], **options: Any) -> Change:
    """A Parquet object with another table, its other metadata kept."""

    def changed(path: Path) -> None:
        stored = pq.read_table(path)
        pq.write_table(change(stored).replace_schema_metadata(stored.schema.metadata), path, **options)

    return changed


def column(name: str, values: Callable[[int], Any], dtype: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    """The table with other values in one column, for `table`."""

    def changed(stored: pa.Table) -> pa.Table:
        field = stored.schema.field(name)
        array = pa.array([values(row) for row in range(len(stored))], dtype or field.type)
        return stored.set_column(stored.schema.get_field_index(name), name, array)

    return changed


def repeated(rows: int, size: int) -> pa.DictionaryArray:
    """One long text for many rows, as a dictionary: small here and in a file, rows x size bytes once it is unpacked."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))


def flipped(at: float) -> Change:
    """One bit is another."""

    def changed(path: Path) -> None:
        body = bytearray(path.read_bytes())
        body[int(at * (len(body) - 1))] ^= 4
        path.write_bytes(body)

    return changed


def cut(share: float) -> Change:
    """The end is missing."""
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def footer_length(length: int) -> Change:
    """A Parquet footer that states another length."""
    return lambda path: path.write_bytes(path.read_bytes()[:-8] + length.to_bytes(4, "little") + b"PAR1")


def copy(dataset: Path, place: Path) -> Path:
    """A copy to tamper with, hard links where they serve."""
    return Path(shutil.copytree(dataset, place))
