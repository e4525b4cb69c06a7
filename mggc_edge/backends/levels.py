"""Pictures of 8 bits, whatever a file takes: a runner of floats, or of bytes, shown as one of levels."""

from __future__ import annotations

import json

import numpy as np

from mggc_edge.artifacts import BYTES_IO, METADATA_PREFIX
from mggc_edge.backends.base import BaseRunner, Runner
from mggc_edge.pictures import PictureFormat, to_levels
from mggc_edge.tensors import Array, Feeds, TensorSpec


class LevelRunner(BaseRunner):
    """Takes and gives levels: float32 [N, C, H, W] of whole numbers from 0 to 255, colours as RGB.

    Between them and what the other runner takes lies the conversion of `mggc_edge.pictures`. So a file of floats and
    one of bytes see the same pictures, and what they give can be compared.

    Args:
        inner: an entered runner with one input and one output, of floats [N, C, H, W] or of bytes [N, H, W, C].
        input_format, output_format: of its floats; of bytes, levels in RGB.
    """

    def __init__(self, inner: Runner, input_format: PictureFormat, output_format: PictureFormat) -> None:
        said = {
            "io": BYTES_IO,
            "input_format": json.dumps(input_format.in_bytes.to_json()),
            "output_format": json.dumps(output_format.in_bytes.to_json()),
        }
        super().__init__(inner.name, {**inner.metadata, **{METADATA_PREFIX + key: said[key] for key in said}})
        self.engine = inner.engine
        self._inner = inner
        self._formats = input_format, output_format

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        inputs, outputs = (tuple(map(_as_levels, tensors)) for tensors in (self._inner.inputs, self._inner.outputs))
        return inputs, outputs

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        (given,), (taken,) = self._inner.inputs, self._inner.outputs
        pixels = np.clip(np.rint(feeds[given.name]), 0, 255).astype(np.uint8)
        form, made = self._formats
        if given.channels_last:
            feed: Array = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        else:
            feed = form.levels()[pixels[:, ::-1] if form.color == "BGR" else pixels]
        output = self._inner.infer({given.name: np.ascontiguousarray(feed)})[taken.name]
        if taken.channels_last:
            return {taken.name: np.ascontiguousarray(output.transpose(0, 3, 1, 2)).astype(np.float32)}
        levels = to_levels(output, made).astype(np.float32)
        return {taken.name: np.ascontiguousarray(levels[:, ::-1] if made.color == "BGR" else levels)}

    def _close(self) -> None:
        """Nothing: whoever entered the other runner leaves it."""


def _as_levels(tensor: TensorSpec) -> TensorSpec:
    shape = tensor.shape
    if tensor.channels_last:
        shape = (shape[0], shape[3], shape[1], shape[2])
    return TensorSpec(tensor.name, "float32", shape)
