"""The process that runs one model, `python agent worker`: requests come as lines of JSON, and so do the answers.

What it measures is the model's own load time and memory: it loads nothing but the engine that it is asked for. It runs
nothing unless it is asked to: two workers that are asked in turn never compete for the cores.

    {"do": "open", "path", "runtime", "provider", "precision", "threads", "image_size", "seed", "block"}
                                                   -> load_ns, first_ns, inputs, provider, versions, ...
    {"do": "warm", "min_runs", "min_ns", "max_ns"} -> runs, ns, settled, median_ns
    {"do": "sample", "runs", "untimed"}            -> samples_ns, noted
    {"do": "steady", "ns"}                         -> runs, start_ns, end_ns: for so long, without a pause
    {"do": "profile", "parts", "runs", "untimed"}  -> samples_ns, file; only after "open" with "profile", and once
    {"do": "save", "file"}                         -> nothing; the file, a .npz, has what goes in and what comes out
    {"do": "copy", "threads", "bytes", "copies"}   -> best_ns: to copy so many bytes; needs no model
    {"do": "build", "bundle", "file", "precision"} -> engine: where it lies; needs no model, see bundle.py
    {"do": "close"}                                -> rss_peak_bytes; the process ends

An answer with the key `error` ("missing", "provider", "model", "engine", "size", "fixed", "input", "file") has a
`message`; the process then ends.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

from .cores import running_times, spread, take_cores
from .engines import ENGINES, TYPES, Engine, RefusalError

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import numpy as np

BLOCK = 5  # runs of a block of the warm-up
LEAST_WARM = 2  # runs of a warm-up
SETTLED = 0.02  # largest relative difference of the medians of the last two blocks
MAX_ELEMENTS = 2**28  # of one input
INPUT_FORMAT = "mggc_edge.input_format"  # key of the metadata in which an exported file says what it takes


class Worker:
    """One opened model and its feeds."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._feeds: dict[str, np.ndarray[Any, Any]] = {}
        self._cores: list[int] | None = None  # that this process is kept on
        self._slept = _slept_ns()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for and return the answer."""
        do = request["do"]
        if do == "open":
            return self._open(request)
        if do == "warm":
            return self._warm(request["min_runs"], request["min_ns"], request["max_ns"])
        if do == "sample":
            for _ in range(request["untimed"]):
                self._run()
            return self._sample(request["runs"])
        if do == "steady":
            return self._steady(request["ns"])
        if do == "profile":
            return self._profile(request["parts"], request["runs"], request["untimed"])
        if do == "save":
            return self._save(request["file"])
        if do == "build":
            from .bundle import engine_of

            return engine_of(request["bundle"], request["file"], request["precision"])
        if do == "copy":
            return {"best_ns": _copy_ns(request["threads"], request["bytes"], request["copies"])}
        return {"rss_peak_bytes": _memory("VmHWM")}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        np = _numpy()
        if request.get("block") is not None:
            self._cores = take_cores(request["threads"], request["block"])
        engine = ENGINES[request["runtime"]]()
        before = _memory("VmRSS")
        start = time.perf_counter_ns()
        engine.open({**request, "cores": self._cores})
        load = time.perf_counter_ns() - start
        self._engine = engine
        generator = np.random.default_rng(request["seed"])
        values = _range(engine.metadata)
        for name, dtype, dims in engine.inputs:
            shape = _shape(name, dims, request["image_size"], bytes_=dtype == "uint8")
            self._feeds[name] = _feed(generator, name, dtype, shape, values)
        first = time.perf_counter_ns()
        outputs = engine.run(self._feeds)
        first = time.perf_counter_ns() - first
        for array in outputs.values() if hasattr(outputs, "values") else outputs:
            if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
                raise RefusalError("model", "it returns values that are not finite for a picture of random values")
        del outputs
        gc.collect()
        gc.freeze()
        gc.disable()
        return {
            "cores": self._cores,
            "load_ns": load,
            "first_ns": first,
            "rss_before_bytes": before,
            "device_bytes": engine.device_bytes,
            "provider": engine.provider,
            "inputs": [
                {"name": name, "dtype": feed.dtype.name, "shape": list(feed.shape)}
                for name, feed in self._feeds.items()
            ],
            "versions": {**engine.versions, "numpy": np.__version__},
        }

    def _run(self) -> int:
        """Run once; return the time outside the engine in ns."""
        assert self._engine is not None
        start = time.perf_counter_ns()
        self._engine.run(self._feeds)
        return time.perf_counter_ns() - start

    def _sample(self, runs: int) -> dict[str, Any]:
        """Time so many runs; note what the kernel counted meanwhile, in ns (see `disturbance.Noted`)."""
        take = getattr(self._engine, "take_enqueue_ns", None)  # of engines whose work goes on by itself
        if take is not None:
            take()
        # What is slow to read is read farther from the runs.
        waited, switches, cpu, wall = _waited(), _switches(), time.process_time_ns(), time.perf_counter_ns()
        samples = [self._run() for _ in range(runs)]
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        before, self._slept = self._slept, _slept_ns()
        noted = {
            "wall_ns": wall,
            "cpu_ns": cpu,
            "involuntary_switches": _difference(switches, _switches()),
            "waited_ns": _difference(waited, _waited()),
            "suspended_ns": _difference(before, self._slept),
            "enqueue_ns": None if take is None else take(),
        }
        return {"samples_ns": samples, "noted": noted}

    def _steady(self, least_ns: int) -> dict[str, Any]:
        """Run without a pause for so long; return how often, and between which moments."""
        runs, start = 0, time.perf_counter_ns()
        end = start
        while end - start < least_ns:
            self._run()
            runs, end = runs + 1, time.perf_counter_ns()
        return {"runs": runs, "start_ns": start, "end_ns": end}

    def _profile(self, parts: int, runs: int, untimed: int) -> dict[str, Any]:
        """After the warm-up run so many times in so many parts; the engine writes down where the time went."""
        assert self._engine is not None
        for _ in range(untimed):
            self._run()
        self._engine.note_profile()
        samples = []
        for _ in range(parts):
            samples += [self._run() for _ in range(runs)]
            self._engine.note_profile()
        return {"samples_ns": samples, "file": self._engine.end_profile()}

    def _save(self, path: str) -> dict[str, Any]:
        """Run once and write the inputs, by name, and the outputs, by number, into a file."""
        assert self._engine is not None
        found = self._engine.run(self._feeds)
        arrays = {f"input {name}": feed for name, feed in self._feeds.items()}
        outputs = found.values() if hasattr(found, "values") else found
        arrays.update({f"output {number}": array for number, array in enumerate(outputs)})
        try:
            _numpy().savez(path, **arrays)
        except OSError as error:
            raise RefusalError("file", f"'{path}' cannot be written: {error.strerror}") from error
        return {}

    def _warm(self, min_runs: int, min_ns: int, max_ns: int) -> dict[str, Any]:
        """Run until two blocks in a row take the same time, or until `max_ns` have gone; then at least 2 runs.

        By what they compute meanwhile the threads of the engine are known; each gets a core of its own.
        """
        times: list[int] = []
        total, before = 0, running_times()
        while True:
            times.append(self._run())
            total += times[-1]
            # A slow model has few runs in `max_ns`: its blocks are shorter, never below 2 runs.
            block = min(BLOCK, len(times) // 2)
            settled = block >= 2 and _settled(times[-2 * block : -block], times[-block:])
            enough = settled and len(times) >= min_runs and total >= min_ns
            ended = enough or (total >= max_ns and len(times) >= LEAST_WARM)
            if self._cores is not None and (ended or len(times) == LEAST_WARM):
                ran = running_times()
                spread(self._cores, {thread: ns - before.get(thread, 0) for thread, ns in ran.items()})
            if ended:
                return {"runs": len(times), "ns": total, "settled": settled, "median_ns": _median(times[-BLOCK:])}


def _copy_ns(threads: int, size: int, copies: int) -> int:
    """Return the least time in ns that so many threads took to copy an array of so many bytes."""
    from concurrent.futures import ThreadPoolExecutor

    np = _numpy()
    source, target = (np.ones(size, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(copies + 1):  # the first one starts the threads
            began = time.perf_counter_ns()
            list(pool.map(lambda part: np.copyto(*part), parts))  # which lets go of the interpreter
            times.append(time.perf_counter_ns() - began)
    return min(times)


def _numpy() -> ModuleType:
    try:
        import numpy as np
    except ImportError as error:
        raise RefusalError("missing", f"numpy cannot be imported here: {error}") from error
    return np


def _settled(before: list[int], after: list[int]) -> bool:
    return abs(_median(after) - _median(before)) <= SETTLED * _median(before)


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _shape(name: str, dims: list[int | str | None], image_size: list[int] | None, *, bytes_: bool = False) -> list[int]:
    """Return the sizes of an input [N, C, H, W], of bytes [N, H, W, C]: open N is 1, open H and W the picture size."""
    shape = []
    first = 1 if bytes_ and dims[-1:] in ([1], [3], [4]) else 2  # axis of the height
    for axis, size in enumerate(dims):
        if isinstance(size, int) and size > 0:
            shape.append(size)
        elif axis == 0:
            shape.append(1)
        elif len(dims) == 4 and axis in (first, first + 1):
            if image_size is None:
                raise RefusalError("size", "it takes pictures of any size")
            shape.append(image_size[axis - first])
        else:
            raise RefusalError("input", f"its input '{name}' leaves axis {axis} open")
    sides = shape[first : first + 2]
    if image_size is not None and len(dims) == 4 and sides != image_size:
        raise RefusalError("fixed", f"it takes pictures of {sides[0]}x{sides[1]} only")
    return shape


def _range(metadata: Mapping[str, str]) -> tuple[float, float]:
    """Return the values of black and white that a file of ours says it takes; -1 and 1 where it does not say."""
    try:
        form = json.loads(metadata[INPUT_FORMAT])
        low, high = float(form["low"]), float(form["high"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return -1.0, 1.0
    return (low, high) if -1e37 <= low < high <= 1e37 else (-1.0, 1.0)


def _feed(
    generator: np.random.Generator, name: str, dtype: str, shape: list[int], values: tuple[float, float]
) -> np.ndarray[Any, np.dtype[Any]]:
    """Return random values of a picture: floats in the range `values`, bytes in [0, 255]; zeros of any other type."""
    if dtype not in TYPES.values():
        raise RefusalError("input", f"its input '{name}' has the type {dtype}, which cannot be fed")
    count = 1
    for size in shape:
        count *= size
    if count > MAX_ELEMENTS:
        raise RefusalError("input", f"its input '{name}' has {count:,} elements; at most {MAX_ELEMENTS:,} are fed")
    if dtype.startswith("float"):
        return generator.uniform(*values, shape).astype(dtype)
    if dtype == "uint8":
        return generator.integers(0, 256, shape).astype(dtype)
    return generator.integers(0, 1, shape).astype(dtype)


def _memory(field: str) -> int | None:
    """Return a size that Linux keeps about this process, in bytes; None elsewhere.

    VmHWM, not ru_maxrss: that one begins with the size of the process that started this one.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _switches() -> int | None:
    """Return how often threads of this process were stopped although they could have gone on; None off Unix."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _waited(tasks: Path = Path("/proc/self/task")) -> int | None:
    """Return for how long, in ns, threads of this process wanted to run and had no core; None where nothing says so.

    Linux keeps it per thread, in schedstat: time on a core, time waited for one, turns.
    """
    total = known = 0
    with contextlib.suppress(OSError):
        for task in tasks.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has just ended
                ran, waited = map(int, (task / "schedstat").read_text(encoding="ascii").split()[:2])
                total, known = total + waited, known + ran
    return total if known else None  # a kernel that does not count shows zeros


def _slept_ns() -> int | None:
    """Return for how long the machine has slept since it started; None where no clock goes on meanwhile."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until one closes, one fails, or there are no more."""
    worker = Worker()
    for line in requests:
        request = json.loads(line)
        try:
            answer = worker.answer(request)
        except RefusalError as refusal:
            answer = {"error": refusal.kind, "message": str(refusal)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer or request["do"] == "close":
            return


def main() -> None:
    """Serve this process's stdin and stdout; what a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
