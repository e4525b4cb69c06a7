"""Features are what the named tensor holds, for pictures prepared as the extractor wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mggc_edge.errors import (
    ArtifactError,
    FeedError,
    PictureError,
    SettingError,
)
from mggc_edge.quality.features import PREPROCESSINGS, FeatureNetwork
from mggc_edge.tensors import FloatArray
from tests.quality.feature_files import CLASSIFIER, WEIGHTS, Shape, by_hand, classifier, flat, noise, refused, save

# --- features and probabilities ---


def test_an_inner_tensor_is_averaged_over_its_positions(tmp_path: Path) -> None:
    pictures = [noise(seed) for seed in range(3)]
    with FeatureNetwork(f"{classifier(tmp_path)}:block/relu:0", preprocessing="unit") as net:
        found = net.features(pictures)
    assert (found.shape, found.dtype.name) == ((3, 5), "float32")
    np.testing.assert_allclose(found, [by_hand(picture)[0] for picture in pictures], atol=1e-6)


def test_without_a_tensor_the_output_is_the_features(tmp_path: Path) -> None:
    with FeatureNetwork(classifier(tmp_path), preprocessing="unit") as net:
        found = net.features([noise(0)])
        assert np.array_equal(net.probabilities([noise(0)]), found)
    np.testing.assert_allclose(found[0], by_hand(noise(0))[1], atol=1e-6)


def test_one_run_gives_features_and_probabilities(tmp_path: Path) -> None:
    pictures = [noise(seed) for seed in range(2)]
    with FeatureNetwork(f"{classifier(tmp_path)}:block/relu:0", preprocessing="unit") as net:
        both = net.features_and_probabilities(iter(pictures))
        assert np.array_equal(both[0], net.features(pictures))
        assert np.array_equal(both[1], net.probabilities(pictures))
    np.testing.assert_allclose(both[1], [by_hand(picture)[1] for picture in pictures], atol=1e-6)


def test_the_output_may_be_named_as_the_tensor(tmp_path: Path) -> None:
    with FeatureNetwork(f"{classifier(tmp_path)}:prob", preprocessing="unit") as net:
        found = net.features_and_probabilities([noise(0)])
    np.testing.assert_allclose(found, [[by_hand(noise(0))[1]]] * 2, atol=1e-6)


def test_a_tensor_of_three_axes_is_taken_whole(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["s"], value_ints=[1, 5, -1]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Reshape", ["c", "s"], ["y"]),
    ]
    path = save(tmp_path / "tokens.onnx", nodes, {"y": (TensorProto.FLOAT, [1, 5, 64])})
    with FeatureNetwork(path, preprocessing="unit") as net:
        found = net.features([noise(0)])
    x = np.asarray(noise(0)).astype(np.float64).reshape(64, 3) / 255
    np.testing.assert_allclose(found, [(WEIGHTS[:, :, 0, 0] @ x.T).ravel()], atol=1e-6)


def test_a_half_precision_network_is_fed_and_read_in_its_own_type(tmp_path: Path) -> None:
    path = classifier(tmp_path, kind=TensorProto.FLOAT16)
    with FeatureNetwork(f"{path}:block/relu:0", preprocessing="unit") as net:
        found, probabilities = net.features_and_probabilities([noise(0)])
    assert (found.dtype.name, probabilities.dtype.name) == ("float32", "float32")
    np.testing.assert_allclose(found[0], by_hand(noise(0))[0], atol=2e-3)
    np.testing.assert_allclose(probabilities[0], by_hand(noise(0))[1], atol=2e-3)


def test_an_open_batch_and_an_open_size_are_filled_with_one_and_224(tmp_path: Path) -> None:
    node = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["c"], to=TensorProto.FLOAT)]
    node += [helper.make_node("Unsqueeze", ["c", "a"], ["y"])]
    node.insert(0, helper.make_node("Constant", [], ["a"], value_ints=[0]))
    path = save(tmp_path / "open.onnx", node, {"y": (TensorProto.FLOAT, [1, 4])}, shape=["n", 3, "h", 32])
    with FeatureNetwork(path) as net:
        assert net.features([noise(0), noise(1)]).tolist() == [[1, 3, 224, 32]] * 2


def test_several_outputs_leave_the_named_one_and_no_probabilities(tmp_path: Path) -> None:
    outputs: dict[str, tuple[int, Shape]] = {
        "pool": (TensorProto.FLOAT, [1, 5, 1, 1]),
        "prob": (TensorProto.FLOAT, [1, 5, 1, 1]),
    }
    path = save(tmp_path / "two.onnx", CLASSIFIER, outputs)
    error = refused(path)
    assert error.message == f"'{path}' has 2 outputs, and one must be chosen"
    assert error.hint == "give FILE:TENSOR with one of pool, prob"
    for tensor in ("pool", "block/relu:0"):
        with FeatureNetwork(f"{path}:{tensor}", preprocessing="unit") as net:
            np.testing.assert_allclose(net.features([noise(0)])[0], by_hand(noise(0))[0], atol=1e-6)
            with pytest.raises(ArtifactError, match="has no single output of numbers that could be class"):
                net.probabilities([noise(0)])


def test_an_output_that_is_no_distribution_holds_no_probabilities(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CLASSIFIER[:3], {"pool": (TensorProto.FLOAT, [1, 5, 1, 1])})
    with FeatureNetwork(path) as net, pytest.raises(ArtifactError) as caught:
        net.probabilities([noise(0)])
    assert str(caught.value) == (
        f"the output of '{path}' holds no class probabilities (its last operator must be a softmax)"
    )


def test_pictures_are_read_one_at_a_time_and_left_alone(tmp_path: Path) -> None:
    read: list[int] = []

    def pictures() -> Iterator[Image.Image]:
        for number in range(2):
            read.append(number)
            yield originals[number]

    originals = [noise(0, (9, 7)), noise(1)]
    before = [picture.tobytes() for picture in originals]
    with FeatureNetwork(classifier(tmp_path)) as net:
        assert net.features(pictures()).shape == (2, 5)
    assert read == [0, 1]
    assert [picture.tobytes() for picture in originals] == before


# --- what pictures become ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225]),
        ("caffe", [-103.939, 51 - 116.779, 255 - 123.68]),
        ("unit", [1, 0.2, 0]),
        ("signed", [1, -0.6, -1]),
    ],
)
def test_a_preprocessing_gives_its_order_range_and_mean(name: str, expected: list[float]) -> None:
    found = PREPROCESSINGS[name].apply(flat((255, 51, 0)), (2, 3))
    assert (found.shape, found.dtype.name) == ((1, 3, 2, 3), "float32")
    np.testing.assert_allclose(found, np.broadcast_to(np.array(expected)[None, :, None, None], (1, 3, 2, 3)), atol=1e-5)


def test_there_are_four_preprocessings() -> None:
    assert list(PREPROCESSINGS) == ["imagenet", "caffe", "unit", "signed"]
    with pytest.raises(SettingError) as caught:
        FeatureNetwork("x.onnx", preprocessing="Caffe")
    assert str(caught.value) == "unknown preprocessing 'Caffe' (one of imagenet, caffe, unit, signed)"


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_pictures_of_every_mode_are_taken_as_rgb(mode: str) -> None:
    level = 255 if mode == "1" else 100
    picture = Image.new(mode, (5, 5), {"P": 100, "RGBA": (100, 100, 100, 7)}.get(mode, level))  # type: ignore[arg-type]
    if mode == "P":
        picture.putpalette([value for index in range(256) for value in (index,) * 3])
    found = PREPROCESSINGS["unit"].apply(picture, (5, 5))
    assert np.array_equal(found, np.full((1, 3, 5, 5), np.float32(level / 255)))


def test_a_large_picture_is_resized_with_antialiasing() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))  # one pixel wide
    found = PREPROCESSINGS["unit"].apply(stripes, (8, 8))
    assert np.abs(found[..., 1:-1] - 0.5).max() < 0.01
    expected = np.asarray(noise(0, (32, 20)).resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(PREPROCESSINGS["unit"].apply(noise(0, (32, 20)), (8, 8)) * 255, expected, atol=1e-4)


# --- opening and closing ---


@pytest.mark.parametrize("use", [FeatureNetwork.features, FeatureNetwork.probabilities])
def test_a_network_that_is_not_entered_says_so(
    use: Callable[[FeatureNetwork, list[Image.Image]], FloatArray], tmp_path: Path
) -> None:
    net = FeatureNetwork(classifier(tmp_path))
    for _ in range(2):  # before it is entered, and after
        with pytest.raises(FeedError) as caught:
            use(net, [noise(0)])
        assert str(caught.value) == "net is not open (use it in a `with` block)"
        with net:
            assert use(net, [noise(0)]).shape == (1, 5)


def test_no_picture_is_an_error(tmp_path: Path) -> None:
    with FeatureNetwork(classifier(tmp_path)) as net, pytest.raises(PictureError) as caught:
        net.features(iter(()))
    assert caught.value.message == "there are no pictures to measure with net"
