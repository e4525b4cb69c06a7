"""`mggc-edge translate`: run a checkpoint, run or artifact over a folder of pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mggc_edge.cli.options import (
    Bn,
    Config,
    DirectionOrHalf,
    ImageSize,
    Json,
    LayoutFlag,
    NormStatsFlag,
    OutputFile,
    Set,
    folder_for,
    input_half,
    load_settings,
    parse_image_size,
)
from mggc_edge.cli.output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA = "mggc-edge/translate/1"
SHEET_FILE = "contact-sheet.png"


def translate(
    context: typer.Context,
    artifact: Annotated[Path, typer.Argument(help="A checkpoint, saved network, run folder, .onnx or .ort file.")],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of pictures, searched recursively.")],
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="New folder for the results [dim](default: runs/<name>-translate-<time>)[/]."
        ),
    ] = None,
    layout: LayoutFlag = "plain",
    direction: DirectionOrHalf = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="Engine of an artifact: onnxruntime, ort-mobile or openvino [dim](default: by what it is)[/].",
        ),
    ] = None,
    image_size: ImageSize = None,
    bn: Bn = None,
    norm_stats: NormStatsFlag = "instance",
    as_json: Json = False,
    output: OutputFile = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Translate a folder of pictures; each result is a PNG file, and a contact sheet shows the first ones."""
    from mggc_edge.artifacts import atomic_write, check_output_folder
    from mggc_edge.backends.registry import RUNTIMES
    from mggc_edge.cli.feeding import folder_pictures, read_pictures
    from mggc_edge.errors import ArtifactError, PictureError
    from mggc_edge.opening import PYTORCH, geometry, in_floats, open_runner
    from mggc_edge.pictures import contact_sheet, find_pictures, png_bytes, to_picture

    out: Output = context.obj
    settings = load_settings(config, set_)
    size = parse_image_size(image_size)
    if runtime not in (None, PYTORCH, *RUNTIMES):
        raise typer.BadParameter(f"--runtime takes one of {', '.join((*RUNTIMES, PYTORCH))}, not '{runtime}'.")
    folder = folder_for(out_folder, f"{artifact.stem}-translate")
    check_output_folder(folder)
    paths = find_pictures(images)
    names = result_names(paths, images)
    runner = open_runner(
        artifact,
        image_size=size,
        bn=bn or "eval",
        direction=direction or "AtoB",
        norm_stats=norm_stats,
        max_bytes=settings["checkpoint.max_bytes"],
        runtime=runtime,
    )
    sheet: list[tuple[Image, Image]] = []
    written = 0
    started = time.perf_counter()
    with runner:
        shown = in_floats(runner)
        form = geometry(shown)
        if bn is not None and form.bn != bn:
            raise ArtifactError(
                f"'{artifact}' was exported with batch norm taken as {form.bn}; --bn {bn} is for checkpoints",
                hint="leave out --bn, or translate with the checkpoint",
            )
        if form.image_size is not None and size not in (None, form.image_size):
            height, width = form.image_size
            raise ArtifactError(f"'{artifact}' takes pictures of {height}x{width} only", hint="leave out --image-size")
        size = form.image_size or size
        if size is None:
            raise ArtifactError(f"'{artifact}' does not say what picture size it takes", hint="give one: --image-size")
        half = input_half(layout, direction)
        stream = folder_pictures(out, paths, size, form.input_format, half, settings["pictures.max_unreadable"])
        for path, array in read_pictures(out, stream, what="translating"):
            (result,) = shown.infer({shown.inputs[0].name: array}).values()
            try:
                picture = to_picture(result, form.output_format)
            except PictureError as error:
                raise PictureError(f"the result for '{path}' is no picture: {error.message}", error.hint) from error
            atomic_write(folder / names[path], png_bytes(picture))
            written += 1
            if len(sheet) < settings["translate.sheet_pictures"]:
                sheet.append((to_picture(array, form.input_format), picture))
    seconds = time.perf_counter() - started
    sheet_path = folder / SHEET_FILE if sheet else None
    if sheet_path is not None:
        columns = [("input", [a for a, _ in sheet]), (artifact.name, [b for _, b in sheet])]
        atomic_write(sheet_path, png_bytes(contact_sheet(columns)))
    document = {
        "schema": SCHEMA,
        "artifact": str(artifact),
        "out": str(folder),
        "images": written,
        "unreadable": stream.unreadable,
        "image_size": list(size),
        "contact_sheet": None if sheet_path is None else str(sheet_path),
        "seconds": round(seconds, 3),
    }
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.text(f"{written} pictures of {size[0]}x{size[1]} in {folder} ({seconds:.1f} s)")
            if sheet_path is not None:
                out.text(f"Look at {sheet_path}")


def result_names(paths: list[Path], root: Path) -> dict[Path, Path]:
    """Return where each result goes below the output folder: the picture's own place and name, as PNG.

    Where two pictures differ only in their ending, or one is named like the contact sheet, every name keeps its ending.
    """
    places = {path: (path.relative_to(root) if path != root else Path(path.name)) for path in paths}
    short = {path: place.with_suffix(".png") for path, place in places.items()}
    if len({*short.values(), Path(SHEET_FILE)}) == len(places) + 1:
        return short
    return {path: place.with_name(f"{place.name}.png") for path, place in places.items()}
