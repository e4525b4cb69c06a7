"""`mggc-edge compress`: the whole job, from a checkpoint and a budget to a small generator with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mggc_edge.cli.devices import COMPUTE_HELP, DEVICES_HELP, ComputeName, devices_for
from mggc_edge.cli.job import go_on, run_job, start
from mggc_edge.cli.options import (
    ALIGN_HELP,
    RUNS,
    RUNTIMES,
    BatchNorm,
    Config,
    Direction,
    ImageSize,
    Json,
    NormStatsFlag,
    OutputFile,
    Preset,
    Seed,
    Set,
    job_folder,
    load_settings,
    parse_align,
    parse_image_size,
    parse_names,
    with_preset,
)
from mggc_edge.cli.output import Output
from mggc_edge.cli.precisions import MIN_PSNR, MinPrecisionPsnr, PrecisionList, check_precisions

if TYPE_CHECKING:
    pass


Method = Literal[
    "mggc", "gan-slimming", "magnitude", "uniform", "random"
]  # of `jobs.methods`, which --help must not load
Quantize = Literal["8", "none"]
DataLayout = Literal["paired", "unpaired"]
Convention = Literal["true", "paper"]
MAX_STEM = 80  # characters of a checkpoint's name in that of the run
PICTURES, CHANNELS, PROOF, JOB = "Pictures", "Choosing channels and finetuning", "Proof", "The run"


def compress(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", metavar="FILE", help="Checkpoint of the trained generator.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="B",
            help="What to keep: a fraction of the MACs (0.05), or MACs (2.5G); a --preset has its own.",
        ),
    ] = None,
    preset: Preset = None,
    discriminator: Annotated[
        str | None,
        typer.Option(
            "--discriminator",
            metavar="FILE",
            help="The discriminator it was trained with [dim](default: one is fitted)[/].",
        ),
    ] = None,
    partner: Annotated[
        str | None,
        typer.Option("--partner", metavar="FILE", help="CycleGAN's generator of the other direction, for finetuning."),
    ] = None,
    direction: Annotated[
        Direction, typer.Option("--direction", help="The generator to take from a file with both, and what goes in.")
    ] = "AtoB",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="ROOT",
            help="Folder with train/ and test/, or trainA/ trainB/ testA/ testB/.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    layout: Annotated[
        DataLayout | None,
        typer.Option(
            "--layout", help="How the pictures lie [dim](default: as the folders say)[/].", rich_help_panel=PICTURES
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="DIR", help="Pictures that go in.", rich_help_panel=PICTURES)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="DIR", help="Pictures such as should come out.", rich_help_panel=PICTURES),
    ] = None,
    image_size: ImageSize = None,
    method: Annotated[
        Method, typer.Option("--method", help="How channels are chosen.", rich_help_panel=CHANNELS)
    ] = "mggc",
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="FILE", help="Keep the channels of this plan instead.", rich_help_panel=CHANNELS
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="self|swav|onnx:FILE",
            help="What says which outputs are neighbors; of onnx:FILE:TENSOR an inner tensor.",
            rich_help_panel=CHANNELS,
        ),
    ] = "self",
    encoder_weights: Annotated[
        str | None,
        typer.Option(
            "--encoder-weights",
            metavar="FILE",
            help="ResNet-50 of SwAV or torchvision, for --encoder swav.",
            rich_help_panel=CHANNELS,
        ),
    ] = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            "--perceptual",
            metavar="FILE",
            help="VGG16 or SqueezeNet-1.1, by which --method gan-slimming stays near the original.",
            rich_help_panel=CHANNELS,
        ),
    ] = None,
    prune_epochs: Annotated[
        float | None,
        typer.Option("--prune-epochs", metavar="E", help="Epochs of the pruning stage.", rich_help_panel=CHANNELS),
    ] = None,
    finetune_epochs: Annotated[
        float | None,
        typer.Option("--finetune-epochs", metavar="E", help="Epochs of finetuning.", rich_help_panel=CHANNELS),
    ] = None,
    quantize: Annotated[
        Quantize,
        typer.Option(
            "--quantize",
            help="Finetune on 8-bit weights and activations, with gan-slimming prune on them too, and export them.",
            rich_help_panel=CHANNELS,
        ),
    ] = "none",
    align: Annotated[
        str | None,
        typer.Option("--align", metavar="N|auto", help=ALIGN_HELP.format("this machine"), rich_help_panel=CHANNELS),
    ] = None,
    macs_convention: Annotated[
        Convention,
        typer.Option(
            "--macs-convention", help="MACs that are needed, or as the literature counts.", rich_help_panel=CHANNELS
        ),
    ] = "true",
    bn: Annotated[
        BatchNorm,
        typer.Option("--bn", help="Batch norm with running statistics, or per picture.", rich_help_panel=CHANNELS),
    ] = "eval",
    norm_stats: NormStatsFlag = "instance",
    quick: Annotated[
        bool, typer.Option("--quick", help="A small fraction of every stage, to see it work.", rich_help_panel=CHANNELS)
    ] = False,
    feature_net: Annotated[
        str | None,
        typer.Option(
            "--feature-net",
            metavar="FILE[:TENSOR]",
            help="ONNX network for KID and Frechet distance.",
            rich_help_panel=PROOF,
        ),
    ] = None,
    inception: Annotated[
        str | None,
        typer.Option(
            "--inception",
            metavar="FILE",
            help="Weights of the FID's network (pt_inception-2015-12-05), for FID and KID.",
            rich_help_panel=PROOF,
        ),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            "--segmenter",
            metavar="FILE",
            help="ONNX network from photographs to labels, for mIoU; paired data only.",
            rich_help_panel=PROOF,
        ),
    ] = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(
            "--min-psnr",
            metavar="X",
            help="Fail (exit 3) below this PSNR to the original, in dB.",
            rich_help_panel=PROOF,
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            metavar="LIST",
            help="What files are made for, of: onnxruntime; openvino, in which those of this machine are proven, and "
            "tuned, too; ort-mobile, .ort files for phones; tensorrt, a folder to build engines from on the device.",
        ),
    ] = "onnxruntime",
    precision: PrecisionList = "fp32",
    min_precision_psnr: MinPrecisionPsnr = MIN_PSNR,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="New folder for the run [dim](default: runs/<model>-<budget>-<time>)[/].",
            rich_help_panel=JOB,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="[RUN]",
            help="Go on with a run that was stopped [dim](default: --out, or runs/latest)[/].",
            rich_help_panel=JOB,
        ),
    ] = None,
    compute: Annotated[ComputeName, typer.Option("--compute", help=COMPUTE_HELP, rich_help_panel=JOB)] = "auto",
    devices: Annotated[
        int | None,
        typer.Option("--devices", metavar="N", min=1, max=4096, help=DEVICES_HELP, rich_help_panel=JOB),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, max=1024, help="Threads that each process trains with.", rich_help_panel=JOB),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Compress a generator: prune (by MGGC), slim, finetune, export, and measure it against the original."""
    from mggc_edge.lazy import require

    out: Output = context.obj
    if resume is None and (model is None or (budget is None and preset is None)):
        raise typer.BadParameter("--model is needed." if model is None else "--budget, or a --preset, is needed.")
    flags: dict[str, Any] = {
        "budget": budget, "macs_convention": macs_convention, "direction": direction, "image_size": image_size
    }  # fmt: skip
    flags = with_preset(context, preset, flags)
    flags["image_size"], flags["align"] = parse_image_size(flags["image_size"]), parse_align(align)
    settings = load_settings(config, set_, preset)
    check_precisions(precision, quantize)
    parse_names(runtime, RUNTIMES, "--runtime")
    require("torch", extra="cpu")
    require("onnx", extra="onnx")
    trained_on = devices_for(compute, devices)
    from mggc_edge.artifacts import point_latest
    from mggc_edge.jobs.compress import check_floor
    from mggc_edge.jobs.compress import compress as run
    from mggc_edge.jobs.request import CompressRequest

    if resume is not None:
        job = go_on(context, "compress", resume, out_folder, RUNS / "latest")
        request = CompressRequest.from_json(job.request)
    else:
        assert model is not None
        request = CompressRequest(
            model=model, discriminator=discriminator, partner=partner, plan=plan, preset=preset,
            source=source, target=target, data=data, layout=layout, method=method,
            encoder=encoder, encoder_weights=encoder_weights, perceptual=perceptual,
            prune_epochs=prune_epochs, finetune_epochs=finetune_epochs, feature_net=feature_net,
            inception=inception, segmenter=segmenter, bn=bn, norm_stats=norm_stats, quick=quick, min_psnr=min_psnr,
            quantize=quantize, precision=precision, runtime=runtime, min_precision_psnr=min_precision_psnr,
            **flags,
        )  # fmt: skip
        stem = Path(model).stem[:MAX_STEM]  # so that the budget stays in the name
        folder, made = job_folder(out_folder, f"{stem}-{request.budget.strip()}")
        job = start(folder, "compress", request.to_json(), settings, seed, threads, trained_on.on_this_machine)
        job.made = job.made or made

    def begun() -> None:
        if job.folder.parent == RUNS and not point_latest(job.folder, RUNS):
            out.remark(f"note: no link {RUNS}/latest could be made")

    document = run_job(out, job, lambda job, hooks: run(job, request, hooks, trained_on), begun)
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            from mggc_edge.cli.compress_page import page

            out.result(page(document))
            out.text(f"Look at {job.folder / 'report.html'}")
    check_floor(request, document)
