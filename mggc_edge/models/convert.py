"""Rewrites of a whole network: batch norm folded, or per picture; norms with a scale; on 8-bit grids and off them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from mggc_edge.errors import SpecError
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import INPUT_GRID
from mggc_edge.models.network import Network, norm_scale_shift
from mggc_edge.models.spec import Quantization

BatchNormMode = Literal["eval", "batch"]


def fold_batch_norm(network: Network) -> Network:
    """Return the network with every batch norm folded into its convolution: the same function in evaluation mode.

    W' = W * gamma / sqrt(var + eps) per output channel, b' = (b - mean) * gamma / sqrt(var + eps) + beta.
    A network without batch norm comes back as it is.
    """
    if network.spec.norm != "batch":
        return network
    spec = replace(network.spec, norm="none", bias=True)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    target: dict[str, Tensor] = {}
    for layer in network.table.layers:
        if layer.op == "constant":
            target[f"{layer.name}.constant"] = state[f"{layer.name}.constant"]
            continue
        weight = state[f"{layer.name}.weight"]
        bias = state[f"{layer.name}.bias"] if layer.bias else weight.new_zeros(layer.out_channels)
        if layer.norm is not None:
            # In double precision: a tiny running variance would otherwise cost digits.
            scale, shift = norm_scale_shift(state, layer.norm, layer.epsilon)
            out_first = (1, -1, 1, 1) if layer.op == "conv_transpose" else (-1, 1, 1, 1)
            bias = (bias.double() * scale + shift).to(weight.dtype)
            weight = (weight.double() * scale.view(out_first)).to(weight.dtype)
        target[f"{layer.name}.weight"], target[f"{layer.name}.bias"] = weight, bias
    table = layer_table(spec, network.table.image_size)
    return Network.from_tensors(spec, table, target).train(network.training)


def per_picture_norm(network: Network) -> Network:
    """Return the network with batch norm replaced by affine instance norm with the same gamma and beta.

    This is what batch norm computes in training mode at batch size 1, and so what the well-known pix2pix test script,
    which never calls `eval()`, gives. A network without batch norm comes back as it is.

    Raises:
        SpecError: blocks have been removed from it, and what they left depends on running statistics.
    """
    if network.spec.norm != "batch":
        return network
    if any(layer.op == "constant" for layer in network.table.layers):
        raise SpecError(
            "residual blocks were removed from this network with the running statistics of their batch norms",
            hint="turn the original into its per-picture form first, and slim that",
        )
    spec = replace(network.spec, norm="instance_affine")
    table = layer_table(spec, network.table.image_size)
    state = network.state_dict()
    tensors = {key: state[key].clone() for key in table.tensors}
    return Network.from_tensors(spec, table, tensors).train(network.training)


def affine_instance_norm(network: Network) -> Network:
    """Return the network with plain instance norms as affine ones, gamma = 1 and beta = 0: the same function.

    Where a residual block was removed, a constant of zeros is what its branch adds. A network with other norms comes
    back as it is.
    """
    if network.spec.norm != "instance":
        return network
    spec = replace(network.spec, norm="instance_affine")
    table = layer_table(spec, network.table.image_size)
    state = network.state_dict()
    scales = {f"{layer.norm}.{layer.norm_parameters[0]}" for layer in table.layers if layer.norm is not None}
    like = next(iter(state.values()))
    tensors = {
        key: state[key].clone() if key in state else torch.full(tensor.shape, float(key in scales)).to(like)
        for key, tensor in table.tensors.items()
    }
    return Network.from_tensors(spec, table, tensors).train(network.training)


def with_quantization(
    network: Network, grids: Mapping[str, tuple[float, int]], quantization: Quantization = "int8"
) -> Network:
    """Return the network with its weights, and what its convolutions read, rounded to 8-bit grids.

    Args:
        network: without batch norms (see `fold_batch_norm`).
        grids: scale and zero point of what a row reads, by the name of each row that does not read the picture.
        quantization: of the weights.

    Raises:
        SpecError: the network has batch norms, or rows and grids are not the same ones.
    """
    spec = replace(network.spec, quantization=quantization)
    table = layer_table(spec, network.table.image_size)
    state = network.state_dict()
    tensors = {key: state[key].clone() for key in network.table.tensors if key in table.tensors}
    rows = [layer.name for layer in table.layers if layer.quantized_input]
    if set(rows) != set(grids):
        odd = sorted(set(rows) ^ set(grids))
        raise SpecError(f"the rows of this network and the grids do not belong together: {', '.join(odd[:5])}")
    beside = next(network.parameters())
    for name in rows:
        scale, zero_point = (torch.tensor([value], dtype=beside.dtype, device=beside.device) for value in grids[name])
        tensors |= dict(zip((f"{name}.{key}" for key in INPUT_GRID), (scale.log(), zero_point), strict=True))
    return Network.from_tensors(spec, table, tensors).train(network.training)


def without_quantization(network: Network, *, shared: bool = False) -> Network:
    """Return the network in floats: with the weights that are not rounded yet, and without grids.

    `shared`: they are those of `network` itself, so that what trains one of the two trains both.
    """
    if network.spec.quantization == "none":
        return network
    spec = replace(network.spec, quantization="none")
    table = layer_table(spec, network.table.image_size)
    state = network.state_dict(keep_vars=shared)
    tensors = {key: state[key] if shared else state[key].clone() for key in table.tensors}
    return Network.from_tensors(spec, table, tensors).train(network.training)
