"""train: an original to start from. Generators and discriminators by the recipes of CycleGAN and pix2pix."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from mggc_edge.artifacts import atomic_write, file_entry, sha256_of, write_manifest
from mggc_edge.errors import InputError, PictureError, SettingError, TrainingError, counted
from mggc_edge.jobs.devices import Devices, on
from mggc_edge.jobs.estimate import seconds_of, sentence, steps_left
from mggc_edge.jobs.folder import JOB_FILE, LOG_FILE, Job, alone_in, command_line, files_below
from mggc_edge.jobs.hooks import Hooks
from mggc_edge.jobs.launch import gathered
from mggc_edge.jobs.pictures import read_folders, reading_for
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network, weights_sha256
from mggc_edge.pictures import contact_sheet, png_bytes, to_picture
from mggc_edge.settings import Settings
from mggc_edge.training.bank import PictureSet, Selection
from mggc_edge.training.cyclegan import CycleGan, CycleGanSettings
from mggc_edge.training.folders import Direction, Folders, find_folders
from mggc_edge.training.loop import Journal, Progress, follow_stage, run_stage
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed
from mggc_edge.training.pix2pix import Pix2Pix, Pix2PixSettings
from mggc_edge.training.precision import choose_precision
from mggc_edge.training.processes import Processes

Recipe = Literal["pix2pix", "cyclegan"]
FAMILIES: Mapping[str, Callable[..., NetworkSpec]] = {
    "resnet_9blocks": lambda **kw: resnet_spec(blocks=9, **kw),
    "resnet_6blocks": lambda **kw: resnet_spec(blocks=6, **kw),
    "unet_256": lambda **kw: unet_spec(halvings=8, **kw),
    "unet_128": lambda **kw: unet_spec(halvings=7, **kw),
}
USUAL_FAMILY: Mapping[str, str] = {"pix2pix": "unet_256", "cyclegan": "resnet_9blocks"}
SAVES = 20  # times over a training that weights and pictures are written
SHEET_PICTURES = 6


@dataclass(frozen=True)
class TrainRequest:
    """The flags of `train`.

    Attributes:
        family: one of FAMILIES; None: the recipe's usual one.
        ngf, ndf: first widths of generators and discriminators.
        epochs: None: as the settings say.
        init: a folder with `latest_net_*.pth` to go on from, instead of new weights.

    Raises:
        SettingError: a field has an impossible value.
    """

    recipe: Recipe
    data: str
    direction: Direction = "AtoB"
    family: str | None = None
    ngf: int = 64
    ndf: int = 64
    image_size: Size | None = None
    epochs: float | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        if self.recipe not in USUAL_FAMILY:
            raise SettingError(f"there is no recipe '{self.recipe}'", hint=f"one of {', '.join(USUAL_FAMILY)}")
        if self.family is not None and self.family not in FAMILIES:
            raise SettingError(f"there is no family '{self.family}'", hint=f"one of {', '.join(FAMILIES)}")
        for name in ("ngf", "ndf"):
            if not 1 <= getattr(self, name) <= 1024:
                raise SettingError(f"{name} must be between 1 and 1024, not {getattr(self, name)}")
        if self.epochs is not None and not 0 < self.epochs < 1e6:
            raise SettingError(f"epochs must be a number above 0, not {self.epochs:g}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "image_size": list(self.image_size) if self.image_size else None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainRequest:
        """Rebuild a request from `to_json`'s object; InputError where it is none."""
        try:
            size = document["image_size"]
            return cls(**{**document, "image_size": (int(size[0]), int(size[1])) if size else None})
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise InputError(f"the request of this job cannot be read: {error}") from error


