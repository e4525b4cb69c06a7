"""Which files and tensors can be feature networks, and what is said of those that cannot."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.errors import (
    ArtifactError,
    MissingDependencyError,
    OutputError,
)
from mggc_edge.quality import features, inner_tensor
from mggc_edge.quality.features import FeatureNetwork, split_feature_net
from mggc_edge.quality.inner_tensor import with_inner_output
from tests.quality.feature_files import CLASSIFIER, Shape, by_hand, classifier, flat, noise, refused, save

# --- names and files ---


def test_the_text_is_split_at_the_end_of_the_longest_file_name(tmp_path: Path) -> None:
    plain, colon = tmp_path / "net.onnx", tmp_path / "net.onnx:a"
    plain.touch()
    assert split_feature_net(f"{plain}") == (plain, None)
    assert split_feature_net(f"{plain}:a") == (plain, "a")
    assert split_feature_net(f"{plain}:a:0") == (plain, "a:0")
    colon.touch()
    assert split_feature_net(f"{plain}:a") == (colon, None)
    assert split_feature_net(f"{plain}:a:0") == (colon, "0")


@pytest.mark.parametrize("text", ["absent.onnx", "absent.onnx:fire", ":fire", "", "a\0b:c", "x" * 5000])
def test_a_text_without_a_file_is_an_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"^there is no file '") as caught:
        split_feature_net(text)
    assert caught.value.hint == "a feature network is an ONNX file, FILE or FILE:TENSOR"


def test_a_colon_without_a_tensor_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        split_feature_net(f"{classifier(tmp_path)}:")
    assert str(caught.value) == f"'{tmp_path}/net.onnx:' names no tensor after the colon (give FILE or FILE:TENSOR)"


def test_the_name_is_the_file_without_its_suffix_and_the_tensor(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    assert FeatureNetwork(path).name == "net"
    assert FeatureNetwork(f"{path}:block/relu:0").name == "net block/relu:0"


def test_an_unknown_tensor_is_an_error_that_names_close_ones(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    error = refused(f"{path}:block/relu")
    assert error.message == f"'{path}' has no inner tensor 'block/relu'"
    assert error.hint == "did you mean block/relu:0, block/conv?"
    assert refused(f"{path}:zzz").hint == "such as block/relu:0, pool, prob"
    assert refused(f"{path}:w").message == f"'{path}' has no inner tensor 'w'"  # a weight is no feature


@pytest.mark.parametrize(
    ("own", "tensor", "left"),
    [
        (["prob"], "pool", ["prob", "pool"]),
        (["prob"], "prob", ["prob"]),
        (["pool", "prob"], "pool", ["pool"]),
        (["pool", "prob"], "block/conv", ["block/conv"]),
    ],
)
def test_an_only_output_stays_beside_the_tensor_and_several_go(
    own: list[str], tensor: str, left: list[str], tmp_path: Path
) -> None:
    path = save(tmp_path / "net.onnx", CLASSIFIER, {name: (TensorProto.FLOAT, [1, 5, 1, 1]) for name in own})
    data, found = with_inner_output(path, tensor)
    assert [output.name for output in onnx.load_model_from_string(data).graph.output] == left
    assert found == tuple(own)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(tmp_path)
    size = path.stat().st_size
    monkeypatch.setattr(features, "MAX_FILE_BYTES", size - 1)
    assert refused(path).message == f"'{path}' has {size} bytes, more than the {size - 1} of a feature network"
    monkeypatch.setattr(features, "MAX_FILE_BYTES", size)
    with FeatureNetwork(path) as net:
        assert len(net.features([noise(0)])) == 1


@pytest.mark.parametrize("tensor", ["", ":y"])
def test_a_file_that_is_no_network_is_refused(tensor: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\xff" * 100)
    assert f"'{path}'" in refused(f"{path}{tensor}").message


def test_a_file_that_vanishes_is_refused(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    net = FeatureNetwork(path)
    path.unlink()
    with pytest.raises(ArtifactError) as caught, net:
        pass
    assert caught.value.message == f"'{path}' cannot be read: No such file or directory"
    with pytest.raises(ArtifactError) as caught:
        with_inner_output(path, "y")
    assert caught.value.message == f"'{path}' cannot be read: No such file or directory"


def test_what_onnx_runtime_refuses_is_told_of_the_file_that_was_given(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Nonsense", ["x"], ["y"])], {"y": (1, [1, 5])})
    for which in (f"{path}", f"{path}:y"):
        assert refused(which).message.startswith(f"ONNX Runtime cannot run '{path}': ")


@pytest.mark.parametrize("tensor", ["", ":x2"])
def test_a_network_that_fails_while_it_runs_is_an_error_that_names_the_file(tensor: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["x2"]),
        helper.make_node("Constant", [], ["s"], value_ints=[1, 1000]),
        helper.make_node("Reshape", ["x2", "s"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {"y": (TensorProto.FLOAT, [1, 1000])}, shape=[1, 3, "h", 8])
    with FeatureNetwork(f"{path}{tensor}") as net, pytest.raises(ArtifactError) as caught:
        net.features([noise(0)])
    assert caught.value.message.startswith(f"ONNX Runtime failed while running '{path}': ")


def test_no_room_for_the_temporary_copy_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path = classifier(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError) as caught, FeatureNetwork(f"{path}:pool"):
        pass
    assert caught.value.message == f"no temporary copy of '{path}' can be written: No space left on device"


def test_the_temporary_copy_is_gone_once_the_network_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with FeatureNetwork(f"{path}:pool") as net:
        assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
        assert net.features([noise(0)]).shape == (1, 5)


def test_an_inner_tensor_without_the_onnx_library_is_an_error_with_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(module: str, *, extra: str) -> None:
        raise MissingDependencyError(f"{module} cannot be imported here", f'pip install "mggc-edge[{extra}]"')

    path = classifier(tmp_path)
    monkeypatch.setattr(inner_tensor, "require", absent)
    with (
        pytest.raises(MissingDependencyError, match=r'pip install "mggc-edge\[onnx\]"'),
        FeatureNetwork(f"{path}:pool"),
    ):
        pass
    with FeatureNetwork(path) as net:
        assert net.features([noise(0)]).shape == (1, 5)


# --- networks that are no feature networks ---


def identity(folder: Path, **settings: Any) -> Path:
    shape, kind = settings.get("shape") or [1, 3, 8, 8], settings.get("kind", TensorProto.FLOAT)
    return save(folder / "net.onnx", [helper.make_node("Identity", ["x"], ["y"])], {"y": (kind, shape)}, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": [2, 3, 8, 8]}, "takes 2x3x8x8, but a feature network takes one RGB picture, 1x3xHxW"),
        ({"shape": [1, 8, "h", 3]}, "takes 1x8xanyx3, but a feature network takes one RGB picture, 1x3xHxW"),
        ({"shape": [1, 3]}, "takes 1x3, but a feature network takes one RGB picture, 1x3xHxW"),
        ({"shape": [1, 3, 8, 2049]}, "takes pictures of more than 2048 pixels a side"),
        ({"kind": TensorProto.UINT8}, "takes uint8, but pictures are fed as float32 or float16"),
        ({"inputs": ("x", "z")}, "has 2 inputs, but a feature network takes a picture"),
    ],
)
def test_a_network_that_takes_no_picture_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = identity(tmp_path, **settings)
    assert refused(path).message == f"'{path}' {message}"


def test_a_tensor_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    nodes = [*CLASSIFIER, helper.make_node("ArgMax", ["prob"], ["class"], axis=1)]
    path = save(tmp_path / "net.onnx", nodes, {"class": (TensorProto.INT64, [1, 1, 1, 1])})
    assert refused(path).message == f"'class' of '{path}' is int64, but features are numbers"
    with FeatureNetwork(f"{path}:pool", preprocessing="unit") as net:
        np.testing.assert_allclose(net.features([noise(0)])[0], by_hand(noise(0))[0], atol=1e-6)
        with pytest.raises(ArtifactError, match="has no single output of numbers"):
            net.probabilities([noise(0)])


@pytest.mark.parametrize(
    ("operator", "shape", "message"),
    [
        ("ReduceMean", [], "'y' of '{path}' has the shape [], not one vector or map a picture"),
        ("Flatten", [24, 8], "'y' of '{path}' has the shape [24, 8], not one vector or map a picture"),
    ],
)
def test_a_tensor_that_is_not_one_vector_a_picture_is_refused(
    operator: str, shape: Shape, message: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"keepdims": 0} if operator == "ReduceMean" else {"axis": 3}
    path = save(tmp_path / "net.onnx", [helper.make_node(operator, ["x"], ["y"], **settings)], {"y": (1, shape)})
    with FeatureNetwork(path) as net, pytest.raises(ArtifactError) as caught:
        net.features([noise(0)])
    assert caught.value.message == message.format(path=path)


def test_a_tensor_of_too_many_numbers_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Flatten", ["x"], ["y"])], {"y": (1, [1, "d"])},
                shape=[1, 3, 148, 148])  # fmt: skip
    with FeatureNetwork(path) as net, pytest.raises(ArtifactError) as caught:
        net.features([noise(0)])
    assert caught.value.message == f"'y' of '{path}' gives 65,712 features a picture, more than 65,536"
    assert caught.value.hint == "take a smaller tensor, FILE:TENSOR"


def test_a_tensor_whose_size_depends_on_the_picture_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["indices"]),
        helper.make_node("Cast", ["indices"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["s"], value_ints=[1, -1]),
        helper.make_node("Reshape", ["f", "s"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {"y": (TensorProto.FLOAT, [1, "d"])})
    with FeatureNetwork(path, preprocessing="unit") as net, pytest.raises(ArtifactError) as caught:
        net.features([flat((255, 255, 255)), flat((255, 0, 0))])
    assert caught.value.message == f"'y' of '{path}' changes its size from picture to picture"


def test_features_that_are_not_finite_are_an_error_that_names_the_picture(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Log", ["p"], ["y"])]
    path = save(tmp_path / "net.onnx", nodes, {"y": (TensorProto.FLOAT, [1, 3, 1, 1])})
    with FeatureNetwork(path, preprocessing="unit") as net, pytest.raises(ArtifactError) as caught:
        net.features([flat((9, 9, 9)), flat((9, 0, 9))])
    assert caught.value.message == f"'{path}' gives values that are not finite for picture 1"
