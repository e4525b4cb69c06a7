"""Build the TensorRT engines of this folder on this machine, and check each against what its network gave elsewhere.

    python3 build.py [--help]

It needs Python 3.8 or later, numpy, tensorrt, and one of cuda-python, pycuda and torch; README.md has the steps.
Exit codes: 0 done, 1 something to put right, 2 wrong usage, 3 an engine gives other pictures, 70 a bug, 130 stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

if TYPE_CHECKING:
    from mggc_edge.backends import trt_api, trt_run
else:  # the copies beside this file
    import trt_api
    import trt_run

HERE = Path(__file__).resolve().parent
BUNDLE_SCHEMA, BUILD_SCHEMA = "mggc-edge/tensorrt-bundle/1", "mggc-edge/tensorrt-build/1"
SUMS_FILE, BUNDLE_FILE, PICTURES_FILE = "SHA256SUMS", "bundle.json", "pictures.npz"


class UserError(Exception):
    """Something that whoever runs this can put right: a sentence and the way out."""

    def __init__(self, message: str, hint: str) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(words)
    try:
        document = build_all(options)
    except (UserError, trt_api.TensorRTError, trt_run.CudaError) as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; engines that are finished stay", file=sys.stderr)
        return 130
    except Exception:  # noqa: BLE001  a bug ends in a traceback
        traceback.print_exc()
        return 70
    print(json.dumps(document, indent=2) if options.json else table(document))
    return 0 if all(row["passed"] for row in document["engines"]) else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build and check the TensorRT engines of this folder.")
    add = parser.add_argument
    add(
        "--precision",
        metavar="LIST",
        help="only these, of fp32, fp16 and int8, with commas (default: all that are there)",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        default=HERE / "engines",
        help="folder for the engines (default: engines, here)",
    )
    add("--timing-cache", metavar="DIR", type=Path, help="folder for TensorRT's timings (default: that of the engines)")
    add("--workspace", metavar="MiB", type=int, help="scratch memory that a layer may take (default: all there is)")
    add("--optimization-level", metavar="N", type=int, help="0 to 5, how long is searched (default: TensorRT's own)")
    add("--no-tf32", action="store_true", help="float32 convolutions with all bits of the mantissa")
    add("--plugin-norm", action="store_true", help="instance norm by the plugin of TensorRT 8, where it is there")
    add("--no-cuda-graph", action="store_true", help="launch layer by layer")
    add("--json", action="store_true", help="print one JSON document in place of the table")
    return parser


def build_all(options: argparse.Namespace) -> dict[str, Any]:
    """Build and check every engine that was asked for."""
    check_sums(HERE)
    bundle = json.loads((HERE / BUNDLE_FILE).read_text(encoding="utf-8"))
    if bundle.get("schema") != BUNDLE_SCHEMA:
        raise UserError(f"{BUNDLE_FILE} is of another version: {bundle.get('schema')}", "export the bundle again")
    models = _chosen(bundle["models"], options.precision)
    library = trt_api.TensorRT()
    library.check_device()
    memory = trt_run.open_memory()
    try:
        print(f"TensorRT {library.version} on {memory.device}, memory through {memory.library}", file=sys.stderr)
        options.out.mkdir(parents=True, exist_ok=True)
        with np.load(str(HERE / PICTURES_FILE)) as stored:
            pictures = {name: stored[name] for name in stored.files}
        rows = [_one(model, pictures, library, memory, options) for model in models]
    except OSError as error:
        raise UserError(f"'{options.out}' cannot be written: {error}", "choose another folder with --out") from error
    finally:
        memory.close()
    return {"schema": BUILD_SCHEMA, "tensorrt": library.version, "device": memory.device, "engines": rows}


def _chosen(models: list[dict[str, Any]], wanted: str | None) -> list[dict[str, Any]]:
    if wanted is None:
        return models
    names = [name.strip() for name in wanted.split(",")]
    chosen = [model for model in models if model["precision"] in names]
    there = sorted({model["precision"] for model in models})
    if not chosen or not set(names) <= set(there):
        raise UserError(f"this folder has no files of '{wanted}'", f"it has {', '.join(there)}")
    return chosen


def check_sums(folder: Path) -> None:
    """Raise UserError unless every file is the one that was written."""
    for line in (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines():
        wanted, name = line.split("  ", 1)
        path = folder / name
        if not path.is_file():
            raise UserError(f"'{name}' is missing", "copy the whole folder again")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != wanted:
            raise UserError(f"'{name}' is not the file that was exported: its hash differs", "copy the folder again")


def _one(
    model: dict[str, Any],
    pictures: dict[str, np.ndarray[Any, Any]],
    library: trt_api.TensorRT,
    memory: trt_run.Memory,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Build one engine, check it, and write it with its facts beside it; return its row of the table."""
    name = Path(model["file"]).stem
    print(f"building {name}.engine", file=sys.stderr)
    chosen = trt_api.BuildOptions(
        precision=model["precision"],
        tf32=not options.no_tf32,
        native_norm=not options.plugin_norm,
        workspace_bytes=None if options.workspace is None else options.workspace * 2**20,
        optimization_level=options.optimization_level,
        shapes=model.get("shapes") or {},
    )
    cache = trt_api.timing_cache_file(options.timing_cache or options.out, memory.device, library.version)
    built = library.build(HERE / model["file"], chosen, cache)
    engine = library.load(built.plan, f"{name}.engine")
    session = trt_run.Session(engine, memory, graph=not options.no_cuda_graph)
    try:
        outputs = [session.infer({model["input"]: picture})[model["output"]] for picture in pictures["pictures"]]
        remark = session.graph_remark
    finally:
        session.close()
    to_file = compare(outputs, pictures[model["expected"]], model["value_range"])
    to_float = compare(outputs, pictures[model["float"]], model["value_range"])
    facts = trt_api.engine_facts(built, engine, memory.device, model["precision"], model["metadata"])
    facts.update(onnx=model["file"], onnx_sha256=model["sha256"], parity=to_float, parity_to_file=to_file)
    facts["remarks"] += [remark] if remark else []
    path = options.out / f"{name}.engine"
    trt_api.write_atomically(path, built.plan)
    trt_api.write_atomically(Path(f"{path}{trt_api.FACTS_SUFFIX}"), json.dumps(facts, indent=1).encode("utf-8"))
    psnr = to_float["psnr"]
    good = to_float["identical"] or (psnr is not None and psnr >= model["min_psnr"])
    return {
        "engine": str(path), "precision": model["precision"], "size_bytes": facts["size_bytes"],
        "psnr_to_file": to_file["psnr"], "psnr": psnr, "max_abs": to_float["max_abs"], "min_psnr": model["min_psnr"],
        "identical": to_float["identical"], "passed": bool(good), "remarks": facts["remarks"],
    }  # fmt: skip


