"""CodeFormer's network: a degraded face in, the nearest face that its codebook can express out.

Zhou, Chan, Li and Loy, "Towards robust blind face restoration with codebook lookup transformer", NeurIPS 2022 (arXiv
2206.11253). An encoder brings the face to 16 x 16 features; a transformer predicts from them a code for each position,
since the code nearest to a damaged feature is often a wrong one; a generator draws the face of those codes. At each
larger size the encoder's features are mixed in as scale and shift, times the fidelity w: 0 draws the codes alone, 1
keeps the most of the input.

Names are those of the authors' state dict, so that published weights load key by key.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthfer.faces.restoration_config import CodeFormerConfig

PARAMETERS = 94_112_707
"""Of the published network, the defaults of `CodeFormerConfig`."""
_GROUPS, _NORM_EPS, _ADAIN_EPS = 32, 1e-6, 1e-5


class CodeFormer(nn.Module):
    """Faces to faces, float (n, 3, size, size), RGB in -1..1."""

    def __init__(self, network: CodeFormerConfig) -> None:
        super().__init__()
        self.network = network
        widths = [network.width * multiple for multiple in network.multiples]
        side = network.size >> (len(widths) - 1)
        sides = [network.size >> level for level in range(len(widths))]
        self.encoder = Encoder(network.width, widths, network.code_width)
        self.quantize = Codebook(network.codes, network.code_width)
        self.generator = Generator(widths, network.code_width)
        self.position_emb = nn.Parameter(torch.zeros(side**2, network.dim))
        self.feat_emb = nn.Linear(network.code_width, network.dim)
        self.ft_layers = nn.ModuleList(Layer(network.dim, network.heads) for _ in range(network.layers))
        self.idx_pred_layer = nn.Sequential(
            nn.LayerNorm(network.dim), nn.Linear(network.dim, network.codes, bias=False)
        )
        # Features of the first level (full size) and of the last (smallest) are not mixed in.
        self.fuse_convs_dict = nn.ModuleDict({str(sides[i]): Fusion(widths[i]) for i in range(1, len(widths) - 1)})

    def forward(self, images: Tensor, fidelity: float = 0.5, adain: bool = True) -> Tensor:
        """The faces restored, of the same shape; `fidelity` in 0..1.

        `adain` gives the codes mean and deviation of the input's features, and with them its light and tint.
        """
        features, by_side = self.encoder(images)
        codes = self.quantize(self.logits(features).argmax(-1)).permute(0, 2, 1).reshape(features.shape)
        if adain:
            codes = _adain(codes, features)

        def fused(drawn: Tensor) -> Tensor:
            side = str(drawn.shape[-1])
            if fidelity == 0 or side not in self.fuse_convs_dict:
                return drawn
            mixed: Tensor = self.fuse_convs_dict[side](by_side[side], drawn, fidelity)
            return mixed

        drawn: Tensor = self.generator(codes, fused)
        return drawn

    def logits(self, features: Tensor) -> Tensor:
        """Of each code at each position, (n, positions, codes), from the encoder's features (n, code_width, h, w)."""
        tokens = self.feat_emb(features.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            tokens = layer(tokens, self.position_emb)
        logits: Tensor = self.idx_pred_layer(tokens)
        return logits


class Encoder(nn.Module):
    """Two residual blocks per level, halved between levels; attention at the smallest."""

    def __init__(self, width: int, widths: list[int], out: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        self.taps: set[int] = set()
        for level, (before, after) in enumerate(pairwise([width, *widths])):
            blocks += _level(before, after, attention=level == len(widths) - 1)
            if level < len(widths) - 1:
                self.taps.add(len(blocks) - 1)
                blocks.append(Down(after))
        self.blocks = nn.ModuleList([*blocks, *_middle(widths[-1]), _norm(widths[-1]), _conv(widths[-1], out)])

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The features, and by its side in pixels the output of each level but the last."""
        values, by_side = images, {}
        for number, block in enumerate(self.blocks):
            values = block(values)
            if number in self.taps:
                by_side[str(values.shape[-1])] = values
        return values, by_side


class Generator(nn.Module):
    """The encoder in reverse, doubled between levels."""

    def __init__(self, widths: list[int], code_width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(code_width, widths[-1]), *_middle(widths[-1])]
        self.taps: set[int] = set()
        for level, (before, after) in enumerate(pairwise([widths[-1], *widths[::-1]])):
            self.taps.add(len(blocks))
            blocks += _level(before, after, attention=level == 0)
            if level < len(widths) - 1:
                blocks.append(Up(after))
        self.blocks = nn.ModuleList([*blocks, _norm(widths[0]), _conv(widths[0], 3)])

    def forward(self, codes: Tensor, fused: Callable[[Tensor], Tensor]) -> Tensor:
        """`fused` is called on what the first block of each level draws."""
        values = codes
        for number, block in enumerate(self.blocks):
            values = block(values)
            if number in self.taps:
                values = fused(values)
        return values


class Codebook(nn.Module):
    """The codes of parts of faces: codes x width."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)

    def forward(self, indices: Tensor) -> Tensor:
        """(n, positions, width) of indices (n, positions)."""
        codes: Tensor = self.embedding(indices)
        return codes


class Layer(nn.Module):
    """One layer of the transformer, normalised before each part; queries and keys have the positions added."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(n, positions, dim), unchanged in shape."""
        values = self.norm1(tokens)
        queries = values + positions
        tokens = tokens + self.self_attn(queries, queries, values, need_weights=False)[0]
        changed: Tensor = tokens + self.linear2(F.gelu(self.linear1(self.norm2(tokens))))
        return changed


class Fusion(nn.Module):
    """Scale and shift of what is drawn, by the encoder's features of that size and what is drawn itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = Residual(2 * width, width)
        self.scale = nn.Sequential(_conv(width, width), nn.LeakyReLU(0.2), _conv(width, width))
        self.shift = nn.Sequential(_conv(width, width), nn.LeakyReLU(0.2), _conv(width, width))

    def forward(self, encoded: Tensor, drawn: Tensor, fidelity: float) -> Tensor:
        """What is drawn, with `fidelity` times its scaled and shifted self added."""
        both = self.encode_enc(torch.cat([encoded, drawn], 1))
        mixed: Tensor = drawn + fidelity * (drawn * self.scale(both) + self.shift(both))
        return mixed


class Residual(nn.Module):
    """Two convolutions beside the input, which is projected where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(before), _conv(before, after)
        self.norm2, self.conv2 = _norm(after), _conv(after, after)
        if before != after:
            self.conv_out = nn.Conv2d(before, after, 1)
        self._projects = before != after

    def forward(self, values: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h, w)."""
        changed = self.conv1(F.silu(self.norm1(values)))
        changed = self.conv2(F.silu(self.norm2(changed)))
        out: Tensor = changed + (self.conv_out(values) if self._projects else values)
        return out


class Attention(nn.Module):
    """Each position attends to all others, one head; added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, values: Tensor) -> Tensor:
        """(n, width, h, w), unchanged in shape."""
        normed = self.norm(values)
        q, k, v = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(values.shape)
        out: Tensor = values + self.proj_out(attended)
        return out


class Down(nn.Module):
    """Half the size; the padding is on the right and below alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, values: Tensor) -> Tensor:
        """(n, width, h, w) to (n, width, h / 2, w / 2)."""
        halved: Tensor = self.conv(F.pad(values, (0, 1, 0, 1)))
        return halved


class Up(nn.Module):
    """Twice the size, each pixel repeated, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, values: Tensor) -> Tensor:
        """(n, width, h, w) to (n, width, 2 h, 2 w)."""
        doubled: Tensor = self.conv(F.interpolate(values, scale_factor=2.0))
        return doubled


def _level(before: int, after: int, attention: bool) -> list[nn.Module]:
    """Two residual blocks, each followed by attention if `attention`."""
    blocks = [Residual(before, after), Residual(after, after)]
    return [part for block in blocks for part in (block, *([Attention(after)] if attention else []))]


def _middle(width: int) -> list[nn.Module]:
    return [Residual(width, width), Attention(width), Residual(width, width)]


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=_NORM_EPS)


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _adain(values: Tensor, like: Tensor) -> Tensor:
    """`values` with mean and deviation of `like`, by channel and picture (Huang and Belongie, 2017)."""
    mean, wanted_mean = (x.mean((2, 3), keepdim=True) for x in (values, like))
    deviation, wanted = ((x.var((2, 3), keepdim=True) + _ADAIN_EPS).sqrt() for x in (values, like))
    return (values - mean) / deviation * wanted + wanted_mean
