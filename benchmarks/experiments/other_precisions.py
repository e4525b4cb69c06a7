"""What the defaults of `--precision fp16,int8` rest on: how near to fp32 real generators stay, by every method.

    python benchmarks/experiments/other_precisions.py --data $DATA [--latency] [--out benchmarks/results]

Generators are exported for x86-avx512. int8: ranges on 16 pictures by every method, with the last convolution in float;
then the best of them with the last convolution in 8 bits too, whose step from one value of a channel to the next is in
levels of 255. PSNR in dB to the fp32 file on 6 other pictures. With --latency, on a quiet machine, the files are
measured against fp32 in interleaved pairs. Writes other_precisions.json and other_precisions.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from mggc_edge.artifacts import tool_versions
from mggc_edge.benchmarks.experiments.real_generators import CASES, Case
from mggc_edge.calibration.ranges import Finding, Method, find_by_each, find_ranges
from mggc_edge.calibration.samples import Wanted, from_folder
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import read_onnx
from mggc_edge.compiler.precision.form import form_of
from mggc_edge.compiler.precision.fp16 import floats_to_observe, to_fp16
from mggc_edge.compiler.precision.int8 import find_layers, named, quantized, tensors_to_observe
from mggc_edge.compiler.precision.judge import FloatOutputs, speeds
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.machine import this_machine
from mggc_edge.models.weights import load_network
from mggc_edge.settings import Settings

TARGET = "x86-avx512"
PICTURES = Wanted(observed=16, held_out=6)


def rows_of(case: Case, data: Path, *, latency: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for every file that is made of a generator."""
    size = (case.image_size, case.image_size)
    network = load_network(data / case.checkpoint, image_size=size)
    samples = from_folder(data / case.pictures, size, network.spec.input_format, PICTURES, half=case.half)
    form = form_of(TARGET)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "generator.fp32.onnx")
        to_onnx(network, fp32, ExportSettings(image_size=size, target=TARGET))
        model = named(read_onnx(fp32))
        floats = FloatOutputs(fp32, samples.held_out, network.spec.value_range)
        half, _ = to_fp16(model, find_ranges(model, floats_to_observe(model), samples))
        yield {"file": "fp16", "psnr": floats.difference(half).psnr, "step": None}
        layers, every = find_layers(model), find_layers(model, last_in_float=False)
        names = tensors_to_observe(model, every, form)
        found = find_by_each(model, names, samples, [Finding(method) for method in get_args(Method)])
        made = {method: quantized(model, ranges, form, layers)[0] for method, ranges in found.items()}
        psnr = {method: floats.difference(graph).psnr or 0.0 for method, graph in made.items()}
        for method, value in psnr.items():
            yield {"file": f"int8, `{method}`", "psnr": value, "step": None}
        best = max(psnr, key=lambda method: psnr[method])
        last = floats.difference(quantized(model, found[best], form, every)[0])
        yield {"file": "int8, the best of these, last convolution too", "psnr": last.psnr, "step": last.step}
        if latency:
            files = {"fp16": half, "int8": made[best]}
            paths = {name: Path(folder, f"{name}.onnx") for name in files}
            for name, graph in files.items():
                paths[name].write_bytes(graph.SerializeToString())
            for name, speed in speeds(fp32, paths, Settings(), 0).items():
                yield {"file": f"{name}, times as fast as fp32", **speed.to_json()}


def page(document: dict[str, Any]) -> str:
    """Return the table: a row for every file, a column for every generator."""
    lines = ["| file |" + "".join(f" {case} |" for case in document["rows"])]
    lines.append("|---|" + "---:|" * len(document["rows"]))
    lines.extend(
        f"| {several[0]['file']} |" + "".join(f" {_cell(row)} |" for row in several)
        for several in zip(*document["rows"].values(), strict=True)
    )
    return "\n".join([*lines, "", f"PSNR to fp32 in dB. Made by `{document['command']}`."]) + "\n"


def _cell(row: dict[str, Any]) -> str:
    if "ratio" in row:
        interval = "" if row["ci99"] is None else " ({:.2f} to {:.2f})".format(*row["ci99"])
        return f"{row['ratio']:.2f}{interval}"
    return f"{row['psnr']:.2f}" + ("" if row["step"] is None else f", steps of {row['step']:.1f} levels")


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    words = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    for case in CASES:
        rows[f"{case.name}, {case.image_size}x{case.image_size}"] = found = []
        for row in rows_of(case, words.data, latency=words.latency):
            found.append(row)
            print(case.name, row["file"], _cell(row), flush=True)
    document = {
        "command": "python benchmarks/experiments/other_precisions.py --data $DATA" + " --latency" * words.latency,
        "machine": this_machine().processor,
        "tools": tool_versions(),
        "rows": rows,
    }
    (words.out / "other_precisions.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (words.out / "other_precisions.md").write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
