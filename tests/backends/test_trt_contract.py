"""Every name of TensorRT and of CUDA that our code uses is in the real bindings of every version that we claim.

Read from the code, not from runs: `trt.X` and attributes of variables and fields that hold objects of TensorRT, which
are named alike everywhere in `trt_api.py` and `trt_run.py`. The names of the bindings are recorded; the slow tests
compare the recording with the bindings themselves.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.backends import trt_api, trt_run
from tests.backends import fake_cuda, fake_tensorrt, real_tensorrt
from tests.backends.trt_helpers import VERSIONS, OnnxRuntimeExecutor

RECORDING = json.loads(real_tensorrt.RECORDING.read_text(encoding="utf-8"))
FILES = [Path(str(module.__file__)) for module in (trt_api, trt_run)]
# How objects of TensorRT are called in our code -> their class.
NAMES = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "config": "IBuilderConfig",
    "profile": "IOptimizationProfile", "cache": "ITimingCache", "others": "ITimingCache", "runtime": "Runtime",
    "self.engine": "ICudaEngine", "engine.engine": "ICudaEngine", "inspector": "EngineInspector", "layer": "ILayer",
    "context": "IExecutionContext", "error": "ParserError", "creation": "NetworkDefinitionCreationFlag",
    "flag": "OnnxParserFlag",
}  # fmt: skip
# What is there where the other is not, and where nothing is asked because networks are not typed.
INSTEAD_OF = {
    "EXPLICIT_BATCH": "STRONGLY_TYPED",
    "node_operator": "node_name",
    "device_memory_size": "device_memory_size_v2",
}
UNTYPED_ALONE = "_keep_norms_in_float"
OWN = {"message", "hint"}  # of our own errors, which are called `error` too


class Use:
    """One use of a name: class of TensorRT ("" is the module), name, number of arguments, and whether it is guarded."""

    def __init__(self, owner: str, name: str, arguments: int | None, guarded: bool, place: str) -> None:
        self.owner, self.name, self.arguments, self.guarded, self.place = owner, name, arguments, guarded, place

    def __repr__(self) -> str:
        return f"{self.place} {self.owner}.{self.name}"


def uses(path: Path) -> Iterator[Use]:
    """Yield every use of a name of TensorRT; guarded is one whose function asks `hasattr` for it, or for the other."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        asked = {
            call.args[1].value
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            and ast.unparse(call.func) == "hasattr"
            and isinstance(call.args[1], ast.Constant)
        }
        calls = {id(node.func): len(node.args) for node in ast.walk(function) if isinstance(node, ast.Call)}
        starred = {
            id(node.func)
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and any(isinstance(part, ast.Starred) for part in node.args)
        }
        for node in ast.walk(function):
            if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
                continue
            holder = ast.unparse(node.value)
            owner = owner_of(holder, function)
            if owner is None or (owner == "ParserError" and node.attr in OWN):
                continue
            arguments = None if id(node) in starred else calls.get(id(node))
            place = f"{path.name}:{node.lineno}"
            guarded = INSTEAD_OF.get(node.attr, node.attr) in asked or function.name == UNTYPED_ALONE
            yield Use(owner, node.attr, arguments, guarded, place)


def owner_of(holder: str, function: ast.FunctionDef) -> str | None:
    for prefix in ("self.owner.trt", "self.trt", "trt"):
        if holder == prefix:
            return ""
        if holder.startswith(f"{prefix}."):
            return holder.removeprefix(f"{prefix}.")
    if holder == "engine" and "engine = self.engine" in ast.unparse(function):
        return "ICudaEngine"
    if holder == "tensor" and "network.get_input" in ast.unparse(function):
        return "ITensor"
    return NAMES.get(holder)


ALL = [use for path in FILES for use in uses(path)]


def there(use: Use, version: str) -> bool:
    listed = RECORDING["tensorrt"][version]
    return use.name in (listed["module"] if use.owner == "" else listed["classes"].get(use.owner, ()))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_that_is_used_is_in_the_bindings_or_asked_for(version: str) -> None:
    missing = [use for use in ALL if not there(use, version)]
    assert [use for use in missing if not use.guarded] == []
    assert {f"{use.owner}.{use.name}" for use in missing} == {
        "8.6.1": {
            "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "ParserError.node_name", "ParserError.node_operator",
            "ICudaEngine.device_memory_size_v2",
        },
        "11.4.0.106": {
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "ILayer.precision", "ICudaEngine.device_memory_size",
        },
    }.get(version, set())  # fmt: skip


def test_layers_are_held_to_a_precision_only_where_networks_are_not_typed() -> None:
    text = FILES[0].read_text(encoding="utf-8")
    (called,) = [line for line in text.splitlines() if f" {UNTYPED_ALONE}(trt, network)" in line]
    block = text[: text.index(called)].rsplit("if not self.typed:", 1)[1]
    assert all(line.startswith(" " * 12) for line in block.splitlines() if line.strip())


def test_every_name_is_in_some_version_and_the_reading_finds_them() -> None:
    assert [use for use in ALL if not any(there(use, version) for version in VERSIONS)] == []
    found = {f"{use.owner}.{use.name}" for use in ALL}
    assert {
        ".Builder", "Builder.build_serialized_network", "OnnxParser.parse_from_file", "IBuilderConfig.set_timing_cache",
        "ITimingCache.combine", "IExecutionContext.execute_async_v3", "IExecutionContext.set_tensor_address",
        "ICudaEngine.num_io_tensors", "EngineInspector.get_engine_information", "ITensor.shape", "BuilderFlag.TF32",
        "Runtime.deserialize_cuda_engine", "ICudaEngine.create_execution_context",
    } <= found  # fmt: skip
    assert len(found) > 55


