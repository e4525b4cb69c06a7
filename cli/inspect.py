"""`mggc-edge inspect`: what a file is, and where its multiplications go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.options import (
    Config,
    DirectionFlag,
    ImageSize,
    Json,
    NormStatsFlag,
    OutputFile,
    Set,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import Output, file_size, shown, si

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mggc_edge.inspection import Inspection
    from mggc_edge.models.layers import Layer, LayerTable

WIDE = 110
NORMS = {
    "instance": "instance norm",
    "instance_affine": "affine instance norm",
    "batch": "batch norm",
    "none": "no norm",
}


def inspect(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A checkpoint, spec, plan, ONNX file, saved network or run folder.")],
    image_size: ImageSize = None,
    direction: DirectionFlag = None,
    norm_stats: NormStatsFlag = "instance",
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Show what a file is: family, layers, channel groups, parameters, MACs in both conventions."""
    from mggc_edge.inspection import inspect_path

    out: Output = context.obj
    found = inspect_path(
        file,
        image_size=parse_image_size(image_size),
        direction=direction or "AtoB",
        norm_stats=norm_stats,
        max_bytes=load_settings(config, set_)["checkpoint.max_bytes"],
    )
    document = found.document()
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            for block in _page(found, document, wide=out.console().width >= WIDE):
                out.result(block)


def _page(found: Inspection, document: dict[str, Any], *, wide: bool) -> list[RenderableType]:
    blocks: list[RenderableType] = [_summary(found, document)]
    if found.table is not None:
        blocks += [_layers(found.table, wide=wide), _groups(found)]
    if found.onnx is not None:
        operators = ", ".join(f"{count} {shown(name)}" for name, count in found.onnx.operators.items())
        blocks.append(f"[bold]operators[/]  {operators}")
    return blocks


def _summary(found: Inspection, document: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    rows: list[tuple[str, str]] = [("file", shown(str(found.path))), ("kind", found.kind)]
    checkpoint, plan = found.checkpoint, found.plan
    if checkpoint is not None:
        rows[1] = ("kind", f"{found.kind} ({checkpoint.format}, {file_size(checkpoint.size_bytes)})")
        if checkpoint.name:
            rows.append(("network", shown(checkpoint.name)))
        if checkpoint.others:
            rows.append(("also holds", ", ".join(map(shown, checkpoint.others))))
    if plan is not None:
        met = f"{plan.budget_met:.4f} of the MACs ({plan.convention}); {plan.budget:g} was asked for"
        rows += [("criterion", shown(f"{plan.criterion}, seed {plan.seed}")), ("keeps", met)]
        if plan.align > 1:
            rows.append(("widths", f"multiples of {plan.align}"))
    if found.onnx is not None:
        shapes = [
            " x ".join("any" if size is None else str(size) for size in tensor.shape)
            for tensor in (*found.onnx.inputs[:1], *found.onnx.outputs[:1])
        ]
        kind = " bytes" if any(tensor.channels_last for tensor in found.onnx.inputs[:1]) else ""
        rows.append(("graph", f"opset {found.onnx.opset}, {' -> '.join(shapes)}{kind}"))
    if found.table is not None:
        spec = found.table.spec
        traits = [
            f"{shown(document['family'])}, {NORMS[spec.norm]}",
            f"{spec.in_channels} -> {spec.out_channels} channels",
        ]
        if spec.color_order != "RGB":
            traits.append(f"{spec.color_order} pictures")
        if (spec.low, spec.high) != (-1, 1):
            traits.append(f"values from {spec.low:g} to {spec.high:g}")
        if spec.quantization != "none":
            traits.append("8-bit weights and activations")
        if spec.family == "resnet":
            traits += [f"{'reflection' if spec.padding == 'reflect' else 'zero'} padding"] + [
                "dropout layer"
            ] * spec.dropout
        rows.append((document["role"], ", ".join(traits)))
    size = document["image_size"]
    rows.append(("parameters", f"{document['parameters']:,}"))
    at = f" at {size[0]}x{size[1]}" if size else ""
    for key, label in (("macs_true", "MACs (true)"), ("macs_paper", "MACs (paper)")):
        value = document[key]
        rows.append(
            (label, "not known: the file leaves sizes open" if value is None else f"{value:,} = {si(value)}{at}")
        )
    if document.get("macs_executed") not in (None, document["macs_true"]):
        executed = document["macs_executed"]
        rows.append(("MACs (executed)", f"{executed:,} = {si(executed)}{at}, by a graph that passes rewrote"))
    if checkpoint is not None and checkpoint.ignored:
        count, first = len(checkpoint.ignored), shown(checkpoint.ignored[0])
        rows.append(("ignored", f"{count} key{'s' * (count > 1)} that this network does not use, such as {first}"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _layers(table: LayerTable, *, wide: bool) -> RenderableType:
    from rich import box
    from rich.bar import Bar
    from rich.table import Table

    from mggc_edge.models.cost import layer_macs, macs

    total = macs(table, "true")
    shares = [layer_macs(layer, "true") / total for layer in table.layers]
    page = Table(box=box.SIMPLE, pad_edge=False)
    page.add_column("writes", no_wrap=True)
    page.add_column("layer", no_wrap=True)
    page.add_column("channels", justify="right", no_wrap=True)
    page.add_column("size", justify="right", no_wrap=True)
    page.add_column("MACs", justify="right", no_wrap=True)
    page.add_column("share", justify="right", no_wrap=True)
    page.add_column("", width=20 if wide else 8)
    if wide:
        page.add_column("keys", overflow="ellipsis", no_wrap=True, max_width=28, style="dim")
    for layer, share in zip(table.layers, shares, strict=True):
        row: list[RenderableType] = [
            shown(layer.output if layer.adds is None else f"+ {layer.output}"),
            _op(layer),
            f"{layer.in_channels} -> {layer.out_channels}" if layer.in_channels else str(layer.out_channels),
            "x".join(map(str, layer.out_size)),
            si(layer_macs(layer, "true"), digits=3),
            f"{share:.1%}",
            Bar(max(shares), 0, share, color="cyan"),
        ]
        page.add_row(*row, *([shown(layer.name)] if wide else []))
    return page


def _op(layer: Layer) -> str:
    if layer.op == "constant":
        return "constant"
    name = {"conv": "conv", "conv_transpose": "deconv", "depthwise_conv": "depthwise"}[layer.op]
    stride = "" if layer.stride == 1 else f" /{layer.stride}"
    return f"{name} {layer.kernel}x{layer.kernel}{stride}"


def _groups(found: Inspection) -> RenderableType:
    assert found.table is not None
    groups = found.table.groups
    before = {group.name: group.size for group in found.original.groups} if found.original is not None else {}
    texts = [f"{shown(group.name)} {group.size}" + (f" of {before[group.name]}" if before else "") for group in groups]
    gates = sum(group.size for group in groups)
    if found.table.spec.quantization != "none":  # channels are taken out of networks in floats
        return f"[bold]{gates:,} channels in {len(groups)} groups, on 8-bit grids[/]  {', '.join(texts)}"
    return f"[bold]{gates:,} prunable channels in {len(groups)} groups[/]  {', '.join(texts)}"
