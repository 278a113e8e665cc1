"""Checkpoints of classifiers, published ones and our own: opened with their card, put into a network, saved, collected.

    model = restore("raf_best.pth")                       its card is raf_best.card.yaml (.yml, .json)
    ClassifierCheckpoint.open("raf_best.pth").load(model)               into a model that is there already
    save(model, "mine.safetensors")                       and its card
    collect("s3://bucket/experiment")                     all below a folder or prefix

Beside the files of every checkpoint (`synthfer.checkpoints`) ours have the fingerprint of the rows that they were
trained on. A wrong channel order or class order costs tens of points and raises no error, so cards state both. Keys
are those of the authors' published code; they must match one by one. The last layer's rows are put into the order of
`EXPRESSIONS`, so that index 3 is happy whoever trained the network.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthfer import classifiers, expressions
from synthfer.checkpoints import CARD_SUFFIXES, Card, Checkpoint, log_licence
from synthfer.classifiers import CHANNELS, MAX_SIDE, InputSpec
from synthfer.classifiers.network import Classifier
from synthfer.classifiers.training_fingerprint import SUFFIX, TrainingFingerprint
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.schema import REQUIRED, option
from synthfer.store import open_store
from synthfer.tensors import write_tensors

log = logging.getLogger(__name__)

SELECTIONS = ("validation", "test", "unknown")

# The order of keys in a card's file.
_WRITTEN = ("architecture", "options", "input", "rename", "source", "licence", "cosine_scale", "selection",
            "trained_on", "ancestors", "training")  # fmt: skip
_EXAMPLE = """  architecture: one of {names}
  options: {{...}}                        # every option of that architecture but num_classes
  input:
    size: 224                            # pixels a side that it was trained on
    channels: BGR                        # RGB, BGR or grey
    mean: [0.485, 0.456, 0.406]          # of values 0..1, in the order of channels
    std: [0.229, 0.224, 0.225]
    classes: rafdb                       # index 0 first: a list of names, or one of {orders}"""
# A resumable state of an unfinished training, below the folder of its run.
_TRAINING_STATE = re.compile(r"(.+)/checkpoints/step-\d+\.safetensors")


@dataclass(frozen=True, kw_only=True)
class CardInput:
    """What the network was trained on; as `InputSpec`, with the classes in the checkpoint's own order."""

    size: int = option(REQUIRED, "side of its images in pixels", low=1, high=MAX_SIDE)
    channels: str = option(REQUIRED, "what its three channels are", choices=CHANNELS)
    mean: tuple[float, ...] = option(REQUIRED, "subtracted from values 0..1, by channel", low=-1e6, high=1e6)
    std: tuple[float, ...] = option(REQUIRED, "what they are divided by then, by channel", low=1e-6, high=1e6)
    classes: list[str] | str = option(REQUIRED, f"names from index 0, or one of {', '.join(ORDERS)}")


