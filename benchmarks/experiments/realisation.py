"""Do the multiplications that were saved show up as milliseconds? By engine and precision, beside the originals.

    python benchmarks/experiments/realisation.py [--size 256] [--threads 1 2] [--pairs 20] [--plan NAME[=PLAN] ...]
        [--only NAME] [--out benchmarks/results]

Slim generators with random weights, batch 1: a ResNet-9 of widths 16/32/64, inner 32, up 24/12; a U-Net-256 of a
quarter of the widths; and the network of every plan that is given. Measured in one interleaved comparison, in fresh
processes: the original as rewritten for this machine in fp32, in ONNX Runtime and in OpenVINO; the slim generator as
exported (plain: no passes) and as rewritten, in both; in OpenVINO's bfloat16 where the processor has it; and in int8 in
both. For OpenVINO the fast DepthToSpace is left out, which is for ONNX Runtime (tuning leaves it out there). All ratios
are with the fastest original. Then where the time of the fastest original and of the slim generator goes in fp32, and
the bound beside it.

Realisation is the ratio of latencies over the ratio of MACs (true). int8 files are calibrated on built-in pictures;
with random weights their quality says nothing, and they are measured whatever it is. Writes realisation.json, with
every sample and with both networks of a row, and realisation.md. A network takes about three minutes for a size and
a number of threads, on a quiet machine; what other sizes gave stays in the file. NAME=PLAN may also name a row of
realisation.json by its network, without a plan: `--plan NAME`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import tool_versions, write_json
from mggc_edge.benchmarks.experiments.slim_networks import networks, random_network
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.calibration.ranges import Finding, find_ranges
from mggc_edge.calibration.samples import Wanted, built_in
from mggc_edge.cli.bench_profile import profile_markdown, profiles
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.facts import read_onnx
from mggc_edge.compiler.precision.form import form_of
from mggc_edge.compiler.precision.int8 import find_layers, named, quantized, tensors_to_observe
from mggc_edge.compiler.targets import TARGETS, this_target
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.machine import BF16_SETS, this_machine
from mggc_edge.models.cost import macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.plan import read_plan

PLAIN, ORIGINAL = "plain", "original"
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
LEFT_OUT = {"openvino": "depth_to_space"}  # engine -> a pass that is for others
Case = tuple[str, NetworkSpec, NetworkSpec]


def cases(plans: Sequence[str], known: Sequence[Mapping[str, Any]] = ()) -> Iterator[Case]:
    """Yield name, original and slim network.

    Args:
        plans: "NAME=PLAN", or "NAME" of a network that was measured before.
        known: what was measured before, see `measured`.
    """
    slim = networks()
    name = next(name for name in slim if name.startswith("ResNet-9, 16"))
    yield name, resnet_spec(), slim[name]
    yield "U-Net-256, ngf 16", unet_spec(), slim["U-Net-256, ngf 16"]
    for text in plans:
        title, _, path = text.partition("=")
        if path:
            plan = read_plan(Path(path))
            yield title, plan.spec, plan.spec.with_widths({group: len(kept) for group, kept in plan.kept.items()})
            continue
        before = next((one["specs"] for one in known if one["network"] == title and "specs" in one), None)
        if before is None:
            raise SystemExit(f"no network '{title}' was measured before: give its plan as NAME=PLAN")
        yield title, NetworkSpec.from_json(before[ORIGINAL]), NetworkSpec.from_json(before["slim"])


def float_files(name: str, spec: NetworkSpec, size: tuple[int, int], folder: Path) -> dict[str, Path]:
    """Export a network with random weights, plain and for each engine on this machine; return the files by that."""
    network, target = random_network(spec, size), this_target()
    lists = {PLAIN: "none"}
    for engine in ENGINES:
        lists[engine] = ",".join(one for one in TARGETS[target].passes if one != LEFT_OUT.get(engine))
    made = {kind: folder / f"{name}.{kind}.onnx" for kind in lists}
    for kind, chosen in lists.items():
        to_onnx(network, made[kind], ExportSettings(image_size=size, target=target, passes=chosen))
    return made


def int8_file(path: Path, spec: NetworkSpec, size: tuple[int, int]) -> Path:
    """Quantize an exported file, and return where it lies."""
    form, samples = form_of(this_target()), built_in(size, spec.input_format, Wanted(observed=4, held_out=1))
    model = named(read_onnx(path))
    layers = find_layers(model)
    ranges = find_ranges(model, tensors_to_observe(model, layers, form), samples, Finding("min-max"))
    graph, _ = quantized(model, ranges, form, layers)
    made = path.with_suffix(".int8.onnx")
    made.write_bytes(graph.SerializeToString())
    return made


def measured(
    case: Case, size: tuple[int, int], threads: int, options: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Measure a slim generator beside its original; return rows and samples."""
    title, original, slim = case
    counts = {ORIGINAL: macs(layer_table(original, size)), "slim": macs(layer_table(slim, size))}
    big, small = float_files(ORIGINAL, original, size, folder), float_files("slim", slim, size, folder)

    def workload(name: str, path: Path, runtime: str, precision: str = "fp32") -> Workload:
        of = ORIGINAL if path in big.values() else "slim"
        return Workload(name, path, runtime=runtime, precision=precision, macs_true=counts[of])

    floats = [workload(f"original, {engine}", big[runtime], runtime) for runtime, engine in ENGINES.items()]
    floats += [workload(f"{PLAIN}, {engine}", small[PLAIN], runtime) for runtime, engine in ENGINES.items()]
    floats += [workload(f"fp32, {engine}", small[runtime], runtime) for runtime, engine in ENGINES.items()]
    others = [
        workload(f"int8, {engine}", int8_file(small[runtime], slim, size), runtime, "int8")
        for runtime, engine in ENGINES.items()
    ]
    if this_machine().has_any(BF16_SETS):
        others.append(workload("bf16, OpenVINO", small["openvino"], "openvino", "bf16"))
    report = measure([*floats, *others], threads=threads, **options)
    best = min(floats[:2], key=lambda model: report.run(model.name).p50_ms)
    fastest = min(floats[4:], key=lambda model: report.run(model.name).p50_ms)
    looked = list(dict.fromkeys([best, fastest, *floats[4:]]))
    where = profiles(looked, threads=threads, seed=0, max_seconds=options["max_seconds"])
    part = replace(report, runs=tuple(report.run(model.name) for model in looked))
    return {
        "network": title, "size": list(size), "threads": threads, "macs": counts, "rows": rows(report, counts),
        "specs": {ORIGINAL: original.to_json(), "slim": slim.to_json()},
        "profiles": [{"model": model.name, **one.to_json()} for model, one in zip(looked, where, strict=True)],
        "where": profile_markdown(part, where),
        "context": dict(report.context), "warnings": list(report.warnings),
        "samples": {run.model.name: [process.to_json() for process in run.processes] for run in report.runs},
    }  # fmt: skip


