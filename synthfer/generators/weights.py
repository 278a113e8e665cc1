"""Weights of generators: checkpoints of one architecture, checked and put into a network.

    checkpoint = weights.read("runs/editor/seed-0/model.safetensors", "expression_editor")
    network = weights.restored(lambda: Generator(options), checkpoint)

All errors are `ConfigError`s that name the key generator.weights.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from synthfer.checkpoints import Checkpoint, log_licence
from synthfer.schema import ConfigError

N = TypeVar("N", bound=nn.Module)
R = TypeVar("R")


def read(uri: str, architecture: str | None = None) -> Checkpoint:
    """The checkpoint at a path or s3:// URI, of this architecture, with its card; errors name what is wrong."""
    return checked(_named(lambda: Checkpoint.open(uri)), architecture)


def checked(checkpoint: Checkpoint, architecture: str | None) -> Checkpoint:
    """The checkpoint, if its card is of this architecture; its licence is logged."""
    card = _named(lambda: checkpoint.card)
    if architecture not in (None, card.architecture):
        raise ConfigError(
            f"generator.weights: {checkpoint.uri} is of {card.architecture!r}, while {architecture!r} is wanted"
        )
    if card.licence:
        log_licence(checkpoint.uri, card.licence)
    return checkpoint


def load(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint into a module; the error lists keys and shapes that do not fit."""
    module.load_state_dict(_named(lambda: checkpoint.state_for(module)))


def restored(build: Callable[[], N], checkpoint: Checkpoint) -> N:
    """The network that `build` makes with a checkpoint in it, in eval mode, without gradients; errors as of `load`.

    The random numbers of the network's first weights are not taken from torch's global state. It is first built without
    memory: a card may mean a network that is larger than the file, and than the machine.
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            state = _named(lambda: checkpoint.state_for(build()))
        module = build()
    module.load_state_dict(state)
    return module.requires_grad_(False).eval()


def options_of(schema: type, checkpoint: Checkpoint) -> Any:
    """The network's `Config` that the card means; the error names an option that is unknown or out of range."""
    return _named(lambda: checkpoint.card.network_options(schema))


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a generator's producer says of its weights: no path, no machine."""
    card = checkpoint.card
    known: dict[str, Any] = {
        "architecture": card.architecture,
        "options": card.options,
        "weights_sha256": checkpoint.sha256,
    }
    if card.trained_on:
        known["trained_on"] = sorted(card.trained_on)
    return known | ({"licence": card.licence} if card.licence else {})


def _named(call: Callable[[], R]) -> R:
    """The result of `call`, whose errors name the key."""
    try:
        return call()
    except ValueError as error:
        raise ConfigError(f"generator.weights: {error}") from error
