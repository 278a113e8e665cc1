"""The VAE-GAN as a generator: faces of the training split, varied in the latent codes of a network trained on them.

After "Semantic Data Augmentation for Long-tailed Facial Expression Recognition" (Li, Wang, Guan and Yin, arXiv
2411.17254). The networks are in networks.py, the operations on codes in operations.py; `jobs/train.py task=vae_gan`
trains the networks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthfer.limits import MAX_BATCH, MAX_THREADS
from synthfer.schema import REQUIRED, option

if TYPE_CHECKING:
    from synthfer.generators.vae_gan.generator import VaeGanGenerator

PLAN = "variations"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the generator. Those of the network are in its card."""

    weights: str = option(REQUIRED, "checkpoint of a vae_gan, path or s3://, its card beside it")
    batch_size: int = option(16, "rows per call", low=1, high=MAX_BATCH)
    device: str = option("auto", "where it runs: auto, cpu, cuda or cuda:N")
    threads: int = option(1, "CPU threads of torch, for the CPU", low=1, high=MAX_THREADS)


def build(config: Config) -> "VaeGanGenerator":
    """The generator with its weights loaded; `ConfigError` or `ValueError` where they are missing or do not fit."""
    from synthfer.generators.vae_gan.generator import VaeGanGenerator  # torch is slow to import, options are not

    return VaeGanGenerator(config)
