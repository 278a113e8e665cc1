"""The state of a run as one object: tensors with a JSON header (safetensors), so one that exists is complete.

Seeds, data order and random numbers are functions of the step and are not stored. A checkpoint holds weights, their
averages, the optimisers' moments, the task's own state (its schedule), and the validations so far.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from synthfer.documents import read_json
from synthfer.store import ObjectStore
from synthfer.training.world import World

MAX_HEADER_BYTES = 64 * 2**20
FOLDER = "checkpoints/"
_KEY = re.compile(r"checkpoints/step-(\d{8})\.safetensors$")
_KEPT = 2
_OPTIMIZER = "optimizer"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: `step` steps done, every validation until then, the task's own state (`schedule`).

    `losses` are those of the steps since the last validation, by name.
    """

    step: int = 0
    history: tuple[Mapping[str, Any], ...] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)


def key(run: str, step: int) -> str:
    """The object of a run's state after `step` steps."""
    return f"{run}/{FOLDER}step-{step:08d}.safetensors"


def steps(store: ObjectStore, run: str) -> list[int]:
    """The steps of a run's checkpoints, ascending."""
    matches = (_KEY.search(name) for name, _ in store.list(f"{run}/{FOLDER}"))
    return sorted(int(match.group(1)) for match in matches if match)


def latest(store: ObjectStore, run: str, world: World) -> bytes | None:
    """The last checkpoint of a run, the one that the first rank sees."""
    step = world.broadcast(max(steps(store, run), default=0) if world.rank == 0 else 0)
    return store.get(key(run, step)) if step else None


def prune(store: ObjectStore, run: str, best: int | None = None) -> None:
    """Deletes all checkpoints but the best and the last two: another driver may be reading the one before."""
    for step in steps(store, run)[:-_KEPT]:
        if step != best:
            store.delete(key(run, step))


def pack(
    progress: Progress, modules: Mapping[str, Mapping[str, Tensor]], optimizers: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """The state as bytes. State dicts by name: of `modules`, none of them called optimizer, and of `optimizers`."""
    tensors = {f"{name}/{key}": value for name, state in modules.items() for key, value in state.items()}
    slots = {}
    for owner, optimizer in optimizers.items():
        for number, slot in optimizer["state"].items():
            for name, value in slot.items():
                where = f"{owner}/{number}/{name}"
                if isinstance(value, Tensor):
                    tensors[f"{_OPTIMIZER}/{where}"] = value
                else:
                    slots[where] = value
    groups = {owner: optimizer["param_groups"] for owner, optimizer in optimizers.items()}
    header = {"progress": asdict(progress), "groups": groups, "slots": slots}
    on_cpu = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return safetensors.torch.save(on_cpu, {"synthfer": json.dumps(header)})


def unpack(body: bytes) -> tuple[Progress, dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
    """The inverse of `pack`; tensors on the CPU. `ValueError`: the bytes are no checkpoint of a training."""
    try:
        return _unpack(body)
    except (SafetensorError, KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(
            f"a checkpoint of the training is damaged ({type(error).__name__}: {' '.join(str(error).split())[:300]}): "
            "delete it, and the training goes on from the one before"
        ) from error


def _unpack(body: bytes) -> tuple[Progress, dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
    size = int.from_bytes(body[:8], "little")
    if not 0 < size <= min(MAX_HEADER_BYTES, len(body) - 8):
        raise ValueError(f"a header of {size:,} bytes in a file of {len(body):,}")
    outer = read_json(body[8 : 8 + size], "the header")
    header = read_json(outer["__metadata__"]["synthfer"], "the header's state")
    modules: dict[str, dict[str, Tensor]] = {}
    slots: dict[str, Any] = dict(header["slots"])
    for name, value in safetensors.torch.load(body).items():
        owner, _, rest = name.partition("/")
        if owner == _OPTIMIZER:
            slots[rest] = value
        else:
            modules.setdefault(owner, {})[rest] = value
    optimizers = {owner: {"state": {}, "param_groups": groups} for owner, groups in header["groups"].items()}
    for name, value in slots.items():
        owner, number, slot = name.split("/")
        optimizers[owner]["state"].setdefault(int(number), {})[slot] = value
    progress = Progress(**header["progress"] | {"history": tuple(header["progress"]["history"])})
    return progress, modules, optimizers


def restore(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Loads the state of an optimiser, as `unpack` returns it, into one of the same parameters."""
    optimizer.load_state_dict(dict(state))
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # Fused kernels walk through memory: moments must lie as their weights do (channels last).
                slots[name] = torch.empty_like(parameter).copy_(value)
