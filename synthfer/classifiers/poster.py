"""POSTER: Zheng, Mendieta and Chen, "POSTER: A Pyramid Cross-Fusion Transformer Network for Facial Expression
Recognition", 2022 (arXiv 2204.04083), version 1; layers and names as in the authors' published code.

An IR50 trunk extracts tokens of the face, a frozen MobileFaceNet of its landmarks; 49 tokens and a class token of each
attend to the other's, at three widths. The RAF-DB variant mixes the tokens by a 1 x 1 convolution after each block; the
AffectNet variant does not.

The large one has 59,002,783 parameters: the published 71,850,399 less the trunk's recognition layer, which is unused.
Two small parts that the published forward pass does not use either stay, frozen, so that checkpoints fit and
distributed training waits for no gradient of theirs: a learned class token (the mean of the tokens is used) and the
layers of the 136 landmark coordinates. In the AffectNet variant the landmark half of the last widest block has no
effect; its gradient is zero, not absent.

The published code freezes the landmark network's weights and leaves it in train mode, so that its normalisation
drifts. Here it stays in eval mode. By default tokens are the `published` ones (see ir50.py): this is POSTER itself.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.classifiers import InputSpec, TrainingRecipe
from synthfer.classifiers._mobilefacenet import MobileFaceNet
from synthfer.classifiers.ir50 import AUGMENTATION, TOKENS, Trunk, halved
from synthfer.classifiers.network import Classifier
from synthfer.schema import option

INPUT = InputSpec(size=112)
DEPTHS = {"small": 4, "base": 6, "large": 8}
VARIANTS = ("rafdb", "affectnet")
RECIPES = {
    "rafdb": TrainingRecipe(
        optimizer={"name": "sam", "rho": 0.05, "adaptive": False, "base": "adam", "weight_decay": 0.0},
        lr=4e-5,
        schedule={"name": "exponential", "gamma": 0.98, "every": "epoch"},
        epochs=300,
        batch=200,
        loss=(
            {"name": "cross_entropy", "weight": 2.0, "label_smoothing": 0.2},
            {"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.0},
        ),
        augmentation=AUGMENTATION,
        selection="best accuracy on the test set",
        source="authors' training script, seed 123; arXiv 2204.04083",
        init="trunk of a face recognition network (ir50.pth), MobileFaceNet of 68 landmarks",
        caveat="epochs are chosen on the test set; RAF-DB pictures are fed as BGR",
    )
}
RECIPES["affectnet"] = replace(
    RECIPES["rafdb"], lr=2e-6, sampler="inverse class frequency", caveat="epochs are chosen on the test set"
)

_TOKENS, _WIDTH = 50, 512  # of each stream, the class token among them; of the widest of three scales


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of POSTER."""

    num_classes: int = option(7, "number of classes", low=2, high=1000)
    depth: str = option("large", "4, 6 or 8 fusion blocks", choices=tuple(DEPTHS))
    variant: str = option("rafdb", "the published network for RAF-DB or for AffectNet", choices=VARIANTS)
    tokens: str = option("published", "how the trunk's map becomes 49 tokens", choices=TOKENS)


class Poster(Classifier):
    """Both streams, their fusion, a gate, a linear layer. Features are the gated image class token: 512."""

    name = "poster"
    last = "head.linear"
    sizes = (112, 224)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.recipe = RECIPES[config.variant]
        self.face_landback = MobileFaceNet().requires_grad_(False).eval()
        self.ir_back = Trunk(config.tokens)
        self.ir_layer = nn.Linear(1024, _WIDTH)
        self.pyramid_fuse = _Fusion(DEPTHS[config.depth], mix=config.variant == "rafdb")
        self.se_block = nn.ModuleDict({f"linear{i}": nn.Linear(_WIDTH, _WIDTH) for i in (1, 2)})
        self.head = nn.ModuleDict({"linear": nn.Linear(_WIDTH, config.num_classes)})

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.face_landback.eval()
        return self

    def embed(self, pixels: Tensor) -> Tensor:
        marks = self.face_landback(halved(pixels)).flatten(2).transpose(1, 2)
        fused: Tensor = self.pyramid_fuse(self.ir_layer(self.ir_back(pixels)), marks)
        gate = self.se_block["linear2"](F.relu(self.se_block["linear1"](fused)))
        return fused * gate.sigmoid()


