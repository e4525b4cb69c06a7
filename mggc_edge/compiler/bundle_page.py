"""The README of a bundle: what is in it, and what to do on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_STEPS = """# TensorRT engines, to be built on the device

An engine runs on the kind of device, and under the TensorRT, that built it. So this folder has ONNX files, and a script
that builds their engines here and compares what they give with what the files gave in ONNX Runtime.

1. Copy the whole folder to the device.
2. It needs Python 3.8 or later, numpy, TensorRT 8.6 to 11, and one of cuda-python, pycuda and torch with CUDA. On a
   Jetson TensorRT comes with JetPack; a virtual environment sees it with `--system-site-packages`.
3. `python3 build.py`, or `python3 build.py --help` for what can be chosen. It takes minutes, and less the second time:
   timings are kept in `engines/`.
4. The engines lie in `engines/`, each with a JSON file of facts: device, version, layers, memory, PSNR.

The script ends with 0 when every engine gives the same pictures, with 3 when one does not, and with 1 when something is
missing: the sentence says what.
"""


def readme(models: Sequence[Mapping[str, Any]], findings: Mapping[str, Sequence[str]], calibrated: bool) -> str:
    """Return the page.

    Args:
        models: entries of bundle.json.
        findings: name of each file, those that were left out included -> lines of `tensorrt_lint.summary`.
        calibrated: whether there is a table of ranges.
    """
    rows = [f"| {model['file']} | {model['precision']} | {model['min_psnr']:g} dB |" for model in models]
    parts = [_STEPS, "## Files\n", "| file | precision | PSNR that its engine needs |\n|---|---|---|", *rows, ""]
    parts += ["The PSNR is that to the same network in float32, on the pictures in `pictures.npz`.", ""]
    if calibrated:
        parts += [
            "`calibration.json` has the ranges that the int8 files were made with; TensorRT finds them in the files.",
            "",
        ]
    parts += ["## What TensorRT's documents say of these files", ""]
    there = {model["file"] for model in models}
    for name, lines in findings.items():
        left_out = "" if name in there else " (left out)"
        parts += [f"- {name}{left_out}: {line}" for line in lines] or [f"- {name}: nothing against it"]
    return "\n".join(parts) + "\n"
