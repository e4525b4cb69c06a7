"""Tiny stages that one process, or one of several, trains for a few steps: run by `test_processes` in fresh processes.

process_stages.py FOLDER BATCH    ranks and sizes come from the environment, as torchrun sets it
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mggc_edge.jobs.devices import on
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.pruning.gan_slimming.settings import SlimmingSettings
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.pruning.mggc.game import Game
from mggc_edge.pruning.mggc.settings import GameSettings
from mggc_edge.training.cyclegan import CycleGan, CycleGanSettings
from mggc_edge.training.discriminator import DiscriminatorSettings, FitDiscriminator
from mggc_edge.training.distill import DistillSettings
from mggc_edge.training.finetune import Cast, Finetune, FinetuneSettings
from mggc_edge.training.loop import Stage
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed
from mggc_edge.training.pix2pix import Pix2Pix, Pix2PixSettings
from mggc_edge.training.processes import ALONE, Processes, gather, part
from tests.models.model_helpers import some_kept
from tests.training.training_helpers import pictures
from tests.training.training_helpers import trained as with_weights

GENERATOR = resnet_spec(blocks=1, ngf=4)  # plain instance norm, no dropout
JUDGE = patchgan_spec(ndf=4, layers=2)
PAIR_JUDGE = patchgan_spec(in_channels=6, ndf=4, layers=2)
VIEWS = (20, 18)  # crops of 16x16 are cut from them
A, B, MADE = pictures(12, VIEWS, seed=1), pictures(10, VIEWS, seed=2), pictures(12, seed=3)
SMALL_A, SMALL_B = pictures(12, seed=4), pictures(10, seed=5)
SEED, STEPS = 6, 10
EPOCHS = STEPS * 2 / 12  # 10 steps of 2 of the 12 pictures


def trained(spec: NetworkSpec, *, seed: int) -> Network:
    """A network as after training; a discriminator says little, so that gradients are well below 1."""
    network = with_weights(spec, seed=seed)
    with torch.no_grad():
        if spec.family == "patchgan":
            for value in list(network.parameters())[-2:]:
                value.mul_(0.1)
    return network


def placed(spec: NetworkSpec, processes: Processes, *, seed: int) -> Network:
    """The same on the device of a process."""
    return on(processes.device, trained(spec, seed=seed))


def cyclegan(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Unpaired, without a pool."""
    specs = {"G_A": GENERATOR, "G_B": GENERATOR, "D_A": JUDGE, "D_B": JUDGE}
    networks = {name: placed(spec, processes, seed=number) for number, (name, spec) in enumerate(specs.items())}
    settings = CycleGanSettings(epochs=EPOCHS, batch_size=batch, pool=0, lambda_cycle=0.03)
    return CycleGan(networks, A, B, settings, seed=SEED, precision="fp32", processes=processes), {**networks}


