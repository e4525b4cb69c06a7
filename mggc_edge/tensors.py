"""Arrays and their descriptions: what goes into a network and comes out, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import FeedError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type (numpy's name for it) and shape of one input or output; `None` stands for any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise FeedError("a tensor needs a name")
        if any(size is not None and size < 1 for size in self.shape):
            raise FeedError(f"tensor '{self.name}' has shape {self.shape}, but every size must be at least 1")

    @property
    def channels_last(self) -> bool:
        """Whether it is a picture of bytes, uint8 [N, H, W, C]; any other picture is [N, C, H, W]."""
        return self.dtype == "uint8" and len(self.shape) == 4 and self.shape[3] in (1, 3, 4)

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) of a picture in pixels; None where one of them is open, or it is none."""
        sides = self.shape[1:3] if self.channels_last else self.shape[2:]
        if len(self.shape) != 4 or sides[0] is None or sides[1] is None:
            return None
        return sides[0], sides[1]

    @property
    def channels(self) -> int | None:
        """Of a picture; None where that is open, or it is none."""
        return self.shape[3 if self.channels_last else 1] if len(self.shape) == 4 else None

    def accepts(self, array: Array) -> bool:
        """Whether `array` has this element type and shape."""
        return (
            array.dtype.name == self.dtype
            and array.ndim == len(self.shape)
            and all(wanted is None or size == wanted for size, wanted in zip(array.shape, self.shape, strict=True))
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the keys `name`, `dtype` and `shape` (any size is null)."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