def rows(report: BenchmarkReport, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a row for every model: its latency, and against the fastest original speed-up and realisation.

    Pairs are taken with the fastest original, whichever it is.
    """
    originals = [run for run in report.runs if run.model.name.startswith(ORIGINAL)]
    best = min(originals, key=lambda run: run.p50_ms).model.name
    ratio = counts[ORIGINAL] / counts["slim"]
    found = []
    for run in report.runs:
        row: dict[str, Any] = {"model": run.model.name, "p50_ms": run.p50_ms}
        if run not in originals:
            against = report.comparison(best, run.model.name)
            interval = against.ratio.ci99
            row |= {
                "original": best,
                "speedup": against.ratio.value,
                "ci99": None if interval is None else list(interval),
                "realisation": against.ratio.value / ratio,
                "disturbed": list(against.disturbed),
                "pairs": against.pairs,
            }
        found.append(row)
    return found


def page(document: Mapping[str, Any]) -> str:
    """Return the Markdown page."""
    lines = [
        f"Batch 1, on {document['machine']}. `{document['command']}`",
        "",
        (
            "Realisation of the fastest fp32 file and of the fastest of all, and how many times as fast as the plain "
            'export the rewritten file is in each engine. "At the bound" is the realisation of an fp32 file whose '
            "every node multiplies at the engine's measured peak and moves its bytes at the memory's measured "
            "bandwidth; more is possible only as far as tensors stay in caches. Where it stands beside ours : plain, "
            "it is how many times as fast as the plain file ours would then be. Details and intervals are below; a * "
            "stands where others disturbed one of the two latencies, or too few pairs were left for an interval: no "
            "verdict would be given there."
        ),
        "",
        (
            "Weights are random: int8 files are measured whatever their pictures are like, as if every one were "
            "accepted. Which real ones are is in docs/quantization.md."
        ),
        "",
        (
            "| network | size | threads | MACs, times fewer | fp32 | at the bound | fastest "
            "| ONNX Runtime, ours : plain | OpenVINO, ours : plain |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *map(summary, document["studies"]),
    ]
    for found in document["studies"]:
        counts = found["macs"]
        many, ratio = "s" * (found["threads"] > 1), counts[ORIGINAL] / counts["slim"]
        lines += [
            "",
            f"**{found['network']}**, {found['size'][0]}x{found['size'][1]}, {found['threads']} thread{many}",
            "",
            f"{counts[ORIGINAL] / 1e9:.2f} G MACs -> {counts['slim'] / 1e9:.3f} G, {ratio:.1f} times fewer",
            "",
            "| model | p50 | times as fast as the fastest original (99 %) | realisation | pairs |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in found["rows"]:
            if "speedup" not in row:
                lines.append(f"| {row['model']} | {row['p50_ms']:.2f} ms | | | |")
                continue
            interval = "" if row["ci99"] is None else f" ({row['ci99'][0]:.2f} to {row['ci99'][1]:.2f})"
            disturbed = f" disturbed: {', '.join(row['disturbed'])}" if row["disturbed"] else ""
            lines.append(
                f"| {row['model']} | {row['p50_ms']:.2f} ms | {row['speedup']:.2f}{interval}{disturbed} "
                f"| {row['realisation']:.2f} | {row['pairs']} |"
            )
        lines += found.get("where", [])
    return "\n".join(lines) + "\n"


def summary(found: Mapping[str, Any]) -> str:
    """Return the row of a study in the table of all."""
    rows = {row["model"]: row for row in found["rows"]}
    slim = [row for row in found["rows"] if "realisation" in row]
    of_floats = [rows[f"fp32, {engine}"] for engine in ENGINES.values()]
    best = [max(some, key=lambda row: row["realisation"]) for some in (of_floats, slim)]
    ratio = found["macs"][ORIGINAL] / found["macs"]["slim"]
    original, bound = rows[of_floats[0]["original"]]["p50_ms"], found["profiles"][1]["bound_ms"]
    gains = [_gain(rows, found["profiles"], engine) for engine in ENGINES.values()]
    return (
        f"| {found['network']} | {found['size'][0]} | {found['threads']} "
        f"| {ratio:.1f} | {best[0]['realisation']:.2f}{_mark(best[0])} ({best[0]['model'].partition(', ')[2]}) "
        f"| {original / bound / ratio:.2f} "
        f"| {best[1]['realisation']:.2f}{_mark(best[1])} ({best[1]['model']}) | {gains[0]} | {gains[1]} |"
    )


def _mark(*rows_: Mapping[str, Any]) -> str:
    """Return a star where no verdict would be given on one of these rows."""
    return "*" if any(row["disturbed"] or row["ci99"] is None for row in rows_) else ""


def _gain(rows: Mapping[str, Any], profiles: Sequence[Mapping[str, Any]], engine: str) -> str:
    """Return how many times as fast as the plain file ours is in an engine, and would be at its bound."""
    ours = f"fp32, {engine}"
    both = rows[f"{PLAIN}, {engine}"], rows[ours]
    plain, found = (row["p50_ms"] for row in both)
    bound = next((one["bound_ms"] for one in profiles if one.get("model") == ours), None)
    return f"{plain / found:.2f}{_mark(*both)}" + ("" if bound is None else f" (at the bound {plain / bound:.2f})")


def main() -> None:
    """Run the study."""
    facts = {"instruction_sets": list(this_machine().instruction_sets), "tools": tool_versions()}
    run_cases("realisation", str(__doc__), 120.0, facts, measured, page)


def run_cases(
    name: str,
    description: str,
    max_seconds: float,
    facts: Mapping[str, Any],
    measure_case: Callable[[Case, tuple[int, int], int, Mapping[str, Any], Path], dict[str, Any]],
    to_page: Callable[[Mapping[str, Any]], str],
) -> None:
    """Measure every case that the command line asks for, and write NAME.json and NAME.md after each.

    Args:
        name, description: of the study.
        max_seconds: of a measurement, where the command line does not say.
        facts: about the machine, for the document.
        measure_case, to_page: what is written; what other sizes gave stays. The `rows` of a case are printed.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=max_seconds)
    parser.add_argument("--plan", action="append", default=[], metavar="NAME[=PLAN]")
    parser.add_argument("--only", help="networks whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    words = parser.parse_args()
    path = words.out / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"studies": []}
    document |= {"command": f"python benchmarks/experiments/{name}.py", "machine": this_machine().processor, **facts}
    size = (words.size, words.size)
    options = {"pairs": words.pairs, "processes": words.processes, "max_seconds": words.max_seconds}
    for threads in words.threads:
        for case in cases(words.plan, document["studies"]):
            if words.only is not None and words.only not in case[0]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = measure_case(case, size, threads, {**options, "warmup_seconds": 0.3}, Path(folder))
            same = [one for one in document["studies"] if key_of(one) != key_of(found)]
            document["studies"] = sorted([*same, found], key=key_of)
            write_json(path, document)
            (words.out / f"{name}.md").write_text(to_page(document), encoding="utf-8")
            for row in found["rows"]:
                print(case[0], words.size, threads, row, file=sys.stderr, flush=True)


def key_of(found: Mapping[str, Any]) -> tuple[str, list[int], int]:
    """Return what a study is one of."""
    return found["network"], found["size"], found["threads"]


if __name__ == "__main__":
    main()