@dataclass(frozen=True, kw_only=True)
class ClassifierCard(Card):
    """What the weights of a classifier are: also what it reads, which classes it knows, and how it was chosen."""

    architecture: str = option(REQUIRED, "name of the classifier")
    options: dict[str, Any] = option(REQUIRED, "every option of the architecture but num_classes")
    input: CardInput = option(REQUIRED, "what it reads")
    source: str = option("", "where it comes from, with its licence")
    cosine_scale: float = option(0.0, "factor on its cosines, 0 where the last layer is linear", low=0, high=1e6)
    selection: str = option("unknown", "which data its epoch was chosen on", choices=SELECTIONS)
    trained_on: list[str] = option([], "collection:split of all that it, its teacher or its generator learned from")
    ancestors: list[str] = option([], "those of them whose single rows are not in its .seen.parquet")
    training: dict[str, Any] = option({}, "how it was trained: config, data with their hashes, versions")

    def __post_init__(self) -> None:
        if misplaced := sorted(self.options.keys() & {"name", "num_classes", "spec"}):
            raise ValueError(f"options: leave out {', '.join(misplaced)}: architecture and input state it already.")
        super().__post_init__()
        _ = self.spec  # its errors are those of the card

    @classmethod
    def example(cls) -> str:
        return _EXAMPLE.format(names=", ".join(classifiers.names()), orders=", ".join(ORDERS))

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.licence is None:
            del values["licence"]
        return {key: values[key] for key in _WRITTEN if key in values}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the checkpoint's order, in this library's words; `ValueError` for unknown or repeated ones."""
        given = self.input.classes
        if isinstance(given, str):
            if given not in ORDERS:
                raise ValueError(f"input.classes: unknown order {given!r}; give a list, or one of {', '.join(ORDERS)}.")
            return ORDERS[given]
        names = tuple(expressions.other(word) or EXPRESSIONS[expressions.index_of(word)] for word in given)
        if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ValueError(f"input.classes: {', '.join(repeated)} is listed more than once.")
        return names

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of the loaded network, in order: the expressions first, in their order, then others."""
        classes = self.classes
        return tuple(name for name in dict.fromkeys((*EXPRESSIONS, *classes)) if name in classes)

    @property
    def spec(self) -> InputSpec:
        """What the loaded network reads."""
        read = self.input
        mean, std = tuple(read.mean), tuple(read.std)  # `InputSpec` checks that they are three
        return InputSpec(size=read.size, channels=read.channels, mean=mean, std=std, classes=self.outputs)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClassifierCheckpoint(Checkpoint):
    """The files of a classifier's checkpoint in memory.

    `modules` are dotted names of classifiers of the user's own. A card may name these and those that ship; the word of
    a card alone imports nothing.
    """

    modules: tuple[str, ...] = ()

    suffixes = (".safetensors", ".pth", ".pt")
    companions = (SUFFIX,)

    @cached_property
    def card(self) -> ClassifierCard:
        """Its card; `ValueError` where there is none or it is not valid."""
        return ClassifierCard.parse(*self.card_file(ClassifierCard))

    @cached_property
    def fingerprint(self) -> TrainingFingerprint | None:
        """Of the rows that it was trained on, or None where none was written; `ValueError` for a damaged file."""
        if SUFFIX not in self.files:
            return None
        try:
            return TrainingFingerprint.from_bytes(self.files[SUFFIX])
        except ValueError as error:
            raise ValueError(f"{self.uri}: {error}") from error

    @property
    def without_fingerprint(self) -> "ClassifierCheckpoint":
        """The same without the fingerprint, which is long and not needed to restore the network."""
        return replace(self, files={end: body for end, body in self.files.items() if end != SUFFIX})

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of `restore()`, in order."""
        return self.card.outputs

    def check(self) -> None:
        """`ValueError` where its card means a network that is not known, or names options that are none of it."""
        self._config(self._schema())

    def restore(self) -> Classifier:
        """The classifier in eval mode on the CPU. Errors are those of `load`."""
        options = asdict(self._config(self._schema()))
        state = None
        if self.card.architecture not in self.modules:
            # Without memory first: a card may mean a network that is larger than the file, and than the machine.
            with torch.device("meta"):
                state = self.state_for(classifiers.build(self.card.architecture, **options))
        model = classifiers.build(self.card.architecture, **options)
        self._put(model, self.state_for(model) if state is None else state)
        return model.eval()

    def load(self, model: Classifier) -> None:
        """Puts the weights into a model that is there.

        Afterwards `model.input` is what the card says, its classes are those of `EXPRESSIONS` in order (then others,
        such as contempt), and the last layer's rows follow them. `ValueError` names what does not fit: no card,
        another architecture or options, keys that are missing, unexpected or of another shape. The model is then as
        it was.
        """
        self._check_architecture(model)
        self._put(model, self.state_for(model))

    def _put(self, model: Classifier, state: dict[str, Tensor]) -> None:
        card = self.card
        order = [card.classes.index(name) for name in card.outputs]
        try:
            model.set_input(card.spec)
        except ValueError as error:
            raise ValueError(f"{self.uri}: {error}") from error
        for key in (f"{model.last}.weight", f"{model.last}.bias"):
            state[key] = state[key][order]
        model.load_state_dict(state)
        model.set_cosine(card.cosine_scale)
        if card.licence:
            log_licence(self.uri, card.licence)

    def _schema(self) -> type:
        """The dataclass `Config` of the architecture; `ValueError` where it neither ships nor is of `modules`."""
        architecture = self.card.architecture
        try:
            schema: type = classifiers.named(architecture, self.modules).Config
        except ValueError as error:
            raise ValueError(f"{self.uri}: the architecture in its card: {error}") from error
        return schema

    def _config(self, schema: type) -> Any:
        """The `Config` of the network that the card means; `ValueError` where an option is missing or wrong."""
        card = self.card
        if missing := sorted({f.name for f in fields(schema)} - {"num_classes"} - card.options.keys()):
            raise ValueError(f"{self.uri}: its card does not state {', '.join(missing)}; add it under options.")
        try:
            return classifiers.config_of(schema, card.architecture, card.options | {"num_classes": len(card.classes)})
        except ValueError as error:
            raise ValueError(f"{self.uri}: {error}") from error

    def _check_architecture(self, model: Classifier) -> None:
        """`ValueError` where the card means another network."""
        architecture, where = self.card.architecture, self.uri
        if architecture != model.name:
            raise ValueError(f"{where} is of {architecture!r}, the model is {model.name!r}. Build a {architecture!r}.")
        given, have = asdict(self._config(type(model.config))), asdict(model.config)
        if other := [f"{key}: {value}, not {have[key]}" for key, value in given.items() if value != have[key]]:
            raise ValueError(f"{where} is of a {model.name} with {'; '.join(other)}. Build the model with its options.")


def restore(uri: str | Path, modules: Sequence[str] = ()) -> Classifier:
    """The classifier of the checkpoint at a path or URI, in eval mode on the CPU; `ValueError` where it cannot be."""
    return open_checkpoint(str(uri), modules).restore()


def open_checkpoint(uri: str, modules: Sequence[str] = ()) -> ClassifierCheckpoint:
    """The checkpoint at `uri`, whose card may name classifiers that ship and these `modules` of the user's own."""
    return replace(ClassifierCheckpoint.open(uri), modules=tuple(modules))