@pytest.mark.parametrize("version", VERSIONS)
def test_every_function_takes_as_many_arguments_as_it_is_given(version: str) -> None:
    classes = RECORDING["tensorrt"][version]["classes"]
    checked = 0
    for use in ALL:
        takes = classes.get(use.owner, {}).get(use.name)
        if use.arguments is not None and takes is not None:
            assert takes[0] <= use.arguments <= takes[1], use
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("version", VERSIONS)
def test_flags_that_are_set_by_name_are_those_of_versions_without_typed_networks(version: str) -> None:
    flags = RECORDING["tensorrt"][version]["classes"]["BuilderFlag"]
    typed = "STRONGLY_TYPED" in RECORDING["tensorrt"][version]["classes"]["NetworkDefinitionCreationFlag"]
    assert typed or {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= set(flags)
    assert {"INTERNAL_ERROR", "ERROR"} <= set(RECORDING["tensorrt"][version]["severities"])


def test_layers_that_are_held_by_name_are_kinds_of_some_version_and_8_6_has_all_but_the_newest_plugin() -> None:
    kinds = {version: RECORDING["tensorrt"][version]["classes"]["LayerType"] for version in VERSIONS}
    assert [name for name in trt_api.NORM_LAYERS if name not in kinds["8.6.1"]] == ["PLUGIN_V3"]
    assert "PLUGIN_V3" in kinds["10.3.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_offers_nothing_that_the_bindings_lack(version: str) -> None:
    fake, listed = fake_tensorrt.make(version, OnnxRuntimeExecutor()), RECORDING["tensorrt"][version]
    offered = {name for name in vars(fake) if name[0].isupper()}
    assert offered <= set(listed["module"])
    for name in sorted(offered - {"Logger"}):
        kind = getattr(fake, name)
        members = set(kind.__members__) if hasattr(kind, "__members__") else {m for m in vars(kind) if m[0] != "_"}
        assert members <= set(listed["classes"][name]), name


@pytest.mark.parametrize("version", sorted(RECORDING["cuda"]))
def test_cuda_python_has_every_name_that_is_used_and_the_fake_no_other(version: str) -> None:
    text = ast.parse(FILES[1].read_text(encoding="utf-8"))
    used = {str(node.value) for node in ast.walk(text) if isinstance(node, ast.Constant)}
    used |= {node.attr for node in ast.walk(text) if isinstance(node, ast.Attribute) and node.attr.startswith("cuda")}
    used = {name for name in used if re.fullmatch("cuda[A-Z][A-Za-z]+", name)}
    assert len(used) > 20
    assert used <= set(RECORDING["cuda"][version])
    assert {name for name in vars(fake_cuda.make_cudart()) if name.startswith("cuda")} <= set(
        RECORDING["cuda"][version]
    )


def needs_tools() -> None:
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_recording_is_what_the_bindings_have_and_our_code_says_no_driver_with_them(
    version: str, tmp_path: Path
) -> None:
    needs_tools()
    fetched = tmp_path / "fetched"
    site, libraries = real_tensorrt.bindings_of(version, fetched)
    listed = json.loads(
        real_tensorrt.run_with(site, libraries, real_tensorrt.LIST_TENSORRT, ",".join(real_tensorrt.CLASSES))
    )
    assert listed == RECORDING["tensorrt"][version]
    code = (
        "import sys, tensorrt_bindings as trt; sys.path.insert(0, sys.argv[1]); import trt_api\n"
        "try: trt_api.TensorRT(trt).check_device()\n"
        "except trt_api.TensorRTMissingError as error: print(error.message)\n"
        "print(trt_api.TensorRT(trt).typed)"
    )
    numpy = importlib.import_module("numpy")
    (site / "numpy").symlink_to(Path(str(numpy.__file__)).parent)
    said = real_tensorrt.run_with(site, libraries, code, str(FILES[0].parent)).splitlines()
    assert said == [
        f"TensorRT {version} finds no device that it can use: it does not say why", str(version != "8.6.1"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("version", sorted(RECORDING["cuda"]))
def test_the_recording_is_what_cuda_python_has(version: str, tmp_path: Path) -> None:
    assert real_tensorrt.list_cuda(version, tmp_path) == RECORDING["cuda"][version]


def test_the_reading_finds_a_name_that_no_version_has(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(config, trt):\n    config.max_workspace = trt.BuilderFlag.MAGIC\n")
    found = list(uses(bad))
    assert sorted(map(repr, found)) == [
        "bad.py:2 .BuilderFlag", "bad.py:2 BuilderFlag.MAGIC", "bad.py:2 IBuilderConfig.max_workspace",
    ]  # fmt: skip
    assert [use.guarded for use in found] == [False] * 3


def test_the_fake_refuses_what_a_version_lacks() -> None:
    fake: Any = fake_tensorrt.make("11.4.0.106", OnnxRuntimeExecutor())
    layer = fake.ILayer(fake.LayerType.CONVOLUTION)
    with pytest.raises(AttributeError, match="ILayer has no attribute precision"):
        layer.precision = fake.DataType.FLOAT
    assert not hasattr(fake.BuilderFlag, "FP16")
