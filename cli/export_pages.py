"""An export as a JSON document, and for people: its files, what passes did, and what further runtimes run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import file_size, si
from mggc_edge.cli.precisions import verdict_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from mggc_edge.compiler.artifact_set import ArtifactSet
    from mggc_edge.compiler.finishing import Exported
    from mggc_edge.compiler.rewrite import Rewritten
    from mggc_edge.compiler.runtimes import Further, RuntimeFile
    from mggc_edge.pipeline import Export

    Row = tuple[Exported, int, int | None]  # a file, with parameters and MACs

SCHEMA = "mggc-edge/export/1"


def rewritten_document(result: Rewritten) -> dict[str, Any]:
    """Return the JSON document of an ONNX file that was rewritten; MACs are those of the file as it was.

    `original` is the file that was given; size and parameters of the new one stand with the artifact.
    """
    facts = result.before
    first, *others = (row for one in result.sets for row in one.documents())
    return {
        "schema": SCHEMA,
        "out": str(result.folder),
        "source": str(result.source),
        "family": None,
        "image_size": list(result.image_size),
        "original": {
            "parameters": facts.parameters,
            "macs_true": facts.macs_true,
            "macs_paper": facts.macs_paper,
            "size_bytes": result.source_bytes,
        },
        "compressed": None,
        "artifacts": [{**first, "parameters": result.after.parameters}, *others],
        "remarks": list(result.remarks),
    }


def export_document(result: Export) -> dict[str, Any]:
    """Return the JSON document of an export."""
    from mggc_edge.models.families import family_of
    from mggc_edge.pipeline import costs

    original = result.original or result.generator
    compressed = costs(result.table, result.generator.artifact.size_bytes)
    return {
        "schema": SCHEMA,
        "out": str(result.folder),
        "family": family_of(result.table.spec).title(result.table.spec),
        "image_size": list(result.table.image_size),
        "original": costs(result.original_table, original.artifact.size_bytes),
        "compressed": compressed if result.original is not None else None,
        "artifacts": [row for one in result.sets for row in one.documents()],
        "remarks": list(result.remarks),
    }


def export_page(result: Export) -> RenderableType:
    """Return the table of an export, and below it what the graph passes did."""
    from mggc_edge.models.cost import macs, parameters

    rows: list[Row] = []
    for one in result.sets:
        for exported, table in ((one.original, result.original_table), (one.generator, result.table)):
            if exported is not None:
                rows.append((exported, parameters(table), macs(table, "true")))
    return _page(
        result.folder,
        result.table.image_size,
        rows,
        " to torch" if len(result.sets) == 1 else "\nto torch",
        result.sets,
    )


def rewritten_page(result: Rewritten) -> RenderableType:
    """Return the same table of an ONNX file that was rewritten."""
    rows = [(one.generator, result.after.parameters, result.before.macs_true) for one in result.sets]
    return _page(result.folder, result.image_size, rows, "\nto the file before", result.sets)


def _page(
    folder: Path, size: tuple[int, int], rows: Sequence[Row], reference: str, sets: Sequence[ArtifactSet]
) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    page = Table(
        box=box.SIMPLE,
        title=f"{escape(str(folder))} at {size[0]}x{size[1]}",
        title_justify="left",
        pad_edge=False,
    )
    page.add_column("file", no_wrap=True)
    for label in ("size", "parameters", "MACs", f"max |diff|{reference}"):
        page.add_column(label, justify="right", no_wrap=True)
    for exported, parameters, macs in rows:
        page.add_row(
            _name(exported.artifact.path),
            file_size(exported.artifact.size_bytes),
            f"{parameters:,}",
            "-" if macs is None else si(macs),
            f"{exported.parity.max_abs:.1e}",
        )
    lines: list[RenderableType] = [Text(line) for one in sets for line in _runtime_lines(one.further)]
    lines += [line for exported, _, _ in rows for line in _tuning_lines(exported)]
    lines += [Text(line) for exported, _, macs in rows for line in _pass_lines(exported, macs)]
    lines += [Text(_camera_line(exported)) for exported, _, _ in rows if exported.camera is not None]
    lines += verdict_lines([row for one in sets for row in one.documents()])
    return Group(page, *lines) if lines else page


def _name(path: Path) -> str:
    """Return the name of a file, with its engine's folder where it lies in one."""
    from mggc_edge.compiler.targets import TARGETS

    return path.name if path.parent.name in TARGETS else f"{path.parent.name}/{path.name}"


def _camera_line(exported: Exported) -> str:
    """Return what is said of a graph of bytes: its pictures against those of the graph of floats inside."""
    assert exported.camera is not None
    off = "those" if exported.camera.identical else f"at most {exported.camera.max_abs:g} of 255 levels from those"
    return f"{exported.artifact.path.name} takes and gives bytes; its pictures are {off} of its floats"


def _runtime_lines(further: Further) -> list[str]:
    """Return a line for every file in a further runtime: how near it is to ONNX Runtime on the ONNX file."""
    lines = [
        f"{_name(file.path)} in {file.runtime}: max |diff| {file.parity.max_abs:.1e} to onnxruntime{_judged(file)}"
        for file in further.files
    ]
    engines = [model.engine for model in further.bundle.models] if further.bundle is not None else []
    return lines + [
        f"{engine.path.name}, {file_size(engine.size_bytes)}, TensorRT {engine.library_version} on {engine.device}"
        for engine in engines
        if engine is not None
    ]


def _judged(file: RuntimeFile) -> str:
    """Return what is said of a file in a further runtime beside how near it is."""
    if not file.accepted:
        return ", rejected"
    known = file.speed is not None and file.speed.ratio is not None and file.speed.said is None
    return f", {file.speed.ratio:.2f} times as fast as fp32" if known and file.speed is not None else ""


def _tuning_lines(exported: Exported) -> list[RenderableType]:
    """Return a table of what each pass of the target's list brings here; nothing where none was measured."""
    from rich import box
    from rich.table import Table

    tuned = exported.tuned
    if tuned is None or not tuned.trials:
        return []
    when = "measured here before" if tuned.cached else "measured here"
    title = f"passes for {exported.artifact.path.name} in {tuned.engine}, {when}"
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    table.add_column("pass", no_wrap=True)
    for label in ("times as fast", "99 %"):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("")
    for trial in tuned.trials:
        interval = "-" if trial.ci99 is None else f"{trial.ci99[0]:.3f} to {trial.ci99[1]:.3f}"
        speedup = "-" if trial.speedup is None else f"{trial.speedup:.3f}"
        table.add_row(trial.name, speedup, interval, f"{'kept' if trial.kept else 'left out'}: {trial.reason}")
    return [table]


def _pass_lines(exported: Exported, macs: int | None) -> list[str]:
    """Return a line for every pass that had a site, and one on what is executed now, where that is not what it was.

    Of a graph that nothing was rewritten in there is nothing to say; the JSON document has the reasons all the same.
    """
    if not any(report.applied for report in exported.passes):
        return []
    lines = []
    for report in exported.passes:
        parts = [f"applied {report.applied}"] * bool(report.applied)
        parts += [f"not at {count}: {reason}" for reason, count in report.reasons.items()]
        if parts:
            lines.append(f"  {report.name}: {'; '.join(parts)}")
    if lines and exported.macs_executed not in (None, macs):
        lines.append(f"  executes {si(exported.macs_executed or 0)} MACs")
    return [f"passes over {_name(exported.artifact.path)}:", *lines] if lines else []
