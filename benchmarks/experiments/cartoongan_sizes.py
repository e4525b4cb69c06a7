"""CartoonGAN-Hayao at about 1/10, 1/25 and 1/47 of its size: GAN Slimming in floats and 8 bits, and MGGC with 8 bits.

    python benchmarks/experiments/cartoongan_sizes.py --data $DATA --runs DIR [--only NAME ...] [--collect]

Every case is one `mggc-edge compress` on the first 120 photos of horse2zebra's trainA, cut to 96x96 out of 256x256,
in DIR/<case>; a case that has begun goes on. `--collect` exports every finished one, or those named, for 256x256
(DIR/<case>-256), measures it beside the original by `mggc-edge bench`, and compares it with that on the photos of
testA. What was collected before of other cases stays, as long as their commands are the same. Budgets are of MACs,
and the parameters of CartoonGAN go with them. Writes results/cartoongan_sizes.{json,md} and, per size,
results/cartoongan-<size>.jpg: photo, original, and what each method makes of it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mggc_edge.artifacts import read_json, read_manifest, tool_versions, write_json
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.machine import this_machine
from mggc_edge.models.weights import load_network
from mggc_edge.pictures import contact_sheet, find_pictures, to_array
from mggc_edge.quality.bootstrap import mean_interval
from mggc_edge.quality.metrics import psnr_from_mse, ssim

RESULTS = Path(__file__).parent.parent / "results"
SIZE = 256
TRAINED_ON = 120  # photos, the first by name: training is short and cuts them anew each time
COMPARED = 24  # test photos, on which an 8-bit file is compared with the network that was trained
SHOWN = (0, 24, 48, 72, 96)  # of the test photos, by name: chosen before anything was seen
COMMON = (
    "--model", "$DATA/weights/cartoongan_hayao/net_G.pth", "--source", "$PHOTOS",
    "--image-size", "96", "--set", "data.view_scale=2.6667",
    "--prune-epochs", "1.2", "--finetune-epochs", "16", "--set", "finetune.checks=5",
    "--set", "finetune.learning_rate=2e-4", "--set", "finetune.gan_weight=1", "--set", "distill.pixels=20",
    "--set", "discriminator.epochs=1", "--set", "quality.max_real=300",
    "--set", "bench.pairs=4", "--set", "bench.processes=2", "--set", "bench.warmup_seconds=0.2", "--threads", "1",
)  # fmt: skip
METHODS = {
    "slimming-float": ("GAN Slimming, float", ("--method", "gan-slimming")),
    "slimming-8": ("GAN Slimming, 8 bit", ("--method", "gan-slimming", "--quantize", "8")),
    # Finetuning plays on against the discriminator, which is to keep its channels for that.
    "mggc-8": ("MGGC, then 8 bit", ("--method", "mggc", "--quantize", "8", "--set", "mggc.prune_discriminator=false")),
}


@dataclass(frozen=True)
class Case:
    """One command: a method, about how many times smaller the file shall be, and the budget of MACs for that."""

    method: str
    smaller: int
    budget: float

    @property
    def name(self) -> str:
        """Of the folder."""
        return f"{self.method}-{self.smaller}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What `compress` is given."""
        return (*COMMON, *METHODS[self.method][1], "--budget", f"{self.budget:g}")

    @property
    def command(self) -> str:
        """As a user would type it."""
        return " ".join(["mggc-edge", "compress", *self.flags])


CASES = (
    Case("slimming-float", 47, 0.0222), Case("slimming-8", 47, 0.08), Case("mggc-8", 47, 0.11),
    Case("slimming-float", 25, 0.0425), Case("slimming-8", 25, 0.156), Case("mggc-8", 25, 0.2),
    Case("slimming-float", 10, 0.103), Case("slimming-8", 10, 0.395), Case("mggc-8", 10, 0.45),
)  # fmt: skip


