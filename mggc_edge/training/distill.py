"""Offline distillation from the frozen original, as in GCC (NeurIPS 2021): features and their Gram matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.models.layers import Layer, LayerTable
from mggc_edge.models.network import Network, Tap

Form = Literal["mse", "root"]


@dataclass(frozen=True)
class DistillSettings:
    """Weights of the parts; 0 leaves a part out.

    Attributes:
        content, style: of the distances between features, and between their Gram matrices.
        pixels: of the L1 distance between the outputs (GAN Compression's reconstruction loss).
        form: a distance is the mean squared error, or its square root.
    """

    content: float
    style: float
    pixels: float
    form: Form

    @property
    def compares_features(self) -> bool:
        """Whether features take part."""
        return bool(self.content or self.style)

    @property
    def enabled(self) -> bool:
        """Whether any part has a weight."""
        return self.compares_features or bool(self.pixels)


def generator_taps(teacher: LayerTable, student: LayerTable) -> list[tuple[Tap, Tap]]:
    """Return the places at which a slim generator follows the original: (in the teacher, in the student).

    ResNet and CartoonGAN: the trunk as it begins, and after each third of the blocks; where the student's block was
    removed, the trunk as it was before it. U-Net: the norms of the second and fourth halving, and what the upper
    convolutions of the fourth and second block see.
    """
    if teacher.spec.family == "unet":
        return [(tap, _own_tap(student, tap)) for tap in _unet_taps(teacher)]
    trunk = [layer for layer in teacher.layers if _on_trunk(layer)]
    blocks = trunk[1:]
    chosen = {0, *(round(len(blocks) * third / 3) for third in (1, 2, 3))}
    pairs: dict[Tap, Tap] = {}
    for layer in (trunk[number] for number in sorted(chosen)):
        last = [own for own in student.layers if _on_trunk(own) and _place(own) <= _place(layer)][-1]
        pairs[(layer.name, "output")] = (last.name, "output")
    return list(pairs.items())


def _own_tap(student: LayerTable, tap: Tap) -> Tap:
    """Return where a slim U-Net has the value at a tap: a norm that is folded away gives what its convolution gives."""
    name, place = tap
    folded = place == "norm" and next(layer for layer in student.layers if layer.name == name).norm is None
    return (name, "output") if folded else tap


def _on_trunk(layer: Layer) -> bool:
    return layer.output == "trunk" and layer.op != "depthwise_conv"


def _place(layer: Layer) -> int:
    """Number of the part of the network that a row belongs to: "model.12.conv_block.5" is of 12, "conv04_2" of 4."""
    return int(re.findall(r"\d+", layer.name)[0])


def _unet_taps(table: LayerTable) -> list[Tap]:
    downs = {layer.output: layer for layer in table.layers}
    halvings = table.spec.blocks
    taps: list[Tap] = [(downs[f"down{n}"].name, "norm") for n in (2, 4) if n < halvings]
    # Up convolution k reads down k, joined with what the one below it gave.
    readers = {
        layer.inputs[0]: layer for layer in table.layers if layer.op == "conv_transpose" and len(layer.reads) > 1
    }
    taps += [(readers[f"down{n}"].name, "input") for n in (4, 2) if n < halvings]
    return taps


def discriminator_taps(table: LayerTable) -> list[Tap]:
    """Return the places in a PatchGAN whose features are compared: the norms of its second and fourth convolution."""
    normed = [layer for layer in table.layers if layer.norm is not None]
    return [(layer.name, "norm") for layer in (normed[0], normed[-1])[: len(normed)]]


class Distiller(nn.Module):
    """How far a slim generator is from the original in its features, and in what a discriminator sees in its output.

    Generator features go through learned 1x1 convolutions without bias, student width to teacher width. Where neither
    content nor style has a weight, no generator is tapped and nothing is mapped.
    """

    def __init__(
        self, teacher: Network, student: Network, judge: Network | None, settings: DistillSettings, *, conditional: bool
    ) -> None:
        super().__init__()
        pairs = generator_taps(teacher.table, student.table) if settings.compares_features else []
        self.teacher_taps = [tap for tap, _ in pairs]
        self.student_taps = [tap for _, tap in pairs]
        self.settings, self._conditional = settings, conditional
        self._frozen = (teacher, judge)  # in a tuple: their weights are not this module's
        self._judge_taps = [] if judge is None else discriminator_taps(judge.table)
        self.maps = nn.ModuleList(
            nn.Conv2d(width(student.table, own), width(teacher.table, its), 1, bias=False) for its, own in pairs
        )
        for convolution in self.maps:
            nn.init.normal_(convolution.get_parameter("weight"), 0.0, 0.02)

    @torch.no_grad()
    def teach(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the original's output for `x`, as it is in evaluation, and its features."""
        teacher, _ = self._frozen
        assert teacher is not None
        return teacher.features(x, self.teacher_taps)

    def judged(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return what the original's discriminator sees in the output `y` for the input `x`."""
        _, judge = self._frozen
        if judge is None:
            return []
        seen = torch.cat([x, y], dim=1) if self._conditional else y
        return judge.features(seen, self._judge_taps)[1]

    def forward(
        self, lesson: tuple[Tensor, list[Tensor]], x: Tensor, y: Tensor, features: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the weighted parts of the loss: content and style over all features, and pixels."""
        wanted, theirs = lesson
        own = [convolution(feature) for convolution, feature in zip(self.maps, features, strict=True)]
        parts = {}
        s = self.settings
        if s.compares_features:
            with torch.no_grad():
                seen = self.judged(x, wanted)
            pairs = [*zip(own, theirs, strict=True), *zip(self.judged(x, y), seen, strict=True)]
            if pairs and s.content:
                parts["distill_content"] = s.content * self._sum(
                    _distance(a.float(), b.float(), s.form) for a, b in pairs
                )
            if pairs and s.style:
                parts["distill_style"] = s.style * self._sum(_distance(gram(a), gram(b), s.form) for a, b in pairs)
        if s.pixels:
            parts["distill_pixels"] = s.pixels * F.l1_loss(y.float(), wanted.float())
        return parts

    @staticmethod
    def _sum(values: object) -> Tensor:
        return torch.stack(list(values)).sum()  # type: ignore[call-overload]


def width(table: LayerTable, tap: Tap) -> int:
    """Return the channels of the value at a tap."""
    name, place = tap
    layer = next(layer for layer in table.layers if layer.name == name)
    return layer.in_channels if place == "input" else layer.out_channels


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrices F F^T / (C H W) of features [N, C, H, W], float32 [N, C, C]."""
    flat = features.float().flatten(2)
    with torch.autocast(flat.device.type, enabled=False):  # in bfloat16, rounding would hide what is left to learn
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def _distance(a: Tensor, b: Tensor, form: Form) -> Tensor:
    squared = F.mse_loss(a, b)
    return squared if form == "mse" else (squared + 1e-12).sqrt()  # a root has no slope at 0