def pix2pix(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Paired."""
    networks = {"G": placed(GENERATOR, processes, seed=1), "D": placed(PAIR_JUDGE, processes, seed=2)}
    settings = Pix2PixSettings(epochs=EPOCHS, batch_size=batch, lambda_l1=1.0)
    targets = pictures(12, VIEWS, seed=2)
    return Pix2Pix(networks, A, targets, settings, seed=SEED, precision="fp32", processes=processes), {**networks}


def discriminator(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Against the original with channels closed at random."""
    judge, generator = placed(JUDGE, processes, seed=1), placed(GENERATOR, processes, seed=2)
    settings = DiscriminatorSettings(epochs=EPOCHS, batch_size=batch)
    stage = FitDiscriminator(
        judge, generator, SMALL_A, MADE, None, settings, paired=False, seed=SEED, precision="fp32", processes=processes
    )
    return stage, {"D": judge}


def game(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Both agents, with noise and neighbors."""
    generator, judge = placed(GENERATOR, processes, seed=1), placed(JUDGE, processes, seed=2)
    neighbors = torch.tensor([[(n + step) % 12 for step in (1, 2, 3)] for n in range(12)])
    stage = Game(
        generator, judge, SMALL_A, MADE, neighbors, budget=0.3, settings=GameSettings(k=3), seed=SEED, steps=STEPS,
        batch_size=batch, processes=processes,
    )  # fmt: skip
    assert stage.discriminator_agent is not None
    return stage, {"generator": stage.generator_agent, "discriminator": stage.discriminator_agent}


def gan_slimming(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Without a pool. The distance is not least at the start, where a sign of rounding would be all it says."""
    generator, judge = placed(GENERATOR, processes, seed=1), placed(JUDGE, processes, seed=4)
    settings = SlimmingSettings(beta=0.5, pool=0)
    budget = 1.0 if processes.device.type == "meta" else 0.6  # where nothing has a value, everything costs 1

    def far(y: Tensor, wanted: Tensor) -> Tensor:
        return (y - wanted + 0.5).square().mean()

    stage = GanSlimming(
        generator, judge, A, far, settings, budget=budget, seed=SEED, steps=STEPS, batch_size=batch,
        processes=processes,
    )  # fmt: skip
    return stage, {"G": stage.student, "D": stage.judge}


def finetune(batch: int, processes: Processes) -> tuple[Stage, dict[str, torch.nn.Module]]:
    """Unpaired, distilled, with a partner and without a pool."""
    teacher, judge = trained(GENERATOR, seed=1), trained(JUDGE, seed=2)
    student = slim(teacher, some_kept(GENERATOR, 3, remove_blocks=False))
    own = Network.from_tensors(judge.spec, judge.table, {k: v.clone() for k, v in judge.state_dict().items()})
    material = Material(
        "unpaired", A, B, A, B, held_out=SMALL_A, held_out_truth=None, test=SMALL_A, test_truth=None, test_target=None,
        where="held out", split_sha256="",
    )  # fmt: skip
    settings = FinetuneSettings(
        DistillSettings(content=0.1, style=1.0, pixels=0.1, form="mse"),
        epochs=EPOCHS,
        batch_size=batch,
        pool=0,
        lambda_cycle=0.03,
    )
    student, own, teacher, judge = (on(processes.device, network) for network in (student, own, teacher, judge))
    cast = Cast(student, own, teacher, judge, placed(GENERATOR, processes, seed=3))
    stage = Finetune(cast, material, settings, seed=SEED, precision="fp32", processes=processes)
    return stage, {"G": student, "D": own}


STAGES = {f.__name__: f for f in (cyclegan, pix2pix, discriminator, game, gan_slimming, finetune)}


def trained_by(name: str, batch: int, processes: Processes) -> dict[str, Tensor]:
    """The averaged gradients of the first step, the log's numbers of it, and the weights after ten, by name.

    Without oneDNN, whose sums depend on how many pictures come together: on some processors a value near 0 then has
    another sign, and a ReLU lets it through in one of both.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        return _trained_by(name, batch, processes)


def _trained_by(name: str, batch: int, processes: Processes) -> dict[str, Tensor]:
    stage, modules = STAGES[name](batch, processes)
    assert stage.steps == STEPS
    found: dict[str, Tensor] = {}
    for number in range(STEPS):
        rank = f"/process {processes.rank}" if processes.rank else ""
        torch.manual_seed(step_seed(SEED, stage.name + rank, number))
        metrics: Mapping[str, object] = processes.mean_numbers(stage.step(number))
        if number == 0:
            for module, parameters in modules.items():
                found |= {
                    f"gradient.{module}.{key}": value.grad.clone()
                    for key, value in parameters.named_parameters()
                    if value.grad is not None
                }
            found |= {f"metric.{key}": torch.tensor(v) for key, v in metrics.items() if isinstance(v, float)}
    for module, parameters in modules.items():
        found |= {f"weight.{module}.{key}": value.detach().clone() for key, value in parameters.named_parameters()}
    return found


def main(folder: Path, batch: int) -> None:
    """Train every stage, and write what this process found to FOLDER/<stage>.<rank>.safetensors."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    processes = gather(torch.device("cpu"), size=size, on_this_machine=size) if size > 1 else ALONE
    for name in STAGES:
        save_file(trained_by(name, batch, processes), folder / f"{name}.{processes.rank}.safetensors")
    processes.barrier()
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
