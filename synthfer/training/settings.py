"""The keys of the training job except those of the cluster, for classifiers (`TrainConfig`) and tasks (`TaskConfig`).

The defaults suit small networks trained from random weights. `preset=published` replaces them by the training recipe
of the classifier's authors; keys that are given win over both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from synthfer import classifiers
from synthfer.expressions import EXPRESSIONS
from synthfer.limits import MAX_BATCH, MAX_BATCH_BYTES, MAX_EPOCHS, MAX_NETWORK_SIDE, MAX_STEPS, check_memory
from synthfer.sample import SPLITS
from synthfer.schema import REQUIRED, option, registry_section
from synthfer.suggest import nearest
from synthfer.training import tasks

SELECTORS = ("macro_f1", "balanced_accuracy", "accuracy", "abaw", "nll")
"""What the best checkpoint is chosen by, on validation data. `abaw` is 0.67 macro F1 + 0.33 accuracy."""

CUT = "cut"
"""Value of `validation`: cut a part off the training rows, whatever splits there are."""
CLASSIFIER = "classifier"
"""The value of `task` that asks for a classifier, which has keys of its own."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    name: str = option("cross_entropy", "loss of a row", choices=("cross_entropy", "focal", "ldam"))
    smoothing: float = option(0.1, "share of each target spread over all classes (label smoothing)", low=0, high=1)
    gamma: float = option(2.0, "focal: how little sure rows count", low=0)
    margin: float = option(0.5, "ldam: margin of the rarest class, on the cosine", low=0)
    scale: float = option(30.0, "ldam: factor on the cosines", low=1)
    class_weights: str = option("none", "weight of a row by its class", choices=("none", "class_balanced", "inverse"))
    beta: float = option(0.999, "class_balanced: 0 weighs all alike, towards 1 by 1/n", low=0, high=0.999999)
    reweight_from: float = option(0.0, "share of the steps before class weights begin (DRW: 0.8)", low=0, high=1)
    logit_adjustment: float = option(0.0, "tau: log class frequencies added to the logits in training", low=0)
    intra: float = option(0.0, "weight of the real-guided intra-class loss on features", low=0)
    factor: float = option(1.0, "factor on the whole loss", low=0)
    soft_labels: bool = option(False, "learn label_probs where a row has them, else its label")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training picture, in this order; each to its own row, on the device."""

    flip: float = option(0.5, "probability of mirroring", low=0, high=1)
    shift: int = option(
        4, "most pixels moved up, down, left and right; edges are repeated", low=0, high=MAX_NETWORK_SIDE
    )
    rotate: float = option(0.0, "most degrees turned", low=0, high=180)
    scale: float = option(0.0, "most relative change of size, as 0.1", low=0, high=0.9)
    shear: float = option(0.0, "most degrees sheared", low=0, high=45)
    brightness: float = option(0.0, "most relative change of brightness", low=0, high=1)
    contrast: float = option(0.0, "most relative change of contrast", low=0, high=1)
    saturation: float = option(0.0, "most relative change of saturation", low=0, high=1)
    grey: float = option(0.0, "probability of losing all colour", low=0, high=1)
    shrink: float = option(0.0, "probability of passing through 48 pixels a side", low=0, high=1)
    noise: float = option(0.0, "probability of Gaussian noise", low=0, high=1)
    noise_variance: float = option(30.0, "its variance, in steps of 0..255 squared", low=0)
    erase: float = option(0.0, "probability of erasing a rectangle", low=0, high=1)
    erase_area: tuple[float, ...] = option((0.02, 0.1), "its least and most share of the picture", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """Rows blended with other rows of the batch (mixup, CutMix)."""

    mixup: float = option(0.0, "alpha of mixup, 0 for none", low=0)
    cutmix: float = option(0.0, "alpha of CutMix, 0 for none; with both each batch takes one", low=0)
    share: float = option(1.0, "share of the batches that are blended", low=0, high=1)
    partners: str = option(
        "any",
        "real and synthetic rows are blended at will, within their kind, or across",
        choices=("any", "same", "other"),
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move."""

    name: str = option("adamw", "optimiser", choices=("sgd", "adam", "adamw"))
    lr: float = option(3e-3, "highest learning rate", low=0)
    momentum: float = option(0.9, "sgd: momentum", low=0, high=1)
    nesterov: bool = option(False, "sgd: Nesterov's momentum")
    weight_decay: float = option(0.05, "weight decay; norms and biases have none", low=0)
    layer_decay: float = option(1.0, "factor on the rate for each layer further from the last", low=0, high=1)
    sam_rho: float = option(0.0, "radius of sharpness-aware minimisation (SAM), 0 for none", low=0)
    clip: float = option(1.0, "highest norm of the gradient, 0 for none", low=0)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves."""

    name: str = option("cosine", "shape", choices=("cosine", "constant", "exponential", "plateau"))
    warmup: float = option(0.05, "share of the steps of a linear start", low=0, high=1)
    gamma: float = option(0.98, "exponential: factor per epoch", low=0, high=1)
    patience: int = option(5, "plateau: validations without a better one before the rate falls", low=0, high=MAX_STEPS)
    factor: float = option(0.1, "plateau: what it is multiplied by then", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which rows are trained on, which are kept to look at, and how many make a step."""

    out: str = option(REQUIRED, "the experiment: a folder or s3://bucket/prefix; the same one again resumes")
    data: dict[str, str] = option(REQUIRED, "training data by name, datasets or views, as data.rafdb=out/rafdb")
    mix: dict[str, float] = option({}, "share of each name in every batch, as mix.rafdb=.5; {}: by rows", low=0)
    synthetic: list[str] | None = option(None, "names that are synthetic (null: what their datasets say)")
    splits: list[str] = option(["train"], "splits that are trained on", choices=SPLITS)
    validation: str | None = option(
        None, "data to choose by (null: split val of the real data, else a part cut off; cut: always a part)"
    )
    validation_share: float = option(0.1, "how much is cut off, whole lineages, stratified", low=0.01, high=0.5)
    ancestors: list[str] = option([], "collection:split that generators or teachers of this data were trained on")
    seeds: list[int] = option([0], "one run each", low=0)
    batch: int = option(64, "rows of a step over all workers", low=2, high=MAX_BATCH)
    sampler_power: float = option(0.0, "q: a class of n rows is drawn in proportion to n^(1-q)", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """What is trained, on what, and how."""

    classifier: Any = registry_section(classifiers.names, classifiers.module, default="small", of="the network")
    size: int | None = option(None, "pixels a side (null: the network's own)", low=8, high=2048)
    init: str | None = option(None, "checkpoint to begin with (.safetensors or .pth, its card beside it)")
    preset: str = option("none", "whose recipe fills the keys that are not given", choices=("none", "published"))
    strategy: str = option(
        "mixed",
        "mixed; finetune: synthetic, then real; sweep: real shares 0 to 1",
        choices=("mixed", "finetune", "sweep"),
    )
    finetune_share: float = option(0.5, "finetune: share of the steps on synthetic data", low=0.05, high=0.95)
    sweep: list[float] = option([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], "real shares", low=0, high=1)
    controls: bool = option(True, "where real and synthetic data meet, also train each alone and real re-weighted")
    steps: int | None = option(None, "optimiser steps (null: by epochs)", low=1, high=MAX_STEPS)
    epochs: float = option(25.0, "passes over as many rows as the training data has", low=0.01, high=MAX_EPOCHS)
    validate_every: int | None = option(
        None, "steps between validations and checkpoints, about (null: an epoch)", low=1, high=MAX_STEPS
    )
    select: str = option("macro_f1", "what the best step is chosen by, on validation data", choices=SELECTORS)
    patience: int | None = option(None, "stop after so many validations without a better one", low=1, high=MAX_STEPS)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: float = option(
        0.999, "most memory of the averaged weights that are validated and kept, 0 for none", low=0, high=0.99999
    )
    aux_batchnorm: bool = option(False, "synthetic rows have batch norms of their own, dropped at the end")
    precision: str = option("fp32", "arithmetic of the network", choices=("fp32", "bf16"))
    compile: bool = option(False, "compile the network (torch.compile)")
    channels_last: bool = option(True, "lay pictures out with channels last, as most processors like it")

    def __post_init__(self) -> None:
        if self.classifier.options.num_classes != len(EXPRESSIONS):
            raise ValueError(f"classifier.num_classes: what is trained here has the {len(EXPRESSIONS)} expressions")
        size = 12 * self.batch * (self.size or 0) ** 2
        check_memory("the pictures of a batch", size, "lower batch or size", MAX_BATCH_BYTES)
        if self.loss.intra and (self.blend.mixup or self.blend.cutmix):
            raise ValueError(
                "loss.intra compares rows of one class, and blend makes rows of two: leave one of them out"
            )

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values between the defaults and what was given: the published recipe where `preset` asks for it."""
        from synthfer.training.recipes import published

        if given.get("preset") != "published":
            return {}
        section = given.get("classifier") or {}
        return published(section.get("name") or "small", {k: v for k, v in section.items() if k != "name"})


def task_names() -> list[str]:
    """All that `task=` takes by a plain name."""
    return sorted([CLASSIFIER, *tasks.names()])


def task_module(name: str) -> ModuleType:
    """The module of a task; `ValueError` names the nearest known one."""
    if "." not in name and name not in tasks.names():
        hint = nearest(name, task_names()) or "."
        raise ValueError(f"unknown task {name!r}{hint} Known: {', '.join(task_names())}, or a dotted module name.")
    return tasks.module(name)


@dataclass(frozen=True, kw_only=True)
class TaskAugmentConfig(AugmentConfig):
    """As for classifiers, but only mirroring by default: a generator reproduces what it sees."""

    shift: int = option(
        0, "most pixels moved up, down, left and right; edges are repeated", low=0, high=MAX_NETWORK_SIDE
    )


@dataclass(frozen=True, kw_only=True)
class TaskConfig(DataConfig):
    """Which task is trained, on what data, and for how long."""

    task: Any = registry_section(task_names, task_module, default="vae_gan", of="what is trained")
    steps: int = option(2000, "steps; one may move several networks", low=1, high=MAX_STEPS)
    validate_every: int = option(
        250, "steps between validations, grids to look at and checkpoints, about", low=1, high=MAX_STEPS
    )
    augment: TaskAugmentConfig = field(default_factory=TaskAugmentConfig)

    def __post_init__(self) -> None:
        if set(self.splits) != {"train"}:
            raise ValueError(
                f"splits={self.splits}: a generator is trained on split train alone, so that it can be evaluated on "
                "the others; leave splits out"
            )
