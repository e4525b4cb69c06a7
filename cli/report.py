"""`mggc-edge report`: report.html of a run, made anew from the files in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mggc_edge.cli.options import RUNS, Json, OutputFile
from mggc_edge.cli.output import Output

SCHEMA = "mggc-edge/report/1"
# What a report tells of, beside the manifest itself.
TOLD = ("plan.json", "discriminator-plan.json", "quality.json", "bench.json", "samples", "logs", "export")


def report(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder [dim](default: runs/latest)[/].")
    ] = None,
    as_json: Json = False,
    output: OutputFile = None,
) -> None:
    """Write report.html into a run folder: one offline page of pictures, latency, MACs, channels and curves."""
    from mggc_edge.artifacts import MANIFEST_FILE, renew_entry
    from mggc_edge.errors import ArtifactError
    from mggc_edge.report.page import build_report

    out: Output = context.obj
    folder = run or RUNS / "latest"
    if run is None and not folder.exists():
        raise ArtifactError(f"there is no run in '{RUNS}'", hint="name a run folder: mggc-edge report RUN")
    if (folder / MANIFEST_FILE).is_file():
        _check_files(folder)
    path = build_report(folder)
    renew_entry(folder, path)
    document = {"schema": SCHEMA, "run": str(folder), "report": str(path)}
    with out.document(document, as_json=as_json, file=output) as taken:
        if not taken:
            out.text(str(path))


def _check_files(folder: Path) -> None:
    """Raise ArtifactError where a file that the report tells of is another than the one that the run wrote."""
    from mggc_edge.artifacts import MEASUREMENTS, another_file, changed_file
    from mggc_edge.jobs.folder import JOB_FILE, resume_line

    name = changed_file(folder, TOLD)
    if name is None:
        return
    way = "compress anew"
    if name in MEASUREMENTS and (folder / JOB_FILE).is_file():
        way = f"remove it and measure again: {resume_line('compress', folder)}"
    raise another_file(folder / name, f"bring it back from a copy, or {way}")
