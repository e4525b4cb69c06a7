"""Whether the gate can be trusted on a real machine: gates whose right answer is known.

    python -m mggc_edge.benchmarks.experiments.gate_trust [--threads 1] [--only N] [--out benchmarks/results]

40 gates compare a model with itself, in half of them every core is also loaded by another process; 20 compare it with
one that has a ninth to a seventh more layers, which is 11 to 14 % slower. What should come out: at most one of the 40
fails, at least 18 of the 20 do. A gate is the command that a user types, with a shorter warm-up for its small models.

It writes gate_trust.json after every gate, and goes on where it stopped; gate_trust.md is written anew each time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import atomic_write, read_json, tool_versions, write_json
from mggc_edge.benchmarks.experiments.chains import write_chain
from mggc_edge.machine import this_machine

NAME = "gate_trust"
SAME, LOADED, SLOWER = "the same model", "the same model, every core loaded", "a slower model"
GATES = {SAME: 20, LOADED: 20, SLOWER: 20}
LAYERS = (7, 8, 9)  # of the baseline; the slower model has one more
LIMIT = "5%"
WARM = "bench.warmup_seconds=0.3"
SECONDS = 600.0


def main(words: Sequence[str] | None = None) -> None:
    """Measure the gates that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", type=int, help="measure so many gates, and stop")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args(words)
    path = given.out / f"{NAME}.json"
    document = read(path, given.threads)
    missing = [place for place in plan() if place not in {(one["kind"], one["number"]) for one in document["gates"]}]
    # A loaded gate after each quiet one, so that both are spread over the same hours.
    for done, (kind, number) in enumerate(missing if given.only is None else missing[: given.only], start=1):
        gate = measured(kind, number, given.threads)
        document["gates"].append(gate)
        write_json(path, document)
        atomic_write(given.out / f"{NAME}.md", page(document).encode())
        print(f"{done} of {len(missing)}: {kind} {number}: {gate['verdict']} in {gate['seconds']:.0f} s", flush=True)
    print(page(document))


def plan() -> list[tuple[str, int]]:
    """Return every gate, (kind, number), the kinds in turn."""
    return [(kind, number) for number in range(max(GATES.values())) for kind in GATES if number < GATES[kind]]


def read(path: Path, threads: int) -> dict[str, Any]:
    """Return what was measured before; SystemExit where that was with other versions, or on another machine."""
    machine = this_machine()
    facts = {
        "command": f"mggc-edge bench HEAD --baseline BASE --max-regression {LIMIT} --threads {threads} --set {WARM}",
        "machine": {"processor": machine.processor, "cores": machine.cores},
        "versions": {name: tool_versions()[name] for name in ("mggc-edge", "onnxruntime", "numpy")},
    }
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {**facts, "gates": []}
    if any(found.get(name) != value for name, value in facts.items()):
        raise SystemExit(f"{path} was measured otherwise: move it away, or give the same flags")
    return found


def measured(kind: str, number: int, threads: int) -> dict[str, Any]:
    """Run one gate, and return what it said."""
    layers = LAYERS[number % len(LAYERS)]
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as name:
        folder = Path(name)
        base = write_chain(folder / "base.onnx", layers)
        head = write_chain(folder / "head.onnx", layers + 1) if kind == SLOWER else base
        command = [
            sys.executable, "-m", "mggc_edge.cli", "--quiet", "bench", str(head), "--baseline", str(base),
            "--max-regression", LIMIT, "--threads", str(threads), "--seed", str(number), "--json",
            "--set", WARM,
        ]  # fmt: skip
        began = time.monotonic()
        with load() if kind == LOADED else contextlib.nullcontext():
            ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if ran.returncode not in (0, 3, 4):
        raise SystemExit(f"the gate ended with exit code {ran.returncode}: {ran.stderr.strip()}")
    document = json.loads(ran.stdout)
    (model,) = document["gate"]["models"]
    return {
        "kind": kind,
        "number": number,
        "layers": layers,
        "verdict": document["gate"]["verdict"],
        "exit_code": ran.returncode,
        "slowdown": model["latency"]["slowdown"],
        "interval": model["latency"]["interval"],
        "minimum_detectable_effect": model["latency"]["minimum_detectable_effect"],
        "reason": model["latency"]["reason"],
        "rounds": document["gate"]["rounds"],
        "baseline_ms": document["runs"][0]["latency_ms"]["p50"],
        "pairs_left_out": document["comparisons"][0]["pairs_left_out"],
        "warnings": [one["code"] for one in document["warnings"]],
        "seconds": time.monotonic() - began,
    }


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Keep every core busy with a process that does nothing else."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def page(document: dict[str, Any]) -> str:
    """Return the table of verdicts in Markdown."""
    machine, gates = document["machine"], document["gates"]
    head = "| models | gates | passed | inconclusive | failed | measured twice | slowdown, estimated | median seconds |"
    rows = [row(kind, [one for one in gates if one["kind"] == kind]) for kind in GATES]
    same = [one for one in gates if one["kind"] != SLOWER]
    slower = [one for one in gates if one["kind"] == SLOWER]
    alarms, found = (sum(one["verdict"] == "fail" for one in some) for some in (same, slower))
    return (
        f"# The gate on a real machine\n\n`{document['command']}` on {machine['processor']}, {machine['cores']} cores, "
        f"onnxruntime {document['versions']['onnxruntime']}; made by\n"
        f"`python -m mggc_edge.benchmarks.experiments.{NAME}`. The slower model has one layer more than its baseline's "
        f"{LAYERS[0]} to {LAYERS[-1]}.\n\n"
        + "\n".join([head, "| --- " * 8 + "|", *rows])
        + f"\n\nFalse alarms: {alarms} of {len(same)}. Slowdowns found: {found} of {len(slower)}.\n"
    )


def row(kind: str, gates: Sequence[dict[str, Any]]) -> str:
    """Return a row of the table."""
    counts = [str(sum(one["verdict"] == verdict for one in gates)) for verdict in ("pass", "inconclusive", "fail")]
    twice = sum(len(one["rounds"]) == 2 for one in gates)
    slowdowns = [one["slowdown"] for one in gates]
    between = f"{min(slowdowns):+.1%} to {max(slowdowns):+.1%}" if gates else "-"
    seconds = f"{statistics.median(one['seconds'] for one in gates):.0f}" if gates else "-"
    return f"| {kind} | {len(gates)} | {' | '.join(counts)} | {twice} | {between} | {seconds} |"


if __name__ == "__main__":
    main()