def compare(outputs: Sequence[np.ndarray[Any, Any]], expected: np.ndarray[Any, Any], reach: float) -> dict[str, Any]:
    """Return PSNR = 10 log10(reach^2 / mean squared error) in dB, and the largest difference.

    The PSNR is None for equal outputs, which `identical` says, and for outputs that are not finite.
    """
    difference = np.stack(outputs).astype(np.float64) - expected.astype(np.float64)
    if not np.isfinite(difference).all():
        return {"psnr": None, "max_abs": None, "identical": False}
    squared = float(np.square(difference).mean())
    psnr = 10 * math.log10(reach**2 / squared) if squared else None
    return {"psnr": psnr, "max_abs": float(np.abs(difference).max()), "identical": squared == 0}


def table(document: dict[str, Any]) -> str:
    """Return the engines as lines of text."""
    rows = [("engine", "size", "PSNR to file", "to float", "needed", "")]
    for row in document["engines"]:
        verdict = "passed" if row["passed"] else "FAILED: gives other pictures"
        size, needed = f"{row['size_bytes'] / 1e6:.1f} MB", f"{row['min_psnr']:g} dB"
        to_float = "identical" if row["identical"] else _decibel(row["psnr"])
        rows.append((Path(row["engine"]).name, size, _decibel(row["psnr_to_file"]), to_float, needed, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *numbers, verdict in rows:
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:-1])]
        lines.append("  ".join([name.ljust(widths[0]), *cells, verdict]))
    lines += [f"note: {remark}" for row in document["engines"] for remark in row["remarks"]]
    return "\n".join(line.rstrip() for line in lines)


def _decibel(psnr: float | None) -> str:
    return "-" if psnr is None else f"{psnr:.1f} dB"


if __name__ == "__main__":
    sys.exit(main())
