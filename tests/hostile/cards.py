"""Checkpoints of classifiers whose cards tests may spoil."""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from synthfer import classifiers

INPUT: dict[str, Any] = {
    "size": 48,
    "channels": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "classes": "synthfer",
}
CARD: dict[str, Any] = {"architecture": "small", "options": {"channels": [4]}, "input": INPUT}


def card(**changes: Any) -> dict[str, Any]:
    """A card that is right but for these changes; those of `input` are changes, too."""
    read = changes.pop("input", {})
    return CARD | ({"input": INPUT | read} if isinstance(read, dict) else {"input": read}) | changes


def checkpoint(folder: Path, body: Any = None, end: str = ".card.yaml") -> str:
    """The path of a classifier's weights, with a card of these values, or of this text or these bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(classifiers.build("small", channels=(4,)).state_dict(), folder / "model.safetensors")
    text = yaml.safe_dump(card() if body is None else body) if not isinstance(body, (str, bytes)) else body
    (folder / f"model{end}").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / "model.safetensors")
