"""Checkpoints of classifiers: published ones and our own, each with a card, a YAML or JSON file that says what it is.

    model = weights.restore("raf_best.pth")        its card is raf_best.card.yaml (.yml, .json), or given
    weights.load(model, "raf_best.pth")            into a model that is there
    weights.load_part(model.ir_back, "ir50.pth")   a trunk's weights, to begin training with
    weights.save(model, "mine.safetensors")        and its card

Nothing is guessed from a file: a wrong channel order or class order costs tens of points and raises no error. Keys
are those of the authors' published code; they must match one by one. The last layer's rows are put into the order of
`EXPRESSIONS`, so that index 3 is happy whoever trained the network.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor, nn

from synthfer import classifiers, config, expressions
from synthfer.classifiers import CHANNELS, InputSpec
from synthfer.classifiers._network import Classifier
from synthfer.config import REQUIRED, option
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.tensors import fitting, read_tensors

SELECTIONS = ("validation", "test", "unknown")
SUFFIXES = (".card.yaml", ".card.yml", ".card.json")

_HOW_TO = """write it:
  architecture: one of {names}
  options: {{...}}                        # every option of that architecture but num_classes
  input:
    size: 224                            # pixels a side that it was trained on
    channels: BGR                        # RGB, BGR or grey
    mean: [0.485, 0.456, 0.406]          # of values 0..1, in the order of channels
    std: [0.229, 0.224, 0.225]
    classes: rafdb                       # index 0 first: a list of names, or one of {orders}"""


