"""The demo: a small original is trained on pictures of our own making, compressed, and compared with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from mggc_edge.artifacts import (
    ORIGINAL_FOLDER,
    PLAN_FILE,
    SLIM_FOLDER,
    atomic_write,
    check_output_folder,
)
from mggc_edge.errors import CheckFailedError
from mggc_edge.jobs.choose import Choice
from mggc_edge.jobs.compress import compress
from mggc_edge.jobs.folder import start_job
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.pictures import read_material
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.jobs.train import TrainRequest, train
from mggc_edge.jobs.tune import slim_generator
from mggc_edge.models.network import Network
from mggc_edge.models.weights import load_network
from mggc_edge.pictures import PictureFormat, Size, contact_sheet, png_bytes, to_picture
from mggc_edge.procedural import procedural_pictures
from mggc_edge.pruning.plan import read_plan
from mggc_edge.quality.metrics import psnr_from_mse
from mggc_edge.quality.parity import DATA_RANGE
from mggc_edge.settings import Settings
from mggc_edge.training.material import Material

DATA_FOLDER, RUN_FOLDER, SHEET_FILE = "data", "run", "contact-sheet.png"
FAMILY = "resnet_6blocks"
SHEET_PICTURES = 6
# Quality came back: finetuning regained at least this fraction of the L1 distance that slimming lost, and the distance
# to the truth is at most this fraction above the original's. The original learned the task: its distance is at most
# this fraction of what the inputs themselves are away from the truth.
LEAST_REGAINED, MOST_ABOVE, MOST_OF_INPUT = 0.5, 0.15, 0.5

# What the demo's own settings stand for in its jobs.
INSTEAD = {
    "train.batch_size": "demo.batch_size",
    "mggc.batch_size": "demo.batch_size",
    "finetune.batch_size": "demo.batch_size",
    "train.learning_rate": "demo.learning_rate",
    "finetune.learning_rate": "demo.learning_rate",
    "distill.content": "demo.distill_content",
    "distill.style": "demo.distill_style",
}

# A drawing has so many tones, dark to light, and ink where a scene's colours change by more than INK_FROM a pixel.
TONES = np.array([(38, 34, 72), (64, 92, 140), (120, 170, 176), (226, 214, 160), (250, 244, 226)], np.float32)
INK = np.array((24, 20, 30), np.float32)
INK_FROM, INK_RANGE = 18.0, 22.0
TONE_SLOPE = 4.0  # of the step from one tone to the next: 1 would be a gradient


@dataclass(frozen=True)
class Distance:
    """How far outputs are from the truth, over all test pictures.

    Attributes:
        psnr: mean of the pictures' PSNR in dB, over those that differ at all; None where none does.
        l1: mean absolute difference, of values from -1 to 1.
    """

    psnr: float | None
    l1: float


@dataclass(frozen=True)
class Demonstration:
    """What the demo made.

    Attributes:
        folder: of the demo. checkpoint: the original's generator in it. run: folder of the compressed generator.
        pictures: how many test pictures the distances are over.
        inputs: of the inputs as they are to the truth.
        original, slimmed, finetuned: of the original, and of the slim generator before and after finetuning.
        document: what `compress` says about the run.
        sheet: a picture with inputs, outputs and truth.
    """

    folder: Path
    checkpoint: Path
    run: Path
    pictures: int
    inputs: Distance
    original: Distance
    slimmed: Distance
    finetuned: Distance
    document: dict[str, Any]
    sheet: Path

    @property
    def regained(self) -> float | None:
        """Fraction of the L1 distance lost by slimming that finetuning regained; None where none was lost."""
        lost = self.slimmed.l1 - self.original.l1
        return (self.slimmed.l1 - self.finetuned.l1) / lost if lost > 0 else None

    @property
    def above(self) -> float:
        """By which fraction of the original's L1 distance the finetuned generator's is above it."""
        return self.finetuned.l1 / self.original.l1 - 1 if self.original.l1 > 0 else math.inf

    def check(self) -> None:
        """Hold the result to what the demo is to show.

        Raises:
            CheckFailedError: the original did not learn the task, or its quality did not come back.
        """
        hint = "longer training or finetuning helps: --set demo.train_epochs=N, --set demo.finetune_epochs=N"
        if not self.original.l1 <= MOST_OF_INPUT * self.inputs.l1:
            raise CheckFailedError(
                f"the original did not learn the task: its L1 distance to the truth is {self.original.l1:.4f}, and "
                f"the inputs' is {self.inputs.l1:.4f}",
                hint,
            )
        if self.regained is not None and not self.regained >= LEAST_REGAINED:
            raise CheckFailedError(
                f"finetuning regained {self.regained:.0%} of the L1 distance to the truth that slimming lost, and "
                f"{LEAST_REGAINED:.0%} was wanted",
                hint,
            )
        if not self.above <= MOST_ABOVE:
            raise CheckFailedError(
                f"the compressed generator's L1 distance to the truth is {self.above:.0%} above the original's, and "
                f"{MOST_ABOVE:.0%} was allowed",
                hint,
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: paths, distances to the truth, and the document of `compress`."""
        names = ("inputs", "original", "slimmed", "finetuned")
        return {
            "checkpoint": str(self.checkpoint),
            "run": str(self.run),
            "contact_sheet": str(self.sheet),
            "report": str(self.run / "report.html"),
            "to_truth": {
                "pictures": self.pictures,
                **{name: asdict(getattr(self, name)) for name in names},
                "regained": self.regained,
                "above": self.above,
            },
            "compress": self.document,
        }


