"""The gate of blank pictures: has the picture any structure at all?

One number: `contrast`, the largest standard deviation of a colour channel (RMS contrast), in levels of 0..255; 0 for a
picture of one colour. Where only the face of a picture was changed, it is that of the face. Pictures that are not
finite (NaN) or cannot be written never reach a gate: they are failed rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthfer.faces.align import crop_box
from synthfer.gates import Verdict
from synthfer.generators import Faces, GeneratedImage
from synthfer.sample import Row
from synthfer.schema import option

CONTRAST = "contrast"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What counts as blank."""

    min_contrast: float = option(
        1.0,
        "reject pictures in which every channel has a smaller standard deviation, in levels of 0..255",
        low=0,
        high=127.5,
    )


def build(config: Config) -> "BlankGate":
    """The gate; it needs no weights."""
    return BlankGate(config)


class BlankGate:
    """Rejects pictures without structure."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]) -> list[Verdict]:
        """The contrast of each picture, and whether that is too little."""
        return [self._verdict(image) for image in images]

    def _verdict(self, image: GeneratedImage) -> Verdict:
        region = image.pixels if image.box is None else crop_box(image.pixels, image.box)
        contrast = float(region.reshape(-1, 3).std(0).max())  # float64, whatever the number of threads
        if contrast >= self.config.min_contrast:
            return Verdict({CONTRAST: contrast})
        return Verdict({CONTRAST: contrast}, f"contrast {contrast:.3f} is below {self.config.min_contrast:g}")

    def producer(self) -> dict[str, Any]:
        """The bound, as JSON."""
        return {"min_contrast": self.config.min_contrast}
