"""All that is made for one target: files of both generators, in other precisions, of bytes, and for every runtime.

An engine that was asked for and runs here has passes chosen by its own speed. Where they come to another graph than
that of the first engine, its files lie in a folder of their own, `export/<target>/<engine>/`; where they come to the
same graph, one file serves both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import OnnxArtifact
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME
from mggc_edge.benchmarks.workload import RUNTIMES as MEASURED
from mggc_edge.compiler.camera import Camera
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.precision.judge import Speed
from mggc_edge.compiler.precision.variants import (
    Variant,
    judgements,
    make_variants,
    measure_variants,
    moved,
    ranges_of,
    variant_entries,
    with_speeds,
)
from mggc_edge.compiler.precision.wanted import Precisions, Tell
from mggc_edge.compiler.runtimes import Checks, Further, RuntimeFile, check_installed, for_runtimes
from mggc_edge.compiler.tune import engines_for

Make = Callable[[Path, str], Exported]


@dataclass(frozen=True)
class Source:
    """What files are made of.

    Attributes:
        doing: for people, such as "exporting the generator".
        file: name of the file.
        make: writes it, with floats in and out, and proves it; takes its path, and the engine that passes are chosen
            by where they are chosen by measurement.
        how: what is said of that beside, such as "choosing passes by measurement".
    """

    doing: str
    file: str
    make: Make
    how: str = ""


@dataclass(frozen=True)
class Wanted:
    """What is made of it for a target.

    Attributes:
        target: see `mggc_edge.compiler.targets`.
        checks: what files fulfil in further runtimes.
        runtimes: of `mggc_edge.compiler.runtimes.EXPORT_RUNTIMES`.
        precisions: of the generator's files; None: fp32 alone.
        tunes: whether passes are chosen by measurement.
        camera: puts bytes around every file; None: they take floats.
        seed: of random pictures and measurements.
        tell: is called with a line at the start of what takes long.
    """

    target: str
    checks: Checks
    runtimes: tuple[str, ...] = (ONNX_RUNTIME,)
    precisions: Precisions | None = None
    tunes: bool = False
    camera: Camera | None = None
    seed: int = 0
    tell: Tell = lambda _: None


@dataclass(frozen=True)
class ArtifactSet:
    """The files for one target whose graphs are for one engine.

    Attributes:
        target, engine: what they are for.
        generator: with its other precisions.
        original: None where there is none beside it.
        further: what further runtimes run.
    """

    target: str
    engine: str
    generator: Exported
    original: Exported | None = None
    further: Further = field(default_factory=Further)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said."""
        original = () if self.original is None else self.original.remarks
        return (*self.generator.remarks, *original, *self.further.remarks)

    def documents(self, root: Path | None = None) -> list[dict[str, Any]]:
        """Return the entries of `artifacts`; paths are relative to `root` where it is given."""
        rows = [_document(self.generator, self.target)]
        rows += [_variant_document(one, self.generator, self.target) for one in self.generator.variants]
        rows += [] if self.original is None else [_document(self.original, self.target)]
        proven = {} if self.engine == ONNX_RUNTIME else self._proven()
        rows = [_in_engine(row, self.engine, proven.get(Path(row["path"]))) for row in rows]
        rows += [row for row in self.further.artifacts(self.target) if Path(row["path"]) not in proven]
        if root is not None:
            rows = [{**row, "path": Path(row["path"]).relative_to(root).as_posix()} for row in rows]
        return rows

    def _proven(self) -> dict[Path, RuntimeFile]:
        return {file.path: file for file in self.further.files if file.runtime == self.engine}

    def entries(self, root: Path) -> list[dict[str, Any]]:
        """Return the entries of its files in the manifest of the folder `root`."""
        originals = [] if self.original is None else [self.original.artifact.to_json(root)]
        return [
            self.generator.artifact.to_json(root),
            *variant_entries(self.generator, root),
            *originals,
            *self.further.entries(root, self.target),
        ]

    def moved(self, before: Path, now: Path) -> ArtifactSet:
        """Return the same with the paths that its files have once the folder `before` was renamed."""
        return replace(
            self,
            generator=moved(self.generator, before, now),
            original=None if self.original is None else moved(self.original, before, now),
            further=self.further.moved(before, now),
        )


def runtime_facts(sets: Sequence[ArtifactSet], root: Path) -> dict[str, Any]:
    """Return what else the manifest says: `runtimes`, where an ONNX file was proven in a further runtime."""
    rows = [row for one in sets for row in one.further.same_files(root, one.target)]
    return {"runtimes": rows} if rows else {}


def make_artifacts(
    place: Path, generator: Source, original: Source | None, wanted: Wanted, beside: Sequence[OnnxArtifact] = ()
) -> tuple[ArtifactSet, ...]:
    """Make and prove all files of a target.

    Args:
        place: the folder of the target.
        generator, original: what they are made of.
        wanted: see `Wanted`.
        beside: further files in that folder, which go to the runtimes too.

    Returns:
        The set in `place` itself, and one for every further engine whose passes come to another graph.

    Raises:
        MissingDependencyError: an engine is not installed.
        CheckFailedError: a file does not equal what it was made from, in one of the runtimes.
        ArtifactError: a file cannot be run there.
        OutputError: a file cannot be written.
    """
    check_installed(wanted.runtimes)
    first, *others = engines_for(wanted.runtimes)
    main = _graphs(place, first, generator, original, wanted)
    sets, own = [], list[str]()
    for engine in others if wanted.tunes else ():
        folder = place / engine
        made = _graphs(folder, engine, generator, original, wanted)
        if _hashes(made) == _hashes(main):
            shutil.rmtree(folder)
            continue
        own.append(engine)
        sets.append(_completed(made, (engine,), wanted, ()))
    rest = tuple(name for name in wanted.runtimes if name not in own)
    return (_completed(main, rest, wanted, beside), *sets)


