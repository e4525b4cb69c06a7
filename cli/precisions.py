"""Flags for files of other precisions, and how what became of each is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mggc_edge.cli.options import parse_names
from mggc_edge.cli.output import file_size, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from mggc_edge.compiler.precision.wanted import Precisions
    from mggc_edge.settings import Settings

AUTO = "auto"  # of `compiler.targets`, which --help must not load
MIN_PSNR = 35.0  # of `compiler.precision.wanted`, which --help must not load
MOST_NAMES = 3  # of nodes that stay in float for one reason; more are counted
MOST_LAYERS = 12  # rows of a table of layers; the JSON document has all
PrecisionList = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="LIST",
        help="Files to make, of: fp32, fp16, int8; or auto, those that each target lists. fp32 is always there. A "
        "quantized network keeps its 8-bit grids.",
    ),
]
MinPrecisionPsnr = Annotated[
    float,
    typer.Option(
        "--min-precision-psnr",
        metavar="X",
        min=0,
        max=1000,
        help="Reject an fp16 or int8 file below this PSNR to the fp32 one, in dB.",
    ),
]
CalibrationFolder = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DIR",
        help="Pictures that fp16 and int8 are calibrated and judged on [dim](default: built-in ones)[/].",
    ),
]


def precisions_for(
    names: str,
    folder: Path | None,
    min_psnr: float,
    settings: Settings,
    seed: int,
    tell: Callable[[str], None],
    target: str,
) -> Precisions | None:
    """Return what `export` is to make beside its fp32 file, "auto" being the target's list; None: nothing."""
    chosen = _parse(names)
    if chosen == (AUTO,):
        from mggc_edge.compiler.targets import choose_precisions  # which --help, and fp32 alone, must not load

        chosen = choose_precisions(chosen, target)
    if set(chosen) == {"fp32"}:
        if folder is not None:
            raise typer.BadParameter("--calibration is for --precision fp16 and int8; fp32 needs no pictures.")
        return None
    from mggc_edge.compiler.precision.wanted import Precisions, chosen_from

    return Precisions(chosen, chosen_from(folder, settings, seed, tell), min_psnr, settings)


def check_precisions(names: str, quantize: str) -> None:
    """Check the flags of `compress`: with --quantize 8 the grids of the file are trained, and no others are made."""
    if set(_parse(names)) != {"fp32"} and quantize == "8":
        raise typer.BadParameter(
            f"--quantize 8 trains the 8-bit grids of the file, and --precision {names} is for a network in floats; "
            "give one of them."
        )


def _parse(names: str) -> tuple[str, ...]:
    """Return the names of a list of precisions; AUTO alone."""
    from mggc_edge.artifacts import PRECISIONS

    if names.strip() == AUTO:
        return (AUTO,)
    if AUTO in (name.strip() for name in names.split(",")):
        raise typer.BadParameter(f"--precision {AUTO} takes no other names with it.")
    return parse_names(names, PRECISIONS, "--precision")


def verdict_lines(artifacts: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return what became of the files of other precisions among `artifacts`, in words; what is true of several once."""
    rows = [row for row in artifacts if row.get("calibration")]
    several = len({Path(row["path"]).parent for row in rows}) > 1
    found: list[RenderableType] = []
    said: set[str] = set()
    for row in rows:
        path = Path(row["path"])
        for line in _lines(row, "/".join(path.parts[-2:]) if several else path.name):
            if not str(line).startswith("  ") or str(line) not in said:
                found.append(line)
            said.add(str(line))
    return found


def _lines(document: Mapping[str, Any], name: str) -> list[RenderableType]:
    """Return what became of a file, with a table where layers were measured."""
    from rich.text import Text

    from mggc_edge.errors import printable

    lines: list[RenderableType] = [
        Text(printable(f"{name} ({_facts(document)}) {_verdict(document)}")),
        *(Text(printable(f"  {line}")) for line in _in_float(document)),
    ]
    if document["sensitivity"] is not None:
        lines += _sensitivity(document["sensitivity"], document["min_psnr"])
    return lines


def _facts(document: Mapping[str, Any]) -> str:
    size = file_size(document["size_bytes"])
    return size if document["runtime"] == "onnxruntime" else f"{size}, in {document['runtime']}"


def _verdict(document: Mapping[str, Any]) -> str:
    from mggc_edge.errors import counted

    if not document["accepted"]:
        return f"rejected: {document['reason']}"
    pictures = counted(document["calibration"]["held_out"], "held-out picture")
    near = "identical" if document["identical"] else f"{document['psnr']:.1f} dB"
    ratio = document["speed"]["ratio"]
    speed = document["reason"] or f"{ratio:.2f} times as fast"
    return f"accepted: {near} to fp32 on {pictures}; {speed}"


def _in_float(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stayed in float, for every reason."""
    found: dict[str, list[str]] = {}
    for one in document["in_float"]:
        found.setdefault(one["reason"], []).append(one["name"])
    for reason, names in found.items():
        what = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} nodes"
        yield f"in float: {what}: {reason}"


def _sensitivity(found: Mapping[str, Any], min_psnr: float) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mggc_edge.errors import printable

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("layer in 8 bits", no_wrap=True)
    for label in ("alone", "all but it"):
        table.add_column(f"PSNR, {label}", justify="right", no_wrap=True)
    for layer in found["layers"][:MOST_LAYERS]:
        table.add_row(shown(layer["name"]), *(_decibels(layer[key]) for key in ("psnr_alone", "psnr_without")))
    lines: list[RenderableType] = [table]
    if len(found["layers"]) > MOST_LAYERS:
        lines.append(Text(f"  and {len(found['layers']) - MOST_LAYERS} layers that cost less; --json has them"))
    keep = found["keep_float"]
    if keep is None:
        lines.append(Text(f"  no set of layers in float brings it to {min_psnr:g} dB"))
    elif keep:
        psnr = _decibels(found["psnr"])
        lines.append(Text(printable(f"  in float these bring it to {psnr}: {', '.join(keep)}")))
        lines.append(Text("  --set quantize.keep_float=auto leaves them in float"))
    return lines


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"
