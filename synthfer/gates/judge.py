"""A classifier that judges expressions, one answer per picture, whatever else is in the batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synthfer import images
from synthfer.classifiers.checkpoints import collect
from synthfer.config import ConfigError
from synthfer.expressions import EXPRESSIONS

_BATCH = 16


class Judge:
    """Probabilities of the seven expressions by the classifier at a URI; pictures may have any size."""

    def __init__(self, uri: str) -> None:
        """`ConfigError` where there is no such checkpoint, several, or one that does not know the seven."""
        try:
            found = collect(uri)
            model = found[0].restore()
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"gate.judge: {error}") from error
        if len(found) > 1:
            raise ConfigError(f"gate.judge: there are several checkpoints: {', '.join(one.uri for one in found)}")
        if tuple(found[0].outputs[: len(EXPRESSIONS)]) != EXPRESSIONS:
            raise ConfigError(f"gate.judge: {found[0].uri} does not know all of {', '.join(EXPRESSIONS)}")
        self._model, self._sha256 = model, found[0].sha256

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (n, 7) in the order of `EXPRESSIONS`; pictures are uint8 (H, W, 3)."""
        size = self._model.input.size
        squares = [images.square(picture, size).transpose(2, 0, 1) for picture in pictures]
        answers = []
        for start in range(0, len(squares), _BATCH):
            some = squares[start : start + _BATCH]
            filled = np.stack([*some, *[some[-1]] * (_BATCH - len(some))])
            with torch.inference_mode():
                logits = self._model(torch.from_numpy(filled)).logits[: len(some), : len(EXPRESSIONS)]
            answers.append(logits.double().softmax(1).numpy())
        return np.concatenate(answers) if answers else np.empty((0, len(EXPRESSIONS)))

    def producer(self) -> dict[str, Any]:
        """Which classifier it is, as JSON."""
        return {"architecture": self._model.name, "weights_sha256": self._sha256}
