"""The networks of the VAE-GAN: sizes, what a class and a style change, what is learned of the classes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthfer.generators.vae_gan.networks import (
    AuxiliaryClassifier,
    CriticOutput,
    Discriminator,
    Encoder,
    Generator,
    NetworkConfig,
    VaeGan,
)


def number(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: int) -> NetworkConfig:
    return NetworkConfig(**({"size": 32, "width": 8, "latent": 16} | options))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "width", "latent", "parameters"),
    [
        (32, 8, 32, (141_776, 127_947, 76_225)),
        (48, 8, 64, (371_216, 295_627, 76_225)),
        (48, 16, 64, (892_832, 668_979, 302_977)),
        (64, 16, 64, (1_746_336, 1_169_203, 1_222_017)),
        (64, 32, 128, (3_503_424, 2_911_619, 2_453_761)),
        (112, 32, 128, (5_666_112, 4_271_747, 2_453_761)),
    ],
)
def test_sizes_and_parameters(size: int, width: int, latent: int, parameters: tuple[int, ...]) -> None:
    """Encoder and discriminator of .14/1.74/3.5/5.7 and .08/1.22/2.5 million: an anchor measured before."""
    config = NetworkConfig(size=size, width=width, latent=latent)
    with torch.device("meta"):
        encoder, generator, discriminator = Encoder(config), Generator(config), Discriminator(config)
        pictures, labels = torch.empty(2, 3, size, size), torch.empty(2, dtype=torch.int64)
        mean, log_variance = encoder(pictures)
        assert generator(mean, labels).shape == pictures.shape
        seen = discriminator(pictures, labels)
    assert tuple(map(number, (encoder, generator, discriminator))) == parameters
    assert mean.shape == log_variance.shape == (2, latent)
    assert seen.scores.shape == (2,)
    assert [len(maps[0]) for maps in seen.maps] == config.channels[1:]
    assert seen.maps[-1].shape[-1] == {32: 4, 48: 6, 64: 4, 112: 7}[size]


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net, discriminator, classifier = VaeGan(small()), Discriminator(small()), AuxiliaryClassifier(small())
    labels = torch.arange(7)
    mean, log_variance = net.encoder(noise(7, 3, 32, 32))
    pictures = net.generator(mean + log_variance, labels)
    (discriminator(pictures, labels).scores.sum() + classifier(pictures).scores.square().sum()).backward()
    for module in (net, discriminator, classifier):
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_the_generator_depends_on_class_and_style() -> None:
    torch.manual_seed(0)
    net = Generator(small())
    codes, labels = noise(3, 16), torch.tensor([0, 1, 2])
    pictures = net(codes, labels)
    assert pictures.abs().max() < 1
    assert torch.equal(net(codes, labels, style=codes), pictures)
    styled = net(codes, labels, style=codes.flip(0))
    assert not torch.equal(styled[0], pictures[0])
    torch.testing.assert_close(styled[1], pictures[1])  # flipped onto itself
    assert not torch.equal(net(codes, labels.flip(0))[0], pictures[0])


def test_the_output_of_three_batches_is_split_into_theirs() -> None:
    output = CriticOutput(torch.arange(6.0), [noise(6, 4, 2, 2)])
    parts = output.thirds()
    assert [part.scores.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(torch.cat([part.maps[0] for part in parts]), output.maps[0])


def test_style_reaches_the_late_blocks_alone() -> None:
    torch.manual_seed(0)
    net, maps = Generator(small(size=64)), []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, made: maps.append(made))
    codes, labels = noise(2, 16), torch.tensor([3, 4])
    net(codes, labels)
    net(codes, labels, style=noise(2, 16, seed=1))
    same = [torch.equal(a, b) for a, b in zip(maps[:4], maps[4:], strict=True)]
    assert same == [True, True, False, False]


def test_a_picture_does_not_depend_on_its_neighbours_or_its_slot() -> None:
    torch.manual_seed(0)
    net, pictures, labels = VaeGan(small()).eval(), noise(6, 3, 32, 32), torch.arange(6)
    with torch.inference_mode():
        mean, _ = net.encoder(pictures)
        whole = net.generator(mean, labels)
        order = torch.tensor([3, 3, 0, 5, 2, 3])
        again, _ = net.encoder(pictures[order])
        assert torch.equal(again, mean[order])
        assert torch.equal(net.generator(again, labels[order]), whole[order])


def test_far_off_pictures_have_finite_deviations() -> None:
    torch.manual_seed(0)
    encoder = Encoder(small())
    nn.init.constant_(encoder.head.bias, 1e4)
    assert encoder(noise(2, 3, 32, 32))[1].exp().isfinite().all()


def test_classes_are_learned_with_a_pull_to_what_they_share() -> None:
    """The class of one row has, so to speak, 16 rows of an average class beside it; one without rows has no others."""
    net, chance = VaeGan(small()), np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [400, 1, 50])
    shared = chance.normal(size=(16, 16)) / 4
    codes = chance.normal(size=(451, 16)) @ shared.T + labels[:, None]
    net.learn_classes(torch.tensor(codes, dtype=torch.float32), torch.tensor(labels))
    assert net.counts.tolist() == [400, 1, 0, 50, 0, 0, 0]
    np.testing.assert_allclose(net.means[3], codes[labels == 3].mean(0), atol=1e-5)
    np.testing.assert_allclose(net.means[2], codes.mean(0), atol=1e-5)
    rest = codes - net.means.double().numpy()[labels]
    within = rest.T @ rest / 451
    np.testing.assert_allclose(net.covariances[2], within, atol=1e-5)
    np.testing.assert_allclose(net.covariances[1], within * 16 / 17, atol=1e-5)
    np.testing.assert_allclose(net.covariances[0], np.cov(codes[:400].T, bias=True), atol=0.05)
