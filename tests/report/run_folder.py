"""A run folder as `compress` leaves it, with made-up numbers that have the shape of real ones; seeded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from mggc_edge.procedural import procedural_pictures

NAMES = ("n02381460_1000.jpg", "n02381460_4530.jpg", "Pferde auf der Weide.png", "n02381460_76.jpg", "馬.webp", "6.jpg")
GROUPS = {"down0": 64, "down1": 128, "trunk": 256, **{f"block{i}.inner": 256 for i in range(9)}, "up1": 128, "up2": 64}


def manifest(**changes: Any) -> dict[str, Any]:
    sha = "ab" * 32
    return {
        "schema": "mggc-edge/manifest/1",
        "command": "compress",
        "command_line": "mggc-edge compress --model checkpoints/horse2zebra/latest_net_G_A.pth --budget 0.05 "
        "--source data/horse2zebra/trainA --target data/horse2zebra/trainB",
        "settings": {"image_size": [256, 256], "seed": 0, "mggc": {"k": 3, "noise": 0.1, "lambdas": [1.0, 0.5, 0.1]}},
        "tools": {"mggc-edge": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "onnxsim": None},
        "timings_s": {"encoder": 61.2, "prune": 2461.0, "finetune": 4310.5, "export": 9.8, "bench": 88.0},
        "files": [
            {"path": "export/portable/original.fp32.onnx", "sha256": sha, "size_bytes": 45_560_211, "parent": None},
            {"path": "export/portable/generator.fp32.onnx", "sha256": sha, "size_bytes": 2_310_467, "parent": sha},
        ],
        "result": result(),
        **changes,
    }


def result(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "mggc-edge/compress/1",
        "run": "runs/horse2zebra-0.05",
        "method": "mggc",
        "budget": 0.05,
        "budget_met": 0.0491,
        "original": {
            "parameters": 11_378_179, "macs_true": 49_551_507_456, "macs_paper": 56_800_313_344,
            "size_bytes": 45_560_211,
        },
        "compressed": {
            "parameters": 561_302, "macs_true": 2_432_979_016, "macs_paper": 2_904_300_000, "size_bytes": 2_310_467,
        },
        "artifacts": [
            {
                "path": "export/portable/generator.fp32.onnx", "target": "portable", "runtime": "onnxruntime",
                "precision": "fp32", "sha256": "ab" * 32, "accepted": True, "reason": None,
            },
            {
                "path": "export/x86/generator.int8.onnx", "target": "x86-avx2", "runtime": "onnxruntime",
                "precision": "int8", "sha256": "cd" * 32, "accepted": False,
                "reason": "PSNR 21.4 dB to fp32, 30 dB were asked for",
            },
        ],
        "quality": {"psnr_to_original": 27.41, "ssim_to_original": 0.912, "kid": None, "frechet": None},
        "latency": {
            "device": "x86", "runtime": "onnxruntime", "precision": "fp32", "original_ms": 842.4,
            "compressed_ms": 68.43, "speedup": 12.31, "ci95": [11.94, 12.66], "ci99": [11.82, 12.81],
            "realisation": 0.604, "verdict": "faster", "reason": None, "disturbed": [], "warnings": [],
            "pairs_left_out": 0,
        },
        **changes,
    }  # fmt: skip


def plan(groups: dict[str, int] | None = None, **changes: Any) -> dict[str, Any]:
    widths = GROUPS if groups is None else groups
    random = np.random.default_rng(1)
    shares = random.uniform(0.1, 0.4, len(widths))
    counts = {name: max(1, int(width * share)) for (name, width), share in zip(widths.items(), shares, strict=True)}
    if "block6.inner" in counts:
        counts["block6.inner"] = 0
    return {
        "schema": "mggc-edge/plan/1",
        "criterion": "mggc",
        "seed": 0,
        "budget": 0.05,
        "budget_met": 0.0491,
        "convention": "true",
        "image_size": [256, 256],
        "source_sha256": "ef" * 32,
        "spec": {"schema": "mggc-edge/spec/1", "family": "resnet", "blocks": 9, "widths": widths},
        "kept": {name: list(range(count)) for name, count in counts.items()},
        "scores": {},
        **changes,
    }


def discriminator_plan() -> dict[str, Any]:
    document = plan({"conv0": 64, "conv1": 128, "conv2": 256, "conv3": 512}, budget=0.3, budget_met=0.297)
    document["spec"] |= {"family": "patchgan", "blocks": 3}
    return document


def quality(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "mggc-edge/quality/1",
        "pictures": 106,
        "where": "test",
        "psnr_to_original": 27.41,
        "ssim_to_original": 0.9123,
        "to_truth": {"original": {"psnr": 18.02, "ssim": 0.6212}, "compressed": {"psnr": 17.64, "ssim": 0.6021}},
        "features": "squeezenet fire9/concat_1",
        "kid": {"original": {"value": 0.0231, "std": 0.0042}, "compressed": {"value": 0.0254, "std": 0.0044}},
        "frechet": None,
        "before_finetuning": {"distance": 1.213, "psnr": 14.83, "l1_truth": 0.402},
        "after_finetuning": {"distance": 0.184, "psnr": 26.98, "l1_truth": 0.151},
        **changes,
    }


def bench(samples: int = 48, **changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(2)
    runs = []
    for model, median, size in (("original", 842.4, 49_551_507_456), ("compressed", 68.43, 2_432_979_016)):
        times = median * (1 + random.gamma(1.2, 0.012, samples) - 0.012)
        runs.append(
            {
                "model": model, "runtime": "onnxruntime", "provider": "CPUExecutionProvider", "precision": "fp32",
                "threads": 2, "warmup": 3, "samples_ns": [round(time * 1e6) for time in times],
                "latency_ms": {"p50": median, "p90": median * 1.03, "mean": median, "mad": 1.0,
                               "ci95": [median * 0.994, median * 1.007]},
                "load_ms": median / 4, "first_inference_ms": median * 1.3,
                "memory": {"rss_peak_bytes": 2**29 if model == "original" else 2**27}, "power": None,
                "macs_true": size, "macs_paper": None, "warnings": [],
            }
        )  # fmt: skip
    compared = [
        {
            "a": "original", "b": "compressed", "ratio": 12.29, "ci95": [11.9, 12.7], "ci99": [11.8, 12.8],
            "verdict": "faster", "realisation": 0.603,
        }
    ]  # fmt: skip
    return {
        "schema": "mggc-edge/bench/1",
        "context": {"device": "x86"},
        "models": [],
        "runs": runs,
        "comparisons": compared,
        **changes,
    }


def metrics(steps: int = 400) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(3)
    for step in range(0, steps, 2):
        yield {"stage": "encoder", "step": step, "loss_swav": 5.5 * np.exp(-step / steps) + random.normal(0, 0.1)}
    for step in range(steps):
        done = step / steps
        kept = min(1.0, 0.05 + 0.95 * np.exp(-6 * done) + random.normal(0, 0.002))
        yield {
            "stage": "prune", "step": step, "loss_g": 0.8 + 1.6 * np.exp(-3 * done) + random.normal(0, 0.12),
            "loss_d": 0.5 + 0.2 * done + random.normal(0, 0.06), "loss_kept": 0.3 + random.gamma(2, 0.04),
            "regularizer": max(0.0, float(np.log(kept / 0.05))), "macs_fraction": kept, "budget": 0.05,
            "temperature": 0.4, "widths": {"down1": 128 - int(90 * done)},
        }  # fmt: skip
    for step in range(steps):
        done = step / steps
        yield {
            "stage": "finetune", "step": step, "loss_g": 0.4 + np.exp(-3 * done) + random.normal(0, 0.08),
            "loss_d": 0.45 + random.normal(0, 0.05), "loss_l1": 0.1 + 0.3 * np.exp(-5 * done) + random.normal(0, 0.02),
            "loss_distil": 0.06 + 0.5 * np.exp(-5 * done) + random.normal(0, 0.02),
        }  # fmt: skip
        if step % max(1, steps // 20) == 0:
            psnr = 27.4 - 12.6 * np.exp(-5 * done) + random.normal(0, 0.15)
            held_out = {"distance": 0.18 + 1.03 * np.exp(-5 * done), "psnr": psnr, "l1_truth": 0.4 - 0.25 * done}
            yield {"stage": "finetune", "step": step, "held_out": held_out}


def write_samples(folder: Path, *, count: int = 2, size: int = 16, truth: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, picture in enumerate(procedural_pictures(count, (size, size), seed=4)):
        original = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        states = {
            "input": picture, "original": original, "compressed": original.filter(ImageFilter.GaussianBlur(size / 100)),
        } | ({"truth": original.rotate(2)} if truth else {})  # fmt: skip
        files = {column: f"{number:03d}-{column}.png" for column in states}
        for column, state in states.items():
            state.save(folder / files[column])
        rows.append({"name": NAMES[number % len(NAMES)], "truth": None, **files})
    write(folder / "index.json", {"schema": "mggc-edge/samples/1", "columns": list(COLUMNS), "rows": rows})


COLUMNS = ("input", "original", "compressed", "truth")


def typed(text: str) -> str:
    """Return text with the signs of a keyboard for those of a book: spaces that break, x, -, '."""
    return text.translate({0xA0: " ", 0xD7: "x", 0x2013: "-", 0x2212: "-", 0x2019: "'"})


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def write_metrics(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def write_run(folder: Path, *, steps: int = 40, samples: int = 2, size: int = 16) -> Path:
    """Write a whole run and return its folder."""
    write(folder / "manifest.json", manifest())
    write(folder / "plan.json", plan())
    write(folder / "discriminator-plan.json", discriminator_plan())
    write(folder / "quality.json", quality())
    write(folder / "bench.json", bench())
    write_metrics(folder / "logs" / "metrics.jsonl", metrics(steps))
    write_samples(folder / "samples", count=samples, size=size)
    return folder
