"""How long `mggc-edge bench` takes with its defaults: two models of 20 ms, and a gate that measures twice.

    python -m mggc_edge.benchmarks.experiments.bench_seconds [--threads N] [--out benchmarks/results]

N is the default of `bench`, one for every core, if it is not given. Both should end within 60 and 150 seconds. The
gate's model has a seventh more layers than its baseline, so that the first round fails it and everything is measured
once more. Writes bench_seconds.json and bench_seconds.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import atomic_write, write_json
from mggc_edge.benchmarks.experiments.chains import write_chain
from mggc_edge.benchmarks.experiments.circumstances import circumstances, made_by
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.machine import this_machine

NAME = "bench_seconds"
LATENCY_MS = 20.0
LAYERS, CHANNELS = 7, 64
TRIED = 3  # sizes, each nearer to that latency
MOST = {"comparison": 60.0, "gate": 150.0}


def main(words: Sequence[str] | None = None) -> None:
    """Time both, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=this_machine().cores)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as name:
        base, same, slower = models(Path(name), given.threads)
        commands = {
            "comparison": [str(base), str(same)],
            "gate": [str(slower), "--baseline", str(base), "--max-regression", "5%"],
        }
        found = {kind: timed([*words, "--threads", str(given.threads)]) for kind, words in commands.items()}
    document = {
        **circumstances(NAME, given.threads),
        **found,
    }
    write_json(given.out / f"{NAME}.json", document)
    text = page(document)
    atomic_write(given.out / f"{NAME}.md", text.encode())
    print(text)


def models(folder: Path, threads: int) -> tuple[Path, Path, Path]:
    """Write a model of about 20 ms, a copy of it, and one that is slower by a seventh."""
    size = 64
    for _ in range(TRIED):
        probe = write_chain(folder / "probe.onnx", LAYERS, channels=CHANNELS, size=size)
        report = measure([Workload("probe", probe)], threads=threads, pairs=10, processes=5, warmup_seconds=0.3)
        size = round(size * (LATENCY_MS / report.runs[0].p50_ms) ** 0.5)
    paths = [folder / f"{name}.onnx" for name in ("base", "same", "slower")]
    for path, layers in zip(paths, (LAYERS, LAYERS, LAYERS + 1), strict=True):
        write_chain(path, layers, channels=CHANNELS, size=size)
    return paths[0], paths[1], paths[2]


def timed(words: Sequence[str]) -> dict[str, Any]:
    """Run `bench` as a user would, and return how long that took, with what it says of itself."""
    began = time.monotonic()
    command = [sys.executable, "-m", "mggc_edge.cli", "--quiet", "bench", *words, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if ran.returncode not in (0, 3, 4):
        raise SystemExit(f"bench ended with exit code {ran.returncode}: {ran.stderr.strip()}")
    document = json.loads(ran.stdout)
    return {
        "seconds": seconds,
        "exit_code": ran.returncode,
        "rounds": len(document["gate"].get("rounds", [])) or 1,
        "pairs": document["comparisons"][0]["pairs"] + document["comparisons"][0]["pairs_left_out"],
        "p50_ms": [run["latency_ms"]["p50"] for run in document["runs"]],
    }


def page(document: Mapping[str, Any]) -> str:
    """Return the table in Markdown."""
    lines = [
        "# How long bench takes",
        "",
        made_by(document),
        "",
        "| what | models | rounds | pairs | seconds | at most |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, most in MOST.items():
        one = document[kind]
        sizes = " and ".join(f"{value:.1f} ms" for value in one["p50_ms"])
        lines.append(f"| {kind} | {sizes} | {one['rounds']} | {one['pairs']} | {one['seconds']:.0f} | {most:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
