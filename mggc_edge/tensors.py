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
