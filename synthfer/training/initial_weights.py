"""The classifier of a run at its first step: random weights, those of a checkpoint, or those of an earlier run."""

from dataclasses import dataclass, replace

import safetensors.torch
import torch

from synthfer import classifiers
from synthfer.classifiers import InputSpec
from synthfer.classifiers.checkpoints import ClassifierCard, collect
from synthfer.classifiers.network import Classifier
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.sample import seed_of
from synthfer.schema import Choice, ConfigError, to_dict
from synthfer.tensors import write_tensors
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run starts from, and what they have learned from already."""

    body: bytes
    input: InputSpec
    cosine_scale: float
    trained_on: tuple[str, ...]
    ancestors: tuple[str, ...]
    selection: str
    seen: TrainingFingerprint | None

    @classmethod
    def of(cls, model: Classifier, card: ClassifierCard, seen: TrainingFingerprint | None) -> "InitialWeights":
        """A model with what its card says; without a list of the rows that it has seen, collections stand for them."""
        return cls(
            body=write_tensors(model.state_dict()),
            input=model.input,
            cosine_scale=model.cosine_scale,
            trained_on=tuple(card.trained_on),
            ancestors=tuple(card.ancestors if seen else card.trained_on),
            selection=card.selection,
            seen=seen,
        )


def build_classifier(config: TrainConfig, run: Run, initial: InitialWeights | None) -> Classifier:
    """The network of a run at its first step: weights drawn by the run's seed, or the initial ones."""
    choice: Choice = config.classifier
    options = to_dict(choice)
    name = options.pop("name")
    spec = input_of(config, initial)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(run.seed, "weights"))
        model = classifiers.build(name, spec=spec, **options)
    if initial:
        model.set_cosine(initial.cosine_scale)
        model.load_state_dict(safetensors.torch.load(initial.body))
    return model


def input_of(config: TrainConfig, initial: InitialWeights | None) -> InputSpec:
    """What the network reads: as its initial weights were trained, else its default at the size asked for."""
    default: InputSpec = classifiers.module(config.classifier.name).INPUT
    return initial.input if initial else replace(default, size=config.size or default.size)


def weights_of_init(config: TrainConfig, run: Run) -> InitialWeights | None:
    """The weights that `init` names, with what their card says; `ConfigError` where they are of another network."""
    if config.init is None:
        return None
    model = build_classifier(config, run, None)
    try:
        checkpoints = collect(config.init)
        if len(checkpoints) > 1:
            uris = ", ".join(one.uri for one in checkpoints)
            raise ConfigError(f"init: there are several checkpoints: {uris}; name one")
        checkpoints[0].load(model)
    except ValueError as error:
        raise ConfigError(f"init: {error}") from error
    card, seen = checkpoints[0].card, checkpoints[0].fingerprint
    if config.size not in (None, model.input.size):
        raise ConfigError(f"init: {config.init} reads {model.input.size} pixels, size={config.size} was asked for")
    if not (seen or card.trained_on):
        raise ConfigError(
            f"init: the card of {config.init} does not say what the weights were trained on, so leakage into test sets "
            "could not be found; write it into the card, as trained_on: [affectnet:train]"
        )
    return InitialWeights.of(model, card, seen)
