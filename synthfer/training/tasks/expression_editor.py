"""Trains an expression editor as GANmut (d'Apolito et al., CVPR 2021), with one of two critics.

`critic=wasserstein` is the authors' (`_editor_wasserstein.py`); `critic=joint`, the default of the small preset, learns
from fewer steps (`_editor_joint.py`).
"""

from synthfer.training.tasks._editor_joint import JointEditor
from synthfer.training.tasks._editor_settings import Config, settled
from synthfer.training.tasks._editor_wasserstein import ExpressionEditor

__all__ = ["Config", "build"]


def build(config: Config) -> ExpressionEditor:
    """The task with random weights, from torch's global generator. `ValueError`: the size does not fit the networks."""
    settings = settled(config)
    return JointEditor(settings) if settings.critic == "joint" else ExpressionEditor(settings)