def collect(uri: str, modules: Sequence[str] = ()) -> list[ClassifierCheckpoint]:
    """The checkpoint at `uri`, or all below it that have a card, by name; `ValueError` where there is none.

    Cards may name classifiers that ship and these `modules` of the user's own.
    States of unfinished trainings have no card and are skipped; a warning names the runs that have nothing else.
    """
    suffixes = ClassifierCheckpoint.suffixes
    if uri.endswith(suffixes):
        return [open_checkpoint(uri, modules)]
    store = open_store(uri)
    keys = {key for key, _ in store.list()}
    weights = {key: key[: -len(next(end for end in suffixes if key.endswith(end)))] for key in keys
               if key.endswith(suffixes)}  # fmt: skip
    complete = sorted(key for key, stem in weights.items() if any(stem + end in keys for end in CARD_SUFFIXES))
    finished = {key.rpartition("/")[0] for key in complete}
    if unfinished := sorted({state[1] for key in keys if (state := _TRAINING_STATE.fullmatch(key))} - finished):
        log.warning("%s: not finished and left out: %s", store.uri, ", ".join(unfinished))
    if not complete:
        raise ValueError(
            f"there is no checkpoint at {store.uri}. Name a {' or '.join(suffixes)} file or a folder of jobs/train.py;"
            f" each needs its card beside it, as model{CARD_SUFFIXES[0]}"
        )
    return [open_checkpoint(f"{store.uri.rstrip('/')}/{key}", modules) for key in complete]


def save(model: Classifier, path: str | Path, **facts: Any) -> ClassifierCard:
    """Writes `model` as safetensors and its card beside it; `facts` are further fields of the card.

    `ValueError`: another suffix, or classes without names.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a model is saved as .safetensors; choose a name that ends so.")
    card = card_of(model, **facts)
    path.with_suffix(CARD_SUFFIXES[0]).write_text(card.to_yaml())
    path.write_bytes(write_tensors(model.state_dict()))
    return card


def card_of(model: Classifier, **facts: Any) -> ClassifierCard:
    """The card of a model; `facts` are its other fields. `ValueError` where the classes have no names."""
    if not model.input.classes:
        raise ValueError(f"{model.name}: give the model's input.classes before it is saved.")
    options = asdict(model.config)
    del options["num_classes"]
    spec = asdict(model.input)
    read = CardInput(**spec | {"classes": list(spec["classes"])})
    return ClassifierCard(
        architecture=model.name, options=options, input=read, cosine_scale=model.cosine_scale, **facts
    )
