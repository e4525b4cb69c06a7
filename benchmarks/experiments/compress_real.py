"""Compress real generators with `mggc-edge compress`, and write what came out into results/ and the README.

    python benchmarks/experiments/compress_real.py --data $DATA --runs DIR [--trained $TRAINED] [--only NAME ...]
        [--collect]

Runs every case below, or goes on with it, in DIR/<case>; `--collect` only gathers what is finished there. The case
horse2zebra compresses an original that `mggc-edge train` made, in the folder $TRAINED/horse2zebra: the one in $DATA
hardly paints stripes. How it was trained is copied from its manifest. Writes
results/compress.json (the documents, the commands and the versions), results/compress.md (the table),
results/compress-<case>.jpg (test pictures: input, original, compressed, truth), results/report-<case>-{light,dark}.jpg
(the report in headless Chromium, where that is installed), and the table into README.md.
For horse2zebra the mean probability of the class zebra is measured as well, with SqueezeNet.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mggc_edge.artifacts import read_manifest, sha256_of, write_json
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.machine import this_machine
from mggc_edge.pictures import PictureFormat, contact_sheet, find_pictures, read_picture, to_array, to_picture
from mggc_edge.quality.features import FeatureNetwork

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks/results"
SQUEEZENET = "weights/squeezenet11_fp16_onnx/SqueezeNet_fp16.onnx"
ZEBRA = 340  # of ImageNet's classes
MARKS = ("<!-- results: begin -->", "<!-- results: end -->")
FEATURES = ("--feature-net", f"$DATA/{SQUEEZENET}:fire9/concat_1", "--set", "features.preprocessing=caffe")
FACADES = (
    "--model", "$DATA/weights/facades_pix2pix/latest_net_G.pth",
    "--discriminator", "$DATA/weights/facades_pix2pix/latest_net_D.pth",
    "--data", "$DATA/data/facades", "--direction", "BtoA",
    "--prune-epochs", "12", "--finetune-epochs", "30", "--set", "finetune.gan_weight=1", "--set", "mggc.evenness=0",
    "--threads", "1", *FEATURES,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command; `title` is its row in the table.

    Attributes:
        trained: the folder of its original in $TRAINED. init: what that one's training went on from.
    """

    name: str
    title: str
    flags: tuple[str, ...]
    in_table: bool = True
    trained: str | None = None
    init: str | None = None
    zebra: bool = False


CASES = (
    Case("facades-0.164", "pix2pix U-Net-128, facades", (*FACADES, "--budget", "0.164")),
    Case(
        "facades-0.164-one-sided",
        "the same, one-sided budget (eq. 5)",
        (*FACADES, "--budget", "0.164", "--set", "mggc.regularizer=one_sided"),
        in_table=False,
    ),
    Case("facades-0.05", "pix2pix U-Net-128, facades", (*FACADES, "--budget", "0.05")),
    Case(
        "horse2zebra-0.05",
        "CycleGAN ResNet-6, horse2zebra",
        (
            "--model", "$TRAINED/horse2zebra/latest_net_G_A.pth",
            "--discriminator", "$TRAINED/horse2zebra/latest_net_D_A.pth",
            "--data", "$DATA/data/horse2zebra", "--image-size", "128", "--budget", "0.05",
            "--prune-epochs", "8", "--finetune-epochs", "70", "--set", "finetune.learning_rate=2e-3",
            "--set", "finetune.gan_weight=0", "--set", "distill.content=1", "--set", "distill.style=10000",
            "--set", "distill.pixels=5", "--set", "mggc.evenness=0", "--threads", "1", *FEATURES,
        ),
        trained="horse2zebra",
        init="$DATA/weights/horse2zebra_cyclegan, trained on without the identity loss: 2,300 steps at 128 "
        "(cycle 10), then 1,350 steps of 2 crops of 64 (cycle 5)",
        zebra=True,
    ),
)  # fmt: skip


