"""Engines of a bundle, built on the device that they are measured on: by the bundle's own script, once.

A bundle is a folder that `export --runtime tensorrt` writes, or an archive of it: typed ONNX files, what they give, and
`build.py`, which builds each engine and holds it against that. Engines are kept for the next time, beside the archive
or in the user's cache, and are built anew where the file, the device or its TensorRT is another one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from .engines import RefusalError, TensorRt

SCRIPT, CARRIED = "build.py", ("trt_api", "trt_run")
FOLDER_SUFFIX = "-engines"  # of an archive's engines, beside it


def engine_of(place: str, name: str, precision: str) -> dict[str, Any]:
    """Return where the engine of a file of a bundle lies, and build it where it is not there.

    Args:
        place: the archive of the bundle, or one of the ONNX files in its folder.
        name: of the ONNX file.
        precision: of that file.

    Raises:
        RefusalError: TensorRT is not there, or it cannot build the file, or gives other pictures.
    """
    engine = TensorRt()
    path = Path(place)
    if path.suffix != ".zip":
        return _engine(engine, path.parent, _cache(path), name, precision)
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=str(Path.cwd())) as folder:
        try:
            with zipfile.ZipFile(place) as archive:
                archive.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise RefusalError("model", f"its bundle cannot be read: {error}") from error
        return _engine(engine, Path(folder), path.with_name(path.stem + FOLDER_SUFFIX), name, precision)


def _engine(engine: TensorRt, folder: Path, out: Path, name: str, precision: str) -> dict[str, Any]:
    onnx = folder / name
    built = out / f"{onnx.stem}.engine"
    wanted = {"onnx_sha256": _sha256(onnx), "tensorrt": engine.versions["tensorrt"], "device": engine.provider}
    facts = _facts(built)
    if any(facts.get(key) != value for key, value in wanted.items()):
        facts = _build(folder, out, onnx, precision)
    return {
        "engine": str(built),
        "psnr": (facts.get("parity") or {}).get("psnr"),
        "seconds": facts.get("build_seconds"),
    }


def _build(folder: Path, out: Path, onnx: Path, precision: str) -> dict[str, Any]:
    """Run the bundle's script, in this process, so that it ends with it; return the facts of the engine."""
    script = _script(folder)
    try:
        options = script._parser().parse_args(["--precision", precision, "--out", str(out)])  # noqa: SLF001  of the script
        document = script.build_all(options)
    except (script.UserError, script.trt_api.TensorRTError, script.trt_run.CudaError) as error:
        raise RefusalError("model", f"its engine cannot be built: {error.message}") from error
    rows = {Path(row["engine"]).stem: row for row in document["engines"]}
    row = rows[onnx.stem]
    if not row["passed"]:
        (out / f"{onnx.stem}.engine").unlink()
        raise RefusalError(
            "model",
            f"its engine gives other pictures here: {_decibel(row['psnr'])}, and {row['min_psnr']:g} dB are needed",
        )
    return _facts(out / f"{onnx.stem}.engine")


def _script(folder: Path) -> Any:
    """Return the bundle's script as a module, with the copies beside it of the files that know TensorRT."""
    before = {name: sys.modules.pop(name, None) for name in CARRIED}
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("bundle_build", str(folder / SCRIPT))
        if spec is None or spec.loader is None:
            raise RefusalError("model", f"its bundle has no {SCRIPT}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except OSError as error:
        raise RefusalError("model", f"its bundle has no {SCRIPT}: {error.strerror}") from error
    finally:
        sys.path.remove(str(folder))
        for name, known in before.items():
            sys.modules.pop(name, None)
            if known is not None:
                sys.modules[name] = known
    return module


def _cache(path: Path) -> Path:
    """Return where engines of a bundle on this machine are kept: below XDG_CACHE_HOME, or else ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "mggc-edge" / "engines" / hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]


def _facts(engine: Path) -> dict[str, Any]:
    """Return what is kept beside an engine; nothing where it is not whole."""
    try:
        facts = json.loads(Path(f"{engine}.json").read_text(encoding="utf-8"))
        whole = isinstance(facts, dict) and facts.get("size_bytes") == engine.stat().st_size
    except (OSError, ValueError):
        return {}
    return dict(facts) if whole else {}


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RefusalError("model", f"'{path.name}' cannot be read: {error.strerror}") from error


def _decibel(psnr: float | None) -> str:
    return "no finite values" if psnr is None else f"{psnr:.1f} dB"
