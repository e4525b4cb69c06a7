"""The import rule of docs/architecture.md, held against every import in the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "mggc_edge": ROOT / "mggc_edge",
    "mggc_edge.benchmarks": ROOT / "benchmarks",
    "mggc_edge.calibration": ROOT / "calibration",
    "mggc_edge.cli": ROOT / "cli",
}

AGENT = ROOT / "benchmarks/agent"  # runs on a device: Python 3.8, numpy, nothing of mggc_edge

# Room -> the rooms it may import, beside itself. Rooms are listed so that nothing imports what comes later.
BASE = (
    "_version",
    "errors",
    "lazy",
    "tensors",
    "decoding",
    "pictures",
    "procedural",
    "setting",
    "method_settings",
    "precision_settings",
    "settings",
    "presets",
    "machine",
    "artifacts",
)
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "lazy": {"errors"},
    "tensors": {"errors", "lazy"},
    "decoding": {"errors", "lazy", "tensors"},
    "pictures": {"errors", "lazy", "tensors", "decoding"},
    "procedural": {"errors", "lazy", "tensors", "decoding", "pictures"},
    "setting": {"errors"},
    "method_settings": {"errors", "setting"},
    "precision_settings": {"errors", "setting"},
    "settings": {"errors", "setting", "method_settings", "precision_settings"},
    "presets": {"errors", "setting", "method_settings", "precision_settings", "settings"},
    "machine": set(),
    "artifacts": {"_version", "errors", "lazy", "tensors"},
}
MAY_IMPORT["models"] = set(BASE)
MAY_IMPORT["backends"] = set(BASE)
MAY_IMPORT["quality"] = {*BASE, "backends"}
MAY_IMPORT["training"] = {*BASE, "models", "quality", "backends"}
MAY_IMPORT["pruning"] = {*BASE, "models", "training", "quality", "backends"}
MAY_IMPORT["benchmarks"] = {*BASE, "backends"}
MAY_IMPORT["calibration"] = {*BASE, "backends"}
MAY_IMPORT["compiler"] = {*BASE, "models", "backends", "quality", "benchmarks", "calibration"}
MAY_IMPORT["report"] = {"artifacts", "errors"}
for room in ("run_folder", "opening", "inspection", "pipeline", "jobs", "demonstration"):
    MAY_IMPORT[room] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)

# What is not of the standard library, and who may import it at the top of a file.
LIGHT = {"numpy", "PIL"}
TOP_LEVEL = {
    "models/inception.py": {"torch"},
    "models/network.py": {"torch"},
    "models/fake_quant.py": {"torch"},
    "models/weights.py": {"torch"},
    "models/slim.py": {"torch"},
    "models/convert.py": {"torch"},
    "models/drop_scales.py": {"torch"},
    "compiler/torch_graph.py": {"torch"},
    "compiler/quantized.py": {"torch"},
    "pruning/cost.py": {"torch"},
    "pruning/gates.py": {"torch"},
    "pruning/magnitude.py": {"torch"},
    "demonstration.py": {"torch"},
}
# Rooms in which every file may.
TORCH_ROOMS = ("training/", "pruning/gan_slimming/", "pruning/mggc/", "jobs/")

# Which deep-learning libraries a room, or one file of it, may import at all.
ENGINES = {
    "models": {"torch", "safetensors"},
    "backends/pytorch.py": {"torch"},
    "backends/onnxruntime.py": {"onnxruntime"},
    "backends/trt_api.py": {"tensorrt"},
    "backends/trt_run.py": {"cuda", "pycuda", "torch"},
    "compiler": {"onnx", "onnx_ir", "onnxscript", "onnxsim"},
    "compiler/torch_graph.py": {"torch", "onnx", "onnxscript", "onnxsim"},
    "compiler/quantized.py": {"torch", "onnx"},
    "compiler/mobile_tool.py": {"onnxruntime"},
    "backends/openvino.py": {"openvino"},
    "benchmarks/agent/engines.py": {"onnxruntime", "openvino"},
    "benchmarks/agent/trt_api.py": {"tensorrt"},  # links to those of backends
    "benchmarks/agent/trt_run.py": {"cuda", "pycuda", "torch"},
    "calibration": {"onnx"},
    "quality/inner_tensor.py": {"onnx"},
    "training": {"torch", "safetensors", "lightning_fabric"},
    "pruning": {"torch"},
    "jobs": {"torch", "lightning_fabric"},
    "opening.py": {"torch"},
    "pipeline.py": {"torch"},
    "demonstration.py": {"torch"},
    "cli": {"torch", "onnx"},
}
HEAVY = {
    "torch", "lightning_fabric", "onnx", "onnxruntime", "onnxscript", "onnxsim", "openvino", "safetensors", "tensorrt",
    "cuda", "pycuda",
}  # fmt: skip
# What prints beside the command line: the script of a bundle, which is a command line of its own, on a board.
SCRIPTS = ("compiler/bundle/build.py",)


def sources() -> Iterator[tuple[str, Path]]:
    """Yield (path below the package, file) of every module; the links inside mggc_edge are not followed."""
    for package, folder in FOLDERS.items():
        prefix = package.removeprefix("mggc_edge").removeprefix(".")
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            studies = (package, inside.parts[0]) == ("mggc_edge.benchmarks", "experiments")  # outside the rule
            if not studies and not (folder / inside.parts[0]).is_symlink():
                yield (Path(prefix) / inside).as_posix(), path


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Yield (module, line, whether it is imported when the file is) of every import, late ones included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(node)
        for parent in ast.walk(tree)
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING")
        for node in ast.walk(parent)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent == AGENT:
                continue  # of its own folder, which is a program of its own
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            modules = (
                [f"mggc_edge.{alias.name}" for alias in node.names] if node.module == "mggc_edge" else [node.module]
            )
            for module in modules:
                yield module, node.lineno, id(node) not in late
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "require"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno, False


def test_every_room_is_in_the_rule() -> None:
    rooms = {Path(name).parts[0].removesuffix(".py") for name, _ in sources()} - {"__init__"}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=[name for name, _ in sources()])
def test_a_file_imports_only_what_its_room_may(name: str, path: Path) -> None:
    room = Path(name).parts[0].removesuffix(".py")
    if room == "__init__":
        return  # the public face names everything, late
    for module, line, _ in imports(path):
        if module.split(".")[0] != "mggc_edge" or module == "mggc_edge":
            continue  # `from mggc_edge import X` comes as mggc_edge.X
        target = room_of(module)
        assert target == room or target in MAY_IMPORT[room], f"{name}:{line} imports {module}, but {room} may not"


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=[name for name, _ in sources()])
def test_heavy_libraries_are_imported_late(name: str, path: Path) -> None:
    allowed = {*TOP_LEVEL.get(name, set()), *(() if name.startswith("cli/") else LIGHT)}
    if name.startswith(TORCH_ROOMS):
        allowed |= {"torch"}
    if name.startswith("cli/"):
        allowed |= {"typer"}
    if name in SCRIPTS:
        allowed |= {"trt_api", "trt_run"}  # the copies beside it
    for module, line, at_once in imports(path):
        top = module.split(".")[0]
        if at_once and top not in {*sys.stdlib_module_names, "mggc_edge", *allowed}:
            pytest.fail(f"{name}:{line} imports {module} at its top")


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=[name for name, _ in sources()])
def test_a_room_knows_only_its_engines_late_or_not(name: str, path: Path) -> None:
    room = Path(name).parts[0].removesuffix(".py")
    allowed = ENGINES.get(name, ENGINES.get(room, set()))
    for module, line, _ in imports(path):
        top = module.split(".")[0]
        if top in HEAVY:
            assert top in allowed, f"{name}:{line} imports {module}"


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=[name for name, _ in sources()])
def test_only_the_command_line_prints_or_exits(name: str, path: Path) -> None:
    if name.startswith("cli/") or name in SCRIPTS:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "quit", "sys.exit", "os._exit"):
            pytest.fail(f"{name}:{node.lineno} calls {ast.unparse(node.func)}")


@pytest.mark.parametrize(("name", "path"), list(sources()), ids=[name for name, _ in sources()])
def test_no_file_is_longer_than_400_lines(name: str, path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 400, name


@pytest.mark.parametrize("path", sorted(AGENT.glob("*.py")), ids=lambda path: path.name)
def test_what_runs_on_a_device_needs_python_3_8_and_nothing_of_the_library(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    for module, line, at_once in imports(path):
        top = module.split(".")[0]
        assert top != "mggc_edge", f"{path.name}:{line} imports {module}"
        early = {*sys.stdlib_module_names, *(["numpy"] if path.is_symlink() else [])}
        assert not at_once or top in early, f"{path.name}:{line} imports {module} at its top"


def test_the_rule_finds_a_forbidden_import(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    from mggc_edge.pruning.plan import read_plan\n")
    ((module, line, at_once),) = imports(tmp_path / "bad.py")
    assert (room_of(module), line, at_once) == ("pruning", 2, False)
    (tmp_path / "face.py").write_text("from mggc_edge import cli\nx = require('torch', extra='torch')\n")
    assert [(room_of(module), line) for module, line, _ in imports(tmp_path / "face.py")] == [("cli", 1), ("torch", 2)]
    assert "pruning" not in MAY_IMPORT["compiler"]
