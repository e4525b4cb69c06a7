"""What the harness costs: its samples against a bare loop over the same session call.

    python -m mggc_edge.benchmarks.experiments.harness_cost [--threads 1] [--rounds 200] [--out benchmarks/results]

In one process, in random order: so many runs of a model in a bare loop, as many by its worker, and as many in turns
with another worker of the same model, as the harness does it. The latency that the worker reports should be at most 1 %
more. Beside it stand the whole time of its sample, with all that it notes, and what the turns add: caches that the
other model has taken, for both models alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge.artifacts import atomic_write, write_json
from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.benchmarks.agent.worker import Worker
from mggc_edge.benchmarks.experiments.chains import write_chain
from mggc_edge.benchmarks.experiments.circumstances import circumstances, made_by
from mggc_edge.benchmarks.harness import runs_per_pair, schedule
from mggc_edge.benchmarks.stats import compare

NAME = "harness_cost"
MODELS = {"small": (2, 16, 32), "middle": (8, 32, 64), "large": (8, 64, 128)}  # layers, channels, size
GROUP = 6  # rounds that belong together, as those of a process do


def main(words: Sequence[str] | None = None) -> None:
    """Measure all models, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args(words)
    found = []
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
        for name, (layers, channels, size) in MODELS.items():
            path = write_chain(Path(folder) / f"{name}.onnx", layers, channels=channels, size=size)
            found.append({"model": name, **measured(path, given.threads, given.rounds)})
            print(found[-1]["model"], f"{found[-1]['loop_ms']:.3f} ms", found[-1]["reported"], flush=True)
    document = {
        **circumstances(NAME, given.threads),
        "models": found,
    }
    write_json(given.out / f"{NAME}.json", document)
    text = page(document)
    atomic_write(given.out / f"{NAME}.md", text.encode())
    print(text)


def measured(path: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Return what the worker adds to a bare loop, as fractions with their 99 % intervals."""
    workers = [Worker(), Worker()]
    for worker in workers:
        worker.answer(
            {
                "do": "open", "path": str(path), "runtime": "onnxruntime", "provider": provider_name("cpu"),
                "precision": "fp32", "threads": threads, "image_size": None, "seed": 0,
            }
        )  # fmt: skip
        warm = worker.answer({"do": "warm", "min_runs": 10, "min_ns": 10**9, "max_ns": 10**10})
    runs = runs_per_pair(warm["median_ns"])
    first = workers[0]
    session, names, feeds = first._engine._session, first._engine._names, first._feeds  # noqa: SLF001
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {"loop": [], "reported": [], "whole": [], "turns": []}
    for _ in range(rounds):
        for which in random.permutation(3).tolist():
            session.run(names, feeds)  # whatever was before, caches are its own
            if which == 0:
                began = time.perf_counter_ns()
                for _ in range(runs):
                    session.run(names, feeds)
                times["loop"].append((time.perf_counter_ns() - began) / runs)
            elif which == 1:
                began = time.perf_counter_ns()
                samples = first.answer({"do": "sample", "runs": runs, "untimed": 0})["samples_ns"]
                times["whole"].append((time.perf_counter_ns() - began) / runs)
                times["reported"].append(sum(samples) / runs)
            else:
                times["turns"].append(sum(in_turns(workers, runs, random)) / runs)
    return {
        "runs": runs,
        "rounds": rounds,
        "loop_ms": float(np.median(times["loop"])) / 1e6,
        **{name: added(times["loop"], found) for name, found in times.items() if name != "loop"},
    }


def in_turns(workers: Sequence[Worker], runs: int, random: np.random.Generator) -> list[int]:
    """Return the samples of the first worker in ns, as the harness takes them."""
    samples: list[int] = []
    for index, part in schedule([runs] * len(workers), 1, random)[0]:
        answer = workers[index].answer({"do": "sample", "runs": part, "untimed": int(runs > 1)})
        samples += answer["samples_ns"] if index == 0 else []
    return samples


def added(loops: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """Return by which fraction `others` are longer, from rounds in groups."""
    pairs = list(zip(others, loops, strict=True))
    ratio = compare([pairs[start : start + GROUP] for start in range(0, len(pairs), GROUP)], 0.01)
    interval = None if ratio.ci99 is None else [end - 1 for end in ratio.ci99]
    return {"value": ratio.value - 1, "ci99": interval}


def page(document: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    head = (
        "| model | bare loop | runs of a sample | reported latency | whole time of a sample | reported, in turns |",
        "| --- " * 6 + "|",
    )
    rows = [
        f"| {one['model']} | {one['loop_ms']:.3f} ms | {one['runs']} "
        f"| {words(one['reported'])} | {words(one['whole'])} | {words(one['turns'])} |"
        for one in document["models"]
    ]
    return (
        f"# What the harness costs\n\n{made_by(document)} By how much more than a bare loop "
        "over the same session call, with the 99 % interval.\n\n" + "\n".join([*head, *rows]) + "\n"
    )


def words(found: dict[str, Any]) -> str:
    """Return a fraction and its interval."""
    ends = found["ci99"]
    return f"{found['value']:+.2%}" + ("" if ends is None else f" ({ends[0]:+.2%} to {ends[1]:+.2%})")


if __name__ == "__main__":
    main()
