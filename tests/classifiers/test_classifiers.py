"""Classifiers: the signature, what comes in, and that every parameter learns."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from synthfer import classifiers
from synthfer.classifiers import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from synthfer.classifiers.ir50 import Trunk
from synthfer.classifiers.network import Classifier
from synthfer.expressions import EXPRESSIONS

ALL = [
    ("small", {}),
    ("resemotenet", {}),
    ("ir50", {"tokens": "spatial"}),
    ("ir50", {"tokens": "published"}),
    ("poster", {"depth": "small", "variant": "rafdb"}),
    ("poster", {"depth": "small", "variant": "affectnet", "tokens": "spatial"}),
]


def faces(n: int = 2, size: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def number(model: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def without_memory(name: str, **options: object) -> Classifier:
    """A classifier on the meta device: shapes and gradients are followed, nothing is computed."""
    with torch.device("meta"):
        return classifiers.build(name, **options)


def test_the_registry_names_what_it_has():
    assert classifiers.names() == ["ir50", "poster", "resemotenet", "small"]
    with pytest.raises(ValueError, match=r"unknown classifier 'resemotnet'; did you mean 'resemotenet'\?"):
        classifiers.build("resemotnet")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ir50", {"token": "spatial"}, r"ir50: unknown option 'token'; did you mean 'tokens'\?"),
        ("ir50", {"tokens": "flat"}, "ir50: tokens is flat, it takes one of spatial, published"),
        ("resemotenet", {"width": 0}, "resemotenet: width is 0, it takes number from 0.0625 to 4"),
        ("poster", {"depth": "huge"}, "poster: depth is huge, it takes one of small, base, large"),
        ("small", {"num_classes": 1}, "small: num_classes is 1, it takes integer from 2 to 1,000"),
    ],
)
def test_wrong_options_are_told_before_anything_is_built(name: str, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        classifiers.build(name, **options)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_images_give_logits_and_features_and_every_trainable_parameter_a_gradient(name: str, options: dict):
    """Distributed training stops at its second step where a parameter has none."""
    model = without_memory(name, num_classes=9, **options)
    size = model.input.size
    logits, features = model(torch.empty(3, 3, size, size, dtype=torch.uint8, device="meta"))
    assert logits.shape == (3, 9) and features.shape == (3, model.last_layer.in_features)
    assert logits.dtype == features.dtype == torch.float32
    logits.sum().backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_recipe_is_plain_data_and_says_where_it_stands(name: str, options: dict):
    recipe = without_memory(name, **options).recipe
    plain = json.loads(json.dumps(asdict(recipe)))
    assert plain["source"] and plain["optimizer"]["name"] and plain["loss"] and 0 < plain["lr"] < 1


def test_recipes_are_the_published_ones():
    ir50, raf, affectnet = (
        without_memory(*who).recipe if len(who) == 1 else without_memory(who[0], variant=who[1]).recipe
        for who in (("ir50",), ("poster", "rafdb"), ("poster", "affectnet"))
    )
    assert (ir50.lr, ir50.epochs, ir50.batch, ir50.loss[0]["label_smoothing"]) == (1.095e-6, 120, 64, 0.4)
    assert (raf.lr, raf.epochs, raf.batch, raf.loss[0]["label_smoothing"]) == (4e-5, 300, 200, 0.2)
    assert (affectnet.lr, affectnet.sampler) == (2e-6, "inverse class frequency")
    assert ir50.optimizer["weight_decay"] == 1e-4 and raf.optimizer["weight_decay"] == 0


def test_images_of_another_size_are_refused_with_both_sizes():
    model = classifiers.build("small")
    with pytest.raises(ValueError, match=r"images are \(2, 3, 64, 64\), expected \(n, 3, 48, 48\)"):
        model(faces(size=64))
    with pytest.raises(ValueError, match=r"images are \(3, 48, 48\)"):
        model(faces()[0])
    with pytest.raises(ValueError, match=r"images are torch.int64"):
        model(faces().long())
    with pytest.raises(ValueError, match=r"ir50: input.size is 100; it reads 112 or 224"):
        classifiers.build("ir50", width=1 / 16, spec=InputSpec(size=100))


def test_images_are_normalised_inside_whatever_kind_of_number_they_are():
    model = classifiers.build("resemotenet", width=1 / 16, spec=InputSpec(size=16)).eval()
    images = faces(size=16)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(model.normalise(images), (images / 255 - mean) / std)
    torch.testing.assert_close(model(images).logits, model(images / 255).logits)
    assert model.double().normalise(images).dtype == torch.float64


def test_bgr_and_grey_networks_are_fed_rgb_like_all_others():
    images = faces(size=48)
    spec = InputSpec(size=48, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    model = classifiers.build("small", spec=spec)
    rgb = model.normalise(images.flip(1))
    model.set_input(replace(spec, channels="BGR"))
    torch.testing.assert_close(model.normalise(images), rgb)
    model.set_input(replace(spec, channels="grey", mean=(0, 0, 0), std=(1, 1, 1)))
    grey = model.normalise(images)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    red, green, blue = (images / 255).unbind(1)
    torch.testing.assert_close(grey[:, 1], 0.299 * red + 0.587 * green + 0.114 * blue)
    with pytest.raises(ValueError, match=r"'rgb' is not known; give one of RGB, BGR, grey"):
        InputSpec(size=48, channels="rgb")


def test_normalisation_is_no_part_of_the_state_dict():
    """Published files have no such keys, and a file must not bring another normalisation unseen."""
    assert not [key for key in classifiers.build("small").state_dict() if "mean" in key.split(".")[-1][:5]]


def test_classes_are_named_and_counted():
    assert classifiers.build("small").input.classes == EXPRESSIONS
    assert classifiers.build("small", num_classes=8).input.classes == ()
    with pytest.raises(ValueError, match=r"names 7 classes, the network has\s+8"):
        classifiers.build("small", num_classes=8, spec=InputSpec(size=48))


def test_tokens_of_the_published_trunk_are_stretches_of_memory_and_ours_are_places():
    maps = torch.arange(256 * 14 * 14.0).view(1, 256, 14, 14)
    trunk = Trunk("published", width=1)
    trunk.input_layer = trunk.body = nn.Identity()
    flat = maps.flatten()
    for layout in (torch.contiguous_format, torch.channels_last):
        trunk.tokens = "published"
        tokens = trunk(maps.to(memory_format=layout))
        assert torch.equal(tokens[0, 5], flat[5 * 1024 : 6 * 1024])
        trunk.tokens = "spatial"
        tokens = trunk(maps.to(memory_format=layout))
        assert tokens.shape == (1, 49, 1024)
        row, column = 3, 4
        patch = maps[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(tokens[0, 7 * row + column].sort().values, patch.flatten().sort().values)


@pytest.mark.parametrize("tokens", ["spatial", "published"])
def test_channels_last_changes_nothing(tokens: str):
    model = classifiers.build("ir50", width=1 / 8, tokens=tokens).eval()
    images = faces(size=112)
    before = model(images)
    after = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-3, atol=1e-4)


def test_an_input_of_224_drops_every_other_row_and_column():
    model = classifiers.build("ir50", width=1 / 16).eval()
    images = faces(size=224)
    small = model(F.interpolate(images.float(), size=112).to(torch.uint8)).logits
    model.set_input(replace(model.input, size=224))
    torch.testing.assert_close(model(images).logits, small)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def steps(model: nn.Module, n: int = 2) -> None:
    for _ in range(n):
        model(faces(size=112)).logits.square().sum().backward()


def test_distributed_training_goes_on_after_its_first_step(one_process):
    model = classifiers.build("ir50", width=1 / 16)
    steps(DistributedDataParallel(model))
    model.dead = nn.Linear(2, 2)  # what the published code carries
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        steps(DistributedDataParallel(model))


def test_the_landmark_network_stays_frozen_and_in_eval_mode():
    model = without_memory("poster", depth="small").train()
    marks = model.face_landback
    assert model.training and model.ir_back.body[0].training
    assert not any(module.training for module in marks.modules())
    assert not any(p.requires_grad for p in marks.parameters())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("small", {}, 99_355),
        ("resemotenet", {}, 80_238_599),
        ("ir50", {}, 17_619_143),
        # The published 71,850,399 (large) and so on, less the 12,847,616 of a layer that nothing reads.
        ("poster", {"depth": "large"}, 71_850_399 - 12_847_616),
        ("poster", {"depth": "base"}, 49_192_151),
        ("poster", {"depth": "small"}, 39_381_519),
        # Without 3 x 8 token mixers of 100 x 100 weights and 100 biases.
        ("poster", {"depth": "large", "variant": "affectnet"}, 71_850_399 - 12_847_616 - 24 * 10_100),
    ],
)
def test_parameters_are_as_many_as_published(name: str, options: dict, expected: int):
    assert number(without_memory(name, **options)) == expected


def test_frozen_are_the_landmarks_and_what_the_published_forward_never_reads():
    model = without_memory("poster", depth="large")
    assert number(model.face_landback) == 1_007_248
    assert number(model, trainable=True) == 70_843_151 - 12_847_616 - 512


def test_two_builds_of_one_seed_are_equal_and_train_mode_is_random():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(classifiers.build("resemotenet", width=1 / 8))
    images = faces(4, 64)
    assert torch.equal(models[0].eval()(images).logits, models[1].eval()(images).logits)
    model = models[0].train()
    assert not torch.equal(model(images).logits, model(images).logits)


def test_the_small_one_learns():
    torch.manual_seed(0)
    model = classifiers.build("small", num_classes=2)
    dark, bright = faces(16) // 2, faces(16, seed=1) // 2 + 120
    images, labels = torch.cat([dark, bright]), torch.arange(32) // 16
    optimiser = torch.optim.AdamW(model.parameters(), model.recipe.lr)
    for _ in range(8):
        optimiser.zero_grad()
        F.cross_entropy(model(images).logits, labels).backward()
        optimiser.step()
    assert (model.eval()(images).logits.argmax(1) == labels).float().mean() > 0.9
