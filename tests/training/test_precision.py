"""bfloat16 is chosen for ResNets on processors that have instructions for it, and never against the setting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mggc_edge.machine import Machine
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.training import precision
from mggc_edge.training.precision import autocast, choose_precision, convolution_precision
from tests.training.training_helpers import fresh

RESNET = fresh(resnet_spec(blocks=1, ngf=2), seed=0)
UNET = fresh(unet_spec(halvings=2, ngf=2), seed=0)


@pytest.mark.parametrize(
    ("instructions", "resnet", "unet"),
    [
        (("AVX2", "AVX-512"), "fp32", "fp32"),
        (("AVX2", "AVX-512", "AVX-512 BF16"), "bf16", "fp32"),
        (("AMX bf16",), "bf16", "fp32"),
        (("NEON", "bf16"), "fp32", "fp32"),
        ((), "fp32", "fp32"),
    ],
)
def test_auto_follows_family_and_processor(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], resnet: str, unet: str
) -> None:
    monkeypatch.setattr(precision, "this_machine", lambda: Machine("p", "x86_64", instructions, 2, None, None))
    assert choose_precision("auto", RESNET) == resnet
    assert choose_precision("auto", UNET) == unet
    assert choose_precision("fp32", RESNET) == "fp32"
    assert choose_precision("bf16", UNET) == "bf16"
    assert convolution_precision("auto") == resnet
    assert [convolution_precision(name) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_autocast_touches_convolutions_in_bf16_only() -> None:
    x, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    with autocast("bf16"):
        assert F.conv2d(x, weight).dtype == torch.bfloat16
        assert F.mse_loss(x, x).dtype == torch.float32
    with autocast("fp32"):
        assert F.conv2d(x, weight).dtype == torch.float32