def train(
    job: Job, request: TrainRequest, hooks: Hooks | None = None, devices: Devices | None = None
) -> dict[str, Any]:
    """Train to the end, or what is left of it; return the document of `train --json`.

    `devices` train; None: this process, on the CPU.

    Writes `latest_net_*.pth` in the layout of the well-known PyTorch implementation (plain state dicts), and
    `samples.png`, every so often and at the end.

    Raises:
        InputError: the pictures or the weights to start from cannot be used.
        TrainingError: a loss or a weight is no longer a number, or another process failed; the last state, and the
            files before it, are kept.
        OutputError: the folder cannot be written.
    """
    hooks, devices = hooks or Hooks(), devices or Devices()
    torch.set_num_threads(job.threads)
    with alone_in(job.folder), Journal(job.folder / LOG_FILE) as journal:
        networks = _networks(job, request)
        job.facts.setdefault("sources", _sources(request, networks))
        size = next(iter(networks.values())).table.image_size
        job.remember("networks", {name: weights_sha256(n) for name, n in networks.items()}, "a network")
        material = _material(job, request, networks, size, hooks)
        alone = Processes(devices.device)
        seconds = _expected_seconds(job, request, networks, material, alone) / devices.count
        seconds *= steps_left(job.work / f"{CycleGan.name}.state")
        hooks.tell(sentence(seconds, job.threads, job.facts["precision"], more=job.resumed))
        hooks.begun()
        with gathered(devices, job.command, job.folder, hooks.lost) as processes:
            stage = _stage(job, request, networks, material, processes)
            every = max(1, stage.steps // SAVES)

            def watch(progress: Progress) -> None:
                if progress.done % every == 0 and progress.done < progress.steps:
                    _save(job, request, stage.networks, material, progress.done)
                hooks.watch(progress)

            hooks.tell(f"training {request.recipe}: {counted(stage.steps, 'step')}")
            with job.stage("train"):
                run_stage(
                    stage, job.work, journal,
                    seed=job.seed, watch=watch, saved=job.save, tell=hooks.tell, processes=processes,
                )  # fmt: skip
        _save(job, request, stage.networks, material, stage.steps)
        document: dict[str, Any] = {
            "schema": "mggc-edge/train/1",
            "run": str(job.folder),
            "recipe": request.recipe,
            "steps": stage.steps,
            "image_size": list(size),
            "weights": {name: weights_name(name) for name in stage.networks},
            "split_sha256": material.split_sha256,
        }
        _write_down(job, document)
    return document


def follow(job: Job, request: TrainRequest, processes: Processes) -> None:
    """Take part in a training that rank 0 does; `job` writes nothing. Raises as `train`."""
    networks = _networks(job, request)
    size = next(iter(networks.values())).table.image_size
    material = _material(job, request, networks, size, Hooks())
    stage = _stage(job, request, networks, material, processes)
    follow_stage(stage, job.work, seed=job.seed, processes=processes)


def _write_down(job: Job, document: Mapping[str, Any]) -> None:
    parts = (*document["weights"].values(), "samples.png", "logs", JOB_FILE)
    write_manifest(
        job.folder,
        command="train",
        files=[
            file_entry(path, job.folder, parent=job.facts["sources"].get(path.name))
            for path in files_below(job.folder, parts)
        ],
        settings={
            **job.settings.to_json(),
            **{f"request.{name}": value for name, value in job.typed.items()},
            "image_size": document["image_size"],
            "seed": job.seed,
            "threads": job.threads,
        },
        command_line=command_line("train", job, {**TrainRequest("pix2pix", "").to_json(), "recipe": None}),
        sources={name: {"sha256": sha256} for name, sha256 in job.facts["sources"].items()},
        split_sha256=document["split_sha256"],
        timings_s=job.timings_s,
        unreadable_pictures=job.facts.get("unreadable", 0),
        result=dict(document),
        complete=True,
    )
    job.clear_work()


def _sources(request: TrainRequest, networks: Mapping[str, Network]) -> dict[str, str]:
    """Return the hashes of the files that training goes on from, by their names; none where it starts anew."""
    if request.init is None:
        return {}
    return {file: sha256_of(Path(request.init) / file) for file in map(weights_name, networks)}


def weights_name(network: str) -> str:
    """Return the name of the file with a network's weights, in the well-known implementation and here."""
    return f"latest_net_{network}.pth"


def _networks(job: Job, request: TrainRequest) -> dict[str, Network]:
    """Return new networks, or those of the folder to go on from, by their names in the well-known implementation."""
    paired = request.recipe == "pix2pix"
    names = ("G", "D") if paired else ("G_A", "G_B", "D_A", "D_B")
    if request.init is not None:
        return _given_networks(Path(request.init), names, request.image_size)
    norm = "batch" if paired else "instance"
    generator = FAMILIES[request.family or USUAL_FAMILY[request.recipe]](ngf=request.ngf, norm=norm)
    judge = patchgan_spec(in_channels=6 if paired else 3, ndf=request.ndf, norm="batch" if paired else "instance")
    size = layer_table(generator, request.image_size).image_size
    made = {}
    with torch.random.fork_rng(devices=[]):
        for name in names:
            torch.manual_seed(step_seed(job.seed, f"train/weights/{name}", 0))
            spec = generator if name.startswith("G") else judge
            made[name] = Network(spec, layer_table(spec, size))
    return made


def _given_networks(folder: Path, names: Sequence[str], image_size: Size | None) -> dict[str, Network]:
    """Return the networks of `latest_net_*.pth` in a folder, checked for what a recipe does with them."""
    first = load_network(folder / weights_name(names[0]), image_size=image_size)
    size = first.table.image_size
    found = {names[0]: first}
    found |= {name: load_network(folder / weights_name(name), image_size=size) for name in names[1:]}
    a, b = first.spec.in_channels, first.spec.out_channels
    wanted = {"G": (a, b), "D": (a + b, 1), "G_A": (a, b), "G_B": (b, a), "D_A": (b, 1), "D_B": (a, 1)}
    for name, network in found.items():
        path, spec = folder / weights_name(name), network.spec
        role = "generator" if name.startswith("G") else "discriminator"
        if family_of(spec).role != role:
            raise InputError(f"'{path}' is a {family_of(spec).role}, not a {role}")
        if (spec.in_channels, spec.out_channels) != wanted[name]:
            raise InputError(
                f"'{path}' turns {spec.in_channels} channels into {spec.out_channels}, and beside the others it must "
                f"turn {wanted[name][0]} into {wanted[name][1]}",
                hint="give networks that were trained together",
            )
    return found


def _material(job: Job, request: TrainRequest, networks: Mapping[str, Network], size: Size, hooks: Hooks) -> Material:
    layout: Literal["paired", "unpaired"] = "paired" if request.recipe == "pix2pix" else "unpaired"
    folders: Folders = find_folders(
        data=Path(request.data),
        layout=layout,
        source=None,
        target=None,
        direction=request.direction,
        flags={"paired": "--recipe pix2pix", "unpaired": "--recipe cyclegan"},
    )
    spec = next(iter(networks.values())).spec
    reading = reading_for(job.settings, spec, size, job.seed)
    return read_folders(folders, reading, hooks, job.remember)


def _stage(
    job: Job, request: TrainRequest, networks: Mapping[str, Network], material: Material, processes: Processes
) -> CycleGan | Pix2Pix:
    assert material.target_views is not None
    settings = job.settings
    precision = job.facts.get("precision") or choose_precision(
        settings["train.precision"], next(iter(networks.values())), processes.device
    )
    job.remember("precision", precision, "the precision")
    networks = {name: on(processes.device, network) for name, network in networks.items()}
    how: dict[str, Any] = {"seed": job.seed, "precision": precision, "processes": processes}
    shared = {
        "epochs": request.epochs or settings["train.epochs"],
        **{name: settings[f"train.{name}"] for name in ("batch_size", "learning_rate", "beta_1", "decay", "flip")},
    }
    if request.recipe == "pix2pix":
        recipe = Pix2PixSettings(gan=_gan(settings, "vanilla"), lambda_l1=settings["train.lambda_l1"], **shared)
        return Pix2Pix(networks, material.source_views, material.target_views, recipe, **how)
    cycle = CycleGanSettings(
        gan=_gan(settings, "lsgan"),
        lambda_cycle=settings["train.lambda_cycle"],
        lambda_identity=settings["train.lambda_identity"],
        pool=settings["train.pool"],
        **shared,
    )
    return CycleGan(networks, material.source_views, material.target_views, cycle, **how)


def _expected_seconds(
    job: Job, request: TrainRequest, networks: Mapping[str, Network], material: Material, alone: Processes
) -> float:
    """Return about how long training will take, from a few steps of copies and one sheet of the untrained networks."""
    trial = _stage(job, request, copy.deepcopy(dict(networks)), material, alone)
    steps = seconds_of(trial, job.seed)
    start = time.perf_counter()
    contact_sheet(_columns(request, networks, material))
    return steps + min(SAVES, trial.steps) * (time.perf_counter() - start)


def _gan(settings: Settings, usual: str) -> Any:
    return usual if settings["train.gan"] == "auto" else settings["train.gan"]


def _save(job: Job, request: TrainRequest, networks: Mapping[str, Network], material: Material, done: int) -> None:
    """Write the weights and a contact sheet as they are after `done` steps, all of them or none.

    Raises:
        TrainingError: a weight, or a picture that a network makes, is no longer finite.
    """
    # A loss is computed before the update: finite losses do not show that the weights after it are finite.
    for name, network in networks.items():
        if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
            raise _not_a_number(f"a weight of {name} is", done)
    try:
        sheet = contact_sheet(_columns(request, networks, material))
    except PictureError as error:
        raise _not_a_number("a value of the sample pictures is", done) from error
    for name, network in networks.items():
        data = io.BytesIO()
        torch.save({key: value.detach().cpu() for key, value in network.state_dict().items()}, data)
        atomic_write(job.folder / weights_name(name), data.getvalue())
    atomic_write(job.folder / "samples.png", png_bytes(sheet))


def _not_a_number(what: str, done: int) -> TrainingError:
    return TrainingError(
        f"after {counted(done, 'step')}, {what} no longer a number; what was written before is kept",
        hint="lower --set train.learning_rate=, and start into a new folder",
    )


def _columns(request: TrainRequest, networks: Mapping[str, Network], material: Material) -> list[tuple[str, list[Any]]]:
    """Return held-out inputs, what the generators make of them, and the truth where there is one."""
    numbers = range(min(SHEET_PICTURES, len(material.held_out)))
    inputs = Selection(material.held_out, numbers)
    first = networks["G" if request.recipe == "pix2pix" else "G_A"]
    columns = [("input", _shown(inputs)), ("output", _run(first, inputs))]
    if material.held_out_truth is not None:
        columns.append(("truth", _shown(Selection(material.held_out_truth, numbers))))
    elif material.target is not None:
        others = Selection(material.target, range(min(SHEET_PICTURES, len(material.target))))
        columns += [("the other way", _shown(others)), ("output", _run(networks["G_B"], others))]
    return columns


def _shown(pictures: PictureSet) -> list[Any]:
    return [to_picture(pictures.batch([n])[0].numpy(), pictures.format) for n in range(len(pictures))]


def _run(network: Network, pictures: PictureSet) -> list[Any]:
    training = network.training
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        outputs = [network(pictures.batch([n]).to(device))[0].float().cpu().numpy() for n in range(len(pictures))]
    network.train(training)
    return [to_picture(output, network.spec.output_format) for output in outputs]
