"""What a pruning step costs beside its forward and backward passes, and the share of each part.

    python benchmarks/experiments/pruning_step.py [--rounds 20] [--threads 2] [--out benchmarks/results]

Times, interleaved in random order: a whole step of the game, and the same passes without gates and agents (G forward,
D forward on a generated and on a real picture, backward through D for D's loss and through D and G for G's loss, all
weights frozen). Then, apart from that, the parts of a step: agents and gates, cost, pictures (fetching both batches).
Pictures come from files, as in a job, decoded once and kept. Writes pruning_step.json and pruning_step.md: the median
ratio with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mggc_edge.artifacts import tool_versions
from mggc_edge.machine import this_machine
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pictures import PictureFormat, find_pictures
from mggc_edge.procedural import procedural_pictures
from mggc_edge.pruning.mggc.game import Game
from mggc_edge.pruning.mggc.settings import GameSettings
from mggc_edge.training.bank import FolderPictures
from mggc_edge.training.losses import discriminator_loss, generator_loss
from mggc_edge.training.precision import Precision, autocast, choose_precision

COUNT, BUDGET, STEPS = 24, 0.2, 10_000


class Case:
    """A generator with its discriminator, playing on pictures from files."""

    def __init__(
        self, name: str, generator: NetworkSpec, judge: NetworkSpec, size: int, batch: int, folder: Path
    ) -> None:
        self.name, self.batch = name, batch
        torch.manual_seed(0)
        self.generator, self.judge = (Network(s, layer_table(s, (size, size))) for s in (generator, judge))
        form = PictureFormat.for_channels(3)
        self.bank = FolderPictures(find_pictures(folder), (size, size), form, cache_bytes=2**28)
        self.precision: Precision = choose_precision("auto", self.generator)
        neighbors = torch.arange(COUNT)[:, None].roll(1, 0)
        self.game = Game(
            self.generator,
            self.judge,
            self.bank,
            self.bank,
            neighbors,
            budget=BUDGET,
            settings=GameSettings(regularizer="two_sided"),
            seed=0,
            steps=STEPS,
            batch_size=batch,
            precision=self.precision,
        )
        self.conditional = judge.in_channels > 3
        self.number = 0
        for network in (self.generator, self.judge):
            network.requires_grad_(False).train()

    def step(self) -> None:
        """One step of the game."""
        self.game.step(self.number)
        self.number += 1

    def bare(self) -> None:
        """The same passes with frozen weights, without gates and agents: gradients end in the pictures."""
        indices = [(self.number + n) % COUNT for n in range(self.batch)]
        x, real = self.bank.batch(indices).requires_grad_(), self.bank.batch(indices).requires_grad_()
        with autocast(self.precision):
            fake = self.generator(x, None, "batch")
            says_fake = self.judge(self._seen(x, fake), None, "batch")
            says_real = self.judge(self._seen(x, real), None, "batch")
        loss_d = discriminator_loss("lsgan", says_real, says_fake)
        torch.autograd.grad(loss_d, [real, fake], retain_graph=True)
        torch.autograd.grad(generator_loss("lsgan", says_fake), [x])

    def _seen(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, y.to(x.dtype)], dim=1) if self.conditional else y

    def agents(self) -> None:
        """Both agents and all gates, forward and backward."""
        gates_d, gates_g, _ = self.game._choose()  # noqa: SLF001
        values = torch.cat([*gates_d.values(), *gates_g.values()]).sum()
        parameters = [*self.game.generator_agent.parameters()]
        torch.autograd.grad(values, parameters, allow_unused=True)

    def pictures(self) -> None:
        """Fetch what a step sees."""
        self.bank.batch(range(self.batch))
        self.bank.batch(range(self.batch))


def seconds(run: Callable[[], None]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interval(ratios: list[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    random = np.random.default_rng(seed)
    medians = [float(np.median(random.choice(ratios, len(ratios)))) for _ in range(2000)]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return the ratio of a step to its bare passes, and the shares of its parts."""
    random = np.random.default_rng(0)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds + 3):
        order = [case.step, case.bare]
        first = int(random.integers(0, 2))
        took = {order[first]: seconds(order[first]), order[1 - first]: seconds(order[1 - first])}
        if number >= 3:
            pairs.append((took[case.step], took[case.bare]))
    step = statistics.median(a for a, _ in pairs)
    parts = {
        name: statistics.median(seconds(part) for _ in range(10)) / step
        for name, part in (("agents and gates", case.agents), ("pictures", case.pictures))
    }
    ratios = [a / b for a, b in pairs]
    return {
        "case": case.name,
        "precision": case.precision,
        "step_ms": step * 1e3,
        "bare_ms": statistics.median(b for _, b in pairs) * 1e3,
        "ratio": statistics.median(ratios),
        "ci95": interval(ratios),
        "shares": parts,
        "samples_s": pairs,
    }


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, picture in enumerate(procedural_pictures(COUNT, (256, 256))):
            picture.save(folder / f"{number}.png")
        cases = (
            ("ResNet-6, ngf 32, 128, batch 1", resnet_spec(blocks=6, ngf=32), patchgan_spec(ndf=32), 128, 1),
            (
                "U-Net-128, ngf 32, 128, batch 4",
                unet_spec(halvings=7, ngf=32),
                patchgan_spec(in_channels=6, ndf=32, norm="batch"),
                128,
                4,
            ),
            ("ResNet-9, ngf 64, 256, batch 1", resnet_spec(blocks=9, ngf=64), patchgan_spec(ndf=64), 256, 1),
        )
        for title, generator, judge, size, batch in cases:
            rows.append(measure(Case(title, generator, judge, size, batch, folder), arguments.rounds))
            print({key: value for key, value in rows[-1].items() if key != "samples_s"}, flush=True)
    document = {
        "command": f"python benchmarks/experiments/pruning_step.py --rounds {arguments.rounds}",
        "machine": this_machine().processor,
        "threads": arguments.threads,
        "tools": tool_versions(),
        "rows": rows,
    }
    (arguments.out / "pruning_step.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    lines = [
        "| case | precision | step | bare passes | ratio (95 %) | agents and gates | pictures |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['case']} | {row['precision']} | {row['step_ms']:.1f} ms | {row['bare_ms']:.1f} ms "
        f"| {row['ratio']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f}) "
        f"| {row['shares']['agents and gates']:.1%} | {row['shares']['pictures']:.2%} |"
        for row in rows
    ]
    (arguments.out / "pruning_step.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