def _graphs(place: Path, engine: str, generator: Source, original: Source | None, wanted: Wanted) -> ArtifactSet:
    """Make the files in floats that the others come from."""

    def made(source: Source) -> Exported:
        how = f", {source.how}," if source.how else ""
        where = f" for {engine}" if len(engines_for(wanted.runtimes)) > 1 and wanted.tunes else ""
        wanted.tell(f"{source.doing}{where}{how} and proving it equal")
        return source.make(place / source.file, engine)

    return ArtifactSet(wanted.target, engine, made(generator), None if original is None else made(original))


def _hashes(one: ArtifactSet) -> tuple[str, str | None]:
    return one.generator.artifact.sha256, None if one.original is None else one.original.artifact.sha256


def _completed(
    made: ArtifactSet, runtimes: tuple[str, ...], wanted: Wanted, beside: Sequence[OnnxArtifact]
) -> ArtifactSet:
    """Add other precisions, bytes, and what further runtimes run."""
    target, precisions, camera = wanted.target, wanted.precisions, wanted.camera
    generator, original = made.generator, made.original
    if precisions is not None:
        engines = engines_for(runtimes)
        variants = make_variants(generator.artifact, precisions, target=target, tell=wanted.tell, runtimes=engines)
        generator = replace(generator, variants=tuple(one.judged_by(made.engine) for one in variants))
    if camera is not None:
        generator = camera.around(generator)
        original = None if original is None else camera.around(original)

    def speeds(runtime: str, files: Mapping[str, Path]) -> Mapping[str, Speed]:
        if precisions is None or "fp32" not in files:
            return {}
        others = {name: path for name, path in files.items() if name != "fp32"}
        return measure_variants(
            files["fp32"], others, precisions, target=target, runtime=runtime, seed=wanted.seed, tell=wanted.tell
        )

    variants = generator.variants
    near = [generator.artifact, *(one.artifact for one in variants if one.near)]
    found = speeds(made.engine, {one.precision: one.path for one in near})
    generator = replace(generator, variants=with_speeds(variants, found))
    some = [one.artifact for one in variants if one.near_anywhere]
    done = [generator.artifact, *([] if original is None else [original.artifact]), *some, *beside]
    further = Further()
    wished = [name for name in runtimes if name != ONNX_RUNTIME]
    if wished:
        wanted.tell(f"making and proving files for {', '.join(wished)}")
        further = for_runtimes(
            done, wished, target=target, checks=wanted.checks, calibration=ranges_of(generator), seed=wanted.seed,
            judged=judgements(generator),
        )  # fmt: skip
    others = {one.precision for one in some}
    for runtime in wished if others else ():
        if runtime == made.engine:
            continue
        files = {name: file.path for name, file in further.files_in(runtime).items() if file.accepted}
        found = speeds(runtime, files) if runtime in MEASURED else {}
        further = further.with_speeds(runtime, found, others)
    return replace(made, generator=generator, original=original, further=further)


def _document(exported: Exported, target: str) -> dict[str, Any]:
    """Return the entry of a file that was proven equal to what it was made from."""
    artifact = exported.artifact
    return {
        **_file(artifact, target),
        "accepted": True,
        "reason": None,
        "parity": exported.parity.to_json(),
        "parity_psnr": exported.parity.psnr,
        "equal_levels": None if exported.grids is None else exported.grids.equal,
        "io": artifact.settings["io"],
        "picture_parity": None if exported.camera is None else exported.camera.to_json(),
        "macs_executed": exported.macs_executed,
        "passes": [report.to_json() for report in exported.passes],
        "tuning": None if exported.tuned is None else exported.tuned.to_json(),
    }


def _variant_document(variant: Variant, exported: Exported, target: str) -> dict[str, Any]:
    """Return the entry of a file of another precision."""
    artifact = variant.artifact
    shared = {"io": artifact.settings["io"], "macs_executed": exported.macs_executed}
    return {**_file(artifact, target), **variant.verdict(), **shared}


def _file(artifact: OnnxArtifact, target: str) -> dict[str, Any]:
    return {
        "path": str(artifact.path),
        "target": target,
        "runtime": ONNX_RUNTIME,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
    }


def _in_engine(row: dict[str, Any], engine: str, proven: RuntimeFile | None) -> dict[str, Any]:
    """Return an entry of a file for the engine that it is for, with what became of it there."""
    row = {**row, "runtime": engine}
    if proven is None:
        return row
    rejected = {} if proven.accepted or not row["accepted"] else {"accepted": False, "reason": proven.reason}
    return {**row, **rejected, "runtime_parity": proven.parity.to_json()}
