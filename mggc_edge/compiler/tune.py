"""Which passes of a target's list pay for one graph on this machine: measured, each against the list without it.

All candidates take turns in one interleaved measurement: the graph with the whole list, and for every pass that has a
site the graph with the list less that pass. A pass stays where leaving it out is slower, by the whole 99 % interval;
so two that only pay together (a convolution for a transposed one, and a fast DepthToSpace) both do. Where more than one
pass goes, the graph without them is held against the whole list once more, and the list wins if it is faster.

It is measured in the engine that is to run the graph: what saves one of them work may cost another some. What was found
is kept below the user's cache folder, by graph, target, machine, engine, threads, versions and how long was measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge._version import __version__
from mggc_edge.artifacts import atomic_write
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME, ORT_MOBILE, onnxruntime_version
from mggc_edge.backends.openvino import OPENVINO, openvino_version
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import BenchmarkReport, Comparison
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.compiler.passes.contract import GraphPass, apply_passes
from mggc_edge.compiler.targets import AUTO, NONE, TARGETS, choose_passes, this_target
from mggc_edge.errors import ArtifactError, MggcEdgeError
from mggc_edge.machine import Machine, this_machine
from mggc_edge.settings import Settings

if TYPE_CHECKING:
    import onnx

SCHEMA = "mggc-edge/tuning/1"
LIST = "the target's list"
MOST = 7  # passes that are tried: so many models beside the list are measured together
Measure = Callable[..., BenchmarkReport]
# Engines that passes are chosen by, with what says their version. A .ort file is made of the .onnx file that ONNX
# Runtime runs; TensorRT builds its engines elsewhere.
ENGINES: Mapping[str, Callable[[], str]] = {ONNX_RUNTIME: onnxruntime_version, OPENVINO: openvino_version}


@dataclass(frozen=True)
class TuneSettings:
    """How long a choice may be measured.

    Attributes:
        pairs, processes, max_seconds: of a measurement, see `mggc_edge.benchmarks.harness.measure`.
        threads: that the graph is to run with; None: one for every core.
        engine: that it is to run in, a key of `ENGINES`.
    """

    pairs: int = 12
    processes: int = 6
    max_seconds: float = 60.0
    threads: int | None = None
    engine: str = ONNX_RUNTIME

    @classmethod
    def from_settings(cls, settings: Settings) -> TuneSettings:
        """Return what the settings in effect say."""
        return cls(settings["export.tune_pairs"], settings["export.tune_processes"], settings["export.tune_seconds"])

    def within(self, engine: str) -> TuneSettings:
        """Return the same for another engine."""
        return replace(self, engine=engine)


@dataclass(frozen=True)
class Trial:
    """What leaving one pass out does.

    Attributes:
        name: of the pass.
        kept: whether it stays.
        speedup: how many times as fast the graph is with it; ci99: its interval.
        reason: in words, why it stays or goes.
    """

    name: str
    kept: bool
    speedup: float | None
    ci99: tuple[float, float] | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the keys of the attributes."""
        interval = None if self.ci99 is None else list(self.ci99)
        return {
            "name": self.name,
            "kept": self.kept,
            "speedup": self.speedup,
            "ci99": interval,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Tuned:
    """The passes that were chosen for a graph, in the order of the target's list.

    Attributes:
        passes: their names.
        trials: what was measured; empty where nothing had to be.
        engine: in which it was measured.
        cached: whether it was measured another time.
        remark: what is to be said; None: nothing.
    """

    passes: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    engine: str = ONNX_RUNTIME
    cached: bool = False
    remark: str | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said, as an export has it."""
        return () if self.remark is None else (self.remark,)

    @property
    def setting(self) -> str:
        """The choice as `export.passes` takes it."""
        return ",".join(self.passes) or NONE

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON of `export` and the manifest say."""
        return {
            "passes": list(self.passes),
            "trials": [trial.to_json() for trial in self.trials],
            "engine": self.engine,
            "cached": self.cached,
            "remark": self.remark,
        }


def passes_for(
    model: onnx.ModelProto, passes: str, target: str, settings: TuneSettings | None, *, seed: int = 0
) -> tuple[tuple[GraphPass, ...], Tuned | None]:
    """Return the passes for a graph, and how they were chosen; None where `export.passes` and the target say it all.

    Args:
        model: the graph before any pass.
        passes: the setting `export.passes`.
        target: see `mggc_edge.compiler.targets`.
        settings: None: nothing is measured.
        seed: of the measurement.

    Raises:
        SettingError: there is no such target, or no such pass.
        MissingDependencyError: the engine is not installed.
    """
    if settings is None or not can_tune(passes, target):
        return choose_passes(passes, target), None
    tuned = tune(model, target, settings, seed=seed)
    return choose_passes(tuned.setting, target), tuned


def can_tune(passes: str, target: str, machine: Machine | None = None) -> bool:
    """Return whether a choice can be measured: of the target's own list, and the target is this machine."""
    return passes.strip() == AUTO and target == this_target(machine) and bool(TARGETS[target].passes)


def engines_for(runtimes: Sequence[str]) -> tuple[str, ...]:
    """Return the engines that graphs for these runtimes are tuned in, the one of the first graph at the front."""
    found = [OPENVINO] if OPENVINO in runtimes else []
    return tuple(found) if found and not {ONNX_RUNTIME, ORT_MOBILE} & set(runtimes) else (ONNX_RUNTIME, *found)


def tune(
    model: onnx.ModelProto,
    target: str,
    settings: TuneSettings | None = None,
    *,
    seed: int = 0,
    measured: Measure = measure,
    cache: Path | None = None,
) -> Tuned:
    """Return which passes of a target's list pay for a graph here.

    Where other processes disturbed the samples, or a measuring process failed, nothing is known: then the list is taken
    as it is, and not kept. A graph that cannot be run at all is found out by whoever proves the file.

    Args:
        model: one picture in and one out, of a fixed size, before any pass.
        target: this machine's, see `can_tune`.
        settings: see `TuneSettings`.
        seed: of the order of the measurement, and of what is fed.
        measured: for tests.
        cache: folder of what was found before; None: the user's.

    Raises:
        MissingDependencyError: the engine is not installed.
    """
    settings = settings or TuneSettings()
    names = tuple(TARGETS[target].passes)
    _, reports = apply_passes(model, choose_passes(",".join(names), target))
    sites = [report.name for report in reports if report.applied]
    if not sites or len(sites) > MOST:
        return Tuned(names, engine=settings.engine)
    place = (cache_folder() if cache is None else cache) / f"{_key(model, target, names, settings)}.json"
    if (known := _read(place, names, settings.engine)) is not None:
        return known
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(model, target, Path(folder), settings.engine)
        lists = {LIST: names, **{name: tuple(other for other in names if other != name) for name in sites}}
        how = _how(settings, seed)
        try:
            models = [files.workload(name, chosen) for name, chosen in lists.items()]
            found = {comparison.b: comparison for comparison in _compared(models, measured, how)}
            trials = tuple(_trial(name, found[name]) for name in sites)
            gone = {trial.name for trial in trials if not trial.kept}
            chosen = tuple(name for name in names if name not in gone)
            together = len(gone) > 1 and _slower(files, chosen, names, measured, how)
        except _UnknownError as unknown:
            return _untuned(names, target, settings, str(unknown))
        if together:
            again = "together with others it pays"
            trials = tuple(
                trial if trial.kept else Trial(trial.name, True, trial.speedup, trial.ci99, again) for trial in trials
            )
            chosen = names
    tuned = Tuned(chosen, trials, settings.engine)
    return replace(tuned, remark=_write(place, tuned))


class _UnknownError(Exception):
    """Why a measurement says nothing of any pass."""


def _compared(models: Sequence[Workload], measured: Measure, how: Mapping[str, Any]) -> tuple[Comparison, ...]:
    """Measure models against the first one; raise _UnknownError where that fails, or others disturbed it."""
    try:
        comparisons = measured(models, **how).comparisons
    except ArtifactError as error:
        raise _UnknownError(error.message) from error
    disturbed = sorted({code for comparison in comparisons for code in comparison.disturbed})
    if disturbed:
        raise _UnknownError(f"other processes disturbed the measurement ({', '.join(disturbed)})")
    return comparisons


def _untuned(names: tuple[str, ...], target: str, settings: TuneSettings, why: str) -> Tuned:
    said = f"passes were not tuned in {settings.engine}: {why}; the list of '{target}' is taken"
    return Tuned(names, engine=settings.engine, remark=said)


def cache_folder() -> Path:
    """Return where tunings are kept: below XDG_CACHE_HOME, or else ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "mggc-edge" / "tuning"


class _Files:
    """The graph with one list of passes or another, as files."""

    def __init__(self, model: onnx.ModelProto, target: str, folder: Path, engine: str) -> None:
        self._model, self._target, self._folder, self._engine = model, target, folder, engine

    def workload(self, name: str, passes: Sequence[str]) -> Workload:
        """Write the graph with these passes, and return what is measured."""
        rewritten, _ = apply_passes(self._model, choose_passes(",".join(passes) or NONE, self._target))
        path = self._folder / f"{name.replace(' ', '-')}.onnx"
        path.write_bytes(rewritten.SerializeToString())
        return Workload(name, path, runtime=self._engine)


def _how(settings: TuneSettings, seed: int) -> dict[str, Any]:
    return {
        "threads": settings.threads,
        "pairs": settings.pairs,
        "processes": settings.processes,
        "max_seconds": settings.max_seconds,
        "warmup_seconds": 0.2,
        "seed": seed,
    }


def _trial(name: str, without: Comparison) -> Trial:
    """Return what a comparison of the list (a) with the list less one pass (b) says of that pass."""
    interval = without.ratio.ci99
    turned = None if interval is None else (1 / float(interval[1]), 1 / float(interval[0]))
    speedup = 1 / without.ratio.value
    if turned is None:
        return Trial(name, kept=True, speedup=speedup, ci99=None, reason="a single process tells nothing")
    if turned[0] > 1:
        return Trial(name, kept=True, speedup=speedup, ci99=turned, reason="faster with it")
    return Trial(
        name, kept=False, speedup=speedup, ci99=turned,
        reason="slower with it" if turned[1] < 1 else "not shown to be faster with it",
    )  # fmt: skip


def _slower(
    files: _Files, chosen: Sequence[str], names: Sequence[str], measured: Measure, how: Mapping[str, Any]
) -> bool:
    """Return whether the chosen passes alone are slower than the whole list; raises as `_compared`."""
    pair = [files.workload(LIST, names), files.workload("chosen", chosen)]
    (comparison,) = _compared(pair, measured, how)
    interval = comparison.ratio.ci99
    return interval is not None and float(interval[1]) < 1


def _key(model: onnx.ModelProto, target: str, names: Sequence[str], settings: TuneSettings) -> str:
    """Return a hash of all that a choice depends on. What a file says of itself is no part of its graph."""
    graph = type(model)()
    graph.CopyFrom(model)
    del graph.metadata_props[:]
    machine = this_machine()
    facts = {
        "mggc-edge": __version__,
        settings.engine: ENGINES[settings.engine](),
        "processor": machine.processor,
        "instruction_sets": list(machine.instruction_sets),
        "threads": settings.threads or machine.cores,
        "extent": [settings.pairs, settings.processes, settings.max_seconds],  # more are asked for to be surer
        "target": target,
        "passes": list(names),
    }
    head = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(head + graph.SerializeToString(deterministic=True)).hexdigest()


def _read(place: Path, names: Sequence[str], engine: str) -> Tuned | None:
    """Return what was found another time; None where nothing was, or what is there makes no sense."""
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        passes, trials = document["passes"], document["trials"]
        if document["schema"] != SCHEMA or not set(passes) <= set(names):
            return None
        return Tuned(
            tuple(name for name in names if name in passes), tuple(map(_trial_of, trials)), engine, cached=True
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _trial_of(document: Mapping[str, Any]) -> Trial:
    interval = document["ci99"]
    return Trial(
        str(document["name"]), bool(document["kept"]), document["speedup"],
        None if interval is None else (float(interval[0]), float(interval[1])), str(document["reason"]),
    )  # fmt: skip


def _write(place: Path, tuned: Tuned) -> str | None:
    """Keep what was found; return what is to be said where it cannot be kept."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, (json.dumps({"schema": SCHEMA, **tuned.to_json()}, indent=1) + "\n").encode())
    except (OSError, MggcEdgeError) as error:
        return f"the tuning cannot be kept for another time: {error}"
    return None
