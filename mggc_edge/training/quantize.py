"""From a trained network to one that can be trained on: batch norm folded, and every tensor on an 8-bit grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mggc_edge.errors import TrainingError
from mggc_edge.models.convert import fold_batch_norm, with_quantization
from mggc_edge.models.fake_quant import MAX_LEVEL, rounded_input
from mggc_edge.models.layers import INPUT, INPUT_GRID
from mggc_edge.models.network import Network, Tap
from mggc_edge.training.processes import ALONE, Processes

Calibration = Literal["mse", "minmax"]
# The parts of the observed range of which the one with the smallest squared error is taken.
PARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


@dataclass(frozen=True)
class QuantizeSettings:
    """How a network is put on its grids.

    Attributes:
        per_channel: whether a weight has a scale for each output channel, or one for all.
        learned: whether the scales of activations are trained with the weights.
        calibration: the range of activations that the training begins with: all that was seen ("minmax"), or the part
            of it that rounds with the smallest squared error ("mse").
    """

    per_channel: bool = True
    learned: bool = False
    calibration: Calibration = "mse"


def quantize(network: Network, pictures: Callable[[], Iterable[Tensor]], settings: QuantizeSettings) -> Network:
    """Return the network with its batch norms folded, and its weights and activations on 8-bit grids.

    The weights themselves stay floats, which training moves: they are rounded whenever the network runs. The grids of
    activations are those that fit `pictures`, each [N, C, H, W], which are gone through twice.

    Raises:
        TrainingError: what the network computes of the pictures is not finite, so that no grid holds it.
    """
    plain = fold_batch_norm(network)
    grids = calibrate(plain, pictures, settings.calibration)
    quantized = with_quantization(plain, grids, "int8" if settings.per_channel else "int8_tensor")
    for scale in range_parameters(quantized):
        scale.requires_grad_(settings.learned)
    return quantized


Grids = Callable[[Network], Mapping[str, tuple[float, int]]]  # of a network in floats, see `calibrate`


def set_grids(network: Network, grids: Mapping[str, tuple[float, int]], processes: Processes = ALONE) -> None:
    """Give the activations of a network that lies on grids others, in place: scale and zero point by the row's name.

    Of several processes, all get those of rank 0: unlike processors may find others in the last bit.
    """
    places = []
    for name, (scale, zero_point) in grids.items():
        row, (log_scale, zero) = network.get_submodule(name), INPUT_GRID
        row.get_parameter(log_scale).data.copy_(torch.tensor([scale]).log())
        row.get_buffer(zero).fill_(zero_point)
        places += [row.get_parameter(log_scale).data, row.get_buffer(zero)]
    processes.broadcast(places)


def range_parameters(network: Network) -> list[nn.Parameter]:
    """Return the logarithms of the scales of a network's activations, none of one in floats."""
    rows = [layer.name for layer in network.table.layers if layer.quantized_input]
    return [network.get_parameter(f"{name}.{INPUT_GRID[0]}") for name in rows]


@torch.no_grad()
def calibrate(
    network: Network, pictures: Callable[[], Iterable[Tensor]], calibration: Calibration
) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of what every row reads that does not read the picture, by the row's name.

    The range always holds 0, which padding and ReLU give: it lies on a level, so that it is exact.

    Raises:
        TrainingError: see `quantize`.
    """
    rows = [layer.name for layer in network.table.layers if layer.op != "constant" and INPUT not in layer.reads]
    taps: list[Tap] = [(name, "input") for name in rows]
    training = network.training
    network.eval()
    low, high = torch.zeros(len(rows)), torch.zeros(len(rows))
    for batch in pictures():
        values = network.features(batch, taps)[1]
        low = torch.minimum(low, torch.stack([value.amin() for value in values]).float().cpu())
        high = torch.maximum(high, torch.stack([value.amax() for value in values]).float().cpu())
    for name, least, most in zip(rows, low.tolist(), high.tolist(), strict=True):
        if not 0 <= most - least < 1e30:
            raise TrainingError(
                f"layer {name} reads values from {least:g} to {most:g}, which no 8-bit grid holds",
                hint="leave out --quantize",
            )
    grids = [[_grid(part * a, part * b) for part in PARTS] for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    errors = torch.zeros(len(rows), len(PARTS), dtype=torch.float64)
    if calibration == "mse":
        for batch in pictures():
            for row, value in enumerate(network.features(batch, taps)[1]):
                for column, (scale, zero_point) in enumerate(grids[row]):
                    errors[row, column] += _squared_error(value, scale, zero_point)
    network.train(training)
    return {name: grids[row][int(errors[row].argmin())] for row, name in enumerate(rows)}


def _grid(low: float, high: float) -> tuple[float, int]:
    """Return the scale and zero point whose levels reach from about `low` <= 0 to `high` >= 0."""
    scale = max((high - low) / MAX_LEVEL, 1e-12)
    return scale, round(-low / scale)


def _squared_error(value: Tensor, scale: float, zero_point: int) -> float:
    value = value.float()
    grid = (torch.tensor([number], device=value.device) for number in (scale, float(zero_point)))
    log_scale, zero = next(grid).log(), next(grid)
    return float((rounded_input(value, log_scale, zero) - value).double().square().mean())
