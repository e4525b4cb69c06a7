"""PyTorch as an inference engine: the reference that the others are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mggc_edge.backends.base import BaseRunner
from mggc_edge.lazy import require
from mggc_edge.tensors import Array, Feeds, TensorSpec

if TYPE_CHECKING:
    import torch


class PyTorchRunner(BaseRunner):
    """Runs a module with one input and one output on the CPU, without gradients and without dropout."""

    engine = "pytorch"

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        name: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name, metadata)
        self._module = module
        self._was_training = module.training
        self._described = (inputs, outputs)

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        require("torch", extra="torch")
        self._module.eval()
        return self._described

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        torch = require("torch", extra="torch")
        (inputs, outputs) = self._described
        with torch.inference_mode():
            # A copy: torch takes no array that is read-only or has negative strides.
            output = self._module(torch.from_numpy(feeds[inputs[0].name].copy()))
        return {outputs[0].name: output.numpy()}

    def _close(self) -> None:
        self._module.train(self._was_training)  # the module belongs to the caller
