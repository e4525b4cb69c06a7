"""Inspect, export, verify and slim two real generators, with the commands that a user has.

    python benchmarks/experiments/real_weights.py --data $DATA [--out benchmarks/results]

$DATA holds `weights/facades_pix2pix/latest_net_G.pth` with `data/facades/test`, and
`weights/horse2zebra_cyclegan/latest_net_G_A.pth` with `data/horse2zebra/testA`. Writes real_weights.json and
real_weights.md: what was found, and how far the exported files are from torch on every test picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mggc_edge import load_network, random_plan
from mggc_edge.artifacts import tool_versions
from mggc_edge.models.weights import weights_sha256

BUDGET = 0.05
SEED = 0
COLUMNS = (
    "generator", "", "parameters", "MACs (true)", "MACs (paper)", "ONNX file", "pictures",
    "max abs. difference to torch", "PSNR to torch",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A real generator, the pictures it is tried on, and the flags that these need."""

    name: str
    weights: str
    pictures: str
    size: int
    flags: tuple[str, ...] = ()


CASES = (
    Case(
        "facades, labels to photo",
        "weights/facades_pix2pix/latest_net_G.pth",
        "data/facades/test",
        128,
        ("--layout", "paired", "--direction", "BtoA"),
    ),
    Case(
        "horse to zebra",
        "weights/horse2zebra_cyclegan/latest_net_G_A.pth",
        "data/horse2zebra/testA",
        128,
    ),
)


def command(*words: object) -> dict[str, Any]:
    """Run one mggc-edge command and return its JSON document."""
    line = [sys.executable, "-m", "mggc_edge.cli", *map(str, words), "--json", "--quiet"]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def study(case: Case, data: Path, folder: Path) -> dict[str, Any]:
    """Return what the commands say about one case."""
    weights, pictures = data / case.weights, data / case.pictures
    size = ("--image-size", case.size)
    network = load_network(weights, image_size=(case.size, case.size))
    plan = folder / "plan.json"
    chosen = random_plan(network.table, BUDGET, seed=SEED, source_sha256=weights_sha256(network))
    plan.write_text(json.dumps(chosen.to_json()))
    inspected = command("inspect", weights, *size)
    exported = command("export", weights, "--out", folder / "run", "--plan", plan, *size)
    original, slim = (
        folder / "run/export/portable/original.fp32.onnx",
        folder / "run/export/portable/generator.fp32.onnx",
    )
    images = ("--images", pictures, *case.flags)
    return {
        "name": case.name,
        "inspect": {
            key: inspected[key] for key in ("family", "norm", "parameters", "image_size", "macs_true", "macs_paper")
        },
        "budget_met": chosen.budget_met,
        "original": exported["original"],
        "slim": exported["compressed"],
        "verify_original": command("verify", weights, original, *images),
        "verify_slim": command("verify", folder / "run/slim", slim, *images),
    }


def page(document: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    lines = [
        "# Two real generators, exported and slimmed by a random plan",
        "",
        f"`{document['command']}`, random plan at {BUDGET:.0%} of `macs_true`, seed {SEED}; "
        + ", ".join(f"{name} {version}" for name, version in document["tools"].items() if version)
        + ".",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in document["cases"]:
        at = "x".join(map(str, case["inspect"]["image_size"]))
        for label in ("original", "slim"):
            cost, proof = case[label], case[f"verify_{label}"]
            name = f"{case['name']}: {case['inspect']['family']} at {at}" if label == "original" else ""
            psnr = "identical" if proof["psnr"] is None else f"{proof['psnr']:.1f} dB"
            lines.append(
                f"| {name} | {label} | {cost['parameters']:,} | {cost['macs_true']:,} | {cost['macs_paper']:,} | "
                f"{cost['size_bytes']:,} B | {proof['images']} | {proof['max_abs']:.2e} | {psnr} |"
            )
    lines += [
        "",
        "Differences are of outputs in [-1, 1]. A random plan says nothing about picture quality, only that slimming",
        "and export are exact at any width.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run both cases and write the two result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    cases = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            cases.append(study(case, options.data, Path(folder)))
    for case in cases:  # paths of this machine say nothing to others
        for label in ("verify_original", "verify_slim"):
            case[label] = {key: value for key, value in case[label].items() if key not in ("reference", "candidate")}
    document = {
        "command": "python benchmarks/experiments/real_weights.py --data $DATA",
        "tools": tool_versions(),
        "cases": cases,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "real_weights.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.out / "real_weights.md").write_text(page(document))


if __name__ == "__main__":
    main()
