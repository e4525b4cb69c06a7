"""Is the choice of channels worth it? Plans of MGGC against random plans and the magnitude plan of equal MACs.

    python benchmarks/experiments/plans.py --data $DATA --run NAME=RUN [--run NAME=RUN ...] [--random 20]
        [--epochs 1] [--out benchmarks/results]

Every RUN is a folder that `mggc-edge compress` made of weights/facades_pix2pix with one budget; its plan.json is taken.
All plans go through the same slimming, recalibration and short finetuning (pix2pix objective and distillation, whole
discriminator), and are measured on the 106 test pictures before and after: PSNR to the original's output, and KID to
the real pictures with SqueezeNet's fire9/concat_1. Results are kept as they come: a second start goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mggc_edge.artifacts import tool_versions, write_json
from mggc_edge.jobs.choose import Choice, Work
from mggc_edge.jobs.folder import start_job
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.networks import load_originals
from mggc_edge.jobs.pictures import read_material
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.tune import make_finetune, slim_generator
from mggc_edge.machine import this_machine
from mggc_edge.models.network import Network
from mggc_edge.pictures import to_picture
from mggc_edge.pruning.magnitude import magnitude_plan
from mggc_edge.pruning.plan import PruningPlan, read_plan
from mggc_edge.pruning.random import random_plan
from mggc_edge.quality.features import FeatureNetwork
from mggc_edge.quality.kid import kid
from mggc_edge.quality.metrics import psnr_from_mse
from mggc_edge.settings import Settings
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.loop import Journal, run_stage
from mggc_edge.training.material import Material
from mggc_edge.training.precision import choose_precision

FEATURES = "weights/squeezenet11_fp16_onnx/SqueezeNet_fp16.onnx:fire9/concat_1"
SUBSET = 53  # pictures, half of the test set
SEED = 0


class Study:
    """The originals, the pictures, and what the original makes of the test pictures."""

    def __init__(self, data: Path, epochs: float, threads: int) -> None:
        torch.set_num_threads(threads)
        weights = data / "weights/facades_pix2pix"
        self.request = CompressRequest(
            model=str(weights / "latest_net_G.pth"),
            discriminator=str(weights / "latest_net_D.pth"),
            direction="BtoA",
            data=str(data / "data/facades"),
            budget="1",
            finetune_epochs=epochs,
        )
        self.settings = Settings()
        assert self.request.discriminator is not None
        self.originals = load_originals(
            Path(self.request.model),
            Path(self.request.discriminator),
            None,
            max_bytes=self.settings["checkpoint.max_bytes"],
        )
        generator = self.originals.generator
        self.material: Material = read_material(
            self.settings, self.request, generator.spec, generator.table.image_size, SEED, Hooks()
        )
        self.features = str(data / FEATURES)
        self.wanted = list(outputs(self.originals.generator, self.material.test))
        assert self.material.test_truth is not None
        self.real = self._features(self.material.test_truth.batch([n])[0] for n in range(len(self.material.test)))

    def _features(self, pictures: Iterator[torch.Tensor]) -> Any:
        form = self.material.test.format

        def shown() -> Iterator[Image.Image]:
            for picture in pictures:
                yield to_picture(picture.numpy(), form)

        with FeatureNetwork(self.features, preprocessing="caffe") as network:
            return network.features(shown())

    def measure(self, generator: Network) -> dict[str, float | None]:
        """Return PSNR to the original's outputs and KID to the real pictures, over the test pictures."""
        made = list(outputs(generator, self.material.test))
        errors = [float((a - b).square().mean()) for a, b in zip(made, self.wanted, strict=True)]
        psnr = [psnr_from_mse(error, 2.0) or 100.0 for error in errors]
        distance = kid(self.real, self._features(iter(made)), subset_size=SUBSET, seed=SEED)
        return {"psnr_to_original": statistics.fmean(psnr), "kid": distance.value}

    def finetuned(self, plan: PruningPlan) -> tuple[Network, Network]:
        """Return the slim generator before and after the short finetuning."""
        with tempfile.TemporaryDirectory() as folder:
            job = start_job(Path(folder) / "job", "compress", {}, self.settings, seed=SEED, threads=2)
            journal = Journal(job.folder / "metrics.jsonl")
            precision = choose_precision("auto", self.originals.generator)
            work = Work(job, journal, precision, lambda _: None, lambda _: None)
            choice = Choice(plan, None)
            before = slim_generator(self.settings, self.originals.generator, self.material, choice, SEED)
            student = slim_generator(self.settings, self.originals.generator, self.material, choice, SEED)
            stage = make_finetune(work, self.originals, self.material, choice, self.request, student)
            run_stage(stage, job.work, journal, seed=SEED)
            journal.close()
            return before.eval(), stage.student.eval()  # the last weights: all plans get the same steps


