"""In what precision a processor trains: float32, or bfloat16 where it has instructions for it and they are faster."""

from __future__ import annotations

from typing import Literal

import torch

from mggc_edge.machine import this_machine
from mggc_edge.models.network import Network

Precision = Literal["fp32", "bf16"]
_BF16_INSTRUCTIONS = {"AVX-512 BF16", "AMX bf16"}


def autocast(precision: Precision, device: str = "cpu") -> torch.autocast:
    """Return a context in which convolutions run in `precision`; weights and losses stay in float32."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def convolution_precision(setting: str) -> Precision:
    """Return `setting` if it names a precision, else, for "auto", bfloat16 where the processor has instructions for it.

    For plain convolutions, of which encoders consist: the small one trains in 0.6 of the time of float32.
    """
    if setting == "fp32" or setting == "bf16":
        return "fp32" if setting == "fp32" else "bf16"
    return "bf16" if _BF16_INSTRUCTIONS & set(this_machine().instruction_sets) else "fp32"


def choose_precision(setting: str, network: Network) -> Precision:
    """Return the precision for training `network` on this machine: `setting` if it names one, else by rule for "auto".

    bfloat16 where the processor has instructions for it and the network is a ResNet. Measured forward and backward on
    2 cores with AVX-512 BF16 (`benchmarks/results/precision.md`): ResNets take 0.55 to 0.60 of the time of float32,
    U-Nets 0.75 to 0.95; channels last is slower for nearly all. The rule looks at nothing that changes from run to
    run, so that runs repeat.
    """
    if setting == "auto" and network.spec.family != "resnet":
        return "fp32"
    return convolution_precision(setting)