class _Fusion(nn.Module):
    """Image and landmark tokens (n, 49, 512 each) to the image's class token (n, 512)."""

    def __init__(self, depth: int, mix: bool) -> None:
        super().__init__()
        both = 2 * _TOKENS
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _WIDTH), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, _TOKENS, _WIDTH))
        self.downsample_m = nn.Conv1d(both, both, 2, 2)
        self.downsample_s = nn.Conv1d(both, both, 4, 4)
        self.blocks = nn.ModuleList(_Pyramid(0.1 * i / (depth - 1), mix) for i in range(depth))
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-6)

    def forward(self, image: Tensor, marks: Tensor) -> Tensor:
        image = torch.cat([image.mean(1, keepdim=True), image], 1) + self.pos_embed
        large = torch.cat([image, marks.mean(1, keepdim=True), marks], 1)
        medium, small = self.downsample_m(large), self.downsample_s(large)
        for block in self.blocks:
            large, medium, small = block(large, medium, small)
        token: Tensor = self.norm(large[:, 0])
        return token


class _Pyramid(nn.Module):
    """One block at each width, then the narrower ones are added to the wider."""

    def __init__(self, drop: float, mix: bool) -> None:
        super().__init__()
        both = 2 * _TOKENS
        self.block_l, self.block_m, self.block_s = (_Block(_WIDTH // n, drop, mix) for n in (1, 2, 4))
        self.upsample_m = nn.ConvTranspose1d(both, both, 2, 2)
        self.upsample_s = nn.ConvTranspose1d(both, both, 2, 2)

    def forward(self, large: Tensor, medium: Tensor, small: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = self.block_s(small)
        medium = self.block_m(medium) + self.upsample_s(small)
        large = self.block_l(large) + self.upsample_m(medium)
        return large, medium, small


class _Block(nn.Module):
    """Each stream attends to its own tokens with the other's queries; then an MLP each and, if `mix`, all tokens."""

    def __init__(self, width: int, drop: float, mix: bool) -> None:
        super().__init__()
        self.drop = drop
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width, eps=1e-6) for _ in range(4))
        self.attn_img, self.attn_lm = _Attention(width), _Attention(width)
        self.mlp1, self.mlp2 = _Mlp(width), _Mlp(width)
        self.conv = nn.Conv1d(2 * _TOKENS, 2 * _TOKENS, 1) if mix else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        image, marks = tokens.split(_TOKENS, 1)
        for_image, for_marks = self.norm1(tokens), self.norm3(tokens)
        image = image + self._dropped(self.attn_img(for_image[:, :_TOKENS], for_image[:, _TOKENS:]))
        image = image + self._dropped(self.mlp1(self.norm2(image)))
        marks = marks + self._dropped(self.attn_lm(for_marks[:, _TOKENS:], for_marks[:, :_TOKENS]))
        marks = marks + self._dropped(self.mlp2(self.norm4(marks)))
        mixed: Tensor = self.conv(torch.cat([image, marks], 1))
        return mixed

    def _dropped(self, branch: Tensor) -> Tensor:
        """Stochastic depth: the branch is left out for some of the pictures, and scaled up for the others."""
        if not self.training or not self.drop:
            return branch
        keep = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.drop)
        return branch * keep / (1 - self.drop)


class _Attention(nn.Module):
    """Eight heads; keys and values of one stream, the other stream itself as queries."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(2, (8, -1)).transpose(1, 2) for part in (other, *self.kv(own).chunk(2, dim=2))
        )
        heads = F.scaled_dot_product_attention(queries, keys, values)
        projected: Tensor = self.proj(heads.transpose(1, 2).flatten(2))
        return projected


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


def build(config: Config) -> Poster:
    """A POSTER with random weights."""
    return Poster(config)
