"""Classifiers: faces in, logits and features out. All have one signature; a new classifier is one new module here.

    model = classifiers.build("ir50", tokens="spatial")
    logits, features = model(images)            uint8 or float, n x 3 x size x size, RGB
    model.input, model.recipe                   what it reads; how its authors trained it

A classifier module holds a dataclass `Config` (its options), the `INPUT` it reads by default and
`build(config) -> Classifier`. It is found by its module name; a dotted name (`my_package.my_classifier`) names one
outside this package. Checkpoints are read and written by checkpoints.py.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synthfer.expressions import EXPRESSIONS
from synthfer.registry import Registry
from synthfer.suggest import nearest
from synthfer.validation import MismatchError, convert, describe, show

if TYPE_CHECKING:
    from synthfer.classifiers.network import Classifier

CHANNELS = ("RGB", "BGR", "grey")
MAX_SIDE = 1024
"""The largest picture that a classifier reads, in pixels a side; published ones read 48 to 224."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a classifier reads, and what its logits stand for. Images always come in as RGB; it converts them itself.

    `size` is the side of the square in pixels. `channels` is what the network was trained on: RGB, BGR, or grey
    (luma, ITU-R BT.601, three times). `mean` and `std` are of values 0..1, in the order of `channels`: for a network
    that was trained on BGR by mistake, red's mean is subtracted from blue, as it was then. `classes` names the logits
    in order; it is empty where they are not the expressions.
    """

    size: int
    channels: str = "RGB"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    classes: tuple[str, ...] = EXPRESSIONS

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIDE:
            raise ValueError(f"input.size: {self.size} pixels a side; give 1 to {MAX_SIDE}.")
        if self.channels not in CHANNELS:
            raise ValueError(f"input.channels: {self.channels!r} is not known; give one of {', '.join(CHANNELS)}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"input.mean, input.std: three numbers each, std > 0; got {self.mean} and {self.std}.")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a classifier's authors trained it, as plain data (`dataclasses.asdict` gives JSON).

    `optimizer` and `schedule` are names with their numbers (no schedule: None), `loss` is a weighted sum of terms,
    `augmentation` is in order of use. `epochs` and `batch` count passes and images over all devices. `selection` says
    which epoch was published, `source` where all this is written, and `caveat` what is wrong with it.
    """

    optimizer: Mapping[str, Any]
    lr: float
    schedule: Mapping[str, Any] | None
    epochs: int
    batch: int
    loss: tuple[Mapping[str, Any], ...]
    augmentation: tuple[Mapping[str, Any], ...]
    selection: str
    source: str
    init: str = "random"
    sampler: str = "uniform"
    caveat: str = ""


_MEMBERS = Registry("classifier", __name__, __path__, shared=("checkpoints", "network", "training_fingerprint"))
names, module, named = _MEMBERS.names, _MEMBERS.module, _MEMBERS.named


def build(name: str, num_classes: int = 7, spec: InputSpec | None = None, **options: Any) -> "Classifier":
    """A classifier with random weights, in train mode, on torch's default device.

    With seven classes the logits are those of `EXPRESSIONS`; for any other number, name them in `spec.classes`.
    `ValueError` names a wrong option with what it takes, or an input that the network cannot read.
    """
    member = module(name)
    config = config_of(member.Config, name, {"num_classes": num_classes} | options)
    model: Classifier = member.build(config)
    default = member.INPUT if num_classes == len(EXPRESSIONS) else dataclasses.replace(member.INPUT, classes=())
    model.set_input(spec or default)
    return model


def config_of(schema: type, name: str, options: Mapping[str, Any]) -> Any:
    """The `Config` of classifier `name`; `ValueError` names the first option that is unknown or out of range."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    hints, values = typing.get_type_hints(schema), {}
    for key, value in options.items():
        if key not in fields:
            hint = nearest(key, fields) or "."
            raise ValueError(f"classifier {name}: unknown option {key!r}{hint} Known: {', '.join(fields)}.")
        try:
            given = list(value) if isinstance(value, tuple) else value
            values[key] = convert(hints[key], None, given, fields[key].metadata)
        except MismatchError as error:
            expected = describe(hints[key], fields[key].metadata)
            raise ValueError(f"classifier {name}: {key} is {show(value)}, it takes {expected}.") from error
    return schema(**values)
