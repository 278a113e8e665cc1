"""Floating point operations: how many a network's training needs, and how many a device computes per second."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from synthfer.classifiers.network import Classifier

_SIDE = 2048


def flops_per_image(model: Classifier) -> int:
    """Operations of forward and backward for one picture, a multiplication and an addition counting as two.

    Those of convolutions and matrix products, as `torch.utils.flop_counter` has them; nothing is computed.
    """
    rows = 2  # batch normalisation wants more than one value
    model = model.to("meta").train()
    pictures = torch.zeros(rows, 3, model.input.size, model.input.size, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(pictures).logits.sum().backward()
    return counter.get_total_flops() // rows


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a product of two float32 matrices of 2048 rows, the second of two."""
    left, right = torch.rand(2, _SIDE, _SIDE, device=device)
    for _ in range(2):
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        seconds = time.perf_counter() - start
    return 2 * _SIDE**3 / seconds
