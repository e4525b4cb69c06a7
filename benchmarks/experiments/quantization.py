"""What the defaults of `--quantize 8` rest on: generators on 8-bit grids of several kinds, against those in floats.

    python benchmarks/experiments/quantization.py --data $DATA [--steps 150] [--out benchmarks/results]

PSNR in dB over 6 pictures: to the network in floats, and of the same 8-bit network to itself where the pictures change
by one part in a million ("echo"). Then the network is cut to a quarter of every width and trained for some steps, by
Adam on the L1 distance to the original, in floats and on fixed and learned grids: PSNR to the whole original. Writes
quantization.json and quantization.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks.experiments.real_generators import CASES, Case
from mggc_edge.machine import this_machine
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
def measured(network: Network, wanted: list[Tensor], pictures: list[Tensor]) -> dict[str, float]:
    """Return how near a network comes to what is wanted, and to itself."""
    network.eval()
    outputs = [network(x) for x in pictures]
    torch.manual_seed(0)
    echo = [network(x + 1e-6 * torch.randn_like(x)) for x in pictures]
    return {"psnr": psnr(outputs, wanted), "echo_psnr": psnr(outputs, echo)}


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


def rows_of(case: Case, data: Path, steps: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every kind of grid, without training, and for every one that is trained."""
    size = (case.image_size, case.image_size)
    original = fold_batch_norm(load_network(data / case.checkpoint, image_size=size))
    files = find_pictures(data / case.pictures)[: CALIBRATED + TESTED + TRAINED]
    form = original.spec.input_format
    every = [torch.from_numpy(to_array(read_picture(file, form.color, case.half), size, form)) for file in files]
    calibration, test, training = (
        every[:CALIBRATED], every[CALIBRATED : CALIBRATED + TESTED], every[CALIBRATED + TESTED :]
    )  # fmt: skip
    with torch.no_grad():
        wanted, lessons = ([original(x) for x in side] for side in (test, training))
    names = [layer.name for layer in original.table.layers[1:] if layer.op != "constant"]
    paper = with_quantization(original, dict.fromkeys(names, (4 / 256, 0)))
    yield {"grids": "[0, 4] for every activation, as in the paper", "steps": 0, **measured(paper, wanted, test)}
    for calibrated in ("minmax", "mse"):
        for per_channel in (False, True):
            settings = QuantizeSettings(per_channel=per_channel, calibration=calibrated)
            name = f"`{calibrated}`, `{'channel' if per_channel else 'tensor'}`"
            network = quantize(original, lambda: calibration, settings)
            yield {"grids": name, "steps": 0, **measured(network, wanted, test)}
    quarter = {group.name: tuple(range(-(-group.size // 4))) for group in original.table.groups}
    for kind in ("floats", "`fixed`", "`learned`"):
        network = slim(original, quarter)
        if kind != "floats":
            settings = QuantizeSettings(learned=kind == "`learned`")
            network = quantize(network, lambda: calibration, settings)
        train(network, training, lessons, steps)
        yield {"grids": f"a quarter of every width, {kind}", "steps": steps, **measured(network, wanted, test)}


def page(document: dict[str, Any]) -> str:
    """Return the table: a row for every kind of grid, two columns for every generator."""
    cases = list(document["rows"])
    lines = [
        "| grids | steps |" + "".join(f" {case} | echo |" for case in cases),
        "|---|---:|" + "---:|---:|" * len(cases),
    ]
    for several in zip(*document["rows"].values(), strict=True):
        values = "".join(f" {row['psnr']:.2f} | {row['echo_psnr']:.2f} |" for row in several)
        lines.append(f"| {several[0]['grids']} | {several[0]['steps']} |{values}")
    return "\n".join([*lines, "", f"PSNR in dB. Made by `{document['command']}`."]) + "\n"


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    words = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    for case in CASES[:2]:  # those of the committed results
        rows[f"{case.name}, {case.image_size}x{case.image_size}"] = found = []
        for row in rows_of(case, words.data, words.steps):
            found.append(row)
            print(case.name, row["grids"], f"{row['psnr']:.2f} dB, echo {row['echo_psnr']:.2f} dB", flush=True)
    document = {
        "command": f"python benchmarks/experiments/quantization.py --data $DATA --steps {words.steps}",
        "machine": this_machine().processor,
        "threads": torch.get_num_threads(),
        "tools": tool_versions(),
        "rows": rows,
    }
    (words.out / "quantization.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (words.out / "quantization.md").write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
