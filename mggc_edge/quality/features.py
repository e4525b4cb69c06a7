"""Pictures to feature vectors, with any ONNX network as the extractor."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.decoding import Size
from mggc_edge.errors import ArtifactError, FeedError, OutputError, PictureError, SettingError
from mggc_edge.pictures import PictureFormat, to_array
from mggc_edge.quality.inner_tensor import with_inner_output
from mggc_edge.tensors import Array, FloatArray, TensorSpec

MAX_FILE_BYTES = 2 * 2**30
MAX_SIDE = 2048  # pixels of the network's input
MAX_FEATURES = 2**16
USUAL_SIDE = 224  # pixels, where the network leaves its size open
SUM_TOLERANCE = 0.01  # of probabilities: a thousand half-precision numbers add up to 1 within this

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Preprocessing:
    """What an extractor wants of a picture's values: a colour order and range, then (value - mean) / std by channel.

    Attributes:
        format: colour order and the values of black and white before `mean` and `std`.
        mean, std: one number a channel, in the colour order of `format`.
    """

    format: PictureFormat
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def apply(self, picture: Image.Image, size: Size) -> FloatArray:
        """Return a picture of any mode as float32 [1, 3, H, W]; `size` is (H, W), grey is repeated to three channels.

        An 8-bit picture is resized to the whole of `size`, bicubic with Pillow's antialiasing.
        """
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        return (to_array(picture, size, self.format) - mean) / std


PREPROCESSINGS: Mapping[str, Preprocessing] = {
    # torchvision's ImageNet networks
    "imagenet": Preprocessing(PictureFormat(3, "RGB", 0, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # Caffe's ImageNet networks: BGR, levels less the mean colour
    "caffe": Preprocessing(PictureFormat(3, "BGR", 0, 255), mean=(103.939, 116.779, 123.68)),
    "unit": Preprocessing(PictureFormat(3, "RGB", 0, 1)),
    "signed": Preprocessing(PictureFormat(3, "RGB", -1, 1)),
}


def split_feature_net(text: str) -> tuple[Path, str | None]:
    """Split `FILE` or `FILE:TENSOR` into the file and the name of an inner tensor, None where none is given.

    Both parts may hold colons: FILE is the longest beginning of `text` that is a file.

    Raises:
        ArtifactError: no beginning of `text` is a file, or nothing follows the colon.
    """
    ends = [len(text), *(at for at in range(len(text) - 1, 0, -1) if text[at] == ":")]
    for end in ends:
        if _is_file(text[:end]):
            tensor = text[end + 1 :]
            if end < len(text) and not tensor:
                raise ArtifactError(f"'{text}' names no tensor after the colon", hint="give FILE or FILE:TENSOR")
            return Path(text[:end]), tensor or None
    raise ArtifactError(f"there is no file '{text}'", hint="a feature network is an ONNX file, FILE or FILE:TENSOR")


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero in it
        return False


class FeatureNetwork:
    """An ONNX network as a feature extractor. Its session lives between `__enter__` and `__exit__`.

    Features are the values of an inner tensor or else of the network's only output; of four axes [N, C, H, W] the mean
    over the positions, of others all values. The file must be trusted or checked before: its size is all that is
    bounded here.

    Args:
        which: `FILE` or `FILE:TENSOR`, see `split_feature_net`.
        preprocessing: a name in PREPROCESSINGS.
        threads: threads inside an operator; 0 lets ONNX Runtime choose.

    Attributes:
        path, tensor: the file and the inner tensor, None for the output.
        name: for tables, such as "squeezenet fire9/concat_1".

    Raises:
        ArtifactError: there is no such file.
        SettingError: the preprocessing is unknown.
    """

    def __init__(self, which: str | Path, *, preprocessing: str = "imagenet", threads: int = 0) -> None:
        if preprocessing not in PREPROCESSINGS:
            raise SettingError(f"unknown preprocessing '{preprocessing}'", f"one of {', '.join(PREPROCESSINGS)}")
        self.path, self.tensor = split_feature_net(str(which))
        self.name = self.path.stem if self.tensor is None else f"{self.path.stem} {self.tensor}"
        self._preprocessing = PREPROCESSINGS[preprocessing]
        self._threads = threads
        self._runner: OnnxRuntimeRunner | None = None
        self._copy = self.path  # what the engine calls the file
        self._input = TensorSpec("unknown", "float32", (1, 3, USUAL_SIDE, USUAL_SIDE))
        self._feature_output = self._plain_output = ""

    def __enter__(self) -> FeatureNetwork:
        """Open the network.

        Raises:
            ArtifactError: it is too large or damaged, has no such tensor, does not take one RGB picture, or does not
                give numbers.
            MissingDependencyError: ONNX Runtime is not installed, or onnx, which an inner tensor needs.
            OutputError: there is no room for a temporary copy of the network, which an inner tensor needs.
        """
        check_size(self.path, "a feature network")
        if self.tensor is None:
            runner = OnnxRuntimeRunner(self.path, threads=self._threads)
            runner.__enter__()
            own = tuple(output.name for output in runner.outputs)
        else:
            data, own = with_inner_output(self.path, self.tensor)
            runner = self._entered_copy(data)
        try:
            self._take_over(runner, own)
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

    def features(self, pictures: Iterable[Image.Image]) -> FloatArray:
        """Return the features of pictures of any size and mode, float32 [n, d]; they are read one at a time.

        Raises:
            PictureError: there is no picture.
            ArtifactError: the network fails, or gives something that is not one finite vector a picture.
            FeedError: it is not entered.
        """
        return self._values(pictures, [self._feature_output])[0]

    def probabilities(self, pictures: Iterable[Image.Image]) -> FloatArray:
        """Return the class probabilities that the network's only output gives, float32 [n, classes].

        Raises:
            ArtifactError: as `features`, or its output is no distribution: below zero, or not adding up to 1.
            FeedError, PictureError: as `features`.
        """
        return self.features_and_probabilities(pictures)[1]

    def features_and_probabilities(self, pictures: Iterable[Image.Image]) -> tuple[FloatArray, FloatArray]:
        """Return `features` and `probabilities` from one run over the pictures."""
        if self._runner is not None and not self._plain_output:
            raise ArtifactError(f"'{self.path}' has no single output of numbers that could be class probabilities")
        features, probabilities = self._values(pictures, [self._feature_output, self._plain_output])
        sums = probabilities.sum(axis=1, dtype=np.float64)
        if probabilities.min() < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
            raise ArtifactError(
                f"the output of '{self.path}' holds no class probabilities", hint="its last operator must be a softmax"
            )
        return features, probabilities

    def _values(self, pictures: Iterable[Image.Image], outputs: list[str]) -> list[FloatArray]:
        if self._runner is None:
            raise FeedError(f"{self.name} is not open", hint="use it in a `with` block")
        height, width = (USUAL_SIDE if side is None else side for side in self._input.shape[2:])
        rows: list[list[FloatArray]] = [[] for _ in outputs]
        for number, picture in enumerate(pictures):
            array = self._preprocessing.apply(picture, (height, width)).astype(self._input.dtype)
            try:
                values = self._runner.infer({self._input.name: array})
            except ArtifactError as error:
                raise self._of_the_file(error) from error
            for output, column in zip(outputs, rows, strict=True):
                row = self._row(output, values[output])
                if not np.isfinite(row).all():
                    raise ArtifactError(f"'{self.path}' gives values that are not finite for picture {number}")
                if column and column[0].shape != row.shape:
                    raise ArtifactError(f"'{output}' of '{self.path}' changes its size from picture to picture")
                column.append(row)
        if not rows[0]:
            raise PictureError(f"there are no pictures to measure with {self.name}")
        return [np.stack(column) for column in rows]

    def _row(self, output: str, value: Array) -> FloatArray:
        if value.ndim < 2 or value.shape[0] != 1 or value.size == 0:
            raise ArtifactError(
                f"'{output}' of '{self.path}' has the shape {list(value.shape)}, not one vector or map a picture"
            )
        row = value[0].reshape(value.shape[1], -1).mean(axis=1, dtype=np.float64) if value.ndim == 4 else value.ravel()
        if row.size > MAX_FEATURES:
            raise ArtifactError(
                f"'{output}' of '{self.path}' gives {row.size:,} features a picture, more than {MAX_FEATURES:,}",
                hint="take a smaller tensor, FILE:TENSOR",
            )
        return row.astype(np.float32)

    def _of_the_file(self, error: ArtifactError) -> ArtifactError:
        return ArtifactError(error.message.replace(str(self._copy), str(self.path)), error.hint)

    def _entered_copy(self, data: bytes) -> OnnxRuntimeRunner:
        try:
            with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
                self._copy = Path(folder, "features.onnx")
                self._copy.write_bytes(data)
                runner = OnnxRuntimeRunner(self._copy, threads=self._threads)
                try:
                    runner.__enter__()  # the whole file is read here
                except ArtifactError as error:
                    raise self._of_the_file(error) from error
        except OSError as error:
            raise OutputError(f"no temporary copy of '{self.path}' can be written: {error.strerror}") from error
        return runner

    def _take_over(self, runner: OnnxRuntimeRunner, own: tuple[str, ...]) -> None:
        """Check what an entered runner takes and gives; `own`: the names of the file's own outputs."""
        self._input = picture_input(self.path, runner, "a feature network")
        if self.tensor is None and len(own) != 1:
            hint = f"give FILE:TENSOR with one of {', '.join(own[:8])}"
            raise ArtifactError(f"'{self.path}' has {len(own)} outputs, and one must be chosen", hint)
        types = {output.name: output.dtype for output in runner.outputs}
        self._feature_output = own[0] if self.tensor is None else self.tensor
        self._plain_output = own[0] if len(own) == 1 and types[own[0]] in _FLOATS else ""
        if types[self._feature_output] not in _FLOATS:
            kind = types[self._feature_output]
            raise ArtifactError(f"'{self._feature_output}' of '{self.path}' is {kind}, but features are numbers")


