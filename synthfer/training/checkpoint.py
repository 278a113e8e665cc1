"""The state of a run as one object: tensors with a JSON header (safetensors), so that to exist is to be whole.

Seeds, data order and random draws are functions of the step, so a checkpoint holds none of them: weights, their
average, the optimiser's moments, the schedule's memory, and what validation has said so far.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor

from synthfer.store import ObjectStore

FOLDER = "checkpoints/"
_KEY = re.compile(r"checkpoints/step-(\d{8})\.safetensors$")
_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: `step` steps done, every validation until then, the schedule's memory."""

    step: int = 0
    history: tuple[Mapping[str, Any], ...] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)


def key(run: str, step: int) -> str:
    """The object of a run's state after `step` steps."""
    return f"{run}/{FOLDER}step-{step:08d}.safetensors"


def steps(store: ObjectStore, run: str) -> list[int]:
    """The steps of a run's checkpoints, ascending."""
    found = (_KEY.search(name) for name, _ in store.list(f"{run}/{FOLDER}"))
    return sorted(int(match.group(1)) for match in found if match)


def prune(store: ObjectStore, run: str, best: int) -> None:
    """Deletes all checkpoints but the best and the last two: another driver may be reading the one before."""
    for step in steps(store, run)[:-_KEPT]:
        if step != best:
            store.delete(key(run, step))


def pack(progress: Progress, modules: Mapping[str, Mapping[str, Tensor]], optimizer: Mapping[str, Any]) -> bytes:
    """The state as bytes. `modules`: state dicts by name; `optimizer`: a torch optimiser's state dict."""
    tensors = {f"{name}/{key}": value for name, state in modules.items() for key, value in state.items()}
    slots = {}
    for number, slot in optimizer["state"].items():
        for name, value in slot.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                slots[f"{number}/{name}"] = value
    header = {"progress": asdict(progress), "groups": optimizer["param_groups"], "slots": slots}
    on_cpu = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return safetensors.torch.save(on_cpu, {"synthfer": json.dumps(header)})


def unpack(body: bytes) -> tuple[Progress, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The inverse of `pack`; tensors on the CPU."""
    size = int.from_bytes(body[:8], "little")
    header = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["synthfer"])
    modules: dict[str, dict[str, Tensor]] = {}
    state: dict[int, dict[str, Any]] = {}
    for name, value in safetensors.torch.load(body).items():
        owner, _, rest = name.partition("/")
        if owner == "optimizer":
            number, _, slot = rest.partition("/")
            state.setdefault(int(number), {})[slot] = value
        else:
            modules.setdefault(owner, {})[rest] = value
    for name, value in header["slots"].items():
        number, _, slot = name.partition("/")
        state.setdefault(int(number), {})[slot] = value
    told = header["progress"]
    progress = Progress(step=told["step"], history=tuple(told["history"]), schedule=told["schedule"])
    return progress, modules, {"state": state, "param_groups": header["groups"]}
