"""Whatever is inspected gives one document with the same keys, and torch stays out of it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import TensorProto, helper

from mggc_edge.artifacts import MANIFEST_FILE, MANIFEST_SCHEMA, SLIM_FOLDER, SPEC_FILE, sha256_of
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.to_onnx import to_onnx
from mggc_edge.errors import ArtifactError, InputError, SpecError
from mggc_edge.inspection import inspect_path
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import save_network
from mggc_edge.pruning.random import random_plan

SPEC = resnet_spec(blocks=1, ngf=4)
SIZE = (16, 24)
KEYS = (
    "schema", "kind", "path", "family", "role", "norm", "parameters", "image_size", "macs_true", "macs_paper",
    "groups", "layers",
)  # fmt: skip
KINDS = ("checkpoint", "network", "spec", "plan", "onnx", "foreign onnx", "run")


def onnx_of(path: Path, metadata: dict[str, str], shape: tuple[int | str, ...]) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Something of every kind, of the same network."""
    folder = tmp_path_factory.mktemp("material")
    torch.manual_seed(0)
    network = Network(SPEC)
    torch.save(network.state_dict(), folder / "g.pth")
    save_network(network, folder / "saved")
    (folder / "spec.json").write_text(SPEC.dumps())
    plan = random_plan(layer_table(SPEC, SIZE), 0.5, seed=1)
    (folder / "plan.json").write_text(json.dumps(plan.to_json()))
    to_onnx(network, folder / "ours.onnx", ExportSettings(image_size=SIZE))
    onnx_of(folder / "foreign.onnx", {}, (1, 3, *SIZE))
    (folder / "run" / "export").mkdir(parents=True)
    generator = folder / "run" / "export" / "generator.fp32.onnx"
    generator.write_bytes((folder / "ours.onnx").read_bytes())
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "files": [{"path": "export/generator.fp32.onnx", "sha256": sha256_of(generator)}],
    }
    (folder / "run" / MANIFEST_FILE).write_text(json.dumps(manifest))
    names = ("g.pth", "saved", "spec.json", "plan.json", "ours.onnx", "foreign.onnx", "run")
    return {kind: folder / name for kind, name in zip(KINDS, names, strict=True)}


def document(path: Path, **options: Any) -> dict[str, Any]:
    found = inspect_path(path, **options).document()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_every_key(kind: str, material: dict[str, Path]) -> None:
    found = document(material[kind])
    assert [key for key in KEYS if key not in found] == []
    assert (found["schema"], found["kind"]) == ("mggc-edge/inspect/1", kind.removeprefix("foreign "))
    assert found["path"] == str(material[kind])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("plan", "foreign onnx")])
def test_the_same_network_has_the_same_facts_wherever_it_is_found(kind: str, material: dict[str, Path]) -> None:
    found, table = document(material[kind], image_size=SIZE), layer_table(SPEC, SIZE)
    assert (found["family"], found["role"], found["norm"]) == ("resnet_1blocks", "generator", "instance")
    assert (found["in_channels"], found["out_channels"], found["image_size"]) == (3, 3, [16, 24])
    # An export leaves out biases without effect: those before a norm, and, in a new network, the last one's zeros.
    # Each width that has a norm brings one scale and one bias of constants, which ONNX's norm cannot do without.
    weights = sum(math.prod(tensor.shape) for key, tensor in table.tensors.items() if key.endswith(".weight"))
    weights += 2 * sum({layer.out_channels for layer in table.layers if layer.norm is not None})
    assert (found["parameters"], found["macs_true"], found["macs_paper"]) == (
        weights if kind in ("onnx", "run") else parameters(table),
        macs(table, "true"),
        macs(table, "paper"),
    )
    assert {group["name"]: group["channels"] for group in found["groups"]} == dict(SPEC.widths)
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in table.layers]
    assert sum(layer["macs_true"] for layer in found["layers"]) == found["macs_true"]
    assert sum(layer["macs_paper"] for layer in found["layers"]) == found["macs_paper"]


