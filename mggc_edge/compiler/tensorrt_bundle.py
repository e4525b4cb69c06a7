"""A bundle: a folder from which TensorRT engines are built on the device that they are for, and checked there.

An engine runs on the kind of device, and under the TensorRT, that built it. So what travels is typed ONNX files, what
they give elsewhere, and a script that needs Python 3.8, numpy and tensorrt: `bundle/build.py`, with copies of the two
files of the backend that know TensorRT. Where there is a device, the engines are built at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge._version import __version__
from mggc_edge.artifacts import (
    METADATA_PREFIX,
    EngineArtifact,
    OnnxArtifact,
    file_entry,
    sha256_of,
    write_json,
    writing,
)
from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.bundle_page import readme
from mggc_edge.compiler.engine import build_engine, engine_refusal
from mggc_edge.compiler.finishing import random_pictures, reach_of, said_format
from mggc_edge.compiler.tensorrt_lint import Finding, lint_file, summary
from mggc_edge.errors import ArtifactError, CheckFailedError, InputError, MissingDependencyError
from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.parity import only_output
from mggc_edge.tensors import Array, TensorSpec

BUNDLE_FOLDER, BUNDLE_FILE, PICTURES_FILE, SUMS_FILE = "tensorrt", "bundle.json", "pictures.npz", "SHA256SUMS"
BUNDLE_SCHEMA = "mggc-edge/tensorrt-bundle/1"
ENGINES_FOLDER, CALIBRATION_FILE, README_FILE, SCRIPT_FILE = "engines", "calibration.json", "README.md", "build.py"
SCRIPT = Path(__file__).parent / "bundle" / SCRIPT_FILE
PICTURES = 4
MIN_FLOAT_PSNR = 50.0  # dB, of a float32 engine: TF32's mantissa of 10 bits is allowed
MIN_PRECISION_PSNR = 35.0  # dB, of float16 and int8
LARGEST_BATCH = 8  # of a file that leaves its batch open


@dataclass(frozen=True)
class BundleModel:
    """A file of a bundle, or one that was left out.

    Attributes:
        artifact: the ONNX file; in the bundle where it is accepted.
        min_psnr: that its engine must have to the same network in float32, in dB.
        findings: of `tensorrt_lint`.
        engine: built here; None where it could not be.
        failure: why the engine that was to be built here is none, as a sentence; None where it is one, or none was.
    """

    artifact: OnnxArtifact
    min_psnr: float
    findings: tuple[Finding, ...] = ()
    engine: EngineArtifact | None = None
    failure: str | None = None

    @property
    def reason(self) -> str | None:
        """Why TensorRT would not take the file; None where nothing is known against it."""
        return next((finding.text for finding in self.findings if finding.severity == "refused"), None)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written, with what was left out of it, and what is to be said."""

    folder: Path
    models: tuple[BundleModel, ...]
    remarks: tuple[str, ...] = field(default=())

    def to_json(self, target: str) -> list[dict[str, Any]]:
        """Return entries of `artifacts`: of every file the engine, where it was built here, else the ONNX file."""
        entries = []
        for model in self.models:
            file, against = model.engine or model.artifact, model.reason or model.failure
            entries.append({
                "path": str(file.path), "target": target, "runtime": "tensorrt", "precision": file.precision,
                "sha256": file.sha256, "size_bytes": file.size_bytes, "accepted": against is None,
                "reason": against or (None if model.engine else "to be built on the device"),
            })  # fmt: skip
        return entries

    def file_entries(self, root: Path) -> list[dict[str, Any]]:
        """Return the entries of its files in the manifest of the folder `root`."""
        engines = {model.engine.path: model.engine for model in self.models if model.engine is not None}
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        parents = {self.folder / model.artifact.path.name: model.artifact.parent_sha256 for model in self.models}
        return [
            engines[path].to_json(root) if path in engines else file_entry(path, root, parents.get(path))
            for path in paths
        ]

    def moved(self, before: Path, after: Path) -> Bundle:
        """Return the same bundle where the folder `before` has become `after`."""

        def place(path: Path) -> Path:
            return after / path.relative_to(before) if path.is_relative_to(before) else path

        models = [
            replace(
                model,
                artifact=replace(model.artifact, path=place(model.artifact.path)),
                engine=None if model.engine is None else replace(model.engine, path=place(model.engine.path)),
            )
            for model in self.models
        ]
        return replace(self, folder=place(self.folder), models=tuple(models))


