"""Published recipes in our keys: the numbers of the papers, exactly where they can be said, refused where not."""

import itertools
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from synthfer import classifiers, config
from synthfer.classifiers import small
from synthfer.training.recipes import published
from synthfer.training.settings import OptimizerConfig, TrainConfig

NEEDED = ["out=out/run", "data={rafdb: out/rafdb}"]


def load(*words: str) -> TrainConfig:
    return config.load(TrainConfig, [*NEEDED, "preset=published", *words])


def with_recipe(monkeypatch: pytest.MonkeyPatch, **changes: object) -> str:
    """The name of a user's own classifier, trained like the small one but for `changes`."""
    module = ModuleType("own_networks.plain")
    module.Config, module.build = small.Config, small.build
    module.RECIPE = replace(small.RECIPE, **changes)
    monkeypatch.setitem(sys.modules, "own_networks", ModuleType("own_networks"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


@pytest.mark.parametrize("name", classifiers.names())
def test_every_published_recipe_fits_the_config(name: str):
    read = load(f"classifier={name}")
    recipe = published(name, {})
    assert (read.epochs, read.batch, read.optimizer.lr) == (
        recipe["epochs"], recipe["batch"], recipe["optimizer"]["lr"],
    )  # fmt: skip
    assert (read.ema, read.optimizer.clip, read.schedule.warmup) == (0, 0, 0)


def test_ir50_is_trained_as_in_the_script_of_its_authors():
    read = load("classifier=ir50")
    assert (read.epochs, read.batch, read.sampler_power, read.select) == (120, 64, 0, "macro_f1")
    optimizer = read.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.sam_rho) == ("adam", 1.095e-6, 1e-4, 0.05)
    assert (read.schedule.name, read.schedule.gamma) == ("exponential", 0.98)
    assert (read.loss.name, read.loss.factor) == ("cross_entropy", 3)
    assert read.loss.smoothing == pytest.approx(0.8 / 3, abs=1e-15)
    augment = read.augment
    assert (augment.flip, augment.shift, augment.noise, augment.noise_variance) == (0.5, 0, 0.25, 30)
    assert (augment.erase, tuple(augment.erase_area)) == (0.5, (0.02, 0.1))


def test_poster_is_trained_by_its_variant():
    raf, affectnet = load("classifier=poster"), load("classifier=poster", "classifier.variant=affectnet")
    assert (raf.optimizer.lr, raf.sampler_power, raf.optimizer.weight_decay) == (4e-5, 0, 0)
    assert (affectnet.optimizer.lr, affectnet.sampler_power, affectnet.optimizer.weight_decay) == (2e-6, 1, 0)
    assert (raf.epochs, raf.batch, raf.select, raf.optimizer.sam_rho) == (300, 200, "accuracy", 0.05)
    assert raf.loss.smoothing == pytest.approx(0.4 / 3)


def test_resemotenet_and_the_small_network():
    read = load("classifier=resemotenet")
    assert (read.optimizer.name, read.optimizer.lr, read.optimizer.momentum) == ("sgd", 1e-3, 0.9)
    assert (read.schedule.name, read.patience, read.select, read.loss.smoothing) == ("constant", 15, "accuracy", 0)
    read = load("classifier=small")
    assert (read.optimizer.name, read.optimizer.lr, read.optimizer.weight_decay) == ("adamw", 2e-3, 0.05)
    assert (read.augment.flip, read.augment.shift, read.schedule.name, read.loss.smoothing) == (0.5, 4, "cosine", 0.1)
    assert load() == read


def test_keys_that_are_given_stand_above_the_recipe():
    read = load("classifier=ir50", "optimizer.lr=0.1", "epochs=2", "augment.erase=0")
    assert (read.optimizer.lr, read.epochs, read.augment.erase, read.optimizer.sam_rho) == (0.1, 2, 0, 0.05)
    assert config.load(TrainConfig, [*NEEDED, "classifier=ir50"]).optimizer == OptimizerConfig()


@pytest.mark.parametrize("smoothing", [0.2, 0.4])
def test_the_sum_of_smoothed_losses_is_one_exactly(smoothing: float):
    keys = published("ir50" if smoothing == 0.4 else "poster", {})["loss"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 7, (50,), generator=generator)
    theirs = 2 * F.cross_entropy(logits, labels, label_smoothing=smoothing) + F.cross_entropy(logits, labels)
    ours = keys["factor"] * F.cross_entropy(logits, labels, label_smoothing=keys["smoothing"])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_mirroring_and_noise_are_theirs_in_distribution():
    """All outcomes of their coins, counted, against ours."""
    keys = published("ir50", {})["augment"]
    theirs = dict.fromkeys(itertools.product((False, True), repeat=2), 0.0)
    for first, second in itertools.product(((0.5, ""), (0.25, "flip"), (0.25, "noise")), (False, True)):
        theirs[(first[1] == "flip") != second, first[1] == "noise"] += first[0] * 0.5
    for (flip, noise), share in theirs.items():
        ours = (keys["flip"] if flip else 1 - keys["flip"]) * (keys["noise"] if noise else 1 - keys["noise"])
        assert ours == pytest.approx(share)


def test_a_classifier_of_one_s_own_has_its_recipe(monkeypatch: pytest.MonkeyPatch):
    name = with_recipe(
        monkeypatch,
        optimizer={"name": "sgd", "momentum": 0.8},
        schedule={"name": "plateau", "patience": 3, "factor": 0.5},
        selection="best balanced accuracy",
    )
    keys = published(name, {"channels": (4, 8)})
    assert keys["optimizer"] == {
        "name": "sgd", "lr": 2e-3, "weight_decay": 0.0, "sam_rho": 0.0, "clip": 0.0, "momentum": 0.8, "nesterov": False,
    }  # fmt: skip
    assert keys["schedule"] == {"name": "plateau", "warmup": 0.0, "patience": 3, "factor": 0.5}
    assert keys["select"] == "balanced_accuracy"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": {"name": "lamb"}}, "optimizer lamb"),
        ({"optimizer": {"name": "sam", "rho": 0.1, "adaptive": True, "base": "adam"}}, "optimizer adaptive adam"),
        ({"schedule": {"name": "steps"}}, "schedule 'steps'"),
        ({"schedule": {"name": "exponential", "gamma": 0.9, "every": "step"}}, "schedule 'exponential'"),
        ({"schedule": {"name": "exponential"}}, "it lacks 'gamma'"),
        ({"sampler": "by hardness"}, "sampler 'by hardness'"),
        ({"loss": ({"name": "centre", "weight": 1.0},)}, "loss 'centre'"),
        ({"augmentation": ({"name": "jigsaw", "p": 0.5},)}, "augmentation 'jigsaw'"),
        (
            {"augmentation": ({"name": "one_of", "p": 0.5, "of": ({"name": "horizontal_flip"}, {"name": "x"})},)},
            "one of horizontal_flip, x",
        ),
    ],
)
def test_what_no_key_says_is_refused(monkeypatch: pytest.MonkeyPatch, changes: dict, told: str):
    with pytest.raises(ValueError, match=rf"recipe of classifier own_networks.plain cannot be said in keys: {told}"):
        published(with_recipe(monkeypatch, **changes), {})


def test_a_classifier_without_a_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "networks_without_recipe"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "bare.py").write_text("from synthfer.classifiers.small import Config, build\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"no published recipe for classifier networks_without_recipe.bare"):
        load("classifier=networks_without_recipe.bare")
    with pytest.raises(ValueError, match=r"unknown classifier 'ir5'; did you mean 'ir50'\?"):
        published("ir5", {})
    with pytest.raises(ValueError, match=r"no recipe for classifier.variant=ferplus; .* rafdb, affectnet"):
        published("poster", {"variant": "ferplus"})


def test_nothing_is_built_to_read_a_recipe(monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class NeverBuilt:
        def __init__(self, *_: object) -> None:
            raise AssertionError("a network was built")

    monkeypatch.setattr("synthfer.classifiers.resemotenet.ResEmoteNet", NeverBuilt)
    assert published("resemotenet", {"width": 1.0})["epochs"] == 80
