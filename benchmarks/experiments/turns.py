"""What turns and cores bring: how far a model is from itself, pair by pair.

    python -m mggc_edge.benchmarks.experiments.turns [--threads 1] [--blocks 10] [--out benchmarks/results]

Two copies of a model are measured as the harness does it, two pairs in fresh processes, again and again: with samples
in one piece and in up to 8 turns, on whatever cores the system chooses and both on the same one; these four in random
order, so that all see the same machine. The ratio of the copies is 1; its spread from pair to pair is what intervals
come from. Writes turns.json, with every pair, and turns.md.
"""

from __future__ import annotations

import argparse
import functools
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mggc_edge.artifacts import atomic_write, write_json
from mggc_edge.benchmarks import harness
from mggc_edge.benchmarks.experiments.chains import write_chain
from mggc_edge.benchmarks.experiments.circumstances import circumstances, made_by
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.samples import paired
from mggc_edge.benchmarks.workload import Workload

NAME = "turns"
MODELS = {"small": (8, 32, 64), "middle": (8, 64, 64), "large": (8, 64, 128)}  # layers, channels, size
ONE, TURNS = "in one piece", f"in up to {harness.MOST_TURNS} turns"
FREE, KEPT = "any core", "the same core"
VARIANTS = tuple((cores, samples) for cores in (FREE, KEPT) for samples in (ONE, TURNS))
PAIRS = 2  # of a block


def main(words: Sequence[str] | None = None) -> None:
    """Measure all models, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args(words)
    document = {
        **circumstances(NAME, given.threads),
        "models": [],
    }
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
        for name, (layers, channels, size) in MODELS.items():
            path = write_chain(Path(folder, f"{name}.onnx"), layers, channels=channels, size=size)
            document["models"].append({"model": name, **measured(path, given.threads, given.blocks)})
            write_json(given.out / f"{NAME}.json", document)
            atomic_write(given.out / f"{NAME}.md", page(document).encode())
    print(page(document))


def measured(path: Path, threads: int, blocks: int) -> dict[str, Any]:
    """Return the log ratios of a model and its copy, by turns."""
    copy = Path(shutil.copy(path, path.with_suffix(".copy.onnx")))
    models = [Workload("a", path), Workload("b", copy)]
    found: dict[tuple[str, str], list[float]] = {variant: [] for variant in VARIANTS}
    seconds, latencies = dict.fromkeys(VARIANTS, 0.0), list[float]()
    random = np.random.default_rng(0)
    for block in range(blocks):
        for number in random.permutation(len(VARIANTS)).tolist():
            variant = VARIANTS[number]
            cores, samples = variant
            began = time.monotonic()
            opened = functools.partial(open_on, chosen=block if cores == KEPT else None)
            with (
                mock.patch.object(harness, "MOST_TURNS", 1 if samples == ONE else harness.MOST_TURNS),
                mock.patch.object(harness, "open_request", opened),
            ):
                report = harness.measure(
                    models, threads=threads, pairs=PAIRS, processes=1, warmup_seconds=0.3, seed=block
                )
            seconds[variant] += time.monotonic() - began
            (pairs,) = paired(*(run.processes for run in report.runs)).medians
            found[variant] += [math.log(a / b) for a, b in pairs]
            latencies += [a for a, _ in pairs]
    return {
        "latency_ms": float(np.median(latencies)) / 1e6,
        "runs": report.runs[0].runs_per_pair,
        "variants": [
            {
                "cores": cores,
                "samples": samples,
                "log_ratios": found[cores, samples],
                "seconds_per_pair": seconds[cores, samples] / (blocks * PAIRS),
            }
            for cores, samples in VARIANTS
        ],
    }


def open_on(model: Workload, place: str, threads: int, seed: int, block: int, chosen: int | None) -> dict[str, Any]:
    """Return the request that opens a model on the cores of the chosen block instead of the harness's own."""
    del block
    return open_request(model, place, threads, seed, block=chosen)


def spread(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the standard deviation, as far as single pairs far off do not make it, with its 95 % interval.

    It is 1.48 times the median distance from 0; the interval is the bootstrap's, over pairs.
    """
    distances = np.abs(np.asarray(values))
    drawn = np.random.default_rng(0).choice(distances, (4000, len(distances)))
    low, high = np.quantile(1.4826 * np.median(drawn, axis=1), (0.025, 0.975))
    return 1.4826 * float(np.median(distances)), (float(low), float(high))


def page(document: Mapping[str, Any]) -> str:
    """Return the table in Markdown."""
    lines = [
        "# What turns and cores bring",
        "",
        (
            f"{made_by(document)} How far a model is from its own copy in a pair: standard deviation (1.48 times the "
            "median distance, with its 95 % interval), and what a pair takes with its share of opening and warming up."
        ),
        "",
        "| model | inferences of a sample | both processes on | samples | spread | seconds a pair |",
        "| --- | ---: | --- | --- | ---: | ---: |",
    ]
    for one in document["models"]:
        for variant in one["variants"]:
            value, (low, high) = spread(variant["log_ratios"])
            lines.append(
                f"| {one['model']}, {one['latency_ms']:.1f} ms | {one['runs']} | {variant['cores']} "
                f"| {variant['samples']} | {value:.2%} ({low:.2%} to {high:.2%}) | {variant['seconds_per_pair']:.2f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
