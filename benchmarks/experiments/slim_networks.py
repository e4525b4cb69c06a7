"""Slim generators with random weights: what they compute says nothing, how fast they are does."""

from __future__ import annotations

import torch

from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec


def networks() -> dict[str, NetworkSpec]:
    """Return the specs by name."""
    resnet, ups = resnet_spec(), ("stem", "down1", "trunk", "up1", "up2")
    inner = [f"block{number}.inner" for number in range(1, 10)]
    odd = dict(zip(inner, (21, 30, 33, 29, 35, 27, 22, 19, 37), strict=True))
    return {
        "ResNet-9, 16/32/64, inner 32, up 24/12": resnet.with_widths(
            {**dict(zip(ups, (16, 32, 64, 24, 12), strict=True)), **dict.fromkeys(inner, 32)}
        ),
        "ResNet-9, odd widths": resnet.with_widths({**dict(zip(ups, (13, 29, 61, 27, 14), strict=True)), **odd}),
        "U-Net-256, ngf 16": unet_spec(ngf=16),
    }


def random_network(spec: NetworkSpec, size: tuple[int, int]) -> Network:
    """Return a network whose weights keep values at the size that a trained one has."""
    torch.manual_seed(0)
    network = Network(spec, layer_table(spec, size)).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim == 4:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
    return network
