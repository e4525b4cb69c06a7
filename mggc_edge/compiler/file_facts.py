"""The facts about a file that a gate puts beside its latency: none of them carries noise."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from mggc_edge.backends.onnxruntime import write_optimized
from mggc_edge.benchmarks.file_facts import FileFacts
from mggc_edge.compiler.facts import ROUNDERS, onnx_facts
from mggc_edge.errors import ArtifactError, MissingDependencyError
from mggc_edge.lazy import require

# What only moves values: the blocked layout's own operators, and transpositions.
REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")


def file_facts(path: Path) -> FileFacts:
    """Return the facts about a file; of one that is no .onnx file, and where onnx is not installed, its size alone.

    Raises:
        ArtifactError: the file cannot be read.
    """
    size = path.stat().st_size
    if path.suffix.lower() != ".onnx":
        return FileFacts(size_bytes=size)
    try:
        facts = onnx_facts(path)
    except MissingDependencyError:
        return FileFacts(size_bytes=size)
    return FileFacts(
        macs_executed=facts.macs_executed,
        parameters=facts.parameters,
        size_bytes=size,
        reorders=count_reorders(path),
        quantizers=sum(facts.operators.get(name, 0) for name in ROUNDERS),
        operators=facts.operators,
        picture_size=facts.inputs[0].picture_size if facts.inputs else None,
    )


def count_reorders(path: Path) -> int | None:
    """Return how often values change their memory layout in a graph, as ONNX Runtime rewrites it on this machine.

    None where ONNX Runtime is not installed, or does not run the file: another engine may; and where no temporary file
    can be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
            target = Path(folder) / "optimized.onnx"
            write_optimized(path, target)
            model = require("onnx", extra="onnx").load_model_from_string(target.read_bytes())
    except (ArtifactError, MissingDependencyError, OSError):
        return None
    counts = Counter(node.op_type for node in model.graph.node)
    return sum(counts[name] for name in REORDERS)
