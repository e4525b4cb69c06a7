"""Which engine runs which precision on which device of this machine, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mggc_edge.backends.onnxruntime import ORT_MOBILE, PROVIDERS, available_providers
from mggc_edge.backends.registry import ENGINES, LibraryState, library_states
from mggc_edge.machine import BF16_SETS, INT8_SETS, Machine

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Backend and device, and the library that it is.
ROWS = (
    ("onnxruntime", "cpu", "onnxruntime"), ("onnxruntime", "cuda", "onnxruntime"),
    ("onnxruntime", "tensorrt", "onnxruntime"), (ORT_MOBILE, "cpu", "onnxruntime"), ("openvino", "cpu", "openvino"),
    ("tensorrt", "cuda", "tensorrt"), ("pytorch", "cpu", "pytorch"),
)  # fmt: skip
NO_GPU = "no device of NVIDIA is there: its driver shows none below /dev"
OTHER_BUILD = "pip uninstall onnxruntime; pip install onnxruntime-gpu, or the build of your board"
NO_BF16 = "bf16 is what OpenVINO computes float32 files in; no files are written in it"
HALF_ON_CPU = "it computes fp16 files in fp32 here: smaller files, no more speed"


@dataclass(frozen=True)
class Ability:
    """What a backend does with a precision on a device.

    Attributes:
        backend, device, precision: see `ROWS` and `PRECISIONS`.
        verdict: "yes"; "slow": it runs, and gains nothing by it; "no".
        reason: why it is not "yes".
        hint: what to install, where that helps.
    """

    backend: str
    device: str
    precision: str
    verdict: str
    reason: str | None = None
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the keys of the attributes, and `works`."""
        return {
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "works": self.verdict != "no",
            "verdict": self.verdict,
            "reason": self.reason,
            "hint": self.hint,
        }


def abilities(machine: Machine, states: Sequence[LibraryState] | None = None) -> tuple[Ability, ...]:
    """Return what every backend does with every precision on every device that it could have here.

    Args:
        machine: this machine.
        states: of the engines, see `library_states`; None: they are looked at.
    """
    known = {state.library.name: state for state in states or library_states(ENGINES)}
    providers = available_providers() if known["onnxruntime"].works else ()
    found = []
    for backend, device, library in ROWS:
        absent = _absent(device, known[library], providers if library == "onnxruntime" else None, machine)
        for precision in PRECISIONS:
            verdict, reason, hint = absent or (*_computes(backend, device, precision, machine), None)
            found.append(Ability(backend, device, precision, verdict, reason, hint))
    return tuple(found)


def _absent(
    device: str, state: LibraryState, providers: tuple[str, ...] | None, machine: Machine
) -> tuple[str, str, str | None] | None:
    """Return why a backend has no such device here, whatever the precision; None where it has."""
    if not state.works:
        return "no", state.detail, state.hint
    if providers is not None and PROVIDERS[device] not in providers:
        return "no", f"this build of ONNX Runtime has no {PROVIDERS[device]}", OTHER_BUILD
    if device != "cpu" and not machine.gpu_nodes:
        return "no", NO_GPU, None
    return None


def _computes(backend: str, device: str, precision: str, machine: Machine) -> tuple[str, str | None]:
    """Return the verdict on a precision where backend and device are there, and why it is not "yes"."""
    if precision == "fp32":
        return "yes", None
    if precision == "bf16":
        return _bf16(machine) if backend == "openvino" else ("no", NO_BF16)
    if backend == "pytorch":
        if precision == "fp16":
            return "no", "checkpoints are run in fp32"
        return "slow", "it imitates 8-bit grids in fp32: a reference, no gain"
    if device == "cuda" and backend == "onnxruntime" and precision == "int8":
        return "slow", "its CUDA provider has no 8-bit convolutions: it computes them in fp32"
    if device != "cpu":
        return "yes", None
    if precision == "fp16":
        return ("yes", None) if "NEON fp16" in machine.instruction_sets else ("slow", HALF_ON_CPU)
    if machine.has_any(INT8_SETS):
        return "yes", None
    return "slow", no_int8()


def no_int8() -> str:
    """Return why 8-bit files gain nothing on a processor without one of `INT8_SETS`."""
    return f"this processor has no instructions for 8-bit sums ({', '.join(INT8_SETS)})"


def _bf16(machine: Machine) -> tuple[str, str | None]:
    if machine.has_any(BF16_SETS):
        return "yes", None
    return "no", f"this processor has no instructions for bf16 ({', '.join(BF16_SETS)})"
