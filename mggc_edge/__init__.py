"""mggc-edge: turn a trained image-to-image GAN generator into a small one that runs fast on a real device.

The names below are the public face. They load on first use, so that `import mggc_edge` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mggc_edge._version import __version__

if TYPE_CHECKING:
    from mggc_edge.artifacts import OnnxArtifact
    from mggc_edge.compiler.export_settings import ExportSettings
    from mggc_edge.compiler.finishing import Exported
    from mggc_edge.compiler.to_onnx import to_onnx
    from mggc_edge.errors import CheckFailedError, InputError, MggcEdgeError
    from mggc_edge.models.families import layer_table
    from mggc_edge.models.network import Network
    from mggc_edge.models.spec import NetworkSpec
    from mggc_edge.models.weights import load_network, save_network
    from mggc_edge.opening import open_runner
    from mggc_edge.pruning.apply import apply_plan
    from mggc_edge.pruning.plan import PruningPlan, read_plan
    from mggc_edge.pruning.random import random_plan
    from mggc_edge.quality.parity import ParityReport, check_parity

_HOMES = {
    "CheckFailedError": "mggc_edge.errors",
    "ExportSettings": "mggc_edge.compiler.export_settings",
    "Exported": "mggc_edge.compiler.finishing",
    "InputError": "mggc_edge.errors",
    "MggcEdgeError": "mggc_edge.errors",
    "Network": "mggc_edge.models.network",
    "NetworkSpec": "mggc_edge.models.spec",
    "OnnxArtifact": "mggc_edge.artifacts",
    "ParityReport": "mggc_edge.quality.parity",
    "PruningPlan": "mggc_edge.pruning.plan",
    "apply_plan": "mggc_edge.pruning.apply",
    "check_parity": "mggc_edge.quality.parity",
    "layer_table": "mggc_edge.models.families",
    "load_network": "mggc_edge.models.weights",
    "open_runner": "mggc_edge.opening",
    "random_plan": "mggc_edge.pruning.random",
    "read_plan": "mggc_edge.pruning.plan",
    "save_network": "mggc_edge.models.weights",
    "to_onnx": "mggc_edge.compiler.to_onnx",
}

__all__ = [
    "CheckFailedError",
    "ExportSettings",
    "Exported",
    "InputError",
    "MggcEdgeError",
    "Network",
    "NetworkSpec",
    "OnnxArtifact",
    "ParityReport",
    "PruningPlan",
    "__version__",
    "apply_plan",
    "check_parity",
    "layer_table",
    "load_network",
    "open_runner",
    "random_plan",
    "read_plan",
    "save_network",
    "to_onnx",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mggc_edge' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mggc_edge"):
            raise  # a defect of ours
        from mggc_edge.errors import MissingDependencyError
        from mggc_edge.lazy import install_line

        raise MissingDependencyError(f"mggc_edge.{name} needs {error.name}", install_line("cpu")) from error


def __dir__() -> list[str]:
    return __all__
