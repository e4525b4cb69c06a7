"""The proof: pictures and latency of the compressed generator beside the original's, both in ONNX Runtime."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mggc_edge.artifacts import atomic_write, write_json
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.errors import ArtifactError, counted
from mggc_edge.jobs.distances import Distances, Extractor
from mggc_edge.jobs.folder import resume_line
from mggc_edge.jobs.segmenting import Agreements
from mggc_edge.pictures import PictureFormat, png_bytes, to_picture
from mggc_edge.quality.compare import compare_pictures
from mggc_edge.quality.segmentation import Segmenter
from mggc_edge.tensors import Array, FloatArray
from mggc_edge.training.loop import Progress, Watch
from mggc_edge.training.material import Material

QUALITY_SCHEMA, SAMPLES_SCHEMA = "mggc-edge/quality/1", "mggc-edge/samples/1"
SAMPLE_COLUMNS = ("input", "original", "compressed", "truth")
MAX_SAMPLE_SIDE = 256


@dataclass(frozen=True)
class Yardsticks:
    """What pictures are measured by, beside each other and the truth.

    Attributes:
        networks: whose features distributions are compared by.
        segmenter: what tells the class of every pixel of a picture; None: none.
        max_real: most real pictures that distributions are compared with.
    """

    networks: Sequence[Extractor] = ()
    segmenter: Segmenter | None = None
    max_real: int = 10_000


@dataclass
class _Kept:
    """What is kept of the test pictures while they go by."""

    samples: dict[int, dict[str, Image.Image]] = field(default_factory=dict)


def measure_quality(
    folder: Path,
    original: Path,
    compressed: Path,
    material: Material,
    *,
    output_format: PictureFormat,
    yardsticks: Yardsticks,
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
        yardsticks: for KID, Frechet distance and FID, and mIoU.
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
        with _replaceable(folder):
            distances.add(pictures)
            if agreements is not None:
                assert truth is not None
                real = to_picture(truth, output_format)
                agreements.add(to_picture(x, material.test.format), {**pictures, "real": real})
        if number in chosen:
            pictures["input"] = to_picture(x, material.test.format)
            if truth is not None:
                pictures["truth"] = to_picture(truth, output_format)
            kept.samples[number] = pictures
        watch(Progress("quality", number + 1, count, {}, None))

    numbers = iter(range(count))
    tell(f"comparing on {counted(count, 'picture')} ({material.where})")
    segmenter = yardsticks.segmenter
    with contextlib.ExitStack() as stack:
        distances = stack.enter_context(Distances(yardsticks.networks, max_real=yardsticks.max_real))
        agreements = None if segmenter is None else Agreements(stack.enter_context(segmenter))
        a, b = (stack.enter_context(OnnxRuntimeRunner(path)) for path in (original, compressed))
        values = output_format.high - output_format.low
        comparison = compare_pictures(a, b, _pairs(material), on_pictures=keep, data_range=values, seed=seed)
        if yardsticks.networks:
            tell("comparing distributions of features")
        with _replaceable(folder):
            distributions = distances.to_json(material, seed)
    document = {
        "schema": QUALITY_SCHEMA,
        "where": material.where,
        "split_sha256": material.split_sha256,
        **comparison.to_json(),
        **distributions,
        "segmentation": None if agreements is None else agreements.to_json(seed),
        **extra,
        "remarks": list(material.remarks),
    }
    _write_samples(folder / "samples", kept.samples, material)
    write_json(folder / "quality.json", document)  # last: where it is, the stage is finished
    return document


@contextlib.contextmanager
def _replaceable(folder: Path) -> Iterator[None]:
    """Say that a job can go on with another yardstick where one fails on a picture: what it measures is finished."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(
            error.message,
            hint=f"everything else is kept; go on with another network, or with '' for none: "
            f"{resume_line('compress', folder)} with --feature-net, --inception or --segmenter",
        ) from error


def _pairs(material: Material) -> Iterator[tuple[FloatArray, FloatArray | None]]:
    for index in range(len(material.test)):
        truth = material.test_truth
        yield (
            material.test.batch([index]).numpy(),
            None if truth is None else truth.batch([index]).numpy(),
        )


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
