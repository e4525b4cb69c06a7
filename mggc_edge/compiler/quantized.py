"""What a quantized network has to say of itself when it is exported: its precision, its grids, and its levels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from mggc_edge.artifacts import Precision
from mggc_edge.compiler.grid_parity import GridParity, check_grids
from mggc_edge.compiler.qdq import Grid
from mggc_edge.models.convert import without_quantization
from mggc_edge.models.fake_quant import (
    input_grid,
    input_levels,
    output_axis,
    rounded_bias,
    weight_levels,
    weight_scale,
)
from mggc_edge.models.layers import INPUT_GRID
from mggc_edge.models.network import Network, Tap
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx


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


@torch.no_grad()
def in_floats(network: Network) -> Network:
    """Return a network without its grids, for the graph that they are put into; biases are those that it computes with.

    A network in floats comes back as it is.
    """
    plain = without_quantization(network)
    for layer in network.table.layers:
        if layer.quantized_input and layer.bias:
            conv = network.get_submodule(layer.name)
            weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
            rounded = rounded_bias(bias, weight, getattr(conv, INPUT_GRID[0]), layer)
            plain.get_parameter(f"{layer.name}.bias").copy_(rounded)
    return plain


def compare_grids(network: Network, model: onnx.ModelProto, input_name: str, pictures: Iterable[Array]) -> GridParity:
    """Compare the levels of an exported graph with those of its network, each layer on the same input.

    Raises:
        ArtifactError: the graph cannot be run.
    """
    return check_grids(model, input_name, ((picture, *levels(network, picture)) for picture in pictures))


@torch.no_grad()
def levels(network: Network, picture: Array) -> tuple[Mapping[str, Array], Array]:
    """Return the levels of what every row reads, [N, C, H, W] in uint8, by the row's name, and the output."""
    rows = [layer.name for layer in network.table.layers if layer.quantized_input]
    taps: list[Tap] = [(name, "input") for name in rows]
    output, values = network.features(torch.from_numpy(picture), taps)
    found = {}
    for name, value in zip(rows, values, strict=True):
        conv = network.get_submodule(name)
        found[name] = input_levels(value, *(getattr(conv, part) for part in INPUT_GRID)).to(torch.uint8).numpy()
    return found, output.numpy()