def write_bundle(
    folder: Path,
    files: Sequence[OnnxArtifact],
    *,
    seed: int = 0,
    min_precision_psnr: float = MIN_PRECISION_PSNR,
    calibration: Path | None = None,
) -> Bundle:
    """Write a bundle of ONNX files into a new folder; where there is a device, build its engines too.

    Where the first file is in float32, its engine must come out right. Where another one does not, the failure is
    kept, and its file stays in the bundle.

    Args:
        folder: must not exist.
        files: named <network>.<precision>.onnx, of any precisions; the float32 file of the same network, where it is
            among them, is what the others are held against.
        seed: of the pictures that engines are checked on.
        min_precision_psnr: smallest PSNR of float16 and int8 engines to float32, in dB.
        calibration: a table of ranges that int8 files were made with, to go with them.

    Raises:
        ArtifactError: TensorRT would take none of the files, they do not take the same pictures, or the float32 engine
            of the first cannot be built, or none at all.
        CheckFailedError: that engine gives other pictures.
        MissingDependencyError: the device is gone, or has no memory left for that engine.
        OutputError: the folder cannot be written.
    """
    models = [
        BundleModel(
            artifact, MIN_FLOAT_PSNR if artifact.precision == "fp32" else min_precision_psnr, lint_file(artifact.path)
        )
        for artifact in files
    ]
    accepted = [model for model in models if model.reason is None]
    remarks = [
        f"'{model.artifact.path.name}' is not in the TensorRT bundle: {model.reason}"
        for model in models
        if model.reason
    ]
    if not accepted:
        names = ", ".join(model.artifact.path.name for model in models)
        raise ArtifactError(
            f"TensorRT would take none of {names}: {models[0].reason if models else 'there is no file'}",
            hint="export the network in floats: without --quantize, or with --precision fp32,fp16",
        )
    if len({model.artifact.inputs for model in accepted}) != 1:
        raise ArtifactError("the files of a bundle must take the same pictures")
    with writing(folder):
        folder.mkdir(parents=True)
        for source in (SCRIPT, Path(str(trt_api.__file__)), Path(str(trt_run.__file__))):
            shutil.copyfile(source, folder / source.name)
        if calibration is not None:
            shutil.copyfile(calibration, folder / CALIBRATION_FILE)
        copies = []
        for model in accepted:
            path = folder / model.artifact.path.name
            shutil.copyfile(model.artifact.path, path)
            copies.append(replace(model, artifact=replace(model.artifact, path=path)))
    pictures, outputs, described = _expected(copies, seed)
    expected: dict[str, Any] = {"pictures": np.stack(pictures), **outputs}
    with writing(folder):
        np.savez(folder / PICTURES_FILE, **expected)
    write_json(
        folder / BUNDLE_FILE,
        {"schema": BUNDLE_SCHEMA, "mggc_edge": __version__, "seed": seed, "models": described},
    )
    refusal = engine_refusal()
    said = {model.artifact.path.name: summary(model.findings) for model in models}
    page = readme(described, said, calibration is not None)
    with writing(folder):
        (folder / README_FILE).write_text(page, encoding="utf-8")
        written = sorted(path.name for path in folder.iterdir())
        sums = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in written)
        (folder / SUMS_FILE).write_text(sums, encoding="utf-8")
    if refusal is None:
        needed = files[0].path.name if files[0].precision == "fp32" else None
        copies = [
            _built(model, entry, folder, pictures, needed=model.artifact.path.name == needed)
            for model, entry in zip(copies, described, strict=True)
        ]
        if all(model.failure is not None for model in copies):
            raise ArtifactError(f"no TensorRT engine could be built: {copies[0].failure}")
        remarks += [
            f"the engine of '{model.artifact.path.name}' is rejected: {model.failure}"
            for model in copies
            if model.failure
        ]
    else:
        remarks.append(
            f"no TensorRT engine is built here: {refusal}; copy '{BUNDLE_FOLDER}/' to the device and run {SCRIPT_FILE}"
        )
    kept = {model.artifact.path.name: model for model in copies}
    return Bundle(folder, tuple(kept.get(model.artifact.path.name, model) for model in models), tuple(remarks))