def demonstrate(folder: Path, settings: Settings, *, seed: int = 0, hooks: Hooks | None = None) -> Demonstration:
    """Run the demo into a new folder; whether the result is good, `Demonstration.check` says.

    Raises:
        CheckFailedError: an exported file does not equal its network.
        TrainingError: a loss is no longer a number.
        OutputError: the folder has other content or cannot be written.
        MissingDependencyError: a library that it needs is not installed.
    """
    hooks = hooks or Hooks()
    check_output_folder(folder)
    side = settings["demo.image_size"]
    size = (side, side)
    threads = settings["demo.threads"]
    for name, own in INSTEAD.items():
        settings = settings.with_value(name, settings[own])

    hooks.tell("drawing pairs of pictures: scenes, and the same in ink and five tones")
    write_pairs(folder / DATA_FOLDER, settings["demo.pictures"], settings["demo.test_pictures"], size, seed)

    width = settings["demo.ngf"]
    data = str(folder / DATA_FOLDER)
    task = TrainRequest(
        "pix2pix", data, family=FAMILY, ngf=width, ndf=width, image_size=size, epochs=settings["demo.train_epochs"]
    )
    original = folder / ORIGINAL_FOLDER
    train(start_job(original, "train", task.to_json(), settings, seed=seed, threads=threads), task, hooks)

    checkpoint = original / "latest_net_G.pth"
    request = CompressRequest(
        model=str(checkpoint),
        discriminator=str(original / "latest_net_D.pth"),
        budget=f"{settings['demo.budget']:g}",
        data=data,
        layout="paired",
        image_size=size,
        prune_epochs=settings["demo.prune_epochs"],
        finetune_epochs=settings["demo.finetune_epochs"],
        quick=True,
    )
    job = start_job(folder / RUN_FOLDER, "compress", request.to_json(), settings, seed=seed, threads=threads)
    document = compress(job, request, hooks)

    hooks.tell("comparing the original, the slim generator before finetuning, and after it with the truth")
    generator = load_network(job.folder / ORIGINAL_FOLDER, image_size=size)
    material = read_material(settings, request, generator.spec, size, seed, Hooks())
    choice = Choice(read_plan(job.folder / PLAN_FILE), None)
    networks = {
        "original": generator,
        "slimmed": slim_generator(settings, generator, material, choice, seed),
        "finetuned": load_network(job.folder / SLIM_FOLDER, image_size=size),
    }
    distances = {name: to_truth(network, material) for name, network in networks.items()}
    sheet = folder / SHEET_FILE
    atomic_write(sheet, _sheet(networks, material))
    return Demonstration(
        folder,
        checkpoint,
        job.folder,
        len(material.test),
        inputs=to_truth(None, material),
        **distances,
        document=document,
        sheet=sheet,
    )


