"""Classifiers against the authors' published code: same weights and pictures, same logits.

The expected numbers came out of the layers of that code, retyped without dropout and checkpoint paths, with the
parameters of `fill` loaded key by key. IR50's trunk is POSTER's; the average and the linear layer after it are as the
paper's facts describe them. `fill` draws from torch's CPU generator: should a release change its stream, all four fail.
"""

import zlib
from dataclasses import replace

import pytest
import torch

from synthfer import classifiers

CASES = [
    ("resemotenet", {}, 64, [0.346163, -0.560008, 0.159604, -0.104714, 0.618922, -0.094197, 0.011775]),
    ("poster", {"variant": "rafdb"}, 224, [-0.654801, -0.814303, -0.287305, 0.052314, 1.316900, -0.217134, 0.268179]),
    ("poster", {"variant": "affectnet"}, 112, [1.46222, 0.97743, -0.22347, 0.79736, 0.78958, -0.09748, -0.63277]),
    ("ir50", {}, 224, [3.612302, -9.099572, -25.442129, 25.451946, 10.577897, 6.198921, -8.443478]),
]  # fmt: skip


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Weights that depend on their names alone, of a scale at which signals neither die nor explode."""
    for key, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("running_var"):
            values = 1 + 0.1 * values.abs()
        elif tensor.ndim == 1:
            values = 0.1 * values + 0.7 * key.endswith("weight")
        elif tensor.ndim > 1:
            values *= 1.4 / tensor[0].numel() ** 0.5
        if tensor.is_floating_point():
            tensor.copy_(values)


def pattern(size: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (torch.stack([7 * x + 3 * y, x * y, 5 * y + 11 * (x // 3)]) % 256).to(torch.uint8)[None]


@pytest.mark.parametrize(("name", "options", "size", "expected"), CASES)
def test_logits_are_those_of_the_published_code(name: str, options: dict, size: int, expected: list[float]):
    extra = {"resemotenet": {}, "ir50": {"tokens": "published"}, "poster": {"depth": "small"}}[name]
    model = classifiers.build(name, **options, **extra).eval()
    fill(model)
    model.set_input(replace(model.input, size=size))
    with torch.no_grad():
        logits = model(pattern(size)).logits[0]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-3, atol=1e-3)
