"""The proof: pictures and latency of the compressed generator beside the original's, both in ONNX Runtime."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mggc_edge.artifacts import atomic_write, write_json
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.facts import check_onnx
from mggc_edge.pictures import PictureFormat, png_bytes, to_picture
from mggc_edge.quality.compare import compare_pictures
from mggc_edge.quality.features import FeatureNetwork, split_feature_net
from mggc_edge.quality.frechet import enough_for_frechet, frechet_distance
from mggc_edge.quality.kid import kid
from mggc_edge.tensors import Array, FloatArray
from mggc_edge.training.loop import Progress, Watch
from mggc_edge.training.material import Material

QUALITY_SCHEMA, SAMPLES_SCHEMA = "mggc-edge/quality/1", "mggc-edge/samples/1"
SAMPLE_COLUMNS = ("input", "original", "compressed", "truth")
MAX_SAMPLE_SIDE = 256
MAX_REAL_PICTURES = 2000


@dataclass(frozen=True)
class Features:
    """Which network's features distributions are compared by."""

    which: str
    preprocessing: str

    def check(self) -> None:
        """Open the network once, so that what is wrong with it is known before anything long begins.

        Raises:
            ArtifactError: there is no such file or tensor, or it is damaged.
        """
        path, _ = split_feature_net(self.which)
        check_onnx(path)
        with FeatureNetwork(self.which, preprocessing=self.preprocessing):
            pass


@dataclass
class _Kept:
    """What is kept of the test pictures while they go by."""

    samples: dict[int, dict[str, Image.Image]] = field(default_factory=dict)
    outputs: dict[str, list[Image.Image]] = field(default_factory=lambda: {"original": [], "compressed": []})


def measure_quality(
    folder: Path,
    original: Path,
    compressed: Path,
    material: Material,
    *,
    output_format: PictureFormat,
    features: Features | None,
    samples: int,
    seed: int,
    tell: Callable[[str], None],
    watch: Watch,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Compare both ONNX files on the test pictures; write and return quality.json, and write samples/.

    Args:
        folder: the run folder.
        output_format: of the pictures that both give.
        features: for KID and Frechet distance; None: they are left out.
        samples: how many test pictures to keep for people to look at.
        extra: goes into the document as it is.

    Raises:
        ArtifactError, OutputError: a file cannot be run, or written.
    """
    count = len(material.test)
    chosen = set(random.Random(seed).sample(range(count), min(samples, count)))  # noqa: S311  no secret
    kept = _Kept()

    def keep(x: Array, first: Array, second: Array, truth: Array | None) -> None:
        number = next(numbers)
        pictures = {"original": to_picture(first, output_format), "compressed": to_picture(second, output_format)}
        if features is not None:
            for name, picture in pictures.items():
                kept.outputs[name].append(picture)
        if number in chosen:
            pictures["input"] = to_picture(x, material.test.format)
            if truth is not None:
                pictures["truth"] = to_picture(truth, output_format)
            kept.samples[number] = pictures
        watch(Progress("quality", number + 1, count, {}, None))

    numbers = iter(range(count))
    tell(f"comparing on {count} pictures ({material.where})")
    with OnnxRuntimeRunner(original) as a, OnnxRuntimeRunner(compressed) as b:
        comparison = compare_pictures(a, b, _pairs(material), on_pictures=keep, seed=seed)
    document = {
        "schema": QUALITY_SCHEMA,
        "where": material.where,
        "split_sha256": material.split_sha256,
        **comparison.to_json(),
        **_distributions(features, kept, material, seed, tell),
        **extra,
        "remarks": list(material.remarks),
    }
    _write_samples(folder / "samples", kept.samples, material)
    write_json(folder / "quality.json", document)  # last: where it is, the stage is finished
    return document


def _pairs(material: Material) -> Iterator[tuple[FloatArray, FloatArray | None]]:
    for index in range(len(material.test)):
        truth = material.test_truth
        yield (
            material.test.batch([index]).numpy(),
            None if truth is None else truth.batch([index]).numpy(),
        )


def _distributions(
    features: Features | None, kept: _Kept, material: Material, seed: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return KID and Frechet distance of both sets of outputs to real pictures of the target.

    Where there are no real ones, the original's outputs stand for them.
    """
    nothing = {"features": None, "kid": None, "frechet": None, "distributions_against": None}
    if features is None:
        return nothing
    tell("comparing distributions of features")
    with FeatureNetwork(features.which, preprocessing=features.preprocessing) as network:
        found = {name: network.features(pictures) for name, pictures in kept.outputs.items()}
        real_set = material.test_target
        against = "original's outputs"
        real = found["original"]
        if real_set is not None:
            against = f"{min(len(real_set), MAX_REAL_PICTURES)} real pictures"
            real = network.features(
                to_picture(real_set.batch([index])[0].numpy(), real_set.format)
                for index in range(min(len(real_set), MAX_REAL_PICTURES))
            )
        name = network.name
    names = ("original", "compressed") if real_set is not None else ("compressed",)
    fewest = min(len(real), len(found["compressed"]))
    if fewest < 2:
        return {**nothing, "features": name}
    size = max(2, min(1000, fewest // 2))
    distances = {side: kid(real, found[side], subset_size=size, seed=seed).to_json() for side in names}
    frechet: dict[str, Any] | None = None
    if enough_for_frechet(fewest, real.shape[1]):
        frechet = {"features": name, "original": None, **{side: frechet_distance(real, found[side]) for side in names}}
    return {
        "features": name,
        "kid": {"original": None, **distances},
        "frechet": frechet,
        "frechet_reason": None if frechet else f"{fewest} pictures are too few for {real.shape[1]} features",
        "distributions_against": against,
    }


def _write_samples(folder: Path, samples: Mapping[int, Mapping[str, Image.Image]], material: Material) -> None:
    rows = []
    for place, (number, pictures) in enumerate(sorted(samples.items())):
        row: dict[str, Any] = {"name": material.test.names[number], **dict.fromkeys(SAMPLE_COLUMNS)}
        for column, picture in pictures.items():
            row[column] = f"{place:03d}-{column}.png"
            scale = min(1.0, MAX_SAMPLE_SIDE / max(picture.size))
            small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            shown = picture if scale == 1 else picture.resize(small, Image.Resampling.BICUBIC)
            atomic_write(folder / row[column], png_bytes(shown))
        rows.append(row)
    write_json(folder / "index.json", {"schema": SAMPLES_SCHEMA, "columns": list(SAMPLE_COLUMNS), "rows": rows})
