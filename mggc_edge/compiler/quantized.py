"""What a quantized network has to say of itself when it is exported: its grids, its levels, and how well it repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mggc_edge.artifacts import Precision
from mggc_edge.backends.base import Runner
from mggc_edge.compiler.grid_parity import GridParity, check_grids
from mggc_edge.compiler.qdq import Grid
from mggc_edge.models.fake_quant import input_grid, input_levels, output_axis, weight_levels, weight_scale
from mggc_edge.models.layers import INPUT_GRID
from mggc_edge.models.network import Network, Tap
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.quality.metrics import psnr_from_mse
from mggc_edge.quality.parity import only_output
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

ECHO = 1e-6  # of the values' range: the change of a picture, far below what a picture's 8 bits hold
ECHO_MARGIN_DB = 1.5  # two engines differ in more places than a change of the picture


def precision_of(spec: NetworkSpec) -> Precision:
    """Return the precision of the file that a network is exported to."""
    return "fp32" if spec.quantization == "none" else "int8"


def network_grids(network: Network) -> list[Grid]:
    """Return the grids of a quantized network's convolutions, in the order in which they run.

    Raises:
        SpecError: the grid of an activation is none.
    """
    grids = []
    for layer in network.table.layers:
        if layer.op == "constant":
            continue
        conv = network.get_submodule(layer.name)
        weight = conv.get_parameter("weight")
        scales = weight_scale(weight, layer).numpy()
        scale, zero_point = None, 0
        if layer.quantized_input:
            scale, zero_point = input_grid(*(getattr(conv, name) for name in INPUT_GRID))
        grids.append(
            Grid(
                name=layer.name,
                weight=weight_levels(weight, layer).to(torch.int8).numpy(),
                weight_scale=scales.reshape(()) if layer.quantization == "int8_tensor" else scales,
                axis=output_axis(layer),
                scale=scale,
                zero_point=zero_point,
            )
        )
    return grids


def compare_grids(network: Network, model: onnx.ModelProto, input_name: str, pictures: Iterable[Array]) -> GridParity:
    """Compare the levels of an exported graph with those of its network, each layer on the same input.

    Raises:
        ArtifactError: the graph cannot be run.
    """
    return check_grids(model, input_name, ((picture, levels(network, picture)) for picture in pictures))


@torch.no_grad()
def levels(network: Network, picture: Array) -> Mapping[str, Array]:
    """Return the levels of what every row reads, [N, C, H, W] in uint8, by the row's name."""
    rows = [layer.name for layer in network.table.layers if layer.quantized_input]
    taps: list[Tap] = [(name, "input") for name in rows]
    _, values = network.features(torch.from_numpy(picture), taps)
    found = {}
    for name, value in zip(rows, values, strict=True):
        conv = network.get_submodule(name)
        found[name] = input_levels(value, *(getattr(conv, part) for part in INPUT_GRID)).to(torch.uint8).numpy()
    return found


def echo_psnr(network: Runner, pictures: Sequence[Array], data_range: float, seed: int) -> float:
    """Return the PSNR, in dB, that an exact file of a quantized network can be expected to reach on these pictures.

    It is that of the network to itself where the pictures change by one part in a million of their range, less a
    margin: in a deep network, any change that small already moves the rounding of every later layer.
    """
    squared = values = 0.0
    for picture, noise in zip(pictures, _noise(pictures, seed), strict=True):
        moved = (picture + ECHO * data_range * noise).astype(picture.dtype)
        difference = only_output(network, moved).astype(np.float64) - only_output(network, picture)
        squared, values = squared + float(np.square(difference).sum()), values + difference.size
    psnr = psnr_from_mse(squared / values, data_range)
    return math.inf if psnr is None else psnr - ECHO_MARGIN_DB


def _noise(pictures: Sequence[Array], seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    for picture in pictures:
        yield generator.uniform(-1, 1, picture.shape)
