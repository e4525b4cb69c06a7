"""What a study of latencies was made by and on: the same facts, and the same sentence, for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mggc_edge.artifacts import tool_versions
from mggc_edge.machine import this_machine


def circumstances(name: str, threads: int) -> dict[str, Any]:
    """Return the command of a study, the machine and the versions, for its document."""
    machine = this_machine()
    return {
        "command": f"python -m mggc_edge.benchmarks.experiments.{name}",
        "machine": {"processor": machine.processor, "cores": machine.cores, "threads": threads},
        "versions": {name: tool_versions()[name] for name in ("mggc-edge", "onnxruntime", "numpy")},
    }


def made_by(document: Mapping[str, Any]) -> str:
    """Return the sentence that a study's page begins with."""
    machine, version = document["machine"], document["versions"]["onnxruntime"]
    where = f"{machine['processor']}, {machine['threads']} thread(s), onnxruntime {version}"
    return f"{where}; made by `{document['command']}`."
