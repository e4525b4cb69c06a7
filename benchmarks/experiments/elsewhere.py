"""What else a user could take: the same slim generators in MNN, ncnn, PyTorch and torch.compile, beside ours.

    pip install MNN ncnn pnnx      # of the user's own accord; nothing of the package needs them
    python benchmarks/experiments/elsewhere.py [--size 256] [--threads 1 2] [--only NAME] [--out benchmarks/results]

The slim networks of realisation.py with random weights, batch 1. MNN converts the ONNX file by mnnconvert, ncnn the
traced network by pnnx; both in float32. All are measured in one interleaved comparison, with the same input and number
of threads, in fresh processes of the package's own harness (elsewhere_worker.py adds the engines). How far each is from
ONNX Runtime's output stands beside its latency: convolutions by Winograd's way are less exact. Writes elsewhere.json,
with every sample, and elsewhere.md. What other sizes gave stays in the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.experiments import elsewhere_worker, realisation
from mggc_edge.benchmarks.experiments.slim_networks import random_network
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import WorkerProcess
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.models.network import Network
from mggc_edge.models.weights import save_network

OURS = {"ours, OpenVINO": "openvino", "ours, ONNX Runtime": "onnxruntime"}
PLAIN = {"plain export, OpenVINO": "openvino", "plain export, ONNX Runtime": "onnxruntime"}
WORKER = Path(__file__).with_name("elsewhere_worker.py")


def converted(network: Network, plain: Path, size: tuple[int, int], folder: Path) -> dict[str, Path]:
    """Return the files of the other engines, by what they are called."""
    mnn, traced = folder / "slim.mnn", folder / "slim.pt"
    convert = [sys.executable, "-c", "from MNN.tools import mnnconvert; mnnconvert.main()", "-f", "ONNX"]
    subprocess.run(
        [*convert, "--modelFile", plain, "--MNNModel", mnn, "--bizCode", "slim"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PIP_NO_INDEX": "1"},  # it would install a logger, and other versions of what is there
    )
    import pnnx

    with torch.no_grad():
        pnnx.export(network, str(traced), (torch.zeros(1, 3, *size),), fp16=False)
    save_network(network, folder / "saved")
    for kind in ("eager", "compiled"):
        (folder / f"slim.{kind}.json").write_text(json.dumps({"network": str(folder / "saved")}))
    files = {
        "MNN": mnn,
        "ncnn": folder / "slim.ncnn.param",
        "torch.compile": folder / "slim.compiled.json",
        "PyTorch": folder / "slim.eager.json",
    }
    for path in files.values():
        path.with_suffix(".sizes.json").write_text(json.dumps({elsewhere_worker.SIZES: [1, 3, *size]}))
    return files


def distance(path: Path, plain: Path, size: tuple[int, int]) -> float:
    """Return the largest difference from what ONNX Runtime makes of the plain file; outputs lie in [-1, 1]."""
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    with OnnxRuntimeRunner(plain) as runner:
        expected = next(iter(runner.infer({runner.inputs[0].name: picture}).values()))
    engine = elsewhere_worker.engine_of(path)
    assert engine is not None
    engine.open({"path": str(path), "threads": 1})  # type: ignore[attr-defined]
    found = engine.run({"input": picture})  # type: ignore[attr-defined]
    return float(np.abs(np.reshape(found, expected.shape) - expected).max())


def measured(
    case: realisation.Case, size: tuple[int, int], threads: int, options: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Measure a slim generator in every engine; return rows and samples."""
    title, _, slim = case
    files = realisation.float_files("slim", slim, size, folder)
    others = converted(random_network(slim, size), files["plain"], size, folder)
    models = [Workload(name, files[runtime], runtime=runtime) for name, runtime in OURS.items()]
    models += [Workload(name, files["plain"], runtime=runtime) for name, runtime in PLAIN.items()]
    models += [Workload(name, path) for name, path in others.items()]
    report = measure(
        models,
        threads=threads,
        device=LocalDevice(lambda model: WorkerProcess(model, (sys.executable, str(WORKER)))),
        **options,
    )
    fastest = min(OURS, key=lambda name: report.run(name).p50_ms)
    found = []
    for run in report.runs:
        row: dict[str, Any] = {"model": run.model.name, "p50_ms": run.p50_ms}
        if run.model.name != fastest:
            against = report.comparison(run.model.name, fastest)
            row |= {
                "ours_faster": against.ratio.value,
                "ci99": against.ratio.ci99,
                "verdict": against.verdict,
                "disturbed": list(against.disturbed),
                "pairs": against.pairs,
            }
        if run.model.name in others:
            row["largest_difference"] = distance(others[run.model.name], files["plain"], size)
        found.append(row)
    return {
        "network": title, "size": list(size), "threads": threads, "fastest": fastest, "rows": found,
        "context": dict(report.context), "warnings": list(report.warnings),
        "samples": {run.model.name: [process.to_json() for process in run.processes] for run in report.runs},
    }  # fmt: skip


def page(document: Mapping[str, Any]) -> str:
    """Return the Markdown page."""
    lines = [f"Batch 1, float32, on {document['machine']}. `{document['command']}`"]
    for found in document["studies"]:
        many = "s" * (found["threads"] > 1)
        lines += [
            "",
            f"**{found['network']}**, {found['size'][0]}x{found['size'][1]}, {found['threads']} thread{many}",
            "",
            "| | p50 | our fastest is faster (99 %) | verdict | largest difference |",
            "|---|---:|---:|---|---:|",
        ]
        for row in sorted(found["rows"], key=lambda row: row["p50_ms"]):
            away = f"{row['largest_difference']:.1e}" if "largest_difference" in row else ""
            if "ours_faster" not in row:
                lines.append(f"| {row['model']} | {row['p50_ms']:.2f} ms | | | {away} |")
                continue
            low, high = row["ci99"] or (float("nan"), float("nan"))
            lines.append(
                f"| {row['model']} | {row['p50_ms']:.2f} ms | {row['ours_faster']:.2f} ({low:.2f} to {high:.2f}) "
                f"| {row['verdict']} | {away} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    realisation.run_cases("elsewhere", str(__doc__), 240.0, {}, measured, page)


if __name__ == "__main__":
    main()