def outputs(generator: Network, pictures: PictureSet) -> Iterator[torch.Tensor]:
    """Yield the generator's output for every picture, [C, H, W]."""
    generator.eval()
    with torch.inference_mode():
        for number in range(len(pictures)):
            yield generator(pictures.batch([number]))[0].clone()


def plans(study: Study, runs: dict[str, Path], count: int) -> Iterator[tuple[str, PruningPlan]]:
    """Yield every plan with its name: those of the runs, magnitude, and random ones, all for the first run's budget."""
    made = {name: read_plan(run / "plan.json") for name, run in runs.items()}
    yield from made.items()
    generator, budget = study.originals.generator, next(iter(made.values())).budget
    yield "magnitude", magnitude_plan(generator, budget)
    for seed in range(count):
        yield f"random {seed}", random_plan(generator.table, budget, seed=seed)


def table(document: dict[str, Any]) -> str:
    """Return the Markdown table: a row per plan, the random ones as mean, standard deviation, best and worst."""
    rows: dict[str, Any] = document["plans"]
    random = [row for name, row in rows.items() if name.startswith("random")]
    lines = [
        "| plan | MACs kept | KID before | KID after | PSNR before | PSNR after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        if not name.startswith("random"):
            cells = [f"{row[when]['kid']:.0f}" for when in ("before", "after")]
            cells += [f"{row[when]['psnr_to_original']:.2f}" for when in ("before", "after")]
            lines.append(f"| {name} | {row['budget_met']:.4f} | {' | '.join(cells)} |")
    if len(random) > 1:
        cells = []
        for measure, digits in (("kid", 0), ("psnr_to_original", 2)):
            for when in ("before", "after"):
                values = [row[when][measure] for row in random]
                mean, std = statistics.fmean(values), statistics.stdev(values)
                cells.append(
                    f"{mean:.{digits}f} ± {std:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
                )
        lines.append(f"| {len(random)} random plans | {random[0]['budget_met']:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study and write plans.json and plans.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    parser.add_argument("--random", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    runs = {name: Path(run) for name, _, run in (text.partition("=") for text in arguments.run)}
    study = Study(arguments.data, arguments.epochs, arguments.threads)
    path = arguments.out / "plans.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    document.setdefault("plans", {})
    document |= {
        "command": f"python benchmarks/experiments/plans.py --data $DATA --epochs {arguments.epochs:g} "
        + " ".join(f"--run '{name}=RUN'" for name in runs),
        "epochs": arguments.epochs,
        "seed": SEED,
        "machine": this_machine().processor,
        "tools": tool_versions(),
        "original": study.measure(study.originals.generator),
    }
    for name, plan in plans(study, runs, arguments.random):
        if name in document["plans"]:
            continue
        before, after = study.finetuned(plan)
        document["plans"][name] = {
            "budget_met": plan.budget_met,
            "widths": {group: len(kept) for group, kept in plan.kept.items()},
            "before": study.measure(before),
            "after": study.measure(after),
        }
        write_json(path, document)
        print(name, document["plans"][name]["before"], document["plans"][name]["after"], flush=True)
    (arguments.out / "plans.md").write_text(table(document), encoding="utf-8")


if __name__ == "__main__":
    main()
