"""Published recipes in the keys of the training job: what `preset=published` puts in place of the defaults.

A classifier's module says how its authors trained it (`RECIPE`, or `RECIPES` by its option `variant`); nothing is built
to read it. What their text and ours cannot both say:

- Their epoch is often chosen on the test set; ours always is on validation data, by the score nearest to theirs.
  0.67 macro F1 + 0.33 balanced accuracy becomes macro F1: both of its terms weigh classes alike, and the accuracy in
  `abaw` does not.
- Their weight decay is on norms and biases, too; ours is not.
- Their erased rectangles are filled with the mean of ImageNet, ours with that of the picture.
- Weights that they begin with are `init=`, which only the user has.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from synthfer import classifiers
from synthfer.classifiers import TrainingRecipe
from synthfer.schema import ConfigError

_OPTIMIZERS = ("sgd", "adam", "adamw")


def published(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of classifier `name` with these options as keys of `TrainConfig`, nested; only those that it states.

    Augmentation, averaging, clipping and warm-up that it does not name are off. `ConfigError` where there is no
    recipe, or where it says what no key can; `ValueError` for an unknown classifier.
    """
    recipe = _recipe(name, options)
    try:
        keys = {
            "epochs": recipe.epochs,
            "batch": recipe.batch,
            "sampler_power": _sampler_power(recipe.sampler),
            "loss": _loss(recipe.loss),
            "augment": _augment(recipe.augmentation),
            "optimizer": _optimizer(recipe),
            "schedule": _schedule(recipe.schedule),
            "ema": 0.0,
        }
    except (KeyError, _UnsayableError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"preset=published: the recipe of classifier {name} cannot be said in keys: {why}. Leave"
                          " preset out and give the keys.") from error  # fmt: skip
    return keys | _selection(recipe.selection)


class _UnsayableError(Exception):
    """A part of a recipe that no key says."""


def _recipe(name: str, options: Mapping[str, Any]) -> TrainingRecipe:
    module = classifiers.module(name)
    recipes = getattr(module, "RECIPES", None)
    if recipes is not None:
        variant = options.get("variant", getattr(module.Config, "variant", None))
        if variant not in recipes:
            raise ConfigError(f"preset=published: classifier {name} has no recipe for classifier.variant={variant};"
                              f" there is one for {', '.join(recipes)}.")  # fmt: skip
        recipe: TrainingRecipe = recipes[variant]
    elif hasattr(module, "RECIPE"):
        recipe = module.RECIPE
    else:
        raise ConfigError(f"preset=published: there is no published recipe for classifier {name}, its module has"
                          " neither RECIPE nor RECIPES. Leave preset out and give the keys.")  # fmt: skip
    return recipe


def _sampler_power(sampler: str) -> float:
    powers = {"uniform": 0.0, "inverse class frequency": 1.0}
    if sampler not in powers:
        raise _UnsayableError(f"sampler {sampler!r}")
    return powers[sampler]


def _loss(terms: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """One smoothed cross entropy for a weighted sum of them.

    Cross entropy is linear in its target, and with smoothing e the target is (1 - e) y + e / K. So a sum of terms with
    weights w_i and smoothings e_i is W = sum w_i times the cross entropy with smoothing sum w_i e_i / W, exactly:
    2 LSCE(e) + CE is 3 LSCE(2 e / 3).
    """
    if other := [term["name"] for term in terms if term["name"] != "cross_entropy"]:
        raise _UnsayableError(f"loss {other[0]!r}")
    factor = math.fsum(term["weight"] for term in terms)
    smoothing = math.fsum(term["weight"] * term["label_smoothing"] for term in terms) / factor
    return {"name": "cross_entropy", "factor": factor, "smoothing": smoothing}


def _augment(steps: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """Each step by itself; that all but `flip` and `shift` are off by default need not be said."""
    keys: dict[str, Any] = {"flip": 0.0, "shift": 0}
    for step in _independent(steps):
        match step["name"]:
            case "horizontal_flip":  # twice mirrored is not mirrored
                keys["flip"] = keys["flip"] * (1 - step["p"]) + step["p"] * (1 - keys["flip"])
            case "shift":
                keys["shift"] = step["pixels"]
            case "gaussian_noise":
                keys |= {"noise": step["p"], "noise_variance": float(step["variance"])}
            case "random_erasing":
                keys |= {"erase": step["p"], "erase_area": list(step["scale"])}
            case name:
                raise _UnsayableError(f"augmentation {name!r}")
    return keys


def _independent(steps: tuple[Mapping[str, Any], ...]) -> list[Mapping[str, Any]]:
    """The steps with each `one_of` taken apart.

    "Mirror or add noise" is not mirroring and noise, each by its own coin, since it never does both. With a fair coin
    for mirroring beside it, it is: whether the picture ends up mirrored then tells nothing about the noise.
    """
    fair = any(step["name"] == "horizontal_flip" and step["p"] == 0.5 for step in steps)
    flat: list[Mapping[str, Any]] = []
    for step in steps:
        parts = step["of"] if step["name"] == "one_of" else (step,)
        if step["name"] != "one_of":
            flat.append(step)
        elif not fair or sum(part["name"] != "horizontal_flip" for part in parts) > 1:
            raise _UnsayableError(f"one of {', '.join(part['name'] for part in parts)}")
        else:
            flat += [{**part, "p": step["p"] / len(parts)} for part in parts]
    return flat


def _optimizer(recipe: TrainingRecipe) -> dict[str, Any]:
    given = recipe.optimizer
    sharp = given["name"] == "sam"
    name = given["base"] if sharp else given["name"]
    if name not in _OPTIMIZERS or given.get("adaptive"):
        raise _UnsayableError(f"optimizer {'adaptive ' if given.get('adaptive') else ''}{name}")
    keys = {
        "name": name,
        "lr": recipe.lr,
        "weight_decay": given.get("weight_decay", 0.0),
        "sam_rho": given["rho"] if sharp else 0.0,
        "clip": 0.0,
    }
    if name == "sgd":
        keys |= {"momentum": given.get("momentum", 0.0), "nesterov": given.get("nesterov", False)}
    return keys


def _schedule(given: Mapping[str, Any] | None) -> dict[str, Any]:
    given = given or {"name": "constant"}
    numbers = {"constant": (), "cosine": (), "exponential": ("gamma",), "plateau": ("patience", "factor")}
    if given["name"] not in numbers or given.get("every", "epoch") != "epoch":
        raise _UnsayableError(f"schedule {given['name']!r}")
    return {"name": given["name"], "warmup": 0.0} | {key: given[key] for key in numbers[given["name"]]}


def _selection(text: str) -> dict[str, Any]:
    """The score that a recipe's sentence is nearest to; none where it chooses by no score."""
    scores = {"macro F1": "macro_f1", "balanced accuracy": "balanced_accuracy", "accuracy": "accuracy"}
    named = [key for words, key in scores.items() if words in text]
    keys: dict[str, Any] = {"select": named[0]} if named else {}
    if patience := re.search(r"after (\d+) epochs without", text):
        keys["patience"] = int(patience[1])
    return keys
