"""The process that reads mutants, `python -m tests.fuzz.fuzz_worker job.json`, apart: it may crash or hang.

For every mutant it measures time and peak memory, watches what Python is made to do (files written, processes started,
code compiled), and checks that the answer is a result or one clear sentence.
"""

from __future__ import annotations

import codecs
import faulthandler
import importlib
import json
import math
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge.errors import MggcEdgeError
from tests.fuzz import mutations

HANGS_AFTER = 30.0  # wall clock of one mutant; then its stack is printed and the process ends
MEMORY_CEILING = 1 << 30  # beyond what the process has when it starts on the first mutant
MAX_SENTENCE = 1300

_FORBIDDEN = (
    "compile", "exec", "import", "marshal.", "pickle.", "os.", "socket.", "subprocess.", "pty.", "ctypes.", "shutil.",
    "tempfile.",
    "urllib.", "http.", "ftplib.", "code.", "builtins.", "webbrowser.", "glob.",
)  # fmt: skip
# What goes on when nothing is wrong: folders are listed and files looked at.
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "import:encodings", "builtins.id")

watched: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what no reading of a file may cause."""
    if not watching:
        return
    if event == "open":
        mode, flags = arguments[1:3]
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & 0o3):
            watched.append(f"open for writing {arguments[0]!r}")
    elif event.startswith(_FORBIDDEN):
        name = f"{event}:{arguments[0]}" if event == "import" else event
        if not name.startswith(_HARMLESS):
            watched.append(f"{name} {str(arguments)[:200]}")


def peak_bytes() -> int:
    """Return the largest resident size since `reset_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Make the kernel forget the largest resident size so far, where it lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def data_bytes() -> int:
    """Return the private memory that the process has asked for."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


# -------------------------------------------------------------------------------------------------------------- targets


def read_checkpoint_mutant(path: Path) -> None:
    """Read a checkpoint as the package does, and look at every weight that comes out."""
    from mggc_edge.models.checkpoint import read_checkpoint, read_network_folder
    from mggc_edge.models.weights import load_weights

    network = load_weights(read_network_folder(path) if path.is_dir() else read_checkpoint(path))
    for name, tensor in network.state_dict().items():
        assert bool(tensor.isfinite().all()), f"{name} has values that are not finite"


def read_onnx_mutant(path: Path) -> None:
    """Gather the facts about an ONNX file."""
    from mggc_edge.compiler.facts import onnx_facts

    onnx_facts(path)


def run_onnx_mutant(path: Path) -> None:
    """Open an ONNX file and run it once on a picture of the size that it asks for."""
    from mggc_edge.opening import geometry, open_runner

    with open_runner(path) as runner:
        shapes = [tuple(size or 1 for size in tensor.shape) for tensor in runner.inputs]
        if sum(math.prod(shape) for shape in shapes) > 2**20:
            return  # whoever makes such an array has the memory for it
        feeds = {tensor.name: np.ones(shape, tensor.dtype) for tensor, shape in zip(runner.inputs, shapes, strict=True)}
        runner.infer(feeds)
        geometry(runner)


@dataclass(frozen=True)
class Target:
    """What is done with a file, and the CPU time and memory (beside 4 times the file's size) that it may take."""

    run: Callable[[Path], None]
    seconds: float = 2.0
    spare_bytes: int = 48 * 2**20


# How long a network runs, and in how much memory, is its own affair, within the bounds that it is opened with.
RUN = Target(run_onnx_mutant, seconds=10.0, spare_bytes=3 * MEMORY_CEILING // 4)
TARGETS: dict[str, tuple[Target, ...]] = {
    "checkpoint": (Target(read_checkpoint_mutant),),
    "onnx": (Target(read_onnx_mutant), RUN),
    "run": (RUN,),
}


# -------------------------------------------------------------------------------------------------------------- mutants


def mutant(number: int, target: str, seeds: list[Path], scratch: Path) -> Path:
    """Write mutant `number` into the folder `scratch`, and return its path; the number alone says what it is."""
    rng = random.Random(f"{target}-{number}")
    seed, other = seeds[number % len(seeds)], rng.choice(seeds)
    path = scratch / f"mutant{seed.suffix}"
    if seed.is_dir():
        return _folder_mutant(rng, seed, scratch / "mutant")
    data = seed.read_bytes()
    spare = data if other.is_dir() else other.read_bytes()
    blind = rng.random() < 0.3
    if target == "onnx" and not blind:
        path.write_bytes(mutations.mutate_onnx(rng, data))
    elif seed.suffix == ".safetensors" and not blind:
        path.write_bytes(mutations.mutate_safetensors(rng, data, spare))
    elif data.startswith(b"PK") and not blind:
        path.write_bytes(mutations.mutate_zip(rng, data, spare))
    elif data.startswith(b"\x80") and not blind:
        path.write_bytes(mutations.mutate_legacy(rng, data, spare))
    else:
        path.write_bytes(mutations.mutate_bytes(rng, data, spare))
    return path


def _folder_mutant(rng: random.Random, seed: Path, path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(seed, path)
    spec, weights = path / "spec.json", path / "weights.safetensors"
    if rng.random() < 0.7:
        spec.write_bytes(mutations.mutate_json_text(rng, spec.read_text(encoding="utf-8")))
    else:
        data = weights.read_bytes()
        change = mutations.mutate_safetensors if rng.random() < 0.5 else mutations.mutate_bytes
        weights.write_bytes(change(rng, data, data))
    return path


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder."""
    return sum(part.stat().st_size for part in path.iterdir()) if path.is_dir() else path.stat().st_size


def try_out(target: Target, path: Path) -> tuple[str, str, list[str]]:
    """Run a target on a mutant; return how it ended ("read" or the error's name), the error, and what is wrong."""
    global watching  # noqa: PLW0603
    watched.clear()
    reset_peak()
    before, start = peak_bytes(), time.process_time()
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    wrong: list[str] = []
    sentence = ""
    watching = True
    try:
        target.run(path)
        ending = "read"
    except MggcEdgeError as error:
        ending = type(error).__name__
        sentence = str(error).replace(str(path), "PATH")
        if not sentence.isprintable() or not 10 < len(sentence) <= MAX_SENTENCE:
            wrong.append(f"no clear sentence: {sentence[:300]!r}")
    except BaseException as error:  # noqa: BLE001
        watching = False  # a traceback compiles the lines that it marks
        ending = type(error).__name__
        wrong.append("".join(traceback.format_exception(error))[-2500:])
    finally:
        watching = False
        faulthandler.cancel_dump_traceback_later()
    seconds, memory = time.process_time() - start, peak_bytes() - before
    if seconds > target.seconds:
        wrong.append(f"took {seconds:.1f} s of CPU time")
    if memory > 4 * size_of(path) + target.spare_bytes:
        wrong.append(f"took {memory / 2**20:.0f} MiB for a file of {size_of(path):,} bytes")
    return ending, sentence, wrong + [f"caused {event}" for event in watched]


def main() -> None:
    """Do the job and write the report."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    seeds, scratch = [Path(seed) for seed in job["seeds"]], Path(job["scratch"])
    targets = TARGETS[job["target"]]
    faulthandler.enable()
    sys.addaudithook(watch)
    import torch

    torch.set_num_threads(1)
    # What is imported in rare cases only would look like code that is run.
    codecs.lookup("cp437")
    if job["target"] == "onnx":
        importlib.import_module("onnx.inliner")
    for seed in [*seeds, *(Path(seed) for seed in job["warm_up"])]:  # imports what is imported late
        for target in targets:
            ending, _, _ = try_out(target, seed)
            if seed in seeds and ending != "read":
                raise SystemExit(f"the seed {seed} itself cannot be read: {ending}")
    warnings.simplefilter("error")
    ceiling = data_bytes() + MEMORY_CEILING
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    endings: dict[str, int] = {}
    sentences: dict[str, str] = {}
    wrong: dict[str, list[str]] = {}
    in_flight = Path(job["in_flight"])
    for name, path in cases(job, seeds, scratch):
        for target in targets:
            what = f"{target.run.__name__}, {name}"
            in_flight.write_text(what, encoding="utf-8")
            ending, sentence, found = try_out(target, path)
            endings[ending] = endings.get(ending, 0) + 1
            if job["files"]:
                sentences[what] = sentence or ending
            if found:
                wrong[what] = found
        if Path(job["sentinel"]).exists():
            wrong[name] = ["code in the file was run"]
            break
    report = {"endings": endings, "sentences": sentences, "wrong": wrong}
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


def cases(job: dict[str, Any], seeds: list[Path], scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of every file to read: the files of the job, or mutants of its seeds."""
    for path in map(Path, job["files"]):
        yield path.name, path
    for number in range(job["first"], job["first"] + job["count"]):
        yield f"mutant {number} of {seeds[number % len(seeds)].name}", mutant(number, job["target"], seeds, scratch)


if __name__ == "__main__":
    main()
