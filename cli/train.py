"""`mggc-edge train`: an original to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mggc_edge.cli.devices import Compute, DeviceCount, devices_for
from mggc_edge.cli.job import go_on, run_job, start
from mggc_edge.cli.options import (
    Config,
    Direction,
    ImageSize,
    Json,
    OutputFile,
    Seed,
    Set,
    job_folder,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import Output

Recipe = Literal["pix2pix", "cyclegan"]
FamilyName = Literal["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"]
WIDTH = 64


def train(
    context: typer.Context,
    recipe: Annotated[Recipe | None, typer.Option("--recipe", help="How to train.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="ROOT", help="Folder with train/ of pairs, or with trainA/ and trainB/."),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="New folder [dim](default: runs/<recipe>-<time>)[/]."),
    ] = None,
    direction: Annotated[Direction, typer.Option("--direction", help="Of pairs, what goes in: A is left.")] = "AtoB",
    family: Annotated[
        FamilyName | None,
        typer.Option("--family", help="Generator [dim](default: unet_256, or resnet_9blocks for cyclegan)[/]."),
    ] = None,
    ngf: Annotated[int, typer.Option("--ngf", min=1, max=1024, help="First width of the generators.")] = WIDTH,
    ndf: Annotated[int, typer.Option("--ndf", min=1, max=1024, help="First width of the discriminators.")] = WIDTH,
    image_size: ImageSize = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="E", help="Epochs [dim](default: the setting train.epochs)[/].")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="DIR", help="Go on from the latest_net_*.pth in this folder."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="[RUN]", help="Go on with a run that was stopped [dim](default: --out)[/]."),
    ] = None,
    compute: Compute = "auto",
    devices: DeviceCount = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="Threads that each process trains with.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Train generators and discriminators by the recipe of CycleGAN or pix2pix, as an original to compress."""
    from mggc_edge.lazy import require

    out: Output = context.obj
    if resume is None and (recipe is None or data is None):
        raise typer.BadParameter(f"{'--recipe' if recipe is None else '--data'} is needed.")
    if init is not None and (family is not None or ngf != WIDTH or ndf != WIDTH):
        raise typer.BadParameter("--init takes networks as they are; --family, --ngf and --ndf are for new ones.")
    size = parse_image_size(image_size)
    settings = load_settings(config, set_)
    require("torch", extra="torch")
    trained_on = devices_for(compute, devices)
    from mggc_edge.jobs.train import TrainRequest
    from mggc_edge.jobs.train import train as run

    if resume is not None:
        job = go_on(context, "train", resume, out_folder, None)
        request = TrainRequest.from_json(job.request)
    else:
        assert recipe is not None
        assert data is not None
        request = TrainRequest(recipe, data, direction, family, ngf, ndf, size, epochs, init)
        folder, made = job_folder(out_folder, request.recipe)
        job = start(folder, "train", request.to_json(), settings, seed, threads, trained_on.on_this_machine)
        job.made = job.made or made
    document = run_job(out, job, lambda job, hooks: run(job, request, hooks, trained_on))
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            for name in document["weights"].values():
                out.text(str(job.folder / name))
            out.text(f"Look at {job.folder / 'samples.png'}")
