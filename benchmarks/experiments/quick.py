"""What `compress` costs where there is no data: a ResNet-9 of the usual size, freshly initialised, with `--quick`.

    python benchmarks/experiments/quick.py --runs DIR [--threads 2] [--out benchmarks/results]

Makes the checkpoint (ngf 64, 256x256), runs the command below in a process of its own, or goes on with it, and writes
quick.json and quick.md: time, the largest memory of any process, MACs, latency (measured again, at the end). The limits
are 15 minutes and 4 GB on 2 cores; beyond them it ends with exit code 1. A run that was resumed says so, as its time
is that of the last part only. What a finished one cost is taken from DIR/cost.json, and latency is measured again.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mggc_edge.artifacts import atomic_path, read_json, read_manifest, tool_versions, write_json
from mggc_edge.machine import this_machine
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec

MAX_SECONDS, MAX_BYTES = 15 * 60, 4 * 10**9
FLAGS = ("--budget", "0.05", "--quick")


def checkpoint(path: Path) -> None:
    """Write the weights of a new ResNet-9 (seed 0), as a plain state dict."""
    torch.manual_seed(0)
    spec = resnet_spec(blocks=9, ngf=64)
    network = Network(spec, layer_table(spec, (256, 256)))
    with atomic_path(path) as temporary:
        torch.save(network.state_dict(), temporary)


def run(folder: Path, threads: int) -> dict[str, Any]:
    """Run the job, or go on with it; return the seconds it took and the most memory that one of its processes had."""
    if (folder / "cost.json").is_file():
        return read_json(folder / "cost.json")
    run_folder, resumed = folder / "run", (folder / "run/job.json").is_file()
    line = [sys.executable, "-m", "mggc_edge.cli", "compress"]
    if resumed:
        line += ["--resume", str(run_folder)]
    else:
        checkpoint(folder / "resnet9.pth")
        line += ["--model", str(folder / "resnet9.pth"), *FLAGS, "--threads", str(threads), "--out", str(run_folder)]
    start = time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    cost = {"seconds": seconds, "peak_bytes": peak, "resumed": resumed, "threads": threads}
    write_json(folder / "cost.json", cost)
    return cost


def bench(folder: Path) -> dict[str, Any]:
    """Measure both generators again."""
    line = [sys.executable, "-m", "mggc_edge.cli", "bench", str(folder / "run"), "--json", "--quiet"]
    document = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {
        "latency_ms": {entry["model"]: entry["latency_ms"] for entry in document["runs"]},
        "samples_ns": {entry["model"]: entry["samples_ns"] for entry in document["runs"]},
        "comparison": document["comparisons"][0],
        "context": document["context"],
        "warnings": {entry["model"]: entry["warnings"] for entry in document["runs"]},
    }


def table(document: dict[str, Any]) -> str:
    """Return the Markdown table."""
    job, result, measured = document["job"], document["result"], document["bench"]
    before, after, comparison = result["original"], result["compressed"], measured["comparison"]
    old, new = (latency["p50"] for latency in measured["latency_ms"].values())
    low, high = comparison["ci99"]  # what the verdict goes by
    unclear = comparison["verdict"] == "inconclusive"
    speed = "?" if unclear else f"{comparison['ratio']:.2f}x ({low:.2f} to {high:.2f})"
    threads = f"{job['threads']} thread{'s' * (job['threads'] > 1)}"
    return (
        "| job | time | largest process | budget met | MACs (true) | latency | faster (99%) | realisation |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|\n"
        f"| ResNet-9, ngf 64, 256x256, new weights, `{' '.join(FLAGS)}`, {threads} "
        f"| {job['seconds'] / 60:.1f} min{' (resumed)' if job['resumed'] else ''} | {job['peak_bytes'] / 1e9:.2f} GB "
        f"| {result['budget_met']:.4f} of {result['budget']:g} "
        f"| {before['macs_true'] / 1e9:.1f} G -> {after['macs_true'] / 1e9:.2f} G "
        f"| {old:.0f} ms -> {new:.1f} ms | {speed} "
        f"| {'?' if unclear else format(comparison['realisation'], '.2f')} |\n"
    )


def main() -> None:
    """Run the job and write what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    job = run(arguments.runs, arguments.threads)
    manifest = read_manifest(arguments.runs / "run")
    document = {
        "command": "python benchmarks/experiments/quick.py --runs DIR",
        "machine": this_machine().processor,
        "cores": this_machine().cores,
        "tools": tool_versions(),
        "limits": {"seconds": MAX_SECONDS, "bytes": MAX_BYTES},
        "job": job,
        "timings_s": manifest["timings_s"],
        "result": {**manifest["result"], "run": "run"},
        "bench": bench(arguments.runs),
    }
    write_json(arguments.out / "quick.json", document)
    (arguments.out / "quick.md").write_text(table(document), encoding="utf-8")
    if job["seconds"] > MAX_SECONDS or job["peak_bytes"] > MAX_BYTES:
        raise SystemExit(f"beyond the limits: {job['seconds']:.0f} s, {job['peak_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
