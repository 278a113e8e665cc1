"""The pickles in a torch file, looked through before torch reads them.

torch runs no code of a file, but it calls what it knows, such as `bytearray` with any number: a file of 30 bytes may
take all memory. Here only what state dicts consist of is let through.
"""

import io
import pickletools
from collections.abc import Iterator
from typing import Any

import torch

MAX_STEPS = 2_000_000
"""In all pickles of a file; a tensor takes about 45, and optimizers keep two more for each of a network."""
_MAX_COPIED = 10_000_000
"""Copies of containers times steps, which bounds what copies of copies may take."""
_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat",
          "ComplexDouble")  # fmt: skip
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
           "complex128", "float8_e4m3fn", "float8_e5m2")  # fmt: skip
_COPYING = {"collections OrderedDict", "collections Counter", "torch Size", "builtins set", "__builtin__ set"}
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state")
_KNOWN = {
    *_COPYING,
    *(f"torch._utils {name}" for name in _REBUILT),
    *(f"torch {kind}Storage" for kind in _KINDS),
    *(f"torch {name}" for name in _DTYPES),
    "torch device",
    "torch.nn.parameter Parameter",
}
"""What a pickle may name, as module and name. None takes more memory than the file gives it, but for copies."""
_PICKLES_OF_OLD_FILES = 5  # a magic number, a version, facts about the machine, the content, names of its storages
_GETS = ("BINGET", "LONG_BINGET")


def check_pickles(body: bytes) -> None:
    """`ValueError` where the pickles of a torch file name anything but what state dicts consist of."""
    if body[:4] == b"PK\x03\x04":  # as torch tells them apart
        # By torch's own reader: others may take another member of the archive for the pickle.
        record: bytes = torch._C.PyTorchFileReader(io.BytesIO(body)).get_record("data.pkl")
        names = _called(io.BytesIO(record), 1)
    else:
        names = _called(io.BytesIO(body), _PICKLES_OF_OLD_FILES)
    for name in names:
        if name not in _KNOWN:
            module, _, rest = name.replace("__builtin__", "builtins", 1).partition(" ")
            raise ValueError(f"its pickle names {module[:80]}.{rest[:80]}, which is no part of a state dict.")


def _called(file: io.BytesIO, pickles: int) -> Iterator[str]:
    """The names in these pickles, one after the other, while the number of steps and of copies is within bounds."""
    steps = copies = 0
    for number in range(pickles):
        named: set[int] = set()  # places in the memo that hold what copies
        wanted = ""  # the step by which what copies on top of the stack is called with nothing
        for opcode, argument, _ in _steps(file, number):
            kind = opcode.name
            steps += 1
            if kind == "GLOBAL":
                yield str(argument)
            if kind in ("BINPUT", "LONG_BINPUT"):
                (named.add if wanted == "EMPTY_TUPLE" else named.discard)(argument)
                continue
            copies += bool(wanted) and kind != wanted
            if argument in _COPYING if kind == "GLOBAL" else kind in _GETS and argument in named:
                wanted = "EMPTY_TUPLE"
            else:
                wanted = "REDUCE" if kind == wanted == "EMPTY_TUPLE" else ""
            if steps > MAX_STEPS or copies * steps > _MAX_COPIED:
                raise ValueError("its pickle builds more than any state dict has.")


def _steps(file: io.BytesIO, number: int) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(file)
    except (ValueError, LookupError) as error:
        raise ValueError(
            "it is neither a zip nor pickles, as torch writes them." if number == 0 else "it is cut off or damaged."
        ) from error
