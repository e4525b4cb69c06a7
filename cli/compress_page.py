"""The result of `compress` for people: original and compressed side by side, and what the pictures are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mggc_edge.cli.output import file_size, shown, si
from mggc_edge.cli.precisions import verdict_lines

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    engines = dict.fromkeys((latency.get("original_runtime", latency["runtime"]), latency["runtime"]))
    kind = latency.get("precision", "fp32")  # of the compressed generator; the original's is fp32
    table.add_row(
        f"latency, {shown(latency['runtime'])}" if len(engines) == 1 else "latency",
        f"{latency['original_ms']:.2f} ms",
        f"{latency['compressed_ms']:.2f} ms",
        _speed(latency),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    if latency.get("path") is not None:
        against = "" if len(engines) == 1 else f" against the original in {shown(next(iter(engines)))}"
        where = f"{shown(latency['path'])}, {shown(kind)}, in {shown(latency['runtime'])}"
        facts.add_row("latency of", f"{where}{against}")
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
    return Group(table, facts, *verdict_lines(document["artifacts"]))


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