def run(case: Case, data: Path, trained: Path | None, folder: Path) -> None:
    """Run a case, or go on with it."""
    flags = [flag.replace("$DATA", str(data)).replace("$TRAINED", str(trained)) for flag in case.flags]
    more = ["--resume", str(folder)] if (folder / "job.json").is_file() else ["--out", str(folder)]
    line = [sys.executable, "-m", "mggc_edge.cli", "compress", *([] if more[0] == "--resume" else flags), *more]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def collect(case: Case, data: Path, trained: Path | None, folder: Path) -> dict[str, Any]:
    """Return what a finished run says, without its place on this machine."""
    measured = bench(folder)  # first: the manifest and the report follow it
    manifest = read_manifest(folder)
    result = {**manifest["result"], "run": case.name}
    found = {
        "title": case.title,
        "in_table": case.in_table,
        "command": " ".join(["mggc-edge", "compress", *case.flags]),
        "result": result,
        "held_out": {
            name: json.loads((folder / "quality.json").read_text())[name]
            for name in ("before_finetuning", "after_finetuning")
        },
        "timings_s": manifest["timings_s"],
        "tools": manifest["tools"],
        "plan_sha256": sha256_of(folder / "plan.json"),
        "bench": measured,
    }
    if case.trained is not None and trained is not None:
        found["trained"] = {**how_trained(trained / case.trained, data), "init": case.init}
    if case.zebra:
        found["zebra"] = zebra(data, folder)
    sheet(folder).save(RESULTS / f"compress-{case.name}.jpg", quality=85)
    if case.in_table:
        screenshots(case, data, trained, folder)
    return found


def how_trained(folder: Path, data: Path) -> dict[str, Any]:
    """Return the command that trained an original, its steps, its time and the hashes of its weights."""
    manifest = read_manifest(folder)
    line = manifest["command_line"].replace(str(data), "$DATA")
    return {
        "command": re.sub(r"(--init|--out) \S+", r"\1 DIR", line),
        "steps": manifest["result"]["steps"],
        "timings_s": manifest["timings_s"],
        "weights_sha256": {entry["path"]: entry["sha256"] for entry in manifest["files"] if ".pth" in entry["path"]},
    }


def bench(folder: Path) -> dict[str, Any]:
    """Measure both generators of a run again: latency belongs to a quiet machine, and the job's own may not have been.

    The run takes the result over, so that its report shows what the table says.
    """
    line = [sys.executable, "-m", "mggc_edge.cli", "bench", str(folder), "--update", "--json", "--quiet"]
    document = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {
        "command": "mggc-edge bench RUN --update --json",
        "latency_ms": {run["model"]: run["latency_ms"] for run in document["runs"]},
        "samples_ns": {run["model"]: run["samples_ns"] for run in document["runs"]},
        "comparison": document["comparisons"][0],
        "context": document["context"],
        "warnings": {run["model"]: run["warnings"] for run in document["runs"]},
    }


def zebra(data: Path, folder: Path) -> dict[str, Any]:
    """Return the mean probability of a zebra over testA: of the inputs, and of what both generators make of them."""
    form = PictureFormat.for_channels(3)
    paths = find_pictures(data / "data/horse2zebra/testA")
    portable = folder / "export/portable"
    found: dict[str, Any] = {"pictures": len(paths), "class": ZEBRA}
    with FeatureNetwork(str(data / SQUEEZENET), preprocessing="caffe") as network:
        for name in ("input", "original", "generator"):
            probabilities = network.probabilities(shown(paths, portable, name, form))[:, ZEBRA]
            found[name] = float(np.mean(probabilities, dtype=np.float64))
    gain = {name: found[name] - found["input"] for name in ("original", "generator")}
    found["share_of_gain"] = gain["generator"] / gain["original"] if gain["original"] > 0 else None
    return found


def shown(paths: list[Path], portable: Path, name: str, form: PictureFormat) -> list[Image.Image]:
    """Return the pictures, or what a generator makes of them."""
    arrays = [to_array(read_picture(path), (128, 128), form) for path in paths]
    if name == "input":
        return [to_picture(array, form) for array in arrays]
    with OnnxRuntimeRunner(portable / f"{name}.fp32.onnx") as runner:
        key = runner.inputs[0].name
        return [to_picture(next(iter(runner.infer({key: array}).values())), form) for array in arrays]


def sheet(folder: Path) -> Image.Image:
    """Return the sample pictures of a run side by side."""
    index = json.loads((folder / "samples/index.json").read_text())
    rows = index["rows"][:5]
    columns = [column for column in index["columns"] if rows[0][column] is not None]
    pictures = [(column, [Image.open(folder / "samples" / row[column]) for row in rows]) for column in columns]
    return contact_sheet(pictures, cell=160)


