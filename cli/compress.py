"""`mggc-edge compress`: the whole job, from a checkpoint and a budget to a small generator with proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mggc_edge.cli.devices import COMPUTE_HELP, DEVICES_HELP, ComputeName, devices_for
from mggc_edge.cli.job import go_on, run_job, start
from mggc_edge.cli.options import (
    RUNS,
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
    parse_image_size,
    with_preset,
)
from mggc_edge.cli.output import Output, file_size, shown, si
from mggc_edge.cli.precisions import MIN_PSNR, MinPrecisionPsnr, PrecisionList, check_precisions, verdict_lines

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    flags["image_size"] = parse_image_size(flags["image_size"])
    settings = load_settings(config, set_, preset)
    check_precisions(precision, quantize)
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
            quantize=quantize, precision=precision, min_precision_psnr=min_precision_psnr,
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
            out.result(page(document))
            out.text(f"Look at {job.folder / 'report.html'}")
    check_floor(request, document)


def page(document: dict[str, Any]) -> RenderableType:
    """Return the table of a compressed generator against its original."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    before, after, latency, quality = (document[name] for name in ("original", "compressed", "latency", "quality"))
    table = Table(box=box.SIMPLE, title=shown(document["run"]), title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    for label in ("original", "compressed", "ratio"):
        table.add_column(label, justify="right", no_wrap=True)
    for label, name in (("MACs", "macs_true"), ("parameters", "parameters")):
        table.add_row(label, si(before[name]), si(after[name]), f"{before[name] / after[name]:.2f}x")
    sizes = _eight_bits(document)
    file, smaller = (before["size_bytes"], after["size_bytes"]), ""
    if sizes is not None:
        disk = sizes["disk"]
        file, smaller = (disk["original_bytes"], disk["compressed_bytes"]), ", int8"
    table.add_row(f"ONNX file{smaller}", file_size(file[0]), file_size(file[1]), f"{file[0] / file[1]:.2f}x")
    table.add_row(
        f"latency, {shown(latency['runtime'])}",
        f"{latency['original_ms']:.2f} ms",
        f"{latency['compressed_ms']:.2f} ms",
        _speed(latency),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    facts.add_row("kept", f"{document['budget_met']:.4f} of the MACs; asked for were {_asked(document)}")
    for where, one in (sizes or {}).items():
        place = "the file is" if where == "disk" else "in memory it is"
        parts = f"{one['channels']:.2f}x by channels, {one['bits']:.2f}x by bits"
        facts.add_row("size" if where == "disk" else "", f"{place} {one['ratio']:.2f}x smaller: {parts}")
    if latency.get("verdict") == "inconclusive":
        why = latency.get("reason")
        facts.add_row("latency", "these samples cannot tell" + (f": {shown(why)}" if why else ""))
        facts.add_row("", "`mggc-edge bench` measures it again, and longer with --pairs")
    elif latency["realisation"] is not None:
        facts.add_row("realisation", f"{latency['realisation']:.2f} (ratio of latencies / ratio of MACs)")
    for warning in latency.get("warnings", []):  # a run of an older version has none
        said = warning["code"] in latency.get("disturbed", [])  # its text is the reason above
        text = warning["advice"] if said else f"{warning['text']}; {warning['advice']}"
        facts.add_row("[yellow]warning[/]", shown(f"{text} ({warning['code']})"))
    if latency.get("pairs_left_out"):
        facts.add_row("left out", f"{latency['pairs_left_out']} pairs of samples that other processes disturbed")
    psnr, ssim = quality["psnr_to_original"], quality["ssim_to_original"]
    near = "identical" if psnr is None else f"{psnr:.2f} dB" + ("" if ssim is None else f", SSIM {ssim:.3f}")
    noun = "picture" if quality["pictures"] == 1 else "pictures"
    facts.add_row("to the original", f"{near} ({quality['pictures']} {noun}, {quality['where']})")
    if quality["to_truth"] is not None:
        sides = [quality["to_truth"][name]["psnr"] for name in ("original", "compressed")]
        if None not in sides:
            facts.add_row("to the truth", f"original {sides[0]:.2f} dB, compressed {sides[1]:.2f} dB")
    if quality["kid"] is not None:
        facts.add_row("KID", f"{_kid(quality['kid'])}; lower is better")
    elif quality.get("kid_reason") is not None:  # a run of an older version has none
        facts.add_row("KID", quality["kid_reason"])
    fid = quality.get("fid")  # a run of an older version has none
    if fid is not None:
        values = [fid[name] for name in ("original", "compressed")]
        known = "" if values[0] is None else f"original {values[0]:.4g}, "
        facts.add_row("FID", fid["reason"] or f"{known}compressed {values[1]:.4g}; lower is better")
    seen = quality.get("segmentation")
    if seen is not None:
        sides = [seen[name]["miou"] for name in ("original", "compressed")]
        if None not in sides:
            facts.add_row("mIoU", f"original {sides[0]:.3f}, compressed {sides[1]:.3f}; higher is better")
    files = [one for one in document["artifacts"] if one.get("speed")]  # of another precision than the table
    return Group(table, facts, *(line for one in files for line in verdict_lines(one)))


def _eight_bits(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an 8-bit generator takes on disk and in memory; None for one in floats."""
    sizes: dict[str, Any] | None = document.get("size")  # a run of an older version has none
    return None if sizes is None or round(sizes["disk"]["bits"], 2) == 1 else sizes


def _speed(latency: dict[str, Any]) -> str:
    """Return the ratio of latencies with the interval that the verdict goes by; no ratio of disturbed samples."""
    if latency.get("disturbed"):
        return "?"
    level = 99 if "ci99" in latency else 95  # a run of an older version has none
    ends = latency[f"ci{level}"]
    text = f"{latency['speedup']:.2f}x" + (f" ({level}%: {ends[0]:.2f} to {ends[1]:.2f})" if ends else "")
    return f"[dim]{text}[/]" if latency.get("verdict") == "inconclusive" else text


def _kid(kid: dict[str, Any]) -> str:
    """Return both sides' KID, on a line each where they have 95 % intervals.

    Without real pictures, it is that of the compressed generator's pictures to the original's.
    """
    sides = []
    for name in ("original", "compressed"):
        if kid.get(name) is not None:
            ends = kid[name].get("ci95")  # a run of an older version has none
            spread = "" if ends is None else f" ({ends[0]:.4g} to {ends[1]:.4g})"
            sides.append(f"{name} {kid[name]['value']:.4g}{spread}")
    between = ",\n" if any("(" in side for side in sides) else ", "
    return between.join(sides) + ("" if len(sides) == 2 else " to the original's pictures")


def _asked(document: dict[str, Any]) -> str:
    """Return the budget as it was written, and what fraction that is."""
    from mggc_edge.jobs.request import parse_budget

    asked = document.get("budget_asked")  # a run of an older version has none
    if asked is None:
        return f"{document['budget']:.4g}"
    return f"{shown(asked)} ({document['budget']:.4f})" if parse_budget(asked)[1] else shown(asked)