def picture_input(path: Path, runner: OnnxRuntimeRunner, what: str) -> TensorSpec:
    """Return the only input of an entered runner, which takes one RGB picture; `what` names it: "a segmenter".

    Raises:
        ArtifactError: it takes something else.
    """
    if len(runner.inputs) != 1:
        raise ArtifactError(f"'{path}' has {len(runner.inputs)} inputs, but {what} takes a picture")
    (taken,) = runner.inputs
    shape = taken.shape
    if len(shape) != 4 or shape[0] not in (None, 1) or shape[1] not in (None, 3):
        shown = "x".join("any" if size is None else str(size) for size in shape)
        raise ArtifactError(f"'{path}' takes {shown}, but {what} takes one RGB picture, 1x3xHxW")
    if taken.dtype not in ("float16", "float32"):
        raise ArtifactError(f"'{path}' takes {taken.dtype}, but pictures are fed as float32 or float16")
    if max(side or 0 for side in shape[2:]) > MAX_SIDE:
        raise ArtifactError(f"'{path}' takes pictures of more than {MAX_SIDE} pixels a side")
    return taken


def check_size(path: Path, what: str) -> None:
    """Raise ArtifactError unless there is a file of at most MAX_FILE_BYTES; `what` names it: "a segmenter"."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"'{path}' has {size:,} bytes, more than the {MAX_FILE_BYTES:,} of {what}")
