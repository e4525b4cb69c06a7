"""Flags that several commands share, and how their texts are read."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from mggc_edge.settings import Settings


RUNS = Path("runs")  # where results go that were given no folder
# as `mggc_edge.compiler.runtimes`, which --help must not load
RUNTIMES = ("onnxruntime", "ort-mobile", "openvino", "tensorrt")
LATEST = "latest"  # in it, a link to the newest run
MAX_NAME_BYTES = 120  # of what a folder is named after; a name of 255 bytes is as long as file systems allow


# The same words as in `mggc_edge.models`, which `--help` must not load.
Direction = Literal["AtoB", "BtoA"]
BatchNorm = Literal["eval", "batch"]
NormStats = Literal["instance", "running"]
Layout = Literal["plain", "paired"]
PresetName = Literal["cityscapes", "edges2shoes", "horse2zebra", "summer2winter"]


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of "256" or "256x192", None for None."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is no picture size; write 256 or 256x192 (height x width).")
    return int(match[1]), int(match[2] or match[1])


def parse_names(text: str, known: Sequence[str], flag: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, each of which must be known."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{flag} takes {', '.join(known)}, not '{name}'.")
    return names


def parse_align(text: str | None, target: str | None = None) -> int:
    """Return the multiple that widths are rounded to, 1 for None; "auto" is that of the target, or of this machine.

    Raises:
        SettingError: it is left to a target that has none.
    """
    from mggc_edge.models.spec import MAX_WIDTH

    if text is None:
        return 1
    if text.strip() == "auto":
        from mggc_edge.compiler.targets import alignment_of, this_target

        return alignment_of(target or this_target())
    if not re.fullmatch(r"[1-9]\d{0,4}", text.strip()) or int(text) > MAX_WIDTH:
        raise typer.BadParameter(f"--align takes auto or a whole number from 1 to {MAX_WIDTH}, not '{text}'.")
    return int(text)


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def _checked(context: typer.Context, path: Path | None) -> Path | None:
    """Return where a document goes, once it is sure that it can be written: an hour of work may come before it."""
    from mggc_edge.cli.output import check_document_file

    if path is not None and not context.resilient_parsing:
        check_document_file(path)
    return path


OutputFile = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write the JSON document to a file.", callback=_checked),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size", metavar="N|HxW", help="Picture size [dim](default: what the network is usually trained at)[/]."
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; see `mggc-edge settings`.")
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Read settings from a TOML file.")]
Preset = Annotated[
    PresetName | None,
    typer.Option("--preset", help="Defaults of an experiment of the MGGC paper; what you give yourself wins."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")]
DirectionFlag = Annotated[
    Direction | None, typer.Option("--direction", help="The generator to take from a file with both.")
]
# Where pictures go in as well.
DirectionOrHalf = Annotated[
    Direction | None,
    typer.Option(
        "--direction", help="The generator to take from a file with both; with --layout paired, what goes in."
    ),
]
Bn = Annotated[
    BatchNorm | None,
    typer.Option(
        "--bn", help="Batch norm with its running statistics, or per picture as in training [dim](default: eval)[/]."
    ),
]
NormStatsFlag = Annotated[
    NormStats, typer.Option("--norm-stats", help="Statistics of instance norms: the picture's, or the file's.")
]
TargetFlag = Annotated[
    str,
    typer.Option(
        "--target",
        help="What graphs are rewritten for: portable, x86-avx2, x86-avx512, arm64, tensorrt, ort-mobile, or auto "
        "for this machine.",
    ),
]
ALIGN_HELP = "Round widths to multiples of N, up where that costs no time; auto: what {} runs at full speed."
OtherSideNormStats = Annotated[
    NormStats | None,
    typer.Option("--norm-stats", help="As in export [dim](default: as the other side was exported)[/]."),
]
LayoutFlag = Annotated[
    Layout, typer.Option("--layout", help="plain: one picture a file. paired: side by side, A left and B right.")
]


def folder_for(given: Path | None, name: str) -> Path:
    """Return the folder for results: `given`, or one below `runs` that is not there yet, named by `name` and the time.

    Raises:
        OutputError: `given` is where the link to the newest run lies.
    """
    if given is not None:
        _check_not_latest(given)
        return given
    short = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    first = RUNS / f"{short}-{time.strftime('%Y%m%d-%H%M%S')}"
    later = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([first], later) if not os.path.lexists(folder))


def job_folder(given: Path | None, name: str) -> tuple[Path, bool]:
    """Return the folder of a new job as `folder_for` does, and whether it was made here.

    One with a name of ours is made at once, so that two jobs that begin in the same moment do not share it.

    Raises:
        OutputError: as for `folder_for`, or no folder can be made below `runs`.
    """
    from mggc_edge.artifacts import check_output_folder, writing

    while True:
        folder = folder_for(given, name)
        if given is not None:
            return folder, False
        check_output_folder(folder)
        with writing(folder), contextlib.suppress(FileExistsError):  # another job was faster: the next number
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder, True


def _check_not_latest(folder: Path) -> None:
    from mggc_edge.errors import OutputError

    # The link itself, not what it leads to: `resolve` goes to the parent only.
    if folder.parent.resolve() / folder.name == RUNS.resolve() / LATEST:
        raise OutputError(
            f"'{folder}' is kept for the link to the newest run",
            hint="name another folder, or leave --out away; --resume goes on with the newest run",
        )


def load_settings(config: Path | None, overrides: list[str] | None, preset: str | None = None) -> Settings:
    """Return the settings in effect."""
    from mggc_edge.presets import preset_named
    from mggc_edge.settings import Settings

    return Settings.load(config, overrides or (), None if preset is None else preset_named(preset).setting_values())


def with_preset(context: typer.Context, preset: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the values of some flags, by name: a preset's where they were not given on the command line."""
    from mggc_edge.presets import preset_named

    usual = {} if preset is None else preset_named(preset).flag_values()
    return {name: value if was_given(context, name) else usual.get(name, value) for name, value in flags.items()}


def was_given(context: typer.Context, name: str) -> bool:
    """Return whether a flag is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def input_half(layout: Layout, direction: Direction | None) -> str:
    """Return which part of a picture goes in: "whole", "left" or "right"."""
    if layout == "plain":
        return "whole"
    return "right" if direction == "BtoA" else "left"
