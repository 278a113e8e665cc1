"""Files of weights as a stranger may write them, as bytes."""

import io
import json
import pickle
import struct
import zipfile
from typing import Any

import torch


def safetensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of this header (a value, or its bytes), which may lie about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one_tensor(
    name: str = "a", dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4), data: bytes = bytes(4)
) -> bytes:
    return safetensors_file({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, data)


def torch_file(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def old_torch_file(value: Any) -> bytes:
    """As torch before 1.6 wrote it: pickles, one after the other."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def rewritten(body: bytes, compression: int = zipfile.ZIP_STORED, **members: bytes | None) -> bytes:
    """A torch file with some members replaced (None: left out), by the last part of their names without dots."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as source, zipfile.ZipFile(target, "w", compression) as archive:
        for one in source.infolist():
            key = one.filename.rpartition("/")[2].partition(".")[0]
            content = members.get(key if key.isidentifier() else f"_{key}", source.read(one))
            if content is not None:
                archive.writestr(one.filename, content)
    return target.getvalue()


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def called(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle that calls what it names; arguments are texts or numbers below 2^31 or 2^63."""
    made = b"".join(pickle.dumps(one, protocol=2)[2:-1] for one in arguments)
    return b"\x80\x02}X\x01\x00\x00\x00ac" + f"{module}\n{name}\n(".encode() + made + b"tRs."


def copies(module: str, name: str, size: int, number: int) -> bytes:
    """A pickle of a list of `number` copies of one map of `size` entries."""
    entries = b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(size))
    given = b"}(" + entries + b"u\x85q\x00"
    return b"\x80\x02" + given + f"c{module}\n{name}\nq\x01]q\x02(".encode() + b"h\x01h\x00R" * number + b"e\x86\x86."


def old_without_storages() -> bytes:
    """An old file of a tensor of 400 MB, whose list of storages is empty: none is read."""
    body = old_torch_file({"a": torch.zeros(3)})
    large = b"J" + struct.pack("<i", 10**8)
    body = body.replace(b"K\x03K\x00\x85", large + b"K\x00\x85").replace(b"K\x03\x85", large + b"\x85")
    start = body.rindex(b"\x80\x02]")
    return body[:start] + pickle.dumps([], protocol=2)