def write_pairs(folder: Path, train_count: int, test_count: int, size: Size, seed: int) -> None:
    """Write pairs side by side, the scene left and its drawing right, into `train/` and `test/` of a folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    for number, scene in enumerate(procedural_pictures(train_count + test_count, size, seed=seed)):
        pair = Image.new("RGB", (2 * scene.width, scene.height))
        pair.paste(scene, (0, 0))
        pair.paste(drawing(scene), (scene.width, 0))
        part = "train" if number < train_count else "test"
        atomic_write(folder / part / f"{number:05d}.png", png_bytes(pair))


def drawing(scene: Image.Image) -> Image.Image:
    """Return an RGB scene as a drawing of the same size: five tones for light, and ink along edges.

    With the scene blurred over a 64th of its height: tone t begins where light in 0..255 is above 51 t; ink covers a
    pixel by (|gradient| - 18) / 22, clipped to 0..1, where the gradient is that of all three colours, per pixel.
    """
    smooth = scene.filter(ImageFilter.GaussianBlur(scene.height / 64))
    light = np.asarray(smooth.convert("L"), np.float32) * (len(TONES) / 255) - 0.5
    below = np.floor(light)
    place = below + np.clip((light - below - 0.5) * TONE_SLOPE + 0.5, 0, 1)
    tones = np.stack([np.interp(place, range(len(TONES)), color) for color in TONES.T], axis=-1)
    down, across = np.gradient(np.asarray(smooth, np.float32), axis=(0, 1))
    steep = np.sqrt((down**2 + across**2).sum(axis=-1, keepdims=True))
    ink = np.clip((steep - INK_FROM) / INK_RANGE, 0, 1)
    return Image.fromarray((tones * (1 - ink) + INK * ink + 0.5).astype(np.uint8))


@torch.inference_mode()
def to_truth(network: Network | None, material: Material) -> Distance:
    """Return how far a network's outputs on the test pictures are from the truth; None: how far the inputs are."""
    assert material.test_truth is not None
    psnrs, distances = [], []
    for number in range(len(material.test)):
        x = material.test.batch([number])
        y = x if network is None else network(x)
        error = (y - material.test_truth.batch([number])).double()
        psnrs.append(psnr_from_mse(float(error.square().mean()), DATA_RANGE))
        distances.append(float(error.abs().mean()))
    different = [value for value in psnrs if value is not None]
    psnr = math.fsum(different) / len(different) if different else None
    return Distance(psnr, math.fsum(distances) / len(distances))


@torch.inference_mode()
def _sheet(networks: dict[str, Network], material: Material) -> bytes:
    numbers = range(min(SHEET_PICTURES, len(material.test)))
    assert material.test_truth is not None
    form = material.test_truth.format
    columns = [("input", _shown([material.test.batch([n]) for n in numbers], material.test.format))]
    for name, network in networks.items():
        columns.append((name, _shown([network(material.test.batch([n])) for n in numbers], form)))
    columns.append(("truth", _shown([material.test_truth.batch([n]) for n in numbers], form)))
    return png_bytes(contact_sheet(columns))


def _shown(batches: Sequence[torch.Tensor], form: PictureFormat) -> list[Image.Image]:
    return [to_picture(batch[0].numpy(), form) for batch in batches]
