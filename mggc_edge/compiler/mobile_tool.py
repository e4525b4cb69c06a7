"""The process that uses ONNX Runtime's own tools, `python mobile_tool.py`: one JSON object in, one out.

They print, configure logging and leave files open, and some graphs crash them: so they have a process of their own.

    {"models": [paths of .onnx], "folder", "platform": "amd64", "arm" or null} -> {"usability": {name of a model: rows}}

Every model in one folder becomes `folder/<stem>.ort`, and all together `required_operators_and_types.config`. A row
says how much of a graph, at most, a phone's accelerator takes. An answer with the key `error` is a sentence.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CORE_ML = {
    "Core ML (ML Program)": "coreml_supported_mlprogram_ops.md",
    "Core ML (Neural Network)": "coreml_supported_neuralnetwork_ops.md",
}


def convert(source: Path, folder: Path, platform: str | None) -> None:
    """Convert every .onnx file in `source`, with all optimizations of the platform baked in."""
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    convert_onnx_models_to_ort(
        source,
        output_dir=folder,
        optimization_styles=[OptimizationStyle.Fixed],
        target_platform=platform,
        enable_type_reduction=True,
    )


def usability(model: Path) -> list[dict[str, Any]]:
    """Return what ONNX Runtime's usability checker counts, for every accelerator that it knows."""
    from onnxruntime.tools.mobile_helpers import usability_checker as checker
    from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo

    graph = ModelProtoWithShapeInfo(model).model_with_shape_info
    found = {"NNAPI": checker.check_nnapi_partitions(graph, True)}
    found |= {name: checker.check_coreml_partitions(graph, True, file) for name, file in CORE_ML.items()}
    return [
        {
            "provider": name,
            "verdict": info.suitability().name.lower(),
            "partitions": info.num_partitions,
            "supported": info.num_supported_nodes,
            "nodes": info.num_nodes,
            "unsupported": sorted(op.removeprefix("ai.onnx:") for op in info.unsupported_ops),
        }
        for name, info in found.items()
    ]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks for."""
    models = [Path(path) for path in request["models"]]
    try:
        convert(models[0].parent, Path(request["folder"]), request["platform"])
        return {"usability": {model.name: usability(model) for model in models}}
    except Exception as error:  # noqa: BLE001  the tools raise many kinds
        lines = str(error).strip().splitlines()
        return {"error": (lines or [type(error).__name__])[0][:200]}


def main() -> None:
    """Answer one request from stdin on stdout; what the tools print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answers.write(json.dumps(answer(json.load(sys.stdin))))
    answers.flush()


if __name__ == "__main__":
    # The folder of this file comes first in sys.path; its modules must not stand in for libraries of the same name.
    if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
        del sys.path[0]
    main()
