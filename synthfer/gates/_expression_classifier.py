"""A classifier that scores expressions for gates; its answer for a picture does not depend on the rest of a batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synthfer import images
from synthfer.classifiers.checkpoints import collect
from synthfer.expressions import EXPRESSIONS
from synthfer.schema import ConfigError

# One fixed shape for every call: kernels may choose another order of sums, and so other bits, for another shape.
_BATCH = 16


class ExpressionClassifier:
    """Probabilities of the seven expressions by the classifier at a URI; pictures may have any size."""

    def __init__(self, uri: str, key: str, modules: Sequence[str] = ()) -> None:
        """`key` is the config's, for errors; `modules` are those of `collect`.

        `ConfigError`: no checkpoint, several, or one without the seven.
        """
        try:
            checkpoints = collect(uri, modules)
            model = checkpoints[0].restore()
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"{key}: {error}") from error
        if len(checkpoints) > 1:
            uris = ", ".join(checkpoint.uri for checkpoint in checkpoints)
            raise ConfigError(f"{key}: there are several checkpoints, name one: {uris}")
        checkpoint = checkpoints[0]
        if tuple(checkpoint.outputs[: len(EXPRESSIONS)]) != EXPRESSIONS:
            raise ConfigError(f"{key}: {checkpoint.uri} does not know all of {', '.join(EXPRESSIONS)}")
        self._model, self._sha256 = model, checkpoint.sha256

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (n, 7) in the order of `EXPRESSIONS`; pictures are uint8 (H, W, 3)."""
        size = self._model.input.size
        squares = [images.square(picture, size).transpose(2, 0, 1) for picture in pictures]
        probabilities = []
        for start in range(0, len(squares), _BATCH):
            batch = squares[start : start + _BATCH]
            padded = np.stack([*batch, *[batch[-1]] * (_BATCH - len(batch))])
            with torch.inference_mode():
                logits = self._model(torch.from_numpy(padded)).logits[: len(batch), : len(EXPRESSIONS)]
            probabilities.append(logits.double().softmax(1).numpy())
        return np.concatenate(probabilities) if probabilities else np.empty((0, len(EXPRESSIONS)))

    def producer(self) -> dict[str, Any]:
        """Which classifier it is, as JSON."""
        return {"architecture": self._model.name, "weights_sha256": self._sha256}
