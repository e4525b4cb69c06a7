"""What each graph pass does to the latency: plain export and onnxsim against the same file with passes.

    python benchmarks/experiments/passes.py [--pairs 40] [--threads 1] [--only NAME] [--out benchmarks/results]

Three slim generators with random weights at 256x256, batch 1: a ResNet-9 of widths 16/32/64, inner 32, up 24/12; one of
odd widths, as real plans have them; and a U-Net-256 of a quarter of the widths. Of each: the plain file, the file with
the passes of this target one after the other, and with each pass that is in no list on top. All files of a network are
measured together, in fresh processes and interleaved pairs (`mggc_edge.benchmarks.harness`). Writes passes.json, with
every sample, and passes.md: how many times as fast as the plain file, with the 99 % interval, and the verdict, which is
"inconclusive" where other processes disturbed too many pairs. About three minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks.experiments.slim_networks import networks, random_network
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.targets import TARGETS, this_target
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.machine import this_machine
from mggc_edge.models.cost import macs
from mggc_edge.models.spec import NetworkSpec

SIZE = (256, 256)
PLAIN, LIST = "plain", "the target's list"


def variants(spec: NetworkSpec) -> dict[str, str]:
    """Return the settings `export.passes` that are measured, by name: the plain file first."""
    if spec.family == "unet":  # nothing else has a site in it
        return {PLAIN: "none", "transposed_convolution": "transposed_convolution", LIST: "auto"}
    more = ("transposed_convolution_any", "reflect_pad", "pad_widths")
    return {
        PLAIN: "none",
        "thin_layer": "thin_layer",
        LIST: "auto",
        # What makes DepthToSpace has to come before what moves it.
        **{f"{LIST}, and {name}": f"thin_layer,{name},depth_to_space" for name in more},
    }


def study(name: str, spec: NetworkSpec, folder: Path, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Export and measure all variants of a network, and return what was found."""
    network = random_network(spec, SIZE)
    exports: dict[str, Exported] = {}
    workloads = []
    for number, (variant, passes) in enumerate(variants(spec).items()):
        path = folder / f"{number}.onnx"
        exports[variant] = to_onnx(network, path, ExportSettings(image_size=SIZE, target=target, passes=passes))
        workloads.append(Workload(variant, path, macs_true=macs(network.table, "true")))
        print(f"{name}: {variant} exported", flush=True)
    report = measure(workloads, **options)
    rows = [_row(report, variant, exported) for variant, exported in exports.items()]
    for row in rows:
        print({key: value for key, value in row.items() if key != "passes"}, flush=True)
    return {
        "network": name,
        "macs_true": macs(network.table, "true"),
        "rows": rows,
        "samples": {run.model.name: [process.to_json() for process in run.processes] for run in report.runs},
        "context": dict(report.context),
        "warnings": list(report.warnings),
    }


def _row(report: BenchmarkReport, variant: str, exported: Exported) -> dict[str, Any]:
    row: dict[str, Any] = {
        "variant": variant,
        "p50_ms": report.run(variant).p50_ms,
        "macs_executed": exported.macs_executed,
        "max_abs": exported.parity.max_abs,
        "passes": [found.to_json() for found in exported.passes],
    }
    if variant != PLAIN:
        found = report.comparison(PLAIN, variant)
        row |= {
            "ratio": found.ratio.value,
            "ci99": found.ratio.ci99,
            "verdict": found.verdict,
            "reason": found.reason,
            "pairs": found.pairs,
            "pairs_left_out": found.left_out,
        }
    return row


def page(document: Mapping[str, Any]) -> str:
    """Return the Markdown page."""
    where = f"threads: {document['threads']}, on {document['machine']}; target {document['target']}"
    lines = [f"Latency at 256x256, batch 1, {where}. `{document['command']}`"]
    for found in document["networks"]:
        lines += [
            "",
            f"**{found['network']}**, {found['macs_true'] / 1e9:.3f} G MACs",
            "",
            "| passes | p50 | executed MACs | times as fast (99 %) | verdict | pairs (left out) |",
            "|---|---:|---:|---:|---|---:|",
        ]
        for row in found["rows"]:
            low, high = row.get("ci99") or (None, None)
            ratio = "" if "ratio" not in row else f"{row['ratio']:.3f}"
            ratio += "" if low is None else f" ({low:.3f} to {high:.3f})"
            pairs = f"{row['pairs']} ({row['pairs_left_out']})" if "pairs" in row else ""
            verdict = row.get("verdict", "") + (f": {row['reason']}" if row.get("reason") else "")
            lines.append(
                f"| {row['variant']} | {row['p50_ms']:.2f} ms | {row['macs_executed'] / 1e9:.3f} G | {ratio} "
                f"| {verdict} | {pairs} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="networks whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    target = this_target()
    if target not in TARGETS or len(TARGETS[target].passes) <= len(TARGETS["portable"].passes):
        parser.error("this machine is no target with passes of its own")
    options = {"pairs": arguments.pairs, "threads": arguments.threads, "processes": 10, "max_seconds": 150.0}
    found = []
    with tempfile.TemporaryDirectory() as name:
        for number, (title, spec) in enumerate(networks().items()):
            if arguments.only is None or arguments.only in title:
                folder = Path(name) / str(number)
                folder.mkdir()
                found.append(study(title, spec, folder, target, {**options, "warmup_seconds": 0.3}))
    if not found:
        parser.error(f"no network is called {arguments.only}")
    document = {
        "command": f"python benchmarks/experiments/passes.py --pairs {arguments.pairs} --threads {arguments.threads}",
        "machine": this_machine().processor,
        "instruction_sets": list(this_machine().instruction_sets),
        "target": target,
        "threads": arguments.threads,
        "tools": tool_versions(),
        "networks": found,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "passes.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "passes.md").write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
