"""Faces with another expression, by a network of the GANmut family (d'Apolito et al., CVPR 2021).

The options and `build` stand here; networks.py has the networks, codes.py the codes that a row may have, editor.py the
steps: detect a face, cut it out, edit it, restore it where that is asked for, paste it back. Rows come from the plan of
edits. No torch is imported here.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synthfer.faces.restoration_config import RestoreConfig
from synthfer.limits import MAX_BATCH, MAX_MARGIN, MAX_THREADS
from synthfer.schema import REQUIRED, option

if TYPE_CHECKING:
    from synthfer.generators.expression_editor.editor import ExpressionEditor

PLAN = "edits"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the expression editor."""

    weights: str = option(REQUIRED, "the network: a .safetensors or .ckpt file, local or s3://, its card beside it")
    crop: str = option(
        "detect",
        "what is edited: the face that MTCNN finds; or the whole picture, if it is a face",
        choices=("detect", "whole"),
    )
    margin: float = option(
        0.0, "with crop=detect: added to the face's square on each side, as a share of it", low=0, high=MAX_MARGIN
    )
    min_score: float = option(0.9, "with crop=detect: probability from which a face counts", low=0, high=1)
    paste: str = option(
        "feather", "how it goes back: without a seam, or as a hard rectangle (SyntFER)", choices=("feather", "hard")
    )
    restore: RestoreConfig = field(default_factory=RestoreConfig)
    restored: str = option(
        "face",
        "with restore.weights: the edited face before it goes back; or the picture afterwards (SyntFER), its seam too",
        choices=("face", "picture"),
    )
    batch_size: int = option(
        16, "rows per device call; a fixed shape, since the bits of a picture depend on it", low=1, high=MAX_BATCH
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    threads: int = option(
        1, "CPU threads of torch; the number changes the bits of pictures made on a CPU", low=1, high=MAX_THREADS
    )


def build(config: Config) -> "ExpressionEditor":
    """The editor, weights loaded. `ConfigError` or `ValueError` says what does not fit."""
    from synthfer.generators.expression_editor.editor import ExpressionEditor

    return ExpressionEditor(config)
