"""What the defaults of `--quantize 8` rest on: a generator on 8-bit grids of several kinds, against itself in floats.

    python benchmarks/experiments/quantization.py CHECKPOINT PICTURES [--image-size 96] [--steps 0]

PSNR in dB over 6 pictures: to the network in floats, and of the same 8-bit network to itself where the pictures change
by one part in a million ("echo"). With --steps the network is cut to a quarter of every width and trained as often, by
Adam on the L1 distance to the original, in floats and on each kind of grid.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.models.convert import fold_batch_norm, with_quantization
from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.models.weights import load_network
from mggc_edge.pictures import find_pictures, read_picture, to_array
from mggc_edge.training.quantize import QuantizeSettings, quantize

CALIBRATED, TESTED, TRAINED, RATE = 8, 6, 60, 1e-3


def psnr(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the PSNR of all pictures together, in dB, of values from -1 to 1."""
    error = sum(F.mse_loss(x, y).item() for x, y in zip(a, b, strict=True)) / len(a)
    return 10 * math.log10(4 / error) if error else math.inf


@torch.no_grad()
def said(name: str, network: Network, wanted: list[Tensor], pictures: list[Tensor]) -> None:
    """Print the row of a network."""
    network.eval()
    outputs = [network(x) for x in pictures]
    torch.manual_seed(0)
    echo = [network(x + 1e-6 * torch.randn_like(x)) for x in pictures]
    print(f"| {name} | {psnr(outputs, wanted):.2f} | {psnr(outputs, echo):.2f} |", flush=True)


def train(network: Network, pictures: list[Tensor], wanted: list[Tensor], steps: int) -> None:
    """Train a network towards the original's outputs."""
    torch.manual_seed(0)
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, RATE, betas=(0.5, 0.999))
    network.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / steps))
        chosen = torch.randint(len(pictures), (2,)).tolist()
        x, y = (torch.cat([side[number] for number in chosen]) for side in (pictures, wanted))
        optimizer.zero_grad()
        (10 * F.l1_loss(network(x), y)).backward()
        optimizer.step()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=0)
    words = parser.parse_args()
    size = (words.image_size, words.image_size)
    original = fold_batch_norm(load_network(words.checkpoint, image_size=size))
    files = find_pictures(words.pictures)[: CALIBRATED + TESTED + (TRAINED if words.steps else 0)]
    form = original.spec.input_format
    every = [torch.from_numpy(to_array(read_picture(file, form.color), size, form)) for file in files]
    calibration, test, training = (
        every[:CALIBRATED], every[CALIBRATED : CALIBRATED + TESTED], every[CALIBRATED + TESTED :]
    )  # fmt: skip
    with torch.no_grad():
        wanted, lessons = ([original(x) for x in side] for side in (test, training))
    print("| network | PSNR to floats | echo |\n|---|---:|---:|")
    rows = [layer.name for layer in original.table.layers[1:] if layer.op != "constant"]
    paper = with_quantization(original, dict.fromkeys(rows, (4 / 256, 0)))
    said("the paper's range, [0, 4] for everything", paper, wanted, test)
    for calibrated in ("minmax", "mse"):
        for per_channel in (False, True):
            settings = QuantizeSettings(per_channel=per_channel, calibration=calibrated)
            name = f"{calibrated}, a scale for every {'channel' if per_channel else 'tensor'}"
            said(name, quantize(original, lambda: calibration, settings), wanted, test)
    if words.steps:
        quarter = {group.name: tuple(range(-(-group.size // 4))) for group in original.table.groups}
        for kind in ("floats", "fixed ranges", "learned ranges"):
            network = slim(original, quarter)
            if kind != "floats":
                settings = QuantizeSettings(learned=kind == "learned ranges")
                network = quantize(network, lambda: calibration, settings)
            train(network, training, lessons, words.steps)
            said(f"a quarter of every width after {words.steps} steps, {kind}", network, wanted, test)


if __name__ == "__main__":
    main()
