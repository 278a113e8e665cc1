"""Options of face restoration. They are apart from restoration.py so that a config is read without importing torch."""

from dataclasses import dataclass, field

from synthfer.limits import MAX_BATCH
from synthfer.schema import option


@dataclass(frozen=True, kw_only=True)
class CodeFormerConfig:
    """Which network the weights are of; the defaults are the published one, smaller ones serve tests."""

    size: int = option(512, "side of its faces in pixels", low=16, high=2048)
    width: int = option(64, "channels of the first level, a multiple of 32", low=32, high=4096)
    multiples: tuple[int, ...] = option(
        (1, 2, 2, 4, 4, 8), "channels of each level, as multiples of the first; each halves the side", low=1, high=256
    )
    codes: int = option(1024, "codes in the codebook", low=1, high=2**20)
    code_width: int = option(256, "numbers of a code", low=1, high=65_536)
    dim: int = option(512, "width of the transformer", low=1, high=65_536)
    heads: int = option(8, "heads of the transformer", low=1, high=1024)
    layers: int = option(9, "layers of the transformer", low=1, high=256)

    def __post_init__(self) -> None:
        if not 1 <= len(self.multiples) <= 12:
            raise ValueError(f"multiples: {len(self.multiples)} levels; give 1 to 12.")
        if self.width % 32 or self.dim % self.heads or self.size % 2 ** (len(self.multiples) - 1):
            raise ValueError(
                f"network: width {self.width} must be a multiple of 32, dim {self.dim} of heads {self.heads}, and size"
                f" {self.size} must halve {len(self.multiples) - 1} times."
            )


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Whether faces are restored, and how; without weights they stay as they are."""

    weights: str | None = option(
        None, "codeformer.pth or its tensors as .safetensors, local or s3://; null: no restoration"
    )
    fidelity: float = option(0.5, "w: 0 is the sharpest, 1 the nearest to the input", low=0, high=1)
    adain: bool = option(True, "keep light and tint of the input")
    degrade: bool = option(False, "blur and add noise before, most along the pasted edge (SyntFER)")
    batch_size: int = option(
        4, "faces per call of the network; a fixed shape, bits depend on it", low=1, high=MAX_BATCH
    )
    network: CodeFormerConfig = field(default_factory=CodeFormerConfig)
