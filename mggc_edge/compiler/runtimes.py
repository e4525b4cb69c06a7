"""Exported ONNX files for further runtimes: what each runs, proven against ONNX Runtime on the ONNX file."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge.artifacts import ORIGINAL_FILE, PORTABLE, OnnxArtifact, file_entry, sha256_of
from mggc_edge.backends.base import Runner
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME, ORT_MOBILE, OnnxRuntimeRunner
from mggc_edge.backends.openvino import OPENVINO
from mggc_edge.backends.registry import ENGINES, open_artifact
from mggc_edge.compiler.finishing import random_pictures, reach_of, said_format
from mggc_edge.compiler.mobile import CONFIG_FILE, Platform, Usability, convert_to_ort, platform_of, platform_remark
from mggc_edge.compiler.precision.judge import Judgement, Speed
from mggc_edge.compiler.tensorrt_bundle import BUNDLE_FOLDER, Bundle, write_bundle
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.quality.parity import ParityReport, check_parity, only_output
from mggc_edge.tensors import Array

LEVEL = 1.0  # of 255: as far as the bytes of two runtimes may differ
TENSORRT = "tensorrt"
ENGINE_OF = {ORT_MOBILE: ONNX_RUNTIME}  # runtime -> the engine whose arithmetic it is, where that has another name
EXPORT_RUNTIMES = (ONNX_RUNTIME, ORT_MOBILE, OPENVINO, TENSORRT)


@dataclass(frozen=True)
class Checks:
    """What a file has to fulfil in a further runtime.

    Attributes:
        pictures: random pictures that it is compared on.
        atol: largest difference from ONNX Runtime that a float32 file may show, for outputs in [-1, 1].
        min_psnr: least PSNR to ONNX Runtime, in dB, of a file in another precision: roundings differ by engine.
    """

    pictures: int
    atol: float
    min_psnr: float


@dataclass(frozen=True)
class RuntimeFile:
    """A file as a further runtime runs it.

    Attributes:
        path, sha256, size_bytes: the file: one in the runtime's format, or the ONNX file itself.
        runtime, precision: the runtime, and what the file is in.
        parent_sha256: hash of the ONNX file, None where it is that.
        parity: to ONNX Runtime on the ONNX file.
        accepted, reason: whether it may be used, and if not, why.
        judgement: of another precision, how far its pictures are there from those of the float32 file in ONNX Runtime;
            None where that was not looked at.
        speed: against the float32 file in the same runtime; None where that was not looked at.
        usability: of a .ort file, what accelerators of phones could do.
        platform: of a .ort file, what it was converted for; None: for any.
    """

    path: Path
    sha256: str
    size_bytes: int
    runtime: str
    precision: str
    parent_sha256: str | None
    parity: ParityReport
    accepted: bool = True
    reason: str | None = None
    judgement: Judgement | None = None
    speed: Speed | None = None
    usability: tuple[Usability, ...] = ()
    platform: Platform | None = None

    def to_json(self, target: str) -> dict[str, Any]:
        """Return an entry of `artifacts`."""
        entry = {
            "path": str(self.path),
            "target": target,
            "runtime": self.runtime,
            "precision": self.precision,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "accepted": self.accepted,
            "reason": self.reason,
            "parity": self.parity.to_json(),
        }
        if self.judgement is not None:
            entry |= self.judgement.difference.to_json()
        if self.speed is not None:
            entry |= {"reason": self.speed.said if self.accepted else self.reason, "speed": self.speed.to_json()}
        if self.runtime == ORT_MOBILE:
            entry |= {"platform": self.platform, "usability": [row.to_json() for row in self.usability]}
        return entry


@dataclass(frozen=True)
class Further:
    """What `for_runtimes` made: files, the configuration of a build for the .ort files, TensorRT's bundle, remarks."""

    files: tuple[RuntimeFile, ...] = ()
    config: Path | None = None
    bundle: Bundle | None = None
    remarks: tuple[str, ...] = field(default=())

    def artifacts(self, target: str) -> list[dict[str, Any]]:
        """Return the entries of `artifacts` of all files, those of the bundle last."""
        bundled = self.bundle.to_json(target) if self.bundle is not None else []
        return [*(file.to_json(target) for file in self.files), *bundled]

    def entries(self, root: Path, target: str) -> list[dict[str, Any]]:
        """Return the entries of new files in the manifest of the folder `root`."""
        new = [file for file in self.files if file.parent_sha256 is not None]
        found = [{**file.to_json(target), **file_entry(file.path, root, parent=file.parent_sha256)} for file in new]
        found += [file_entry(self.config, root)] if self.config is not None else []
        return found + (self.bundle.file_entries(root) if self.bundle is not None else [])

    def same_files(self, root: Path, target: str) -> list[dict[str, Any]]:
        """Return what the manifest of the folder `root` says of ONNX files that were proven in a further runtime."""
        same = [file for file in self.files if file.parent_sha256 is None]
        return [{**file.to_json(target), "path": file.path.relative_to(root).as_posix()} for file in same]

    def moved(self, stage: Path, folder: Path) -> Further:
        """Return the same with the paths that the files have now."""
        files = tuple(replace(file, path=folder / file.path.relative_to(stage)) for file in self.files)
        config = None if self.config is None else folder / self.config.relative_to(stage)
        bundle = None if self.bundle is None else self.bundle.moved(stage, folder)
        return replace(self, files=files, config=config, bundle=bundle)

    def files_in(self, runtime: str) -> dict[str, RuntimeFile]:
        """Return the files of the compressed generator, or of the only one, in a runtime, by precision."""
        return {file.precision: file for file in self.files if file.runtime == runtime and not _is_original(file.path)}

    def with_speeds(self, runtime: str, found: Mapping[str, Speed], others: Collection[str]) -> Further:
        """Return the same with what was measured in a runtime: what is not faster is rejected.

        Args:
            found: by precision.
            others: the precisions that are held against float32; of those that were not measured this is said.
        """

        def judged(file: RuntimeFile) -> RuntimeFile:
            if file.runtime != runtime or file.precision not in others or _is_original(file.path):
                return file
            speed = found.get(file.precision, Speed())
            reason = file.reason or speed.reason
            return replace(file, speed=speed, accepted=reason is None, reason=reason)

        files = tuple(map(judged, self.files))
        rejected = [new for new, old in zip(files, self.files, strict=True) if old.accepted and not new.accepted]
        return replace(self, files=files, remarks=(*self.remarks, *map(_rejection, rejected)))


