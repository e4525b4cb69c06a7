"""The demo: a small generator is made, saved as a checkpoint, looked at, slimmed, exported and proven equal."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from mggc_edge.artifacts import PLAN_FILE, atomic_write, check_output_folder, sha256_of, write_json
from mggc_edge.compiler.to_onnx import ExportSettings
from mggc_edge.errors import CheckFailedError
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import load_network, weights_sha256
from mggc_edge.opening import open_runner
from mggc_edge.pictures import PictureFormat, contact_sheet, png_bytes, to_array, to_picture
from mggc_edge.pipeline import Export, Tell, export_folder
from mggc_edge.procedural import procedural_pictures
from mggc_edge.pruning.apply import apply_plan
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.pruning.random import random_plan
from mggc_edge.settings import Settings

BLOCKS = 3
PICTURES = 4
MASKED_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Demonstration:
    """What the demo made.

    Attributes:
        checkpoint: the original's file.
        plan: the random plan that slims it. export: the run folder with both ONNX files.
        masked_difference: largest difference between the slim network and the original with its channels masked.
        sheet: a picture with inputs, the original's and the slim network's outputs.
    """

    checkpoint: Path
    plan: PruningPlan
    export: Export
    masked_difference: float
    sheet: Path


def demonstrate(folder: Path, settings: Settings, *, seed: int = 0, tell: Tell = lambda _: None) -> Demonstration:
    """Run the demo into a new folder.

    Raises:
        CheckFailedError: the slim network does not equal the masked original, or an exported file its network.
        OutputError: the folder has other content or cannot be written.
        MissingDependencyError: a library that it needs is not installed.
    """
    check_output_folder(folder)
    size = (settings["demo.image_size"],) * 2
    tell("making a small CycleGAN generator with random weights")
    checkpoint = folder / "generator.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(resnet_spec(blocks=BLOCKS, ngf=settings["demo.ngf"]))
    data = io.BytesIO()
    torch.save(network.state_dict(), data)
    atomic_write(checkpoint, data.getvalue())

    tell(f"reading {checkpoint}: the architecture is found from the weights alone")
    network = load_network(checkpoint, image_size=size)

    tell("choosing channels at random within the budget")
    plan = random_plan(network.table, settings["demo.budget"], seed=seed, source_sha256=weights_sha256(network))
    write_json(folder / PLAN_FILE, plan.to_json())
    masked_difference = _masked_difference(network, plan, seed)
    if not masked_difference <= MASKED_TOLERANCE:
        raise CheckFailedError(
            f"the slim network and the masked original differ by up to {masked_difference:.3g}, "
            f"and {MASKED_TOLERANCE:g} was allowed"
        )

    export = export_folder(
        network,
        folder / "run",
        settings=ExportSettings.from_settings(settings, image_size=size),
        plan=plan,
        source_sha256=sha256_of(checkpoint),
        command="demo",
        effective=settings.to_json(),
        seed=seed,
        tell=tell,
    )
    sheet = folder / "contact-sheet.png"
    atomic_write(sheet, _sheet(export, size, seed))
    return Demonstration(checkpoint, plan, export, masked_difference, sheet)


def _masked_difference(network: Network, plan: PruningPlan, seed: int) -> float:
    masks = {}
    for group in network.table.groups:
        masks[group.name] = torch.zeros(group.size)
        masks[group.name][list(plan.kept[group.name])] = 1
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(1, network.spec.in_channels, *network.table.image_size, generator=generator) * 2 - 1
    with torch.inference_mode():
        return float((network(picture, masks) - apply_plan(network, plan)(picture)).abs().max())


def _sheet(export: Export, size: tuple[int, int], seed: int) -> bytes:
    form = PictureFormat.for_channels(3)
    inputs = list(procedural_pictures(PICTURES, size, seed=seed))
    columns = [("input", inputs)]
    for title, exported in (("original", export.original), ("slim", export.generator)):
        assert exported is not None
        with open_runner(exported.artifact.path) as runner:
            name = runner.inputs[0].name
            results = [runner.infer({name: to_array(picture, size, form)}) for picture in inputs]
        columns.append((title, [to_picture(output, form) for result in results for output in result.values()]))
    return png_bytes(contact_sheet(columns))
