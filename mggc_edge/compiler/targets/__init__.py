"""Targets: what a graph is rewritten for. One small file each: its passes, precisions and alignment, with the reasons.

`benchmarks/experiments/passes.py` measures passes; docs/compiler.md says what is in no list, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
from mggc_edge.compiler.targets import arm64, ort_mobile, portable, tensorrt, x86_avx2, x86_avx512
from mggc_edge.compiler.targets.base import Alignment, Opsets, Target
from mggc_edge.errors import SettingError
from mggc_edge.machine import Machine, this_machine

__all__ = [
    "AUTO", "NONE", "PASSES", "TARGETS", "Alignment", "Opsets", "Target", "alignment_of", "choose_passes",
    "choose_precisions", "this_target",
]  # fmt: skip

AUTO, NONE = "auto", "none"

TARGETS: Mapping[str, Target] = {
    entry.TARGET.name: entry.TARGET for entry in (portable, x86_avx2, x86_avx512, arm64, tensorrt, ort_mobile)
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


def choose_precisions(names: tuple[str, ...], target: str) -> tuple[str, ...]:
    """Return the precisions that are made for a target: those that are named, or for AUTO alone its own."""
    return tuple(TARGETS[target].precisions) if names == (AUTO,) else names


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
    """Return the target that this machine's processor is; "portable" where it is none that is known."""
    machine = machine or this_machine()
    if machine.device == "x86":
        for name, instructions in (("x86-avx512", "AVX-512"), ("x86-avx2", "AVX2")):
            if instructions in machine.instruction_sets:
                return name
    return "arm64" if machine.architecture in ("aarch64", "arm64") else PORTABLE


def alignment_of(target: str) -> int:
    """Return the multiple that widths are rounded to for a target, see `mggc_edge.pruning.align`.

    Raises:
        SettingError: the target has none.
    """
    align = TARGETS[target].align
    if align is None:
        fit = ", ".join(name for name, entry in TARGETS.items() if entry.align is not None)
        raise SettingError(
            f"the target {target} has no alignment: no multiple of channels is better than another on every engine",
            hint=f"give a number, such as 8, or one of the targets {fit}",
        )
    return align.multiple