def _rejection(file: RuntimeFile) -> str:
    return f"'{file.path.name}' in {file.runtime} is rejected: {file.reason}"


def _is_original(path: Path) -> bool:
    return path.name.split(".")[0] == ORIGINAL_FILE.split(".")[0]


def check_installed(runtimes: Sequence[str]) -> None:
    """Raise MissingDependencyError where an engine is not there, before anything is made for it."""
    for engine in ENGINES:
        if engine.name in runtimes and engine.name != TENSORRT:  # which builds on the device
            require(engine.module, extra=engine.extra)


def for_runtimes(
    exported: Sequence[OnnxArtifact],
    runtimes: Sequence[str],
    *,
    target: str,
    checks: Checks,
    calibration: Path | None = None,
    seed: int = 0,
    judged: Mapping[tuple[str, str], Judgement] = {},
) -> Further:
    """Make and prove what further runtimes run, beside the ONNX files that were exported.

    Args:
        exported: the ONNX files, in one folder.
        runtimes: of `EXPORT_RUNTIMES`.
        target: what the graphs were rewritten for.
        checks: see `Checks`.
        calibration: ranges that an int8 file was made with, which go into TensorRT's bundle.
        seed: of the random pictures.
        judged: by runtime and precision, what became of the generator's pictures there, beside those of its float32
            file. A file that nothing is said of is held against what ONNX Runtime makes of it.

    Raises:
        ArtifactError: a runtime cannot run a file, or a tool fails.
        CheckFailedError: a float32 file gives something else there.
        MissingDependencyError: an engine is not installed.
    """
    check_installed(runtimes)
    files: list[RuntimeFile] = []
    remarks: list[str] = []
    config = None
    onnx_files = {artifact.path: artifact for artifact in exported}
    if ORT_MOBILE in runtimes:
        folder = exported[0].path.parent
        platform = platform_of(target)
        config = folder / CONFIG_FILE
        for path, usability in convert_to_ort(list(onnx_files), folder, platform).items():
            made = _proven(onnx_files[path.with_suffix(".onnx")], path, ORT_MOBILE, checks, seed, judged)
            files.append(replace(made, usability=usability, platform=platform))
        remarks += filter(None, [platform_remark(target, platform)])
        remarks += [f"on phones, {row.sentence()}" for row in files[0].usability]
    if OPENVINO in runtimes:
        files += [_proven(one, path, OPENVINO, checks, seed, judged) for path, one in onnx_files.items()]
    remarks += [_rejection(one) for one in files if not one.accepted]
    bundle = None
    if TENSORRT in runtimes:  # those that take the same pictures as the first
        same = [one for one in exported if one.inputs == exported[0].inputs]
        bundle = write_bundle(
            exported[0].path.parent / BUNDLE_FOLDER,
            same,
            seed=seed,
            min_precision_psnr=checks.min_psnr,
            calibration=calibration,
        )
        remarks += bundle.remarks
        refused = [model for model in bundle.models if model.reason is not None and model.artifact.precision == "int8"]
        if refused and calibration is not None and target != TENSORRT:  # other levels, out of the same ranges
            remarks.append("--target tensorrt writes 8-bit files that TensorRT takes")
        if target not in (TENSORRT, PORTABLE):
            remarks.append(
                f"the TensorRT bundle holds the graph for '{target}', whose passes are for another engine; "
                "--target tensorrt writes its own"
            )
    return Further(tuple(files), config, bundle, tuple(remarks))