def screenshots(case: Case, data: Path, trained: Path | None, folder: Path) -> None:
    """Write what the report looks like, light and dark, where Chromium is installed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return
    for scheme in ("light", "dark"):
        with tempfile.TemporaryDirectory() as place:
            # The command in it names this machine's folders: they are taken out of the page that is shown.
            page = (folder / "report.html").read_text(encoding="utf-8")
            name = Path(place) / "report.html"
            for path, word in ((data, "$DATA"), *(((trained, "$TRAINED"),) if trained else ())):
                page = page.replace(f"{path}/", f"{word}/")
            name.write_text(page, encoding="utf-8")
            shot = Path(place) / "shot.png"
            line = [browser, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,5200"]
            line += [f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={1 - int(scheme == 'dark')}"]
            subprocess.run([*line, name.as_uri()], check=True, capture_output=True)
            picture = Image.open(shot).convert("RGB")
            picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)).save(
                RESULTS / f"report-{case.name}-{scheme}.jpg", quality=80
            )


def table(document: dict[str, Any]) -> str:
    """Return the Markdown table of the README."""
    lines = [
        (
            "| generator | budget | MACs (true) | ONNX file | latency | faster (99%) | realisation "
            "| PSNR to the original | KID original -> compressed |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for entry in document["cases"].values():
        if not entry["in_table"]:
            continue
        result = entry["result"]
        before, after, quality = (result[name] for name in ("original", "compressed", "quality"))
        comparison = entry["bench"]["comparison"]
        old, new = (latency["p50"] for latency in entry["bench"]["latency_ms"].values())
        low, high = comparison["ci99"]  # what the verdict goes by
        unclear = comparison["verdict"] == "inconclusive"
        speed = "?" if unclear else f"{comparison['ratio']:.2f}x ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {entry['title']} | {result['budget']:g} "
            f"| {before['macs_true'] / 1e6:.0f} M -> {after['macs_true'] / 1e6:.1f} M "
            f"| {before['size_bytes'] / 1e6:.1f} MB -> {after['size_bytes'] / 1e6:.2f} MB "
            f"| {old:.2f} ms -> {new:.2f} ms | {speed} "
            f"| {'?' if unclear else format(comparison['realisation'], '.2f')} "
            f"| {quality['psnr_to_original']:.1f} dB "
            f"| {kid_cell(quality['kid'])} |"
        )
    sentences = [line for entry in document["cases"].values() for line in zebras(entry)]
    return "\n".join([*lines, *sentences]) + "\n"


def zebras(entry: dict[str, Any]) -> list[str]:
    """Return what SqueezeNet sees in the pictures, after an empty line; nothing where it was not asked."""
    found = entry.get("zebra")
    if found is None:
        return []
    share = "none" if found["share_of_gain"] is None else f"{found['share_of_gain']:.1%}"
    return [
        "",
        (
            f"{entry['title']}: mean probability of a zebra over {found['pictures']} test pictures, by SqueezeNet: "
            f"{found['input']:.4f} for the inputs, {found['original']:.3f} for the original's outputs, "
            f"{found['generator']:.4f} for the compressed generator's, {share} of the original's gain."
        ),
    ]


def kid_cell(kid: dict[str, Any] | None) -> str:
    """Return both sides' KID, each with its 95 % interval where the result has one."""
    if kid is None:
        return "not measured"
    sides = []
    for name in ("original", "compressed"):
        ends = kid[name].get("ci95")
        sides.append(f"{kid[name]['value']:.0f}" + ("" if ends is None else f" ({ends[0]:.0f} to {ends[1]:.0f})"))
    return " -> ".join(sides)


def into_readme(text: str) -> None:
    """Put the table between the marks of the README."""
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    before, _, rest = readme.partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise SystemExit(f"README.md has no place for results: {MARKS[0]} and {MARKS[1]}")
    path.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    """Run or gather the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "command": "python benchmarks/experiments/compress_real.py --data $DATA --runs DIR --trained $TRAINED",
        "machine": this_machine().processor,
        "cores": this_machine().cores,
        "seed": 0,
        "cases": {},
    }
    for case in CASES:
        folder = arguments.runs / case.name
        if not arguments.collect and case.name in arguments.only and (case.trained is None or arguments.trained):
            run(case, arguments.data, arguments.trained, folder)
        if (folder / "manifest.json").is_file():
            document["cases"][case.name] = collect(case, arguments.data, arguments.trained, folder)
    write_json(RESULTS / "compress.json", document)
    (RESULTS / "compress.md").write_text(table(document), encoding="utf-8")
    into_readme(table(document))


if __name__ == "__main__":
    main()