def _expected(models: Sequence[BundleModel], seed: int) -> tuple[list[Array], dict[str, Array], list[dict[str, Any]]]:
    """Return pictures, what each file gives for them in ONNX Runtime, and the entries of bundle.json."""
    pictures: list[Array] = []
    outputs: dict[str, Array] = {}
    entries: list[dict[str, Any]] = []
    names = {model.artifact.path.stem for model in models}
    for model in models:
        artifact = model.artifact
        with OnnxRuntimeRunner(artifact.path) as runner:
            ours = {key: value for key, value in runner.metadata.items() if key.startswith(METADATA_PREFIX)}
            given, made = artifact.inputs[0], artifact.outputs[0]
            shapes = _shapes(given)
            form = said_format(ours, "input_format") or PictureFormat.for_channels(3)
            pictures = pictures or _pictures(given, form, seed)
            outputs[artifact.path.stem] = np.stack([only_output(runner, picture) for picture in pictures])
        in_floats = f"{artifact.path.stem.split('.')[0]}.fp32"
        in_floats = in_floats if in_floats in names else artifact.path.stem
        entries.append({
            "file": artifact.path.name, "precision": artifact.precision, "sha256": artifact.sha256,
            "input": given.name, "output": made.name, "shapes": shapes,
            "expected": artifact.path.stem, "float": in_floats, "min_psnr": model.min_psnr, "metadata": ours,
        })  # fmt: skip
    for entry in entries:
        entry["value_range"] = _values(entry["metadata"], outputs[entry["float"]])
    return pictures, outputs, entries


def _values(metadata: Mapping[str, str], outputs: Array) -> float:
    """Return how far outputs reach, see `reach_of`; in bytes it is 255."""
    return 255.0 if outputs.dtype == np.uint8 else reach_of([outputs], said_format(metadata, "output_format"))


def _pictures(given: TensorSpec, form: PictureFormat, seed: int) -> list[Array]:
    """Return noise at several scales, [N, C, H, W] in floats or [N, H, W, C] in levels, as the input has it."""
    sizes = [size or 1 for size in given.shape]
    if given.dtype == "uint8":
        _, height, width, channels = sizes
        levels = random_pictures(PICTURES, (sizes[0],), (channels, height, width), seed, (0.0, 255.0))
        return [np.ascontiguousarray(picture.round().astype(np.uint8).transpose(0, 2, 3, 1)) for picture in levels]
    _, channels, height, width = sizes
    return list(random_pictures(PICTURES, (sizes[0],), (channels, height, width), seed, (form.low, form.high)))


def _shapes(given: TensorSpec) -> dict[str, list[list[int]]] | None:
    """Return the smallest, the best and the largest shape of an input that leaves its batch open; None of another."""
    if None not in given.shape:
        return None
    if None in given.shape[1:]:
        raise ArtifactError(
            f"'{given.name}' leaves its picture size open", hint="TensorRT builds for one size: give --image-size"
        )
    rest = [size or 0 for size in given.shape[1:]]
    return {given.name: [[batch, *rest] for batch in (1, 1, LARGEST_BATCH)]}


def _built(
    model: BundleModel, entry: Mapping[str, Any], folder: Path, pictures: Sequence[Array], *, needed: bool
) -> BundleModel:
    """Return a model with its engine; where that fails, and is not needed, with the failure."""
    options = trt_api.BuildOptions(precision=model.artifact.precision, shapes=entry["shapes"] or {})
    path = folder / ENGINES_FOLDER / f"{model.artifact.path.stem}.engine"
    with OnnxRuntimeRunner(folder / f"{entry['float']}.onnx") as reference:
        try:
            engine, _ = build_engine(
                model.artifact, path, options, reference, pictures,
                min_psnr=entry["min_psnr"], data_range=entry["value_range"],
            )  # fmt: skip
        except (CheckFailedError, InputError, MissingDependencyError) as error:
            if needed:
                raise
            return replace(model, failure=error.message.replace(f"{folder}/", ""))  # which has no place yet
    return replace(model, engine=engine)
