"""The VAE-GAN as a generator: same bits whatever happens around a row, each operation against the bare networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from synthfer import generators, images
from synthfer.canonical import canonical_json
from synthfer.checkpoints import Card
from synthfer.generators import Faces, Failure
from synthfer.generators.vae_gan import Config
from synthfer.generators.vae_gan.generator import VaeGanGenerator
from synthfer.generators.vae_gan.networks import CardOptions, VaeGan
from synthfer.sample import Row
from synthfer.schema import ConfigError
from synthfer.sources.avatars import draw, sample_attributes
from synthfer.training import tasks
from synthfer.training.tasks import Batch

SMALL = {"size": 32, "width": 8, "latent": 16, "grey": False}


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """Drawn faces of the expressions in turn, 48 pixels a side."""
    return [draw(sample_attributes(seed), 48) for seed in range(8)]


@pytest.fixture(scope="module")
def net() -> VaeGan:
    """Random weights, large enough that codes, classes and styles are seen in what is made."""
    torch.manual_seed(0)
    net = VaeGan(CardOptions(**SMALL)).eval()
    for parameter in net.generator.parameters():
        parameter.data.mul_(2)
    net.learn_classes(torch.randn(60, 16), torch.arange(60) % 6)  # none of surprise
    return net


def save(net: VaeGan, folder: Path, **options: Any) -> Path:
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    card = Card(architecture="vae_gan", options=SMALL | options, trained_on=["drawn:train"])
    (folder / "model.card.yaml").write_text(card.to_yaml())
    return path


@pytest.fixture
def path(net: VaeGan, tmp_path: Path) -> Path:
    return save(net, tmp_path)


def load(path: Path, **options: Any) -> VaeGanGenerator:
    made = generators.build("vae_gan", weights=str(path), device="cpu", **({"batch_size": 4} | options))
    assert isinstance(made, VaeGanGenerator)
    return made


def row(operation: str, *code: float, label: int = 3, seed: int = 9) -> Row:
    return Row(index=0, label=label, seed=seed, operation=operation, code=code, parent_id="a", source_id="a")


def rows_of_all(faces: Sequence[np.ndarray]) -> tuple[list[Row], list[Faces]]:
    rows = [row("noise", 1.0), row("interpolate", 0.5), row("recondition", 1.0)]
    rows += [row("style"), row("direction", 1.0, 2.0), row("tail", 1.0)]
    given = [(faces[0],), (faces[1], faces[2]), (faces[3],), (faces[4], faces[5]), (faces[6],), ()]
    return rows, given


def pixels(generator: VaeGanGenerator, rows: Sequence[Row], faces: Sequence[Faces]) -> list[np.ndarray]:
    made = [one for i in range(0, len(rows), 4) for one in generator.make(rows[i : i + 4], faces[i : i + 4])]
    assert not [one for one in made if isinstance(one, Failure)]
    return [np.asarray(one) for one in made]


# -- a picture is a function of its row


def test_pictures_repeat_whatever_their_neighbours_slot_and_generator(path: Path, faces: list[np.ndarray]) -> None:
    rows, given = rows_of_all(faces)
    first = pixels(load(path), rows, given)
    assert len({one.tobytes() for one in first}) == len(rows)
    other, order = load(path), [5, 3, 1, 4, 0, 2]
    again = pixels(other, [rows[i] for i in order], [given[i] for i in order])
    assert all(np.array_equal(again[k], first[i]) for k, i in enumerate(order))
    alone = [pixels(other, [one], [own])[0] for one, own in zip(rows, given, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, first, strict=True))


def test_chance_is_the_rows_seed_and_torchs_own_is_left_alone(path: Path, faces: list[np.ndarray]) -> None:
    generator, given = load(path), [(faces[0],)] * 2
    state = torch.random.get_rng_state()
    one, two = pixels(generator, [row("noise", 1.0, seed=1), row("noise", 1.0, seed=2)], given)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not np.array_equal(one, two)
    none = pixels(generator, [row("noise", 0.0, seed=1), row("noise", 0.0, seed=2)], given)
    assert np.array_equal(*none)


def test_operations_are_those_of_the_bare_networks(path: Path, net: VaeGan, faces: list[np.ndarray]) -> None:
    """Ends and zeros of each operation's number, where nothing but encoding and decoding is left."""

    def encoded(face: np.ndarray) -> torch.Tensor:
        square = torch.from_numpy(images.square(face, 32)).permute(2, 0, 1)[None]
        return net.encoder(square / 127.5 - 1)[0]

    def decoded(code: torch.Tensor, label: int, style: torch.Tensor | None = None) -> np.ndarray:
        made = net.generator(code, torch.tensor([label]), style)
        return ((made[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()

    with torch.inference_mode():
        one, two = encoded(faces[0]), encoded(faces[1])
        expected = [
            (row("noise", 0.0), (faces[0],), decoded(one, 3)),
            (row("interpolate", 0.0), (faces[0], faces[1]), decoded(one, 3)),
            (row("interpolate", 1.0), (faces[0], faces[1]), decoded(two, 3)),
            (row("recondition", 1.0, label=5), (faces[0],), decoded(one, 5)),
            (row("style"), (faces[0], faces[1]), decoded(one, 3, two)),
            (row("direction", 0.0, 1.0, label=5), (faces[0],), decoded(one, 5)),
            (row("direction", 1.0, 1.0, label=5), (faces[0],), decoded(one + net.means[5] - net.means[1], 5)),
            (row("tail", 0.0, label=2), (), decoded(net.means[2:3], 2)),
        ]
    made = pixels(load(path), [one for one, _, _ in expected], [own for _, own, _ in expected])
    for (one, _, wanted), got in zip(expected, made, strict=True):
        assert got.dtype == np.uint8 and got.shape == (32, 32, 3)
        assert np.abs(got.astype(int) - wanted).max() <= 1, one.operation  # another batch's kernels round otherwise


def test_sources_of_any_size_and_shape(path: Path, faces: list[np.ndarray]) -> None:
    generator, one = load(path), row("noise", 1.0)
    big = draw(sample_attributes(0), 200)
    wide = np.pad(big, ((0, 0), (50, 50), (0, 0)), constant_values=255)
    tiny = np.full((5, 9, 3), 80, np.uint8)
    made = pixels(generator, [one] * 3, [(big,), (wide,), (tiny,)])
    assert np.array_equal(made[0], made[1]) and {p.shape for p in made} == {(32, 32, 3)}


def test_a_network_of_grey_pictures_makes_grey_ones(net: VaeGan, tmp_path: Path, faces: list[np.ndarray]) -> None:
    colour = pixels(load(save(net, tmp_path)), [row("noise", 1.0)], [(faces[0],)])[0]
    grey = pixels(load(save(net, tmp_path, grey=True)), [row("noise", 1.0)], [(faces[0],)])[0]
    assert (grey == grey[..., :1]).all() and not (colour == colour[..., :1]).all()
    assert np.abs(grey[..., 0] - colour.astype(float).mean(2)).max() <= 1


# -- what goes wrong


def test_bad_rows_fail_alone(path: Path, faces: list[np.ndarray]) -> None:
    good, own = row("noise", 1.0), (faces[0],)
    bad = [row("noise", 11.0), replace(good, operation="blend"), row("tail", 1.0, label=6)]
    made = load(path).make([bad[0], good, bad[1], bad[2]], [own, own, own, ()])
    reasons = [one.reason for one in made if isinstance(one, Failure)]
    assert reasons[0] == "noise: scale is 11, allowed is 0 to 10"
    assert reasons[1].startswith("operation 'blend' is none of noise,")
    assert reasons[2] == "tail: the network was trained on no picture of surprise"
    assert np.array_equal(np.asarray(made[1]), pixels(load(path), [good], [own])[0])
    grey = load(path).make([good, good], [(faces[0][..., 0],), own])
    assert grey[0] == Failure("a source is uint8 (48, 48), expected uint8 (height, width, 3)")
    assert isinstance(grey[1], np.ndarray)
    failed = load(path).make([good])[0]
    assert isinstance(failed, Failure) and failed.reason == "noise: needs 1 picture(s), has 0"


def test_what_is_not_finite_fails_alone(net: VaeGan, tmp_path: Path, faces: list[np.ndarray]) -> None:
    generator = load(save(net, tmp_path))
    with torch.no_grad():
        generator._net.generator.classes.weight[5] = float("nan")
    made = generator.make([row("noise", 1.0, label=5), row("noise", 1.0)], [(faces[0],)] * 2)
    assert made[0] == Failure("the picture has values that are not finite (NaN)")
    assert isinstance(made[1], np.ndarray)


def test_more_rows_than_a_batch_are_an_error(path: Path, faces: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="5 rows are more than the batch_size of 4"):
        load(path).make([row("noise", 1.0)] * 5, [(faces[0],)] * 5)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (Card(architecture="dcgan", options=SMALL), "is of 'dcgan', while 'vae_gan' is wanted"),
        (Card(architecture="vae_gan", options=SMALL | {"latent": 24}), r"of another shape(.|\n)*encoder.head.weight"),
        (Card(architecture="vae_gan", options=SMALL | {"size": 64}), r"missing(.|\n)*encoder.blocks.3"),
        (Card(architecture="vae_gan", options=SMALL | {"size": 50}), "size is 50; it takes one of 32, 48, 64, 112"),
        (Card(architecture="vae_gan", options=SMALL | {"depth": 3}), "depth"),
    ],
)
def test_weights_of_another_network_are_refused(path: Path, card: Card, message: str) -> None:
    path.with_suffix(".card.yaml").write_text(card.to_yaml())
    with pytest.raises(ConfigError, match=message):
        load(path)


# -- weights and records


def test_what_a_task_keeps_is_what_the_generator_runs(tmp_path: Path, faces: list[np.ndarray]) -> None:
    torch.manual_seed(1)
    task = tasks.build("vae_gan", size=32, width=8, latent=16)
    squares = np.stack([images.square(face, 32) for face in faces])
    task.finish([Batch(torch.from_numpy(squares).permute(0, 3, 1, 2) / 127.5 - 1, torch.arange(8) % 7)])
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in task.weights().items()}, path)
    path.with_suffix(".card.yaml").write_text(task.card().to_yaml())
    generator = load(path)
    kept = task.weights()
    for name, value in generator._net.state_dict().items():
        assert torch.equal(value, kept[name]), name
    made = pixels(generator, [row("tail", 0.0, label=6), row("noise", 1.0)], [(), (faces[3],)])
    assert made[0].shape == (32, 32, 3)


def test_the_producer_is_what_makes_the_pictures_and_no_path(path: Path) -> None:
    told = load(path).producer()
    canonical_json(told)
    assert str(path.parent) not in str(told) and len(told["weights_sha256"]) == 64
    assert told["generator"] == told["architecture"] == "vae_gan" and told["options"] == SMALL
    assert (told["batch_size"], told["threads"], told["trained_on"]) == (4, 1, ["drawn:train"])
    assert load(path, batch_size=2).producer() != told
    assert load(path).device_notes()["device"] == "cpu"
    assert generators.plan_of("vae_gan") == "variations" and Config(weights="x").batch_size == 16
