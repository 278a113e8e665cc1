"""Training as a good user writes it in torch alone, in one process or in several by DDP: what ours is compared with.

The same network, batch, optimiser and loss, flips and shifts in plain torch, pictures in memory as one uint8 tensor
on the device, clipping and averaged weights by what torch has for it; no schedule, no validation.
"""

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synthfer.sample import seed_of
from synthfer.training.initial_weights import build_classifier
from synthfer.training.runs import Run
from synthfer.training.settings import AugmentConfig, TrainConfig

_READY = (0, 0.0)


@dataclass(frozen=True)
class Task:
    """What every process gets: `pixels` and `labels` are .npy files, uint8 (n, 3, size, size) and int64 (n,).

    Of the steps of the run those after `warmup` are timed. `niceness` is that of the processes: Ray gives its workers
    a low priority, which would matter on a machine that others use, too.
    """

    config: TrainConfig
    run: Run
    pixels: Path
    labels: Path
    world: int
    warmup: int
    niceness: int


@dataclass(frozen=True)
class Timed:
    """The result of a turn: pictures trained on by all processes, and images/s of the steps after the warm-up."""

    pictures: int
    images_per_s: float


class Processes:
    """The processes of a plain training; each `turn` trains a new network."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def turn(self) -> Timed:
        """One training, by all processes together; the slowest one's rate. `RuntimeError` where one has failed."""
        for pipe in self._pipes:
            pipe.send(True)
        results = [_receive(pipe) for pipe in self._pipes]
        return Timed(sum(pictures for pictures, _ in results), min(rate for _, rate in results))


@contextmanager
def processes(task: Task, folder: Path) -> Iterator[tuple[Processes, float]]:
    """As many processes as `task.world`, and the seconds until all were ready; they find each other in `folder`."""
    context, start = mp.get_context("spawn"), time.perf_counter()
    rendezvous = folder / f"plain-{task.world}"
    pipes, started = [], []
    try:
        for rank in range(task.world):
            ours, theirs = context.Pipe()
            started.append(context.Process(target=_work, args=(task, rank, rendezvous, theirs), daemon=True))
            started[-1].start()
            theirs.close()  # so that the end of the process is the end of the pipe
            pipes.append(ours)
        for pipe in pipes:
            _receive(pipe)
        yield Processes(pipes), time.perf_counter() - start
    finally:
        for pipe in pipes:
            pipe.close()
        for process in started:
            process.join(10)
            process.kill()


def _receive(pipe: Connection) -> tuple[int, float]:
    try:
        result: tuple[int, float] | str = pipe.recv()
    except EOFError as error:
        raise RuntimeError("a process of the plain loop ended without a message") from error
    if isinstance(result, str):
        raise RuntimeError(f"a process of the plain loop failed:\n{result}")
    return result


def _work(task: Task, rank: int, rendezvous: Path, pipe: Connection) -> None:
    """A process: reports that it is ready, then trains once for each message, until the other end is closed."""
    torch.set_num_threads(1)
    os.setpriority(os.PRIO_PROCESS, 0, max(task.niceness, os.nice(0)))
    device = device_of(rank)
    try:
        if task.world > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=task.world)
        reach = task.config.augment.shift
        arrays = np.pad(np.load(task.pixels), [(0, 0), (0, 0), *[(reach, reach)] * 2], "edge"), np.load(task.labels)
        padded, labels = (torch.from_numpy(array).to(device) for array in arrays)
        pipe.send(_READY)
        while pipe.recv():
            pipe.send(steps(task, rank, *initial_state(task, device), padded, labels))
    except EOFError:
        return
    except Exception:  # noqa: BLE001 - whoever waits at the other end raises it
        pipe.send(traceback.format_exc())


def device_of(rank: int) -> torch.device:
    """The device of a worker: its own GPU, or the CPU where there is none."""
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def steps(
    task: Task, rank: int, model: nn.Module, optimizer: torch.optim.Optimizer, padded: Tensor, labels: Tensor
) -> tuple[int, float]:
    """A turn: pictures trained on by this process, and images/s of all of them after the warm-up.

    `padded`, uint8, has the pictures with their edges repeated as far as they are shifted.
    """
    config, pictures, start, loss = task.config, 0, 0.0, torch.zeros(())
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    draws = torch.Generator().manual_seed(seed_of(task.run.seed, "plain", rank))
    for step, order in enumerate(_orders(len(labels), config.batch, task.run)):
        if step == task.warmup:
            loss.item()  # waits for the device
            start = time.perf_counter()
        rows = order[rank :: task.world]
        images = augmented(padded, rows, config.augment, draws).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images).logits, labels[rows], label_smoothing=config.loss.smoothing)
        loss.backward()
        if config.optimizer.clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        optimizer.step()
        if average:
            average.update_parameters(model)
        pictures += len(rows)
    loss.item()
    return pictures, (task.run.steps - task.warmup) * config.batch / (time.perf_counter() - start)


def initial_state(task: Task, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network with the job's initial weights, wrapped where there are several processes, and its optimiser."""
    model: nn.Module = build_classifier(task.config, task.run, None).train()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = task.config.optimizer
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
    if task.world > 1:
        devices = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    return model, optimizer


def _orders(count: int, batch: int, run: Run) -> Iterator[Tensor]:
    """The rows of each step: passes over all, each in an order of its own, the rest of a pass left out."""
    draws, left = torch.Generator().manual_seed(run.seed), torch.empty(0, dtype=torch.int64)
    for _ in range(run.steps):
        if len(left) < batch:
            left = torch.randperm(count, generator=draws)
        yield left[:batch]
        left = left[batch:]


def augmented(padded: Tensor, rows: Tensor, config: AugmentConfig, draws: torch.Generator) -> Tensor:
    """Pictures `rows` of `padded`, as of `steps`, shifted and mirrored at random: uint8 (k, 3, size, size)."""
    size = padded.shape[-1] - 2 * config.shift
    places = torch.randint(2 * config.shift + 1, (len(rows), 2), generator=draws)
    cut = [
        padded[row, :, top : top + size, left : left + size]
        for row, (top, left) in zip(rows.tolist(), places.tolist(), strict=True)
    ]
    mirrored = (torch.rand(len(rows), 1, 1, 1, generator=draws) < config.flip).to(padded.device)
    images = torch.stack(cut)
    return torch.where(mirrored, images.flip(3), images)
