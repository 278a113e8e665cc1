"""An expression editor whose critic knows edits as one more class, after the seven expressions of real faces.

In place of GANmut's two heads, one for how real a face is and one for its class (Odena, Olah and Shlens, arXiv
1610.09585), a single softmax over eight (Salimans et al., NeurIPS 2016, section 5). A class head that only ever sees
real faces is fooled by textures that nobody would call an expression; this one learns to call them edits, class by
class. On drawn faces that is the difference between half and nearly all of the edits being recognised as the target
class, at equal steps. The critic's slope at real faces is penalised every few steps (R1: Mescheder, Geiger and Nowozin,
ICML 2018; lazily as in Karras et al., CVPR 2020). Codes are those of the linear space, without the regression of the
point.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from synthfer.generators.expression_editor.networks import CLASSES
from synthfer.training.batch_rng import BatchRng
from synthfer.training.tasks._editor_wasserstein import ExpressionEditor, Targets, mean_over

EDITED = CLASSES
"""The class of edits."""
_PENALTY_EVERY = 8


class JointEditor(ExpressionEditor):
    """A `Task`; see there."""

    def _critic_losses(self, images: Tensor, labels: Tensor, targets: Targets, rng: BatchRng) -> dict[str, Tensor]:
        """Real faces are of their class, edits are of class `EDITED`."""
        rows, n = self._edited(rng), len(targets.classes)
        penalised = self._at % _PENALTY_EVERY == 0
        with torch.no_grad():
            edits = self.generator(images[:n], targets.points)
        images = images.detach().requires_grad_(penalised)
        real, edited = self.critic(images)[1], self.critic(edits)[1]
        of_edits = F.cross_entropy(edited, torch.full_like(targets.classes, EDITED), reduction="none")
        losses = {"real": F.cross_entropy(real, labels), "made": mean_over(of_edits, rows, rng.world)}
        if penalised:
            losses["penalty"] = _PENALTY_EVERY / 2 * slope(real, labels, images).mean()
        return losses

    def _generator_losses(self, images: Tensor, labels: Tensor, targets: Targets, rng: BatchRng) -> dict[str, Tensor]:
        """Edits shall be of the target class, at high strength above all, and the way back shall give the face."""
        places = self.generator.landmarks()
        edits = self.generator(images, targets.points)
        classes = self.critic(edits)[1]
        counted = torch.where(targets.classes == 0, 1.0, targets.strengths)
        sure = classes[:, :CLASSES].softmax(1).gather(1, targets.classes[:, None])[:, 0]
        weak = (targets.classes > 0) & (targets.strengths < 1)
        values = {
            "class": counted * F.cross_entropy(classes, targets.classes, reduction="none"),
            "strength": weak * (sure - targets.strengths) ** 2,
            "cycle": (self.generator(edits, places[labels]) - images).abs(),
        }
        rows = self._edited(rng)
        return {name: mean_over(value, rows, rng.world) for name, value in values.items()}


def slope(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    """The squared length, (n,), of the gradient of (logit of the face's class - logit of `EDITED`) at the images."""
    margins = logits.gather(1, labels[:, None]).sum() - logits[:, EDITED].sum()
    (gradient,) = torch.autograd.grad(margins, images, create_graph=True)
    return gradient.square().flatten(1).sum(1)
