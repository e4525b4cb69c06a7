"""A segmenter's scores or colours become class maps of the wanted size, and what is no segmenter is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mggc_edge.errors import ArtifactError, FeedError, SettingError
from mggc_edge.quality.palette import Palette
from mggc_edge.quality.segmentation import Segmenter
from tests.quality.feature_files import CLASSIFIER, save
from tests.quality.label_pictures import COLORS, label_picture

PALETTE = Palette(COLORS)


def per_pixel(path: Path, weights: list[list[float]], bias: list[float], side: int | str = "side") -> Path:
    """A network that multiplies every pixel's colour (-1..1) with `weights` [K, 3] and adds `bias`."""
    w, b = np.array(weights, np.float32)[:, :, None, None], np.array(bias, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(bias), side, side])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def painter(path: Path) -> Path:
    """A network from pictures to label pictures: it gives its input back."""
    return per_pixel(path, np.eye(3).tolist(), [0, 0, 0])


def scorer(path: Path, side: int | str = "side") -> Path:
    """A score for each of COLORS under "signed": 2 c.x - c.c is highest where |x - c| is smallest."""
    colors = np.array(COLORS) / 127.5 - 1
    return per_pixel(path, (2 * colors).tolist(), (-np.square(colors).sum(axis=1)).tolist(), side)


def test_a_label_picture_becomes_the_nearest_colours() -> None:
    picture = label_picture(0)
    assert set(np.unique(PALETTE.nearest(picture))) == {0, 1, 2, 3}


def test_colours_that_a_network_paints_become_their_classes(tmp_path: Path) -> None:
    picture = label_picture(0)
    with Segmenter(painter(tmp_path / "p.onnx"), PALETTE) as segmenter:
        found = segmenter.classes(picture, (48, 48))
    np.testing.assert_array_equal(found, PALETTE.nearest(picture))
    assert segmenter.name == "p"


def test_the_highest_score_is_the_class(tmp_path: Path) -> None:
    picture = label_picture(1)
    with Segmenter(scorer(tmp_path / "s.onnx"), PALETTE, preprocessing="signed") as segmenter:
        found = segmenter.classes(picture, (48, 48))
    np.testing.assert_array_equal(found, PALETTE.nearest(picture))


def test_three_classes_are_scores_where_that_is_said(tmp_path: Path) -> None:
    path = per_pixel(tmp_path / "three.onnx", np.eye(3).tolist(), [0, 0, 0])
    palette = Palette(((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    picture = Image.fromarray(np.array([[(200, 0, 0), (0, 0, 90)]], np.uint8))
    with Segmenter(path, palette, gives="classes", preprocessing="unit") as segmenter:
        assert segmenter.classes(picture, (1, 2)).tolist() == [[0, 2]]


def test_scores_are_fed_as_imagenet_networks_want_it_by_default(tmp_path: Path) -> None:
    # Level 113 of green is less than 118 of red, but less far below its mean, in its deviations; 108 is further.
    path = per_pixel(tmp_path / "two.onnx", [[1, 0, 0], [0, 1, 0]], [0, 0])
    picture = Image.fromarray(np.array([[(118, 108, 0), (118, 113, 0)]], np.uint8))
    with Segmenter(path, Palette(COLORS[:2])) as segmenter:
        found = segmenter.classes(picture, (1, 2))
    red, green = (118 / 255 - 0.485) / 0.229, (np.array([108, 113]) / 255 - 0.456) / 0.224
    assert found.tolist() == [(green > red).astype(int).tolist()] == [[0, 1]]


def test_the_map_takes_the_wanted_size_by_its_nearest_pixels(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[COLORS[0], COLORS[1]], [COLORS[2], COLORS[3]]], np.uint8))
    with Segmenter(painter(tmp_path / "p.onnx"), PALETTE) as segmenter:
        assert segmenter.classes(picture, (4, 3)).tolist() == [[0, 1, 1], [0, 1, 1], [2, 3, 3], [2, 3, 3]]
        large = picture.resize((8, 8), Image.Resampling.NEAREST)
        assert segmenter.classes(large, (2, 2)).tolist() == [[0, 1], [2, 3]]


def test_a_picture_is_resized_to_what_the_network_takes(tmp_path: Path) -> None:
    with Segmenter(scorer(tmp_path / "s.onnx", side=8), PALETTE, preprocessing="signed") as segmenter:
        found = segmenter.classes(Image.new("RGB", (50, 20), COLORS[2]), (20, 50))
    assert (found.shape, set(found.ravel().tolist())) == ((20, 50), {2})


def test_a_closed_segmenter_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"^s is not open "):
        Segmenter(tmp_path / "s.onnx", PALETTE).classes(label_picture(0), (48, 48))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"preprocessing": "x"}, "unknown preprocessing 'x'"), ({"gives": "x"}, "a segmenter gives no 'x'")],
)
def test_unknown_settings_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        Segmenter(tmp_path / "s.onnx", PALETTE, **settings)
    assert caught.value.message == message


def refused(path: Path, gives: str = "auto") -> str:
    with pytest.raises(ArtifactError) as caught, Segmenter(path, PALETTE, gives=gives) as segmenter:
        segmenter.classes(label_picture(0, 16), (16, 16))
    return caught.value.message.replace(f"'{path}'", "FILE")


def test_what_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.onnx") == "FILE cannot be read: No such file or directory"
    five = per_pixel(tmp_path / "five.onnx", [[0.0] * 3] * 5, [0.0] * 5)
    assert refused(five) == "FILE gives 5 channels, but the palette has 4 classes"
    assert refused(five, "colors") == "FILE gives 5 channels, but label pictures have 3"
    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    no_map = "FILE is no segmenter: its output must be one map a picture, [1, classes or colours, H, W]"
    flat = save(tmp_path / "flat.onnx", nodes, {"y": (TensorProto.FLOAT, [1, 192])})
    assert refused(flat) == no_map
    several = save(
        tmp_path / "several.onnx",
        CLASSIFIER,
        {"prob": (TensorProto.FLOAT, [1, 5, 1, 1]), "pool": (TensorProto.FLOAT, [1, 5, 1, 1])},
    )
    assert (
        refused(several) == "FILE is no segmenter: its output must be one map a picture, [1, classes or colours, H, W]"
    )
    grey = save(tmp_path / "grey.onnx", [helper.make_node("Relu", ["x"], ["y"])],
                {"y": (TensorProto.FLOAT, [1, 1, 8, 8])}, shape=[1, 1, 8, 8])  # fmt: skip
    assert refused(grey) == "FILE takes 1x1x8x8, but a segmenter takes one RGB picture, 1x3xHxW"


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = per_pixel(tmp_path / "nan.onnx", [[0.0] * 3] * 4, [float("nan")] * 4)
    assert refused(path) == "FILE gives values that are not finite"
