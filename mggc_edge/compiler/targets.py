"""Targets: what a graph is rewritten for, with the passes that pay there, and the reason for each.

`benchmarks/experiments/passes.py` measures them; docs/compiler.md says what is in no list, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mggc_edge.artifacts import PORTABLE
from mggc_edge.compiler.passes.contract import GraphPass
from mggc_edge.compiler.passes.dead_bias import DeadBias
from mggc_edge.compiler.passes.depth_to_space import DepthToSpace
from mggc_edge.compiler.passes.fold_batch_norm import FoldBatchNorm
from mggc_edge.compiler.passes.merge_pad import MergePad
from mggc_edge.compiler.passes.pad_widths import PadWidths
from mggc_edge.compiler.passes.reflect_pad import ReflectPad
from mggc_edge.compiler.passes.thin_layer import ThinLayer
from mggc_edge.compiler.passes.transposed_convolution import TransposedConvolution
from mggc_edge.errors import SettingError
from mggc_edge.machine import Machine, this_machine

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Target:
    """What a graph is rewritten for.

    Attributes:
        name: of the folder below `export/`.
        lanes: floats in a vector.
        passes: by name, in their order, each with the reason why it is in the list.
    """

    name: str
    lanes: int
    passes: Mapping[str, str]


_ANYWHERE = {
    "fold_batch_norm": "an operator less; what it multiplied by goes into weights",
    "dead_bias": "nothing is added that is taken away again",
    "merge_pad": "a copy of the picture less, where the engine does not do it by itself",
}
_X86 = {
    **_ANYWHERE,
    "thin_layer": "a convolution fills vectors with its outputs: 3 outputs leave most lanes empty",
    "transposed_convolution": "its sums are scattered, a convolution's are not; this pays once DepthToSpace is fast",
    "depth_to_space": "ONNX Runtime's own moves value by value",
}
TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(PORTABLE, 16, _ANYWHERE),
        Target("x86-avx2", 8, _X86),
        Target("x86-avx512", 16, _X86),
    )
}

# Every pass by name, for the lanes of a target.
PASSES: Mapping[str, Callable[[int], GraphPass]] = {
    "fold_batch_norm": lambda _: FoldBatchNorm(),
    "dead_bias": lambda _: DeadBias(),
    "merge_pad": lambda _: MergePad(),
    "thin_layer": ThinLayer,
    "transposed_convolution": lambda _: TransposedConvolution(),
    "transposed_convolution_any": lambda _: TransposedConvolution("transposed_convolution_any", None),
    "depth_to_space": lambda _: DepthToSpace(),
    "reflect_pad": lambda _: ReflectPad(),
    "pad_widths": PadWidths,
}


def choose_passes(text: str, target: str) -> tuple[GraphPass, ...]:
    """Return what the setting `export.passes` asks for: "auto" (the target's list), "none", or names with commas.

    Raises:
        SettingError: there is no such target, or no such pass.
    """
    if target not in TARGETS:
        raise SettingError(f"there is no target '{target}'", hint=f"one of {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    wanted: Sequence[str] = () if text.strip() == NONE else [name.strip() for name in text.split(",")]
    if text.strip() == AUTO:
        wanted = tuple(chosen.passes)
    for name in wanted:
        if name not in PASSES:
            raise SettingError(
                f"setting export.passes names '{name}', which is no graph pass",
                hint=f"{AUTO}, {NONE}, or some of {', '.join(PASSES)}",
            )
    return tuple(PASSES[name](chosen.lanes) for name in wanted)


def this_target(machine: Machine | None = None) -> str:
    """Return the target that this machine is; "portable" where it is none that is known."""
    machine = machine or this_machine()
    if machine.device == "x86":
        for name, instructions in (("x86-avx512", "AVX-512"), ("x86-avx2", "AVX2")):
            if instructions in machine.instruction_sets:
                return name
    return PORTABLE
