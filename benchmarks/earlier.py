"""Numbers of another day as a baseline: taken only from the same machine and versions, and weaker even then.

What changed between the two days, heat, neighbors, the layout of files on the disk, is in the ratio, and no interval
shows it: one day against another is a sample of one. Between jobs on shared machines this was found to be 26 %.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import read_json, tool_versions
from mggc_edge.benchmarks.agent.surroundings import moment
from mggc_edge.benchmarks.board import board_facts
from mggc_edge.benchmarks.comparison import Comparison
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.environment import context
from mggc_edge.benchmarks.remarks import WARNINGS
from mggc_edge.benchmarks.report import SCHEMA, ModelRun
from mggc_edge.benchmarks.samples import used_rounds
from mggc_edge.benchmarks.stats import compare_apart
from mggc_edge.errors import ArtifactError, InputError

# What has to be equal: where it stands in `context`, and what it is called.
SAME: Mapping[tuple[str, ...], str] = {
    ("host",): "machine",
    ("device",): "device",
    ("kernel",): "kernel",
    ("cpu", "model"): "processor",
    ("cpu", "cores"): "number of cores",
    ("cpu", "governors"): "clock governor",
    ("memory_bytes",): "memory",
    ("board", "power_mode", "name"): "power mode",
    ("board", "power_mode", "id"): "number of the power mode",
    ("method",): "way of measuring",
    ("versions", "mggc-edge"): "version of mggc-edge",
    ("versions", "numpy"): "version of numpy",
}
LIBRARIES = {"ort-mobile": "onnxruntime"}  # runtime -> the library that it is, where that has another name
WAY_OUT = "name the baseline's model file instead: it is measured beside the others, in the same job"


@dataclass(frozen=True)
class EarlierRun:
    """One model as a document of `bench --json` has it.

    Attributes:
        name, runtime, precision, threads, inputs, provider: as in `ModelRun`.
        size_bytes, macs_true: None where it does not say.
        processes: per process the latency of its pairs in ns, without those that were left out.
        warnings: codes, of which unknown ones are dropped.
    """

    name: str
    runtime: str
    provider: str
    precision: str
    threads: int
    inputs: tuple[Mapping[str, Any], ...]
    size_bytes: int | None
    macs_true: int | None
    processes: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Earlier:
    """A document of `bench --json`."""

    path: Path
    context: Mapping[str, Any]
    runs: tuple[EarlierRun, ...]

    def run_for(self, name: str, runtime: str, precision: str) -> EarlierRun:
        """Return the run that a model is compared with: of its name, runtime and precision; or the only one.

        Raises:
            InputError: there is none, or more than one.
        """
        alike = [run for run in self.runs if (run.runtime, run.precision) == (runtime, precision)]
        found = [run for run in alike if run.name == name] or alike
        if len(found) != 1:
            has = ", ".join(f"{run.name} ({run.runtime} {run.precision})" for run in self.runs)
            raise InputError(
                f"'{self.path}' has {len(found) or 'no'} runs that '{name}' ({runtime} {precision}) could be compared "
                f"with, of {has}",
                hint=WAY_OUT,
            )
        return found[0]


def read_earlier(path: Path) -> Earlier:
    """Read a document of `bench --json`.

    Raises:
        ArtifactError: it is none, or damaged, or was not completed.
    """
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise ArtifactError(f"there is no file '{path}'") from None
    if document.get("schema") != SCHEMA:
        raise ArtifactError(
            f"'{path}' is no document of mggc-edge bench: its schema is {document.get('schema')!r}, not '{SCHEMA}'",
            hint=WAY_OUT,
        )
    if document.get("complete", True) is not True:
        raise ArtifactError(f"'{path}' is a measurement that was not completed", hint=WAY_OUT)
    sizes = {model.get("name"): model.get("size_bytes") for model in document.get("models", ())}
    try:
        runs = tuple(_run(run, sizes) for run in document["runs"])
        return Earlier(path, dict(document["context"]), runs)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactError(f"'{path}' is damaged: {error!r}", hint=WAY_OUT) from error


def check_same_machine(earlier: Earlier, runtimes: Sequence[str]) -> None:
    """Raise InputError where a document is of another machine, or of other versions, than would be measured now.

    Args:
        earlier: the document.
        runtimes: the engines that would be used.
    """
    now = moment()
    with LocalDevice() as device:
        here = context(device.facts, None, now, now, tool_versions())  # type: ignore[arg-type]
        if here["jetson"] is not None:
            here["board"] = board_facts(device)
    checked = dict(SAME)
    for runtime in runtimes:
        library = LIBRARIES.get(runtime, runtime)
        here["versions"] = {**here["versions"], library: _version(library)}
        checked["versions", library] = f"version of {library}"
    for place, what in checked.items():
        then, today = _at(earlier.context, place), _at(here, place)
        if then != today:
            raise InputError(
                f"'{earlier.path}' was measured elsewhere: its {what} is {_words(then)}, here it is {_words(today)}",
                hint=WAY_OUT,
            )
    if here["host"] is None:  # on both sides: machines of one kind are alike in all else
        raise InputError(
            f"nothing says that '{earlier.path}' was measured on this machine: it has no /etc/machine-id", hint=WAY_OUT
        )


def check_alike(earlier: EarlierRun, name: str, threads: int, provider: str | None) -> None:
    """Raise InputError where a model runs otherwise than its baseline did.

    Args:
        earlier: the baseline.
        name: of the model.
        threads: that it runs with.
        provider: that it runs on, by the engine's own name; None: not known.
    """
    if earlier.threads != threads:
        raise InputError(
            f"the baseline was measured with --threads {earlier.threads}, and '{name}' with {threads}",
            hint=f"give --threads {earlier.threads}",
        )
    if provider not in (None, earlier.provider):
        raise InputError(f"the baseline was measured on {earlier.provider}, and '{name}' on {provider}", hint=WAY_OUT)


def compare_with_earlier(earlier: EarlierRun, run: ModelRun, label: str, margin: float, level: float) -> Comparison:
    """Compare a model with its baseline of another day.

    Raises:
        InputError: they ran with different threads, or on different providers.
    """
    check_alike(earlier, run.model.name, run.threads, run.provider)
    now = [[float(latency) for latency in process.latencies_ns] for process in run.processes if process.used]
    macs, own = earlier.macs_true, run.model.macs_true
    codes = {*earlier.warnings, *run.warnings}
    if "steal" in codes:
        codes.add("steal_apart")  # what is stolen at different times has no reason to be alike
    return Comparison(
        label,
        run.model.name,
        compare_apart(earlier.processes, now, margin, level),
        margin,
        macs / own if macs and own else None,
        sum(map(len, now)),
        left_out=sum(len(process.out) for process in run.processes),
        throttled=sum(len(process.left_out) for process in run.processes if process.throttled),
        codes=tuple(sorted(codes)),
        rounds=used_rounds(run.processes),
    )


def _run(run: Mapping[str, Any], sizes: Mapping[Any, Any]) -> EarlierRun:
    per_pair = int(run["runs_per_pair"])
    samples = [float(sample) for sample in run["samples_ns"]]
    if per_pair < 1 or not samples or min(samples) <= 0:
        raise ValueError("no samples")
    processes, at = [], 0
    for process in run["processes"]:
        left_out = set(process.get("left_out", ()))
        pairs = [samples[at + per_pair * pair : at + per_pair * (pair + 1)] for pair in range(int(process["pairs"]))]
        at += per_pair * len(pairs)
        kept = tuple(_median(pair) for number, pair in enumerate(pairs) if number not in left_out)
        if kept:
            processes.append(kept)
    if at != len(samples) or not processes:
        raise ValueError("samples and pairs do not fit")
    macs, size = run.get("macs_true"), sizes.get(run["model"])
    return EarlierRun(
        name=str(run["model"]),
        runtime=str(run["runtime"]),
        provider=str(run["provider"]),
        precision=str(run["precision"]),
        threads=int(run["threads"]),
        inputs=tuple(dict(entry) for entry in run["inputs"]),
        size_bytes=size if isinstance(size, int) else None,
        macs_true=macs if isinstance(macs, int) else None,
        processes=tuple(processes),
        warnings=tuple(code for code in run["warnings"] if code in WARNINGS),
    )


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _at(document: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = document
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _words(value: Any) -> str:
    return "not known" if value is None else str(value)[:80]


def _version(library: str) -> str | None:
    """Return the version of a library here, under whatever name it was installed: "onnxruntime-gpu" has it as well."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(library)
    for distribution in metadata.packages_distributions().get(library, ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None