@dataclass(frozen=True, kw_only=True)
class CardInput:
    """What the network was trained on; as `InputSpec`, with the classes in the checkpoint's own order."""

    size: int = option(REQUIRED, "side of its pictures in pixels", low=1)
    channels: str = option(REQUIRED, "what its three channels are", choices=CHANNELS)
    mean: tuple[float, ...] = option(REQUIRED, "what is taken from values 0..1, by channel")
    std: tuple[float, ...] = option(REQUIRED, "what they are divided by then, by channel")
    classes: list[str] | str = option(REQUIRED, f"names from index 0, or one of {', '.join(ORDERS)}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint is."""

    architecture: str = option(REQUIRED, "name of the classifier")
    options: dict[str, Any] = option(REQUIRED, "every option of the architecture but num_classes")
    input: CardInput = option(REQUIRED, "what it reads")
    rename: dict[str, str] = option({}, "beginnings of its keys, and what they are here")
    source: str = option("", "where it comes from, with its licence")
    cosine_scale: float = option(0.0, "factor on its cosines, 0 where the last layer is linear", low=0)
    selection: str = option("unknown", "which data its epoch was chosen on", choices=SELECTIONS)
    trained_on: list[str] = option([], "collection:split of all that it, its teacher or its generator learned from")
    ancestors: list[str] = option([], "those of them whose very rows its .seen.parquet does not have")
    training: dict[str, Any] = option({}, "how it was trained: config, data with their hashes, versions")

    def __post_init__(self) -> None:
        if taken := sorted(self.options.keys() & {"name", "num_classes", "spec"}):
            raise ValueError(f"options: {', '.join(taken)} belongs elsewhere: architecture and input say it already.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the checkpoint's order, in this library's words; `ValueError` for unknown or doubled ones."""
        given = self.input.classes
        if isinstance(given, str):
            if given not in ORDERS:
                raise ValueError(f"input.classes: no order is called {given!r}; known: {', '.join(ORDERS)}, or a list.")
            return ORDERS[given]
        found = tuple(expressions.other(word) or EXPRESSIONS[expressions.index_of(word)] for word in given)
        if doubled := sorted({word for word in found if found.count(word) > 1}):
            raise ValueError(f"input.classes: {', '.join(doubled)} stands there more than once.")
        return found


def restore(path: str | Path, card: Card | str | Path | None = None) -> Classifier:
    """The classifier of a checkpoint, in eval mode on the CPU. Errors are those of `load`."""
    found = _card(Path(path), card)
    options = asdict(_config(found, Path(path)))
    model = classifiers.build(found.architecture, **options)
    load(model, path, found)
    return model.eval()


def load(model: Classifier, path: str | Path, card: Card | str | Path | None = None) -> Card:
    """Put a checkpoint (.safetensors, or a torch file of tensors only) into `model`, and return its card.

    The card is given, is a file, or lies beside the checkpoint. Afterwards `model.input` is what the card says, its
    classes those of `EXPRESSIONS` in order (then others, such as contempt), and the last layer's rows follow them.
    `ValueError` names what does not fit: no card, another architecture or options, keys that are missing, unexpected
    or of another shape. The model is then as it was.
    """
    path = Path(path)
    found = _card(path, card)
    _check_architecture(model, found, path)
    classes = found.classes
    wanted = [name for name in dict.fromkeys((*EXPRESSIONS, *classes)) if name in classes]
    order = [classes.index(name) for name in wanted]
    state = _fitting(model, path, found.rename)
    read = found.input
    model.set_input(
        InputSpec(
            size=read.size,
            channels=read.channels,
            mean=tuple(read.mean),  # type: ignore[arg-type]
            std=tuple(read.std),  # type: ignore[arg-type]
            classes=tuple(wanted),
        )
    )
    for key in (f"{model.last}.weight", f"{model.last}.bias"):
        state[key] = state[key][order]
    model.load_state_dict(state)
    model.set_cosine(found.cosine_scale)
    return found


def load_part(part: nn.Module, path: str | Path, rename: Mapping[str, str] | None = None) -> None:
    """Put the weights of a trunk alone, such as those of face recognition, into a part of a classifier.

    No card is needed, since the part has no classes and is trained further on the classifier's own input. Errors
    are those of `load`.
    """
    part.load_state_dict(_fitting(part, Path(path), rename or {}))


def save(model: Classifier, path: str | Path, **facts: Any) -> Card:
    """Write `model` as safetensors and its card beside it, with more `facts` of the card.

    `ValueError`: another suffix, or classes without names.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: name it .safetensors before it is saved.")
    card = card_of(model, **facts)
    path.with_suffix(SUFFIXES[0]).write_text(card_text(card))
    path.write_bytes(body_of(model))
    return card


def card_of(model: Classifier, **facts: Any) -> Card:
    """The card of a model; `facts` are its other fields. `ValueError` where the classes have no names."""
    if not model.input.classes:
        raise ValueError(f"{model.name}: give the model's input.classes before it is saved.")
    options = asdict(model.config)
    del options["num_classes"]
    read = CardInput(**_plain(asdict(model.input)))
    return Card(architecture=model.name, options=options, input=read, cosine_scale=model.cosine_scale, **facts)


def card_text(card: Card) -> str:
    """The card as YAML."""
    return yaml.safe_dump(_plain(asdict(card)), sort_keys=False)


def body_of(model: Classifier) -> bytes:
    """The state dict as a safetensors file."""
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()})


def _plain(value: Any) -> Any:
    """With lists for tuples: YAML has no others."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def card_at(path: str | Path) -> Card:
    """The card beside a checkpoint; `ValueError` says how to write one."""
    return _card(Path(path), None)


def _card(path: Path, card: Card | str | Path | None) -> Card:
    """The card that is given, or lies beside `path`."""
    if isinstance(card, Card):
        return card
    beside = [path.with_suffix(suffix) for suffix in SUFFIXES]
    file = Path(card) if card else next((place for place in beside if place.is_file()), None)
    how_to = _HOW_TO.format(names=", ".join(classifiers.names()), orders=", ".join(ORDERS))
    if file is None or not file.is_file():
        raise ValueError(f"{path}: there is no card {file or beside[0]}, without which it cannot be used; {how_to}")
    try:
        return config.load(Card, files=[file])
    except ValueError as error:
        raise ValueError(f"{file} is no card: {error}\nCorrect it, or {how_to}") from error


def _config(card: Card, path: Path) -> Any:
    """The `Config` of the network that a card means; `ValueError` where it leaves open which."""
    schema = classifiers.module(card.architecture).Config
    if missing := sorted({f.name for f in fields(schema)} - {"num_classes"} - card.options.keys()):
        raise ValueError(f"{path}: its card leaves open {', '.join(missing)}; write them under options.")
    return classifiers.filled(schema, card.architecture, card.options | {"num_classes": len(card.classes)})


def _check_architecture(model: Classifier, card: Card, path: Path) -> None:
    """`ValueError` where the card means another network."""
    if card.architecture != model.name:
        raise ValueError(f"{path} is of {card.architecture!r}, the model is {model.name!r}. Build the one it is of.")
    given, have = asdict(_config(card, path)), asdict(model.config)
    if other := [f"{key}: {value}, not {have[key]}" for key, value in given.items() if value != have[key]]:
        raise ValueError(f"{path} is of a {model.name} with {'; '.join(other)}. Build the model with its options.")


def _fitting(module: nn.Module, path: Path, rename: Mapping[str, str]) -> dict[str, Tensor]:
    """The file's tensors under the names of `module`; `ValueError` where they are not exactly its own."""
    return fitting(module, read_tensors(path), rename, str(path))
