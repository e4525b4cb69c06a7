"""What precision and memory layout a processor trains fastest in: forward and backward passes, interleaved.

    python benchmarks/experiments/precision.py [--rounds 7] [--out benchmarks/results]

Times float32 and bfloat16 autocast, each with channels first and channels last, for networks of this project; writes
precision.json and precision.md with the median of every variant and its ratio to float32, channels first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mggc_edge.artifacts import tool_versions
from mggc_edge.machine import this_machine
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec

CASES: tuple[tuple[str, NetworkSpec, int, int], ...] = (
    ("ResNet-6, ngf 32, 128, batch 1", resnet_spec(blocks=6, ngf=32), 128, 1),
    ("ResNet-9, ngf 64, 256, batch 1", resnet_spec(blocks=9, ngf=64), 256, 1),
    ("U-Net-128, ngf 32, 128, batch 4", unet_spec(halvings=7, ngf=32), 128, 4),
    ("U-Net-256, ngf 64, 256, batch 1", unet_spec(halvings=8, ngf=64), 256, 1),
    ("PatchGAN, ndf 64, 128, batch 1", patchgan_spec(ndf=64), 128, 1),
)
VARIANTS = (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True))


def one_pass(spec: NetworkSpec, size: int, batch: int, precision: str, *, last: bool) -> Callable[[], float]:
    """Return a function that runs forward and backward once and returns the seconds it took."""
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    network = Network(spec, layer_table(spec, (size, size))).train().to(memory_format=layout)
    x = torch.rand(batch, spec.in_channels, size, size).to(memory_format=layout)

    def run() -> float:
        network.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            y = network(x)
        y.float().square().mean().backward()
        return time.perf_counter() - start

    return run


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, spec, size, batch in CASES:
        runs = {variant: one_pass(spec, size, batch, variant[0], last=variant[1]) for variant in VARIANTS}
        seconds: dict[tuple[str, bool], list[float]] = {variant: [] for variant in VARIANTS}
        for number in range(arguments.rounds + 2):
            for variant, run in runs.items():
                took = run()
                if number >= 2:  # two rounds to warm up
                    seconds[variant].append(took)
        usual = statistics.median(seconds["fp32", False])
        for (precision, last), values in seconds.items():
            middle = statistics.median(values)
            rows.append(
                {
                    "network": name,
                    "precision": precision,
                    "channels_last": last,
                    "median_ms": middle * 1e3,
                    "samples_ms": [value * 1e3 for value in values],
                    "ratio_to_fp32": middle / usual,
                }
            )
            print(rows[-1]["network"], precision, last, f"{middle * 1e3:.1f} ms", f"{middle / usual:.2f}", flush=True)
    document = {
        "command": "python benchmarks/experiments/precision.py",
        "machine": this_machine().processor,
        "instruction_sets": list(this_machine().instruction_sets),
        "threads": torch.get_num_threads(),
        "tools": tool_versions(),
        "rows": rows,
    }
    (arguments.out / "precision.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    lines = ["| network | precision | channels last | ms | of fp32 |", "|---|---|---|---:|---:|"]
    lines += [
        f"| {row['network']} | {row['precision']} | {'yes' if row['channels_last'] else 'no'} | "
        f"{row['median_ms']:.1f} | {row['ratio_to_fp32']:.2f} |"
        for row in rows
    ]
    (arguments.out / "precision.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
