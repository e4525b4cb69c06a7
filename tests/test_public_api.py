"""The public face: its names, that they load late, and that each says what it is."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mggc_edge

NAMES = [
    "CheckFailedError", "ExportSettings", "Exported", "InputError", "MggcEdgeError", "Network", "NetworkSpec",
    "OnnxArtifact", "ParityReport", "PruningPlan", "__version__", "apply_plan", "check_parity", "layer_table",
    "load_network", "open_runner", "random_plan", "read_plan", "save_network", "to_onnx",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert mggc_edge.__all__ == NAMES
    assert dir(mggc_edge) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(mggc_edge, name))


def test_the_type_checker_sees_the_same_names_in_the_same_places() -> None:
    source = Path(mggc_edge.__file__).read_text(encoding="utf-8")
    for name, home in mggc_edge._HOMES.items():
        assert any(line.strip().startswith(f"from {home} import") and name in line for line in source.splitlines()), (
            name
        )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mggc_edge' has no attribute 'netG'"):
        _ = mggc_edge.netG


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mggc_edge; print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_missing_is_explained_with_its_install_line() -> None:
    code = "import sys; sys.modules['torch'] = None; import mggc_edge; mggc_edge.load_network"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        'mggc_edge.errors.MissingDependencyError: mggc_edge.load_network needs torch (pip install "mggc-edge[cpu]")'
    )
