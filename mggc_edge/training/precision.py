"""In what precision a device trains: float32, or bfloat16 where it has instructions for it and they are faster."""

from __future__ import annotations

from typing import Literal

import torch

from mggc_edge.machine import this_machine
from mggc_edge.models.network import Network

Precision = Literal["fp32", "bf16"]
GRIDS_PRECISION: Precision = "fp32"  # of networks on 8-bit grids: bfloat16 would round what lies on them once more
_BF16_INSTRUCTIONS = {"AVX-512 BF16", "AMX bf16"}


def autocast(precision: Precision, device: torch.device | None = None) -> torch.autocast:
    """Return a context in which convolutions run in `precision`; weights and losses stay in float32."""
    return torch.autocast("cpu" if device is None else device.type, torch.bfloat16, enabled=precision == "bf16")


def convolution_precision(setting: str, device: torch.device | None = None) -> Precision:
    """Return in what precision to train on a device: `setting` if it names one, else, for "auto", by what it has.

    bfloat16 where a processor has instructions for it, for plain convolutions, of which encoders consist: the small one
    trains in 0.6 of the time of float32. A GPU trains in bfloat16 where it has it in hardware, and in float32
    otherwise, also where bfloat16 was asked for. float16 would need its losses scaled, and is not offered.
    """
    on_gpu = device is not None and device.type == "cuda"
    if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp32"
    if setting == "fp32" or setting == "bf16":
        return "fp32" if setting == "fp32" else "bf16"
    return "bf16" if on_gpu or _BF16_INSTRUCTIONS & set(this_machine().instruction_sets) else "fp32"


def choose_precision(setting: str, network: Network, device: torch.device | None = None) -> Precision:
    """Return the precision for training `network`: `setting` if it names one, else by rule for "auto".

    On a GPU as in `convolution_precision`. On a processor, bfloat16 where it has instructions for it and the network is
    a ResNet. Measured forward and backward on 2 cores with AVX-512 BF16 (`benchmarks/results/precision.md`): ResNets
    take 0.55 to 0.60 of the time of float32, U-Nets 0.75 to 0.95; channels last is slower for nearly all. The rule
    looks at nothing that changes from run to run, so that runs repeat.
    """
    on_gpu = device is not None and device.type == "cuda"
    if setting == "auto" and network.spec.family != "resnet" and not on_gpu:
        return "fp32"
    return convolution_precision(setting, device)
