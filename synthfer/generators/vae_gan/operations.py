"""Operations on codes that give new pictures of a class: arithmetic on the encodings of source pictures.

`noise` is that of "Semantic Data Augmentation for Long-tailed Facial Expression Recognition" (Li, Wang, Guan and Yin,
arXiv 2411.17254): z = m + s * d * e, with mean m and deviations d of the encoding and e ~ N(0, I). `interpolate` goes
along the arc between two pictures of a class (Shoemake, SIGGRAPH 1985; White, arXiv 1609.04468). `recondition` decodes
the code of a picture of another class under the row's class, `direction` also moves it by the difference of the two
classes' means. `style` has the late blocks of the generator follow a second picture. `tail` draws from the
Gaussian of the class itself. Seeds, classes and strengths are the row's; the same row gives the same code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthfer.expressions import EXPRESSIONS
from synthfer.generators.vae_gan.networks import CLASSES
from synthfer.sample import Row

SCALE, BETWEEN, STRENGTH = (0.0, 10.0), (0.0, 1.0), (0.0, 3.0)
_LABEL = (0.0, CLASSES - 1.0)


@dataclass(frozen=True)
class Operation:
    """How many pictures an operation is made from, and the numbers of its code: name, least, most."""

    faces: int
    code: tuple[tuple[str, float, float], ...] = ()


OPERATIONS = {
    "noise": Operation(1, (("scale", *SCALE),)),
    "interpolate": Operation(2, (("t", *BETWEEN),)),
    "recondition": Operation(1, (("label of the source", *_LABEL),)),
    "style": Operation(2),
    "direction": Operation(1, (("strength", *STRENGTH), ("label of the source", *_LABEL))),
    "tail": Operation(0, (("scale", *SCALE),)),
}


def refusal(row: Row, faces: int) -> str | None:
    """Why no code can be computed for a row with so many pictures, and what is allowed; None where one can."""
    operation = OPERATIONS.get(row.operation or "")
    if operation is None:
        return f"operation {row.operation!r} is none of {', '.join(OPERATIONS)}"
    if row.label is None or not 0 <= row.label < CLASSES:
        return f"{row.operation}: label {row.label} is no class; 0..{CLASSES - 1} are"
    if row.split != "train":
        return f"{row.operation}: the row is of split {row.split}; only train is ever varied"
    if faces != operation.faces:
        return f"{row.operation}: needs {operation.faces} picture(s), has {faces}"
    code = row.code or ()
    if len(code) != len(operation.code):
        names = ", ".join(name for name, _, _ in operation.code) or "nothing"
        return f"{row.operation}: the code has {len(code)} numbers, expected {len(operation.code)} ({names})"
    for value, (name, low, high) in zip(code, operation.code, strict=True):
        if not low <= value <= high or (name.startswith("label") and value != int(value)):
            return f"{row.operation}: {name} is {value:g}, allowed is {low:g} to {high:g}"
    return None


@dataclass(frozen=True)
class Classes:
    """Statistics of the classes' codes: means float32 (classes, latent), factors of covariances, numbers of rows.

    A factor L is lower triangular with L L' the covariance.
    """

    means: Tensor
    factors: Tensor
    counts: Tensor

    @staticmethod
    def of(means: Tensor, covariances: Tensor, counts: Tensor) -> "Classes":
        """From means and covariances on any device. `ValueError` where a matrix is not a covariance."""
        exact = covariances.detach().cpu().double()
        # A direction without any variation has variance 0, which rounding can make negative.
        ridge = 1e-6 * exact.diagonal(dim1=1, dim2=2).mean(1).clamp(1e-6)
        factors, info = torch.linalg.cholesky_ex(exact + ridge[:, None, None] * torch.eye(exact.shape[1]).double())
        if info.any() or not factors.isfinite().all():
            raise ValueError(
                "the class covariances of the weights are not positive definite: the file is damaged, copy it again"
            )
        return Classes(means.detach().cpu().float(), factors.float(), counts.detach().cpu())

    def lacking(self, row: Row) -> str | None:
        """Why a row's operation cannot use a class that had no training picture; None where it can."""
        needed = {"tail": [row.label or 0], "direction": [row.label or 0, int(row.code[-1]) if row.code else 0]}
        for label in needed.get(row.operation or "", []):
            if not self.counts[label]:
                return f"{row.operation}: the network was trained on no picture of {EXPRESSIONS[label]}"
        return None


@dataclass(frozen=True)
class Encoded:
    """The encoding of one picture: mean and deviations, float32 (latent,)."""

    mean: Tensor
    deviation: Tensor


def codes(row: Row, faces: Sequence[Encoded], classes: Classes) -> tuple[Tensor, Tensor]:
    """The codes for the early and for the late blocks of a row without `refusal`, float32 (latent,) each."""
    numbers, label = row.code or (), row.label or 0
    if row.operation == "style":
        return faces[0].mean, faces[1].mean
    if row.operation == "noise":
        code = faces[0].mean + numbers[0] * faces[0].deviation * _noise(row, classes)
    elif row.operation == "interpolate":
        code = slerp(faces[0].mean, faces[1].mean, numbers[0])
    elif row.operation == "direction":
        code = faces[0].mean + numbers[0] * (classes.means[label] - classes.means[int(numbers[1])])
    elif row.operation == "tail":
        code = classes.means[label] + numbers[0] * (classes.factors[label] @ _noise(row, classes))
    else:
        code = faces[0].mean
    return code, code


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """The point at share `t` of the arc from `start` to `end`, (latent,); a straight line where there is no arc."""
    lengths = float(start.norm() * end.norm())
    angle = math.acos(max(-1.0, min(1.0, float(start @ end) / lengths))) if lengths else 0.0
    if math.sin(angle) < 1e-3:
        return torch.lerp(start, end, t)
    return (math.sin((1 - t) * angle) * start + math.sin(t * angle) * end) / math.sin(angle)


def _noise(row: Row, classes: Classes) -> Tensor:
    return torch.randn(classes.means.shape[1], generator=torch.Generator().manual_seed(row.seed))
