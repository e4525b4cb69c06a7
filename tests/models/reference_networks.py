"""The networks of the well-known implementations, of CycleGAN, pix2pix and CartoonGAN, again as plain torch modules.

They share no code with `mggc_edge.models`: whoever agrees with them has the right keys, the right order of layers and
the right arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mggc_edge.models.families import family_of
from mggc_edge.models.spec import NetworkSpec

MakeNorm = Callable[[int], nn.Module]

NORMS: dict[str, MakeNorm] = {
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=False, track_running_stats=False),
    "instance_affine": lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=False),
    "batch": nn.BatchNorm2d,
}


class SeparableConv(nn.Module):
    """Depthwise 3x3, norm, pointwise 1x1."""

    def __init__(self, channels: int, out_channels: int, padding: int, norm: MakeNorm, bias: bool) -> None:
        super().__init__()
        depthwise = nn.Conv2d(channels, channels, 3, padding=padding, groups=channels, bias=bias)
        self.conv = nn.Sequential(depthwise, norm(channels), nn.Conv2d(channels, out_channels, 1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class ResidualBlock(nn.Module):
    """x + [pad] conv norm relu [dropout] [pad] conv norm."""

    def __init__(
        self, channels: int, norm: MakeNorm, bias: bool, *, reflect: bool, dropout: bool, separable: bool
    ) -> None:
        super().__init__()
        pad: list[nn.Module] = [nn.ReflectionPad2d(1)] if reflect else []
        zeros = 0 if reflect else 1

        def conv() -> nn.Module:
            if separable:
                return SeparableConv(channels, channels, zeros, norm, bias)
            return nn.Conv2d(channels, channels, 3, padding=zeros, bias=bias)

        between: list[nn.Module] = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            *pad, conv(), norm(channels), nn.ReLU(), *between, *pad, conv(), norm(channels)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


class ResnetGenerator(nn.Module):
    """Stem, two halvings, residual blocks, two doublings, head."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ngf: int,
        blocks: int,
        norm: str,
        *,
        reflect: bool = True,
        dropout: bool = False,
        separable: bool = False,
    ) -> None:
        super().__init__()
        make, bias = NORMS[norm], norm != "batch"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, ngf, 7, bias=bias)]
        layers += [make(ngf), nn.ReLU()]
        for channels in (ngf, 2 * ngf):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=bias), make(2 * channels)]
            layers += [nn.ReLU()]
        for _ in range(blocks):
            layers += [ResidualBlock(4 * ngf, make, bias, reflect=reflect, dropout=dropout, separable=separable)]
        for channels in (4 * ngf, 2 * ngf):
            half = channels // 2
            layers += [nn.ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1, bias=bias)]
            layers += [make(half), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class UnetBlock(nn.Module):
    """One halving, whatever is inside, one doubling; all but the outermost put their input before what they give."""

    def __init__(
        self,
        outside: int,
        inside: int,
        norm: MakeNorm,
        bias: bool,
        *,
        in_channels: int | None = None,
        inner: UnetBlock | None = None,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = in_channels is not None
        down = nn.Conv2d(in_channels or outside, inside, 4, stride=2, padding=1, bias=bias)
        up = nn.ConvTranspose2d(
            inside if inner is None else 2 * inside, outside, 4, stride=2, padding=1, bias=bias or self.outermost
        )
        # In place, as in the original: the skip then carries the leaky input, which the ReLU after it makes no odds of.
        leaky = nn.LeakyReLU(0.2, inplace=True)
        if self.outermost:
            assert inner is not None
            layers: list[nn.Module] = [down, inner, nn.ReLU(), up, nn.Tanh()]
        elif inner is None:
            layers = [leaky, down, nn.ReLU(), up, norm(outside)]
        else:
            layers = [leaky, down, norm(inside), inner, nn.ReLU(), up, norm(outside)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], dim=1)


class UnetGenerator(nn.Module):
    """Nested blocks of ngf, 2 ngf, 4 ngf, 8 ngf, 8 ngf, ... channels."""

    def __init__(
        self, in_channels: int, out_channels: int, ngf: int, halvings: int, norm: str, *, dropout: bool = True
    ) -> None:
        super().__init__()
        make, bias = NORMS[norm], norm != "batch"
        widths = [ngf, 2 * ngf, 4 * ngf] + [8 * ngf] * (halvings - 3)
        block = UnetBlock(widths[-2], widths[-1], make, bias)
        for level in range(halvings - 2, 0, -1):
            same_width = widths[level - 1] == widths[level]
            block = UnetBlock(
                widths[level - 1], widths[level], make, bias, inner=block, dropout=dropout and same_width
            )  # fmt: skip
        self.model = UnetBlock(out_channels, ngf, make, bias, in_channels=in_channels, inner=block)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class PatchDiscriminator(nn.Module):
    """4x4 convolutions: `layers` of stride 2, one of stride 1, and the judgement."""

    def __init__(self, in_channels: int, ndf: int, layers: int, norm: str) -> None:
        super().__init__()
        make, bias = NORMS[norm], norm != "batch"
        stack: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = ndf
        for layer in range(1, layers + 1):
            wider = ndf * min(2**layer, 8)
            stack += [nn.Conv2d(width, wider, 4, stride=2 if layer < layers else 1, padding=1, bias=bias)]
            stack += [make(wider), nn.LeakyReLU(0.2)]
            width = wider
        self.model = nn.Sequential(*stack, nn.Conv2d(width, 1, 4, stride=1, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class PerPictureNorm(nn.Module):
    """(x - mean) / sqrt(variance + 1e-9) * scale + shift, per picture and channel; the variance is the biased one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]."""
        centred = x - x.mean(dim=(2, 3), keepdim=True)
        variance = centred.square().mean(dim=(2, 3), keepdim=True)
        normal = centred / torch.sqrt(variance + 1e-9)
        return normal * self.scale[:, None, None] + self.shift[:, None, None]


class CartoonGenerator(nn.Module):
    """CartoonGAN's generator under the published keys, with as many blocks as asked for."""

    def __init__(self, in_channels: int, out_channels: int, ngf: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        one, two, four = ngf, 2 * ngf, 4 * ngf
        self.conv01_1, self.in01_1 = nn.Conv2d(in_channels, one, 7), PerPictureNorm(one)
        self.conv02_1, self.conv02_2 = nn.Conv2d(one, two, 3, 2, 1), nn.Conv2d(two, two, 3, 1, 1)
        self.in02_1 = PerPictureNorm(two)
        self.conv03_1, self.conv03_2 = nn.Conv2d(two, four, 3, 2, 1), nn.Conv2d(four, four, 3, 1, 1)
        self.in03_1 = PerPictureNorm(four)
        for number in range(4, 4 + blocks):
            for half in (1, 2):
                self.add_module(f"conv{number:02d}_{half}", nn.Conv2d(four, four, 3))
                self.add_module(f"in{number:02d}_{half}", PerPictureNorm(four))
        self.deconv01_1, self.deconv01_2 = nn.ConvTranspose2d(four, two, 3, 2, 1, 1), nn.Conv2d(two, two, 3, 1, 1)
        self.add_module(f"in{4 + blocks:02d}_1", PerPictureNorm(two))
        self.deconv02_1, self.deconv02_2 = nn.ConvTranspose2d(two, one, 3, 2, 1, 1), nn.Conv2d(one, one, 3, 1, 1)
        self.add_module(f"in{5 + blocks:02d}_1", PerPictureNorm(one))
        self.deconv03_1 = nn.Conv2d(one, out_channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        """From pictures in BGR to drawings in BGR, both in [-1, 1]."""

        def layer(name: str, x: Tensor) -> Tensor:
            y: Tensor = self.get_submodule(name)(x)
            return y

        reflect = nn.functional.pad
        y = torch.relu(self.in01_1(self.conv01_1(reflect(x, (3, 3, 3, 3), "reflect"))))
        y = torch.relu(self.in02_1(self.conv02_2(self.conv02_1(y))))
        y = torch.relu(self.in03_1(self.conv03_2(self.conv03_1(y))))
        for number in range(4, 4 + self.blocks):
            h = layer(f"in{number:02d}_1", layer(f"conv{number:02d}_1", reflect(y, (1, 1, 1, 1), "reflect")))
            h = layer(f"conv{number:02d}_2", reflect(torch.relu(h), (1, 1, 1, 1), "reflect"))
            y = y + layer(f"in{number:02d}_2", h)
        y = torch.relu(layer(f"in{4 + self.blocks:02d}_1", self.deconv01_2(self.deconv01_1(y))))
        y = torch.relu(layer(f"in{5 + self.blocks:02d}_1", self.deconv02_2(self.deconv02_1(y))))
        return torch.tanh(self.deconv03_1(reflect(y, (3, 3, 3, 3), "reflect")))


def reference_network(spec: NetworkSpec) -> nn.Module:
    """Return the reference network that an unpruned spec describes, in float64 and evaluation mode."""
    first = spec.widths[0][1]
    network: nn.Module
    if spec.family == "resnet":
        network = ResnetGenerator(
            spec.in_channels,
            spec.out_channels,
            first,
            spec.blocks,
            spec.norm,
            reflect=spec.padding == "reflect",
            dropout=spec.dropout,
            separable=spec.separable,
        )
    elif spec.family == "unet":
        network = UnetGenerator(
            spec.in_channels, spec.out_channels, first, spec.blocks, spec.norm, dropout=spec.dropout
        )  # fmt: skip
    elif spec.family == "cartoongan":
        network = CartoonGenerator(spec.in_channels, spec.out_channels, first, spec.blocks)
    else:
        assert family_of(spec).role == "discriminator"
        network = PatchDiscriminator(spec.in_channels, first, spec.blocks, spec.norm)
    return network.double().eval()