def test_a_layer_is_described_in_full(material: dict[str, Path]) -> None:
    assert document(material["spec"], image_size=SIZE)["layers"][1] == {
        "name": "model.4", "op": "conv", "group": "down1", "in_channels": 4, "out_channels": 8, "kernel": 3,
        "stride": 2, "out_size": [8, 12], "macs_true": 8 * 12 * 9 * 4 * 8, "macs_paper": 8 * 12 * 9 * 4 * 8,
    }  # fmt: skip


def test_a_run_has_the_parameters_of_its_slim_network_and_not_the_constants_of_the_graph(
    material: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(material["run"], tmp_path / "run")
    in_graph = document(run)["parameters"]
    (run / SLIM_FOLDER).mkdir()
    (run / SLIM_FOLDER / SPEC_FILE).write_text(SPEC.dumps())
    count = parameters(layer_table(SPEC, SIZE))
    assert in_graph != count
    assert document(run)["parameters"] == count
    other = resnet_spec(blocks=2, ngf=4)  # not what was exported
    (run / SLIM_FOLDER / SPEC_FILE).write_text(other.dumps())
    assert document(run)["parameters"] == in_graph
    (run / SLIM_FOLDER / SPEC_FILE).write_text("{")
    with pytest.raises(InputError, match=r"spec\.json"):
        document(run)


def test_a_checkpoint_says_what_else_is_in_its_file(material: dict[str, Path], tmp_path: Path) -> None:
    found = document(material["checkpoint"])
    size = material["checkpoint"].stat().st_size
    assert {key: found[key] for key in ("format", "size_bytes", "network", "other_networks", "ignored")} == {
        "format": "zip", "size_bytes": size, "network": None, "other_networks": [], "ignored": [],
    }  # fmt: skip
    state = Network(SPEC).state_dict()
    torch.save({"netG_A": state, "netG_B": state, "epoch": 3}, tmp_path / "both.pth")
    both = document(tmp_path / "both.pth", direction="BtoA")
    assert (both["network"], both["other_networks"]) == ("netG_B", ["netG_A"])


def test_without_a_size_macs_are_counted_at_the_familys_usual_one(material: dict[str, Path]) -> None:
    found = document(material["checkpoint"])
    assert (found["image_size"], found["macs_true"]) == ([256, 256], macs(layer_table(SPEC, (256, 256)), "true"))


def test_a_plan_tells_of_the_slim_network_and_of_the_original(material: dict[str, Path]) -> None:
    found, table = document(material["plan"]), layer_table(SPEC, SIZE)
    assert (found["criterion"], found["budget"], found["convention"], found["image_size"]) == (
        "random", 0.5, "true", [16, 24],
    )  # fmt: skip
    assert found["original"]["macs_true"] == macs(table, "true")
    assert found["original"]["parameters"] == parameters(table) > found["parameters"]
    assert found["macs_true"] / found["original"]["macs_true"] == found["budget_met"]
    assert 0.49 <= found["budget_met"] <= 0.5
    kept = {group["name"]: group["channels"] for group in found["groups"]}
    assert {group["name"]: group["channels"] for group in found["original"]["groups"]} == dict(SPEC.widths)
    assert all(kept[name] <= width for name, width in SPEC.widths)


def test_a_plan_is_counted_at_the_size_that_is_asked_for(material: dict[str, Path]) -> None:
    found = document(material["plan"], image_size=(32, 48))
    assert (found["image_size"], found["original"]["macs_true"]) == (
        [32, 48],
        4 * macs(layer_table(SPEC, SIZE), "true"),
    )


@pytest.mark.parametrize("kind", ["onnx", "foreign onnx", "run"])
def test_an_onnx_file_tells_of_its_graph(kind: str, material: dict[str, Path]) -> None:
    found = document(material[kind])
    foreign = kind == "foreign onnx"
    tensor = {"dtype": "float32", "shape": [1, 3, 16, 24]}
    assert (found["opset"], found["operators"]["Tanh"], found["operators"].get("ConvTranspose")) == (
        20,
        1,
        None if foreign else 2,
    )
    names = ("x", "y") if foreign else ("input", "output")
    assert (found["inputs"], found["outputs"]) == ([{"name": names[0], **tensor}], [{"name": names[1], **tensor}])
    assert found["metadata"].get("bn") == (None if foreign else "eval")


def test_metadata_that_claim_another_network_than_the_graph_are_not_believed(tmp_path: Path) -> None:
    claim = {"mggc_edge.spec": json.dumps(SPEC.to_json())}
    found = document(onnx_of(tmp_path / "liar.onnx", claim, (1, 3, *SIZE)))
    assert (found["family"], found["macs_true"], found["parameters"]) == (None, 0, 0)


def test_a_foreign_onnx_file_has_null_for_what_it_does_not_tell(material: dict[str, Path], tmp_path: Path) -> None:
    found = document(material["foreign onnx"])
    assert [key for key in KEYS if found[key] is None] == ["family", "role", "norm"]
    assert (found["image_size"], found["parameters"], found["groups"], found["layers"]) == ([16, 24], 0, [], [])
    for shape in ((1, 3, "h", 8), (2, 5)):
        assert document(onnx_of(tmp_path / "x.onnx", {}, shape))["image_size"] is None


def test_a_discriminator_and_a_unet_are_inspected(tmp_path: Path) -> None:
    torch.save(Network(patchgan_spec(ndf=4)).state_dict(), tmp_path / "d.pth")
    torch.save(Network(unet_spec(halvings=5, ngf=4)).state_dict(), tmp_path / "u.pth")
    found = document(tmp_path / "d.pth")
    assert (found["family"], found["role"], found["image_size"]) == ("patchgan", "discriminator", [256, 256])
    found = document(tmp_path / "u.pth")
    assert (found["family"], found["norm"], found["image_size"]) == ("unet_32", "batch", [32, 32])


# --- what cannot be looked into ---


def test_a_file_in_onnx_runtimes_own_format_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "g.ort"
    path.write_bytes(b"ORTM")
    with pytest.raises(ArtifactError) as caught:
        inspect_path(path)
    assert caught.value.message == f"'{path}' is in ONNX Runtime's own format, which cannot be looked into"
    assert caught.value.hint == "inspect the .onnx file that it was made from; verify and translate run it"


@pytest.mark.parametrize("kind", ["checkpoint", "network", "spec", "plan"])
def test_a_size_that_the_network_cannot_run_at_is_refused(kind: str, material: dict[str, Path]) -> None:
    with pytest.raises(SpecError, match="a ResNet generator cannot run at 30x32"):
        inspect_path(material[kind], image_size=(30, 32))


def test_a_damaged_spec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(SPEC.dumps().replace('"resnet"', '"transformer"'))
    with pytest.raises(InputError, match="there is no network family 'transformer'"):
        inspect_path(path)


def test_a_checkpoint_over_the_limit_is_refused(material: dict[str, Path]) -> None:
    with pytest.raises(InputError):
        inspect_path(material["checkpoint"], max_bytes=1000)


# --- light ---


def test_inspecting_loads_neither_torch_nor_an_engine_nor_without_need_onnx(material: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from mggc_edge.inspection import inspect_path\n"
        "for path in sys.argv[1:]:\n"
        "    inspect_path(Path(path)).document()\n"
        "    print(*[name for name in ('torch', 'onnxruntime', 'onnx') if name in sys.modules])"
    )
    # What needs onnx comes last: each line tells of all before it.
    paths = [material[kind] for kind in KINDS]
    result = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["", "", "", "", "onnx", "onnx", "onnx"]
