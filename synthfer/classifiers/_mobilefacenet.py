"""MobileFaceNet: Chen, Liu, Gao and Han, 2018 (arXiv 1804.07573), as POSTER uses it for landmarks: 1,007,248
parameters. Layers have the names of the published checkpoint, mobilefacenet_model_best.pth.tar.
"""

from torch import Tensor, nn


class MobileFaceNet(nn.Module):
    """Normalised pixels (n, 3, 112, 112) to maps (n, 512, 7, 7), from which landmarks can be computed.

    The layers that turn the maps into 68 points exist only so that checkpoints fit; the points are not computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Conv(3, 64, 3, 2)
        self.conv2_dw = _Conv(64, 64, 3, groups=64)
        self.conv_23 = _Depthwise(64, 64, 128, 2)
        self.conv_3 = _Residual(64, 4, 128)
        self.conv_34 = _Depthwise(64, 128, 256, 2)
        self.conv_4 = _Residual(128, 6, 256)
        self.conv_45 = _Depthwise(128, 128, 512, 2)
        self.conv_5 = _Residual(128, 2, 256)
        self.conv_6_sep = _Conv(128, 512, 1)
        self.output_layer = nn.ModuleDict(
            {
                "conv_6_dw": nn.ModuleDict(
                    {"conv": nn.Conv2d(512, 512, 7, groups=512, bias=False), "bn": nn.BatchNorm2d(512)}
                ),
                "linear": nn.Linear(512, 136, bias=False),
                "bn": nn.BatchNorm1d(136),
            }
        )

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(pixels))))
        maps = self.conv_5(self.conv_45(self.conv_4(self.conv_34(maps))))
        out: Tensor = self.conv_6_sep(maps)
        return out


class _Conv(nn.Module):
    """Convolution, normalisation and, where `active`, PReLU."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.prelu = nn.PReLU(after) if active else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.bn(self.conv(maps)))
        return out


class _Depthwise(nn.Module):
    """Widen to `between` channels, convolve each by itself, narrow to `after`."""

    def __init__(self, before: int, after: int, between: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = _Conv(before, between, 1)
        self.conv_dw = _Conv(between, between, 3, stride, groups=between)
        self.project = _Conv(between, after, 1, active=False)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(maps)))
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int, number: int, between: int) -> None:
        super().__init__()
        self.model = nn.ModuleList(_Depthwise(channels, channels, between) for _ in range(number))

    def forward(self, maps: Tensor) -> Tensor:
        for layer in self.model:
            maps = maps + layer(maps)
        return maps
