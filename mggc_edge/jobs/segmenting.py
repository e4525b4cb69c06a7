"""mIoU: whether a segmenter finds in the generators' photographs the labels that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mggc_edge.compiler.facts import check_onnx
from mggc_edge.errors import ArtifactError, InputError
from mggc_edge.pictures import to_picture
from mggc_edge.quality.bootstrap import Statistic, bootstrap
from mggc_edge.quality.confusion import Confusion, agreement, confusion, miou_statistic
from mggc_edge.quality.palette import Palette, learn_palette
from mggc_edge.quality.segmentation import Segmenter
from mggc_edge.settings import Settings
from mggc_edge.training.material import Material

SIDES = ("original", "compressed", "real")
MOST_LEARNT_FROM = 400  # training label pictures


def segmenter_for(
    settings: Settings, file: str | None, material: Material, tell: Callable[[str], None]
) -> Segmenter | None:
    """Return the segmenter of a job, tried on a photograph: what is wrong with it is known before anything long.

    Where the setting segmenter.palette is empty, the colours of the classes are learnt from training pictures that go
    into the generator, and never from test pictures.

    Raises:
        InputError: the pictures have no pairs, or are no RGB pictures.
        PictureError: the generator's inputs are no label pictures.
        ArtifactError: there is no such file, or it is no segmenter.
        SettingError: a setting is impossible.
    """
    if file is None:
        return None
    if material.test_truth is None:
        raise InputError(
            "mIoU compares with the labels that a photograph was made from, and these pictures have no pairs",
            hint="give paired pictures (--layout paired), or leave --segmenter out",
        )
    if material.test.format.mode != "RGB" or material.test_truth.format.mode != "RGB":
        raise InputError("mIoU needs RGB label pictures that go in and RGB photographs that come out")
    path = Path(file)
    if not path.is_file():
        raise ArtifactError(f"there is no file '{file}'", hint="a segmenter is an ONNX file")
    check_onnx(path)
    if settings["segmenter.palette"]:
        palette = Palette.parse(settings["segmenter.palette"])
    else:
        source = material.source
        palette = learn_palette(
            to_picture(source.batch([index])[0].numpy(), source.format)
            for index in range(min(len(source), MOST_LEARNT_FROM))
        )
        tell(f"the training labels have {len(palette.colors)} colours: {' '.join(palette.words())}")
    segmenter = Segmenter(
        path, palette, gives=settings["segmenter.gives"], preprocessing=settings["segmenter.preprocessing"]
    )
    truth = material.test_truth
    with segmenter:
        segmenter.classes(to_picture(truth.batch([0])[0].numpy(), truth.format), truth.size)
    return segmenter


class Agreements:
    """What an entered segmenter finds in pictures, beside the labels they were made from.

    Of the pictures only their confusion matrices are kept.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._found: dict[str, list[Confusion]] = {side: [] for side in SIDES}

    def add(self, labels: Image.Image, pictures: Mapping[str, Image.Image]) -> None:
        """Take the label picture that went in, and the photograph of each of SIDES."""
        palette = self._segmenter.palette
        truth = palette.labels(labels)
        for side in SIDES:
            predicted = self._segmenter.classes(pictures[side], truth.shape[:2])
            self._found[side].append(confusion(truth, predicted, len(palette.colors)))

    def to_json(self, seed: int) -> dict[str, Any]:
        """Return the part of `quality.json` about segmentation; "real" are the true photographs, the most there is."""
        statistics: dict[str, Statistic] = {}
        document: dict[str, Any] = {"segmenter": self._segmenter.name, "palette": self._segmenter.palette.words()}
        for side in SIDES:
            matrices = np.stack(self._found[side])
            statistics[side] = miou_statistic(matrices)
            interval = bootstrap([statistics[side]], len(matrices), seed=seed).to_json()["ci95"]
            document[side] = {**agreement(matrices.sum(axis=0)).to_json(), "miou_ci95": interval}
        a, b, count = statistics["compressed"], statistics["original"], len(self._found["real"])
        document["difference"] = bootstrap([a], count, minus=[b], seed=seed).to_json()
        return document
