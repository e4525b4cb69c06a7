"""Batch statistics that fit the weights: after channels have been cut, the old ones no longer do."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mggc_edge.models.network import Network


@torch.no_grad()
def recalibrate(network: Network, batches: Iterable[Tensor]) -> int:
    """Set the running statistics of every batch norm to their mean over `batches`, each [N, C, H, W]; in place.

    Dropout is off, as it will be when the statistics are used. Returns how many batches were seen: 0 where the network
    has no batch norm, and nothing was read. Without a batch the statistics stay as they were.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return 0
    before = [norm.momentum for norm in norms]
    training = network.training
    network.eval()
    count = 0
    for batch in batches:
        if count == 0:  # without a batch, the old statistics stay
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches, each with the same weight
                norm.train()
        network(batch)
        count += 1
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.train(training)
    return count