def command(*words: str | Path) -> str:
    """Run the tool and return what it printed."""
    line = [sys.executable, "-m", "mggc_edge.cli", *map(str, words)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def compress(case: Case, data: Path, folder: Path) -> None:
    """Run a case, or go on with it; $PHOTOS is a folder of links to the photos that are trained on."""
    if (folder / "job.json").is_file():
        command("compress", "--resume", folder)
        return
    photos = folder.parent / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for path in find_pictures(data / "data/horse2zebra/trainA")[:TRAINED_ON]:
        if not (photos / path.name).exists():
            (photos / path.name).symlink_to(path.absolute())
    flags = (flag.replace("$DATA", str(data)).replace("$PHOTOS", str(photos)) for flag in case.flags)
    command("compress", *flags, "--out", folder)


def exported(source: Path, out: Path) -> Path:
    """Export a run or a checkpoint for pictures of 256x256, once; return the generator's file."""
    if not (out / "manifest.json").is_file():
        command("export", source, "--image-size", str(SIZE), "--out", out, "--quiet")
    files = [path for path in (out / "export/portable").glob("*.onnx") if path.name.startswith("generator")]
    return next((path for path in files if "int8" in path.name), files[0])


def translated(artifact: Path, data: Path, out: Path) -> list[Path]:
    """Return the pictures that a generator makes of the test photos, in the order of their names, made once."""
    if not (out / "contact-sheet.png").is_file():
        command("translate", artifact, "--images", photos(data), "--image-size", str(SIZE), "--out", out, "--quiet")
    return sorted(path for path in out.rglob("*.png") if path.name != "contact-sheet.png")


def photos(data: Path) -> Path:
    """Return the folder of the test photos."""
    return data / "data/horse2zebra/testA"


def likeness(pictures: list[Path], originals: list[Path]) -> dict[str, Any]:
    """Return mean PSNR in dB and SSIM of pictures to the original's, of 8-bit levels, with 95 % intervals."""
    values: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for path, original in zip(pictures, originals, strict=True):
        assert path.name == original.name
        a, b = (np.asarray(Image.open(one).convert("RGB"), np.float32).transpose(2, 0, 1) for one in (path, original))
        psnr = psnr_from_mse(float(np.mean((a - b) ** 2, dtype=np.float64)), 255)
        values["psnr"].append(math.inf if psnr is None else psnr)
        values["ssim"].append(ssim(a, b, 255) or 0.0)
    return {name: mean_of(found) for name, found in values.items()}


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean and its 95 % interval."""
    return {"mean": float(np.mean(values)), "ci95": mean_interval(values, seed=0)}


def collect(case: Case, folder: Path, original: Path, original_pictures: list[Path], data: Path) -> dict[str, Any]:
    """Export a finished run for 256x256, look at its pictures and measure it."""
    place = folder.with_name(f"{folder.name}-{SIZE}")
    file = exported(folder, place / "export")
    result = read_manifest(folder)["result"]
    entry = next(one for one in result["artifacts"] if one["target"] == "portable")
    facts = {name: json.loads(command("inspect", path, "--json")) for name, path in (("a", original), ("b", file))}
    document = json.loads(command("bench", original, file, "--json", "--quiet"))
    runs, comparison = document["runs"], document["comparisons"][0]
    sizes = [path.stat().st_size for path in (original, file)]
    parameters = [facts[name]["parameters"] for name in ("a", "b")]
    return {
        "method": METHODS[case.method][0], "about": case.smaller,
        "command": case.command,
        "budget": case.budget, "budget_met": result["budget_met"],
        "size_bytes": sizes, "smaller": sizes[0] / sizes[1],
        "parameters": parameters, "by_channels": parameters[0] / parameters[1],
        "by_bits": sizes[0] / sizes[1] / (parameters[0] / parameters[1]),
        "macs_true": [facts[name]["macs_true"] for name in ("a", "b")],
        "latency_ms": [run["latency_ms"] for run in runs], "memory": [run["memory"] for run in runs],
        "comparison": comparison, "context": document["context"], "machine": this_machine().processor,
        "equal_levels": entry.get("equal_levels"),
        "to_torch": None if entry["precision"] == "fp32" else to_torch(folder / "slim", file, data),
        "in_first_order": (result["slimming"] or {}).get("in_first_order"),
        "to_original": likeness(translated(file, data, place / "pictures"), original_pictures),
        "timings_s": read_manifest(folder)["timings_s"],
    }  # fmt: skip


@torch.no_grad()
def to_torch(trained: Path, file: Path, data: Path) -> dict[str, Any]:
    """Return mean PSNR in dB, with its 95 % interval, of an 8-bit file to the network as it was trained, on photos.

    Beside it the same of that network to itself (`echo`), where the photos change by one part in a million: two
    programs that round sums otherwise in their last bit can be no nearer to each other.
    """
    network, draw = load_network(trained).eval(), torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {"file": [], "echo": []}
    form, values = network.spec.input_format, network.spec.value_range
    with OnnxRuntimeRunner(file) as runner:
        for path in find_pictures(photos(data))[:COMPARED]:
            x = to_array(Image.open(path), (SIZE, SIZE), form)
            (given,) = runner.infer({runner.inputs[0].name: x}).values()
            picture = torch.from_numpy(x)
            wanted = network(picture).numpy()
            echo = network(picture + 1e-6 * torch.randn(picture.shape, generator=draw)).numpy()
            for name, other in (("file", given), ("echo", echo)):
                mse = float(np.mean((other - wanted).astype(np.float64) ** 2))
                found[name].append(100.0 if mse == 0 else psnr_from_mse(mse, values))
    return {**mean_of(found["file"]), "echo": mean_of(found["echo"])}


def sheet(runs: Path, data: Path, smaller: int, originals: list[Path], cases: Iterable[Case]) -> Image.Image:
    """Return photos, the original's cartoons and those of every method at a size, side by side."""
    by_name = {path.stem: path for path in find_pictures(photos(data))}
    names = [by_name[originals[number].stem] for number in SHOWN]
    columns = [("photo", [Image.open(path).convert("RGB").resize((SIZE, SIZE)) for path in names])]
    columns.append(("original", [Image.open(originals[number]) for number in SHOWN]))
    for case in cases:
        if case.smaller == smaller:
            pictures = translated(Path(), data, runs / f"{case.name}-{SIZE}/pictures")
            columns.append((METHODS[case.method][0], [Image.open(pictures[number]) for number in SHOWN]))
    return contact_sheet(columns, cell=SIZE)


def page(document: Mapping[str, Any]) -> str:
    """Return the Markdown table."""
    cases = document["cases"].values()
    machines = ", ".join(sorted({case["machine"] for case in cases}))
    lines = [
        f"CartoonGAN-Hayao, {SIZE}x{SIZE}, ONNX Runtime on {machines}. `{document['command']}`",
        "",
        f"{len(cases)} of {len(CASES)} cases are finished: one seed each; 95 % intervals are over pictures.",
        "",
        (
            "| method | file | smaller | by channels x bits | MACs (true) | latency | faster (99 %) | peak memory "
            "| PSNR to the original, dB | SSIM | equal levels | file to torch, dB | torch to itself (echo), dB |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    if first := next(iter(cases), None):
        lines.append(
            f"| the original | {first['size_bytes'][0] / 1e6:.2f} MB | | | {first['macs_true'][0] / 1e9:.2f} G "
            f"| {'?' if first['comparison']['disturbed'] else format(first['latency_ms'][0]['p50'], '.0f') + ' ms'} | "
            f"| {_memory(first, 0)} | | | | | |"
        )
    for case in sorted(cases, key=lambda case: case["about"]):
        low, high = case["comparison"]["ci99"] or (math.nan, math.nan)
        # Latencies that others disturbed are no figures; the document has them.
        unclear = bool(case["comparison"]["disturbed"])
        latency = "?" if unclear else f"{case['latency_ms'][1]['p50']:.0f} ms"
        faster = "?" if unclear else f"{case['comparison']['ratio']:.2f}x ({low:.2f} to {high:.2f})"
        likenesses = (case["to_original"][name] for name in ("psnr", "ssim"))
        psnr, similar = (f"{one['mean']:.2f} [{one['ci95'][0]:.2f}, {one['ci95'][1]:.2f}]" for one in likenesses)
        lines.append(
            f"| {case['method']} | {case['size_bytes'][1] / 1e6:.2f} MB | {case['smaller']:.1f}x "
            f"| {case['by_channels']:.1f} x {case['by_bits']:.2f} | {case['macs_true'][1] / 1e9:.2f} G "
            f"| {latency} | {faster} | {_memory(case, 1)} "
            f"| {psnr} | {similar} | {_parity(case)} |"
        )
    orders = [case["in_first_order"] for case in cases if case["in_first_order"] is not None]
    if orders:
        lines += [
            "",
            (
                f"Of the channels that GAN Slimming kept, {min(orders):.1%} to {max(orders):.1%} are the largest of "
                "their group in the order in which its scales began: in so short a schedule it chooses hardly any."
            ),
        ]
    return "\n".join(lines) + "\n"


def earlier() -> dict[str, Any]:
    """Return what was collected before by the commands that are there now."""
    path = RESULTS / "cartoongan_sizes.json"
    known = read_json(path)["cases"] if path.is_file() else {}
    commands = {case.name: case.command for case in CASES}
    return {name: case for name, case in known.items() if case["command"] == commands.get(name)}


def _parity(case: Mapping[str, Any]) -> str:
    if case["to_torch"] is None:
        return " | | "
    file, echo = (
        "?" if one is None else f"{one['mean']:.1f} [{one['ci95'][0]:.1f}, {one['ci95'][1]:.1f}]"
        for one in (case["to_torch"], case["to_torch"].get("echo"))
    )
    return f"{case['equal_levels']:.3%} | {file} | {echo}"


def _memory(case: Mapping[str, Any], side: int) -> str:
    peak = case["memory"][side]["rss_peak_bytes"]
    return "?" if peak is None else f"{peak / 1e6:.0f} MB"


def main() -> None:
    """Run the cases, and gather what is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--collect", action="store_true")
    words = parser.parse_args()
    if not words.collect:
        for case in CASES:
            if case.name in words.only:
                compress(case, words.data, words.runs / case.name)
        return
    original = exported(words.data / "weights/cartoongan_hayao/net_G.pth", words.runs / f"original-{SIZE}/export")
    originals = translated(original, words.data, words.runs / f"original-{SIZE}/pictures")
    done = [case for case in CASES if (words.runs / case.name / "manifest.json").is_file()]
    chosen = [case for case in done if case.name in words.only]
    found = {case.name: collect(case, words.runs / case.name, original, originals, words.data) for case in chosen}
    document: dict[str, Any] = {
        "command": "python benchmarks/experiments/cartoongan_sizes.py --data $DATA --runs DIR [--collect]",
        "cores": this_machine().cores, "seed": 0, "tools": tool_versions(),
        "cases": {**earlier(), **found},
    }  # fmt: skip
    write_json(RESULTS / "cartoongan_sizes.json", document)
    (RESULTS / "cartoongan_sizes.md").write_text(page(document), encoding="utf-8")
    for smaller in sorted({case.smaller for case in done}):
        sheet(words.runs, words.data, smaller, originals, done).save(RESULTS / f"cartoongan-{smaller}.jpg", quality=85)


if __name__ == "__main__":
    main()
