"""What all classifiers share: the signature, the check of the input, and the normalisation inside the network."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec, TrainingRecipe

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Output(NamedTuple):
    """A classifier's output: `logits`, float (n, classes), and `features`, float (n, d), its last layer's input."""

    logits: Tensor
    features: Tensor


class Classifier(nn.Module, ABC):
    """A network from faces to logits. A subclass implements `embed`.

    Images are RGB, n x 3 x size x size: uint8 0..255, or floating point 0..1. Their size must be `input.size`:
    nothing is resized silently. Conversion to the network's channels and normalisation happen here, so that they are
    neither forgotten nor done twice; their buffers are not part of the state dict.
    """

    name: ClassVar[str]
    """As `classifiers.build` takes it."""
    last: ClassVar[str]
    """Path of the last linear layer, whose rows are the classes."""
    smallest: ClassVar[int] = 1
    sizes: ClassVar[tuple[int, ...]] = ()
    """The only sizes that the network can read; empty: any from `smallest`."""

    input: InputSpec
    recipe: TrainingRecipe

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        """The `Config` of the classifier's module that it was built from."""
        self.cosine_scale = 0.0
        self.register_buffer("_mean", torch.zeros(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.ones(3, 1, 1), persistent=False)
        self._mean: Tensor
        self._std: Tensor

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Features (n, d) of normalised pixels (n, 3, size, size)."""

    def classify(self, features: Tensor) -> Tensor:
        """Logits (n, classes) of features (n, d); scaled cosines where `set_cosine` says so."""
        if self.cosine_scale:
            return self.cosine_scale * F.linear(F.normalize(features), F.normalize(self.last_layer.weight))
        logits: Tensor = self.last_layer(features)
        return logits

    def set_cosine(self, scale: float) -> None:
        """Logits are `scale` times the cosine between features and a class's weights, as LDAM needs them; 0: linear.

        The bias is not used then: it is zero and is not trained.
        """
        self.cosine_scale = scale
        if scale and self.last_layer.bias is not None:
            nn.init.zeros_(self.last_layer.bias.requires_grad_(False))

    def forward(self, images: Tensor) -> Output:
        """Logits and features of RGB images (n, 3, size, size); `ValueError` for another size or kind of number."""
        features = self.embed(self.normalise(images))
        return Output(self.classify(features), features)

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer whose rows are the classes."""
        layer = self.get_submodule(self.last)
        assert isinstance(layer, nn.Linear)
        return layer

    def set_input(self, spec: InputSpec) -> None:
        """Reads such images from now on. `ValueError`: the network cannot read that size, or has other classes."""
        if spec.size < self.smallest or (self.sizes and spec.size not in self.sizes):
            takes = " or ".join(map(str, self.sizes)) or f"at least {self.smallest}"
            raise ValueError(f"{self.name}: input.size is {spec.size}; it reads {takes} pixels a side.")
        if spec.classes and len(spec.classes) != self.last_layer.out_features:
            raise ValueError(
                f"{self.name}: input.classes names {len(spec.classes)} classes, the network has"
                f" {self.last_layer.out_features}. Build it with num_classes={len(spec.classes)}, or name them all."
            )
        self.input = spec
        for buffer, values in ((self._mean, spec.mean), (self._std, spec.std)):
            buffer.copy_(torch.tensor(values, device=buffer.device).view(3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels as the network was trained on them, (n, 3, size, size), in the network's floating point type."""
        size = self.input.size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(
                f"{self.name}: images are {tuple(images.shape)}, expected (n, 3, {size}, {size}). Resize them before,"
                " or build the classifier for their size."
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"{self.name}: images are {images.dtype}; give uint8 0..255 or floating point 0..1.")
        pixels = images.to(self._mean.dtype)
        if images.dtype == torch.uint8:
            pixels = pixels / 255
        if self.input.channels == "BGR":
            pixels = pixels.flip(1)
        elif self.input.channels == "grey":
            luma = sum(share * pixels[:, i : i + 1] for i, share in enumerate(_LUMA))
            pixels = luma.expand_as(pixels)  # type: ignore[union-attr]
        return (pixels - self._mean) / self._std
