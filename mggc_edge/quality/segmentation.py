"""Pictures to class maps, with any ONNX segmenter."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from PIL import Image

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.decoding import Size
from mggc_edge.errors import ArtifactError, FeedError, SettingError
from mggc_edge.pictures import PictureFormat, to_picture
from mggc_edge.quality.confusion import Labels
from mggc_edge.quality.features import PREPROCESSINGS, check_size, picture_input
from mggc_edge.quality.palette import Palette
from mggc_edge.tensors import Array, TensorSpec

Gives = Literal["auto", "classes", "colors"]


class Segmenter:
    """An ONNX network that tells the class of every pixel. Its session lives between `__enter__` and `__exit__`.

    Its only output is [1, K, H, W]: a score for every class ("classes"), of which the highest counts, or a label
    picture in RGB from -1 to 1 ("colors"), as a generator from photographs to labels gives it, of which the nearest
    colour of the palette counts. The file must be trusted or checked before: its size is all that is bounded here.

    Args:
        path: the file.
        palette: the colours of the classes, in the order of the scores.
        gives: "auto": colors where the output has 3 channels, else classes.
        preprocessing: a name in PREPROCESSINGS, or "auto": "signed" for colors, "imagenet" for classes.
        threads: threads inside an operator; 0 lets ONNX Runtime choose.

    Attributes:
        name: for tables.

    Raises:
        SettingError: the preprocessing or what it gives is unknown.
    """

    def __init__(
        self, path: Path, palette: Palette, *, gives: str = "auto", preprocessing: str = "auto", threads: int = 0
    ) -> None:
        if preprocessing not in (*PREPROCESSINGS, "auto"):
            raise SettingError(f"unknown preprocessing '{preprocessing}'", f"one of {', '.join(PREPROCESSINGS)}")
        if gives not in ("auto", "classes", "colors"):
            raise SettingError(f"a segmenter gives no '{gives}'", "classes or colors")
        self.path, self.palette, self.name = path, palette, path.stem
        self._gives, self._preprocessing, self._threads = gives, preprocessing, threads
        self._runner: OnnxRuntimeRunner | None = None
        self._input = TensorSpec("unknown", "float32", (1, 3, None, None))

    def __enter__(self) -> Segmenter:
        """Open the network.

        Raises:
            ArtifactError: it is missing, too large or damaged, does not take one RGB picture, or gives neither a score
                for each of the palette's classes nor a picture.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        check_size(self.path, "a segmenter")
        runner = OnnxRuntimeRunner(self.path, threads=self._threads)
        runner.__enter__()
        try:
            self._input = picture_input(self.path, runner, "a segmenter")
            self._check_output(runner)
        except BaseException:
            runner.__exit__(None, None, None)
            raise
        self._runner = runner
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.__exit__(kind, error, trace)

    def classes(self, picture: Image.Image, size: Size) -> Labels:
        """Return the class of every pixel of a picture, [H, W] of `size`.

        The picture is resized (bicubic) to what the network takes; of its map, the nearest pixel counts.

        Raises:
            ArtifactError: the network fails, or gives something that is not one finite map.
            FeedError: it is not entered.
        """
        if self._runner is None:
            raise FeedError(f"{self.name} is not open", hint="use it in a `with` block")
        height, width = self._input.shape[2] or picture.height, self._input.shape[3] or picture.width
        x = PREPROCESSINGS[self._preprocessing].apply(picture, (height, width)).astype(self._input.dtype)
        (y,) = self._runner.infer({self._input.name: x}).values()
        if y.ndim != 4 or y.shape[0] != 1 or y.size == 0:
            raise ArtifactError(f"'{self.path}' has the output {list(y.shape)}, not one map a picture")
        if not np.isfinite(y).all():
            raise ArtifactError(f"'{self.path}' gives values that are not finite")
        found = self._of_colors(y) if self._gives == "colors" else self._of_scores(y)
        return _resized(found, size)

    def _of_colors(self, y: Array) -> Labels:
        self._check_channels(y.shape[1], 3)
        return self.palette.nearest(to_picture(y, PictureFormat(3, "RGB")))

    def _of_scores(self, y: Array) -> Labels:
        self._check_channels(y.shape[1], len(self.palette.colors))
        best: Labels = y[0].argmax(axis=0)
        return best

    def _check_output(self, runner: OnnxRuntimeRunner) -> None:
        if len(runner.outputs) != 1 or len(runner.outputs[0].shape) != 4:
            raise ArtifactError(
                f"'{self.path}' is no segmenter: its output must be one map a picture, [1, classes or colours, H, W]"
            )
        channels = runner.outputs[0].shape[1]
        if self._gives == "auto":
            self._gives = "colors" if channels == 3 else "classes"
        if self._preprocessing == "auto":
            self._preprocessing = "signed" if self._gives == "colors" else "imagenet"
        if channels is not None:
            self._check_channels(channels, 3 if self._gives == "colors" else len(self.palette.colors))

    def _check_channels(self, channels: int, wanted: int) -> None:
        if channels != wanted:
            what = "label pictures have 3" if self._gives == "colors" else f"the palette has {wanted} classes"
            raise ArtifactError(
                f"'{self.path}' gives {channels} channels, but {what}",
                hint="set segmenter.palette to the colour of every class, in the order of the channels",
            )


def _resized(labels: Labels, size: Size) -> Labels:
    """Return the nearest class for every pixel of `size`, by pixel centres."""
    if labels.shape == size:
        return labels
    rows, columns = (
        ((np.arange(wanted) + 0.5) * (have / wanted)).astype(np.int64)
        for wanted, have in zip(size, labels.shape, strict=True)
    )
    resized: Labels = labels[rows[:, None], columns[None]]
    return resized
