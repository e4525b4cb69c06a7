"""`mggc-edge train`: an original to start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from mggc_edge.cli.options import (
    RUNS,
    Config,
    Direction,
    ImageSize,
    Json,
    OutputFile,
    Seed,
    Set,
    default_folder,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import Output
from mggc_edge.cli.progress import StageProgress

Recipe = Literal["pix2pix", "cyclegan"]
FamilyName = Literal["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"]


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
    ngf: Annotated[int, typer.Option("--ngf", min=1, max=1024, help="First width of the generators.")] = 64,
    ndf: Annotated[int, typer.Option("--ndf", min=1, max=1024, help="First width of the discriminators.")] = 64,
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
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Threads to train with.")] = None,
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
    if (recipe is None) != (data is None):
        raise typer.BadParameter("--recipe and --data belong together; with --resume both may be left out.")
    size = parse_image_size(image_size)
    settings = load_settings(config, set_)
    require("torch", extra="torch")
    from mggc_edge.artifacts import read_manifest
    from mggc_edge.jobs.folder import resume_job, start_job
    from mggc_edge.jobs.hooks import Hooks
    from mggc_edge.jobs.train import TrainRequest
    from mggc_edge.jobs.train import train as run

    request = None
    if recipe is not None and data is not None:
        request = TrainRequest(recipe, data, direction, family, ngf, ndf, size, epochs, init)
    if resume is not None:
        wanted = None if request is None else request.to_json()
        job = resume_job(Path(resume) if resume else out_folder or RUNS / "latest", "train", wanted)
        request = request or TrainRequest.from_json(job.request)
    else:
        assert request is not None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        folder = out_folder or default_folder(request.recipe)
        job = start_job(folder, "train", request.to_json(), settings, seed=seed, threads=threads or cores)
    if job.finished:
        out.remark(f"'{job.folder}' is finished; nothing is left to do")
        document = dict(read_manifest(job.folder).get("result") or {})
    else:
        with StageProgress(out) as progress:
            hooks = Hooks(
                tell=progress.tell,
                watch=progress.watch,
                track=progress.track,
                skipped=lambda _path, error: progress.tell(f"skipped: {error.message}"),
            )
            document = run(job, request, hooks)
    if not out.document(document, as_json=as_json, file=output):
        for name in document.get("weights", {}).values():
            out.text(str(job.folder / name))
        out.text(f"Look at {job.folder / 'samples.png'}")
