"""What a study keeps of a finished run: everything that its tables need, so that the folder can go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mggc_edge.artifacts import (
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    GENERATOR_FILE,
    GENERATOR_FILES,
    ORIGINAL_FILE,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    PORTABLE,
    read_json,
    read_manifest,
    sha256_of,
)
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.benchmarks.experiments.study.intervals import NEIGHBORS, agreement, kid_values
from mggc_edge.benchmarks.experiments.study.losses import pruning_losses
from mggc_edge.errors import ArtifactError
from mggc_edge.jobs.folder import LOG_FILE, resume_job
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.networks import saved_network
from mggc_edge.jobs.pictures import read_material
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.machine import this_machine
from mggc_edge.opening import geometry
from mggc_edge.pictures import to_picture
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from mggc_edge.quality.features import FeatureNetwork
from mggc_edge.quality.metrics import psnr_from_mse, ssim
from mggc_edge.quality.parity import DATA_RANGE, only_output
from mggc_edge.report.curves import read_log
from mggc_edge.tensors import Array
from mggc_edge.training.material import Material

SCHEMA = "mggc-edge/study-run/1"
MAX_REAL_PICTURES = 2000
SIDES = {"original": ORIGINAL_FILE, "compressed": GENERATOR_FILE}


def measure(folder: Path, *, curves: bool = False, probability: int | None = None) -> dict[str, Any]:
    """Return what is kept of a finished run, as JSON; paths in it are as they were typed.

    Per test picture: PSNR and SSIM to the original and to the truth, the KID's value (see `kid_values`), and the share
    of its nearest pictures that are the same among the original's and among the compressed generator's outputs.

    Args:
        folder: of a finished `mggc-edge compress`.
        curves: keep the losses of the pruning stage too.
        probability: a class of the feature network, whose probability is kept as well.

    Raises:
        ArtifactError: the run is not finished or damaged.
        InputError: its pictures are not there any more.
    """
    manifest = read_manifest(folder)
    result = manifest.get("result")
    if not manifest.get("complete") or not isinstance(result, dict):
        raise ArtifactError(f"'{folder}' is no finished run of `compress`")
    quality = read_json(folder / "quality.json")
    judge = folder / DISCRIMINATOR_PLAN_FILE
    steps = {stage.name: _steps(stage.curves) for stage in read_log(folder / LOG_FILE).stages}
    return {
        "schema": SCHEMA,
        "settings": manifest["settings"],
        "steps": steps,
        **{name: result[name] for name in ("budget", "budget_met", "macs_convention", "original", "compressed")},
        "discriminator_kept": read_json(judge)["budget_met"] if judge.is_file() else None,
        "plan_sha256": sha256_of(folder / PLAN_FILE),
        "timings_s": manifest["timings_s"],
        "latency": result["latency"],
        **{name: result.get(name) for name in ("size", "slimming")},
        "held_out": {name: quality[name] for name in ("before_finetuning", "after_finetuning")},
        "kid_by_subsets": result["quality"]["kid"],
        "test": measure_test(folder, probability),
        **({"losses": _losses(folder, manifest["settings"])} if curves else {}),
        "tools": manifest["tools"],
        "machine": {"processor": this_machine().processor, "cores": this_machine().cores},
    }


def _losses(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    lambdas = {name: float(settings[f"mggc.{name}"]) for name in ("lambda_1", "lambda_2")}
    return pruning_losses(folder / LOG_FILE, **lambdas)


def _steps(curves: Any) -> int:
    """Return how many steps a stage took, by its log."""
    return int(max(curve.points[-1][0] for curve in curves)) + 1


def material_of(folder: Path) -> tuple[Material, CompressRequest, dict[str, Any]]:
    """Return the pictures of a run as it divided them, what was asked of it, and its settings."""
    job = resume_job(folder, "compress")
    request = CompressRequest.from_json(dict(job.request))
    height, width = read_manifest(folder)["settings"]["image_size"]
    original = saved_network(folder / ORIGINAL_FOLDER, (height, width))
    if original is None:
        raise ArtifactError(f"'{folder}' holds no original")
    material = read_material(job.settings, request, original.spec, original.table.image_size, job.seed, Hooks())
    return material, request, job.settings.to_json()


def measure_test(folder: Path, probability: int | None = None) -> dict[str, Any]:
    """Return the values of every test picture; one that has none is null. Only features are kept in memory."""
    material, request, settings = material_of(folder)
    truth = material.test_truth
    portable = folder / EXPORT_FOLDER / PORTABLE
    files = (portable / name for name in GENERATOR_FILES.values())
    compressed = next((file for file in files if file.is_file()), portable / GENERATOR_FILE)
    values: dict[str, dict[str, list[float | None]]] = {name: {} for name in SIDES}
    seen: dict[str, list[Array]] = {name: [] for name in (*SIDES, "real")}

    def add(side: str, measure: str, value: float | None) -> None:
        values[side].setdefault(measure, []).append(_short(value))

    def look(network: FeatureNetwork | None) -> None:
        with OnnxRuntimeRunner(portable / ORIGINAL_FILE) as a, OnnxRuntimeRunner(compressed) as b:
            for index in range(len(material.test)):
                x = material.test.batch([index]).numpy()
                made = {"original": only_output(a, x), "compressed": only_output(b, x)}
                add("compressed", "psnr_to_original", _psnr(made["compressed"], made["original"]))
                add("compressed", "ssim_to_original", _ssim(made["compressed"], made["original"]))
                for side, y in made.items():
                    if truth is not None:
                        real = truth.batch([index]).numpy()
                        add(side, "psnr_to_truth", _psnr(y, real))
                        add(side, "ssim_to_truth", _ssim(y, real))
                    if network is not None:
                        picture = to_picture(y, geometry(a).output_format)
                        if probability is None:
                            seen[side].append(network.features([picture])[0])
                        else:
                            features, classes = network.features_and_probabilities([picture])
                            seen[side].append(features[0])
                            add(side, "probability", float(classes[0, probability]))
            if network is not None and material.test_target is not None:
                target = material.test_target
                for index in range(min(len(target), MAX_REAL_PICTURES)):
                    picture = to_picture(target.batch([index])[0].numpy(), target.format)
                    seen["real"].append(network.features([picture])[0])

    name = None
    if request.feature_net is None:
        look(None)
    else:
        with FeatureNetwork(request.feature_net, preprocessing=str(settings["features.preprocessing"])) as network:
            name = network.name
            look(network)
        features = {side: np.stack(rows) for side, rows in seen.items() if rows}
        for side in SIDES:
            if "real" in features and len(features[side]) >= 3:
                found = kid_values(features["real"], features[side], paired=truth is not None)
                values[side]["kid"] = [_short(value) for value in found.tolist()]
        if len(features["original"]) > NEIGHBORS:
            shared = agreement(*(neighborhoods(torch.from_numpy(features[side]), NEIGHBORS).numpy() for side in SIDES))
            values["compressed"]["neighbors"] = [_short(value) for value in shared.tolist()]
    return {
        "where": material.where,
        "pictures": len(material.test),
        "names_sha256": hashlib.sha256("\0".join(material.test.names).encode("utf-8", "surrogateescape")).hexdigest(),
        "features": name,
        "paired": truth is not None,
        "remarks": list(material.remarks),
        **values,
    }


def _psnr(a: Array, b: Array) -> float | None:
    mse = float(np.square(a.astype(np.float64) - b.astype(np.float64)).mean())
    return psnr_from_mse(mse, DATA_RANGE)


def _ssim(a: Array, b: Array) -> float | None:
    return ssim(a, b, DATA_RANGE)


def _short(value: float | None) -> float | None:
    """Return a number with six digits; None where it is none."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")