def _proven(
    exported: OnnxArtifact,
    path: Path,
    runtime: str,
    checks: Checks,
    seed: int,
    judged: Mapping[tuple[str, str], Judgement],
) -> RuntimeFile:
    """Return a file once it has been shown to give what ONNX Runtime gives on the ONNX file."""
    precision, source = exported.precision, exported.path
    with OnnxRuntimeRunner(source) as reference, _opened(path, runtime) as candidate:
        pictures = list(_pictures(reference, checks.pictures, seed))
        values = reach_of([only_output(reference, pictures[0])], said_format(reference.metadata, "output_format"))
        floats = precision == "fp32"
        level = LEVEL if reference.outputs[0].dtype == "uint8" else None  # bytes round what differs by less
        report = check_parity(
            reference,
            candidate,
            pictures,
            atol=(level or checks.atol * values / 2) if floats else None,
            min_psnr=None if floats else checks.min_psnr,
            data_range=values,
        )
    if floats:
        report.check(f"'{path.name}' in {runtime} does not equal ONNX Runtime on '{source.name}'")
    judgement = None if _is_original(path) else judged.get((ENGINE_OF.get(runtime, runtime), precision))
    reason = None if judgement is None else judgement.reason
    if reason is None and not report.passed and (judgement is None or runtime in ENGINE_OF):
        psnr = "no number" if report.psnr is None else f"{report.psnr:.1f} dB"
        reason = f"its PSNR to ONNX Runtime on the same file is {psnr}, below {checks.min_psnr:g} dB"
    return RuntimeFile(
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        runtime=runtime,
        precision=precision,
        parent_sha256=None if path == source else exported.sha256,
        parity=report,
        accepted=reason is None,
        reason=reason,
        judgement=judgement,
    )


@contextlib.contextmanager
def _opened(path: Path, runtime: str) -> Iterator[Runner]:
    """Open a file in a runtime; what fails names the file alone, which has no place yet."""
    try:
        with open_artifact(path, runtime) as runner:
            yield runner
    except ArtifactError as error:
        raise ArtifactError(
            error.message.replace(str(path), path.name), error.hint or f"leave {runtime} out of --runtime"
        ) from error


def _pictures(runner: Runner, count: int, seed: int) -> Iterator[Array]:
    """Yield arrays of the size and values that a file takes, one picture at a time."""
    (picture,) = runner.inputs
    sizes = tuple(size or 1 for size in picture.shape)
    if picture.dtype == "float32":
        form = said_format(runner.metadata, "input_format")
        values = (form.low, form.high) if form is not None else (-1.0, 1.0)
        yield from random_pictures(count, (sizes[0],), (sizes[1], sizes[2], sizes[3]), seed, values)
    else:
        generator = np.random.default_rng(seed)
        for _ in range(count):
            yield generator.integers(0, 256, sizes).astype(picture.dtype)
