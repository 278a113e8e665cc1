"""Train an autoencoder of small pictures: the first half of a latent text-to-image pipeline.

Method: the variational autoencoder of Kingma & Welling (2014), as diffusers' `AutoencoderKL`, whose latents the
diffusion of Rombach et al. (2022) works in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from synthfer.tensors import to_floats, to_uint8

Log = Callable[[str], None]


@dataclass(frozen=True)
class AutoencoderSettings:
    """How long and how the autoencoder learns.

    `centre` is the extra weight of the middle of the picture, `colour` that of hue against lightness: without it the
    network learns the edges of a drawing first and hair turns grey. It also asks that the hue of each 8x8 patch be a
    linear function of the latents, which gets colour into them several times sooner. `decoder_only` freezes the encoder
    and trains the decoder on latents with noise of up to `noise` of their deviation, since generated ones are off, too.
    """

    steps: int = 2400
    batch: int = 16
    rate: float = 2e-3
    kl: float = 3e-4
    centre: float = 1.5
    colour: float = 0.0
    decoder_only: bool = False
    noise: float = 0.0
    seed: int = 0


def build_autoencoder(channels: tuple[int, ...] = (16, 32, 64, 96), latents: int = 8) -> AutoencoderKL:
    """64x64 pictures to 8x8 latents and back; few channels at full size, where they cost most."""
    return AutoencoderKL(
        latent_channels=latents, block_out_channels=channels, layers_per_block=1, norm_num_groups=8, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * len(channels), up_block_types=("UpDecoderBlock2D",) * len(channels),
    )  # fmt: skip


def train_autoencoder(vae: AutoencoderKL, images: Tensor, settings: AutoencoderSettings, log: Log = print) -> None:
    """Fit the autoencoder in place and, unless `decoder_only`, set `scaling_factor` so that latents have unit variance.

    Args:
        images: uint8 (N, 3, H, W).
    """
    torch.manual_seed(settings.seed)
    quick_norms(vae.train())
    hue_head = nn.Conv2d(vae.config.latent_channels, 3, 1)
    weights = [*vae.parameters(), *hue_head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = warm_cosine(optimiser, settings.steps)
    batches, start, mean = shuffled_batches(len(images), settings.batch, settings.seed), time.monotonic(), 0.0
    for step in range(settings.steps):
        x = to_floats(images[next(batches)])
        y, latents, kl = _through(vae, x, settings)
        loss = _difference(x, y, settings.centre) + settings.kl * kl
        if settings.colour:
            loss = loss + settings.colour * _colour_difference(x, y, hue_head(latents))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        mean += 0.05 * ((y - x).detach().square().mean().item() - mean)
        if step % 100 == 99:
            psnr, spent = 10 * math.log10(4 / mean), time.monotonic() - start
            log(f"autoencoder {step + 1}/{settings.steps} psnr {psnr:.2f} kl {kl.item():.2f} {spent:.0f}s")
    slow_norms(vae.eval())
    if not settings.decoder_only:
        vae.register_to_config(scaling_factor=1.0 / encode(vae, images[:1000]).std().item())


def _through(vae: AutoencoderKL, x: Tensor, settings: AutoencoderSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction, latents and the mean divergence of their distribution from the unit normal."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(not settings.decoder_only):
            posterior = vae.encode(x).latent_dist
            latents = posterior.mean if settings.decoder_only else posterior.sample()
            latents = latents + _up_to(settings.noise / vae.config.scaling_factor, latents)
        y = vae.decode(latents).sample.float()
    kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return y, latents.float(), kl


def _difference(x: Tensor, y: Tensor, centre: float) -> Tensor:
    """Absolute and squared error, heavier where the features of the face are."""
    error = y - x
    return (centre_weight(x.shape[-1], centre) * (error.abs() + 2 * error.square())).mean()


def _colour_difference(x: Tensor, y: Tensor, predicted: Tensor) -> Tensor:
    """Error of the hue of every pixel, and of the hue `predicted` from the latents for every patch."""
    patches = F.avg_pool2d(_hue(x), x.shape[-1] // predicted.shape[-1])
    hue = _hue(y - x)
    return hue.abs().mean() + 5 * hue.square().mean() + (predicted - patches).abs().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch: int = 50) -> Tensor:
    """Posterior means, unscaled: uint8 (N, 3, H, W) to float32 (N, C, H/8, W/8)."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([vae.encode(to_floats(part)).latent_dist.mean.float() for part in images.split(batch)])


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images: Tensor, batch: int = 50) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, after rounding to 8 bits."""
    values = []
    for part in images.split(batch):
        y = vae.decode(vae.encode(to_floats(part)).latent_dist.mean).sample
        y = to_uint8(y).float()
        values.append(10 * torch.log10(255**2 / (y - part.float()).square().mean((1, 2, 3))))
    return torch.cat(values).mean().item()


class _FlatGroupNorm(nn.GroupNorm):
    """The same function through layer_norm, whose CPU backward is several times quicker than group_norm's."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], self.num_groups, -1)
        flat = F.layer_norm(flat, flat.shape[2:], eps=self.eps)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        weight, bias = self.weight.to(x.dtype).view(shape), self.bias.to(x.dtype).view(shape)
        return torch.addcmul(bias, flat.to(x.dtype).view(x.shape), weight)


def quick_norms(model: nn.Module) -> None:
    """Swap every GroupNorm for the quick one, in place; the weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = _FlatGroupNorm


def slow_norms(model: nn.Module) -> None:
    """Undo `quick_norms`."""
    for module in model.modules():
        if isinstance(module, _FlatGroupNorm):
            object.__setattr__(module, "__class__", nn.GroupNorm)


def centre_weight(size: int, extra: float) -> Tensor:
    """1 everywhere, 1 + extra where eyes, brows and mouth are; mean 1."""
    weight = torch.ones(size, size)
    weight[int(size * 0.3) : int(size * 0.85), int(size * 0.2) : int(size * 0.8)] += extra
    return weight / weight.mean()


def _up_to(noise: float, like: Tensor) -> Tensor:
    """Gaussian noise of the shape of (N, ...), each item with its own spread between 0 and `noise`."""
    return noise * torch.rand(len(like), *[1] * (like.dim() - 1)) * torch.randn_like(like)


def _hue(images: Tensor) -> Tensor:
    """What is left of (N, 3, H, W) when the lightness of each pixel is taken away."""
    return images - images.mean(1, keepdim=True)


def shuffled_batches(n: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Endless index batches, every item once per pass."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % batch].split(batch)


def warm_cosine(optimiser: torch.optim.Optimizer, steps: int, warm: int = 100) -> torch.optim.lr_scheduler.LambdaLR:
    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
