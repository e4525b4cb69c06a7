"""What a steered rho of GAN Slimming is worth: where runs end, beside runs with a rho that a user guesses.

    python benchmarks/experiments/slimming_budget.py [--steps 50] [--threads 1] [--out DIR]

Small generators with random weights, built-in pictures at 32x32 and the distance by pixels. Per run: the fraction of
the MACs that the scales left open, and how many channels the budget's repair had to open and to close. A run with
a fixed rho does not know the budget; its channels are repaired to each. Also the time that steering takes of a step,
for a ResNet-9 of full width. Writes slimming_budget.json and slimming_budget.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mggc_edge.artifacts import tool_versions
from mggc_edge.errors import TrainingError
from mggc_edge.machine import this_machine
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.gan_slimming.result import slimmed
from mggc_edge.pruning.gan_slimming.scales import scaled_groups
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.pruning.gan_slimming.steering import Steering
from mggc_edge.training.bank import ProceduralPictures
from mggc_edge.training.likeness import PixelLikeness
from mggc_edge.training.order import step_seed

SIZE, BUDGETS, RHOS = (32, 32), (0.05, 0.164, 0.5), (0.4, 0.6, 0.7, 0.8)
SPECS = {"ResNet, 3 blocks, 32 wide": resnet_spec(blocks=3, ngf=32), "U-Net-32, 32 wide": unet_spec(halvings=5, ngf=32)}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, spec in SPECS.items():
        for rho in (0.0, *RHOS):
            for budget in BUDGETS if rho == 0 else BUDGETS[:1]:
                try:
                    stage = trained(spec, budget, rho, arguments.steps)
                except TrainingError as error:
                    rows.append({"network": name, "rho": rho, "budget": None, "error": error.message})
                    continue
                rows += [
                    {"network": name, "rho": rho or None, "budget": asked, **ended(spec, stage, asked)}
                    for asked in ((budget,) if rho == 0 else BUDGETS)
                ]
    document = {
        "command": f"python benchmarks/experiments/slimming_budget.py --steps {arguments.steps}",
        "machine": this_machine().processor,
        "threads": arguments.threads,
        "tools": tool_versions(),
        "steps": arguments.steps,
        "rows": rows,
        "steering_ms": 1000 * steering_seconds(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "slimming_budget.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (arguments.out / "slimming_budget.md").write_text(page(document), encoding="utf-8")


def drawn(spec: NetworkSpec, seed: int) -> Network:
    """Return a network whose scales differ as those of trained ones do."""
    torch.manual_seed(seed)
    network = Network(spec, layer_table(spec, SIZE))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return network.eval()


def trained(spec: NetworkSpec, budget: float, rho: float, steps: int) -> GanSlimming:
    """Return a finished stage."""
    stage = GanSlimming(
        drawn(spec, 0),
        drawn(patchgan_spec(ndf=8, layers=2), 1),
        ProceduralPictures(32, SIZE, spec.input_format, seed=0),
        PixelLikeness(spec.output_format),
        SlimmingSettings(rho=rho),
        budget=budget,
        seed=0,
        steps=steps,
    )
    for step in range(steps):
        torch.manual_seed(step_seed(0, stage.name, step))
        stage.step(step)
    return stage


def ended(spec: NetworkSpec, stage: GanSlimming, budget: float) -> dict[str, Any]:
    """Return where a stage ended, and what the repair to a budget moves."""
    found = slimmed(drawn(spec, 0), stage, budget=budget, seed=0, convention="true", source_sha256=None)
    return {
        "channels": sum(len(scale) for scale in stage.scales.values()),
        "fraction": found.fraction,
        "met": found.plan.budget_met,
        "opened": found.opened,
        "closed": found.closed,
    }


def steering_seconds() -> float:
    """Return the processor time that steering takes of a step, for a ResNet-9 at 256x256."""
    table = layer_table(resnet_spec(), (256, 256))
    steering = Steering(table, 0.05, "true", rates=[0.1], closing=1)
    torch.manual_seed(0)
    scales = {group.name: torch.rand(group.size) for group in scaled_groups(table)}
    start = time.process_time()
    for _ in range(20):
        steering.amount(0, scales)
        steering.fraction(scales)
    return (time.process_time() - start) / 20


def page(document: dict[str, Any]) -> str:
    """Return the page of a study."""
    intro = (
        f"`{document['command']}`, {document['threads']} thread, {document['machine']}, torch "
        f"{document['tools'].get('torch', '?')}. One seed, {document['steps']} steps; fractions are of the MACs. "
        f"Steering takes {document['steering_ms']:.1f} ms of processor time a step for a ResNet-9."
    )
    lines = [
        "# Where GAN Slimming ends, by how rho is chosen",
        "",
        intro,
        "",
        "| network | rho | budget | left open | after the repair | opened | closed | of channels |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += map(_row, document["rows"])
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
    if "error" in row:
        return (
            f"| {row['network']} | {row['rho']:g} | any | {row['error'].partition(': with')[0]}: a group died | | | | |"
        )
    rho = "steered" if row["rho"] is None else f"{row['rho']:g}"
    cells: Sequence[object] = (
        row["network"], rho, f"{row['budget']:g}", f"{row['fraction']:.4f}", f"{row['met']:.4f}", row["opened"],
        row["closed"], row["channels"],
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
