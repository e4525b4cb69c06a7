"""What quality.json says of distributions and labels: the name of a distance, its intervals, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from mggc_edge.errors import ArtifactError, InputError, PictureError, SettingError
from mggc_edge.jobs.distances import Distances, Extractor, feature_networks
from mggc_edge.jobs.segmenting import Agreements, segmenter_for
from mggc_edge.models.inception import Inception
from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.frechet import frechet_distance
from mggc_edge.quality.kid import kid
from mggc_edge.settings import Settings
from mggc_edge.tensors import FloatArray
from mggc_edge.training.bank import GivenPictures, PictureSet
from mggc_edge.training.folders import find_folders
from mggc_edge.training.material import Material, Reading, from_folders
from tests.jobs.job_processes import write_unpaired
from tests.quality.label_pictures import COLORS, as_jpeg, label_picture

RGB = PictureFormat(3, "RGB")


class Mean:
    """The mean colour and the deviation of red: 4 features."""

    name = "mean"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def features(self, pictures: Iterable[Image.Image]) -> FloatArray:
        rows = [np.asarray(picture).reshape(-1, 3) / 255 for picture in pictures]
        return np.array([[*row.mean(axis=0), row[:, 0].std()] for row in rows], np.float32)


class MeanAsInception(Mean, Inception):
    """The same features under the name of the FID's network."""

    def __init__(self, *, published: bool) -> None:
        self.published = published
        self.name = "Inception"


def picture_set(pictures: list[Image.Image]) -> PictureSet:
    pixels = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    return GivenPictures(pixels, RGB, [f"{number}.png" for number in range(len(pictures))])


def photographs(count: int, seed: int) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    tints = random.integers(0, 200, (count, 1, 1, 3))
    return [Image.fromarray((tint + random.integers(0, 50, (8, 8, 3))).astype(np.uint8)) for tint in tints]


def material(
    *,
    test: PictureSet,
    truth: PictureSet | None = None,
    reals: tuple[PictureSet, ...] = (),
    source: PictureSet | None = None,
) -> Material:
    source = test if source is None else source
    return Material(
        objective="paired" if truth is not None else "unpaired" if reals else "distill",
        source=source, target=None, source_views=source, target_views=None, held_out=source, held_out_truth=None,
        test=test, test_truth=truth, test_target=truth or (reals[-1] if reals else None), where="test", split_sha256="",
        all_target=reals or ((truth,) if truth is not None else ()),
    )  # fmt: skip


def measured(
    networks: list[Extractor], outputs: tuple[list[Image.Image], ...], given: Material, most: int = 100
) -> Any:
    with Distances(networks, max_real=most) as distances:
        for original, compressed in zip(*outputs, strict=True):
            distances.add({"original": original, "compressed": compressed})
        document = distances.to_json(given, seed=0)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    return document


OUTPUTS = photographs(12, 1), photographs(12, 2)
REAL = photographs(12, 3)


# --- distances ---


def test_distances_are_those_of_the_features_with_intervals_and_a_paired_difference() -> None:
    document = measured([Mean()], OUTPUTS, material(test=picture_set(REAL), truth=picture_set(REAL)))
    real, original, compressed = (Mean().features(pictures) for pictures in (REAL, *OUTPUTS))
    assert document["features"] == "mean"
    assert document["distributions_against"] == "12 real pictures"
    assert document["frechet"]["original"] == pytest.approx(frechet_distance(real, original), rel=1e-9)
    assert document["frechet"]["compressed"] == pytest.approx(frechet_distance(real, compressed), rel=1e-9)
    assert (document["frechet"]["features"], document["frechet_reason"], document["fid"]) == ("mean", None, None)
    for side, features in (("original", original), ("compressed", compressed)):
        found = document["kid"][side]
        assert found["value"] == kid(real, features, subset_size=6, seed=0).value
        assert found["ci95"][0] < found["ci95"][1]
        low, high = document["frechet"][f"{side}_ci95"]
        assert low < document["frechet"][side] < high
    (row,) = document["distances"]
    assert (row["metric"], row["kid"], row["reason"]) == ("frechet", document["kid"], None)
    difference = document["frechet"]["difference"]
    assert difference["value"] == pytest.approx(document["frechet"]["compressed"] - document["frechet"]["original"])
    assert difference["ci95"][0] < difference["value"] < difference["ci95"][1]


def test_without_real_pictures_the_originals_outputs_stand_for_them() -> None:
    document = measured([Mean()], OUTPUTS, material(test=picture_set(REAL)))
    assert document["distributions_against"] == "original's outputs"
    assert (document["kid"]["original"], document["frechet"]["original"]) == (None, None)
    assert document["frechet"]["original_ci95"] is None
    expected = frechet_distance(*(Mean().features(side) for side in OUTPUTS))
    assert document["frechet"]["compressed"] == pytest.approx(expected, rel=1e-9)
    assert (document["kid"]["difference"], document["frechet"]["difference"]) == (None, None)


def test_it_is_called_fid_with_the_published_weights_alone() -> None:
    given = material(test=picture_set(REAL), truth=picture_set(REAL))
    published = measured([MeanAsInception(published=True)], OUTPUTS, given)
    assert published["distances"][0]["metric"] == "fid"
    assert (published["frechet"], published["frechet_reason"]) == (None, None)
    assert published["kid"] == published["distances"][0]["kid"]
    real, compressed = Mean().features(REAL), Mean().features(OUTPUTS[1])
    assert published["fid"]["compressed"] == pytest.approx(frechet_distance(real, compressed), rel=1e-9)
    assert published["fid"]["reason"] is None
    other = measured([MeanAsInception(published=False)], OUTPUTS, given)
    assert (other["fid"], other["frechet"]["features"]) == (None, "Inception")
    assert other["frechet"]["compressed"] == published["fid"]["compressed"]


def test_of_two_networks_both_are_told_and_the_first_is_at_the_top() -> None:
    given = material(test=picture_set(REAL), truth=picture_set(REAL))
    document = measured([Mean(), MeanAsInception(published=True)], OUTPUTS, given)
    assert [row["features"] for row in document["distances"]] == ["mean", "Inception"]
    assert (document["features"], document["frechet"]["features"]) == ("mean", "mean")
    assert document["fid"]["original"] == document["frechet"]["original"]


def test_with_fewer_than_twice_as_many_pictures_as_features_there_is_a_reason_and_kid() -> None:
    few = tuple(side[:7] for side in OUTPUTS)
    given = material(test=picture_set(REAL[:7]), truth=picture_set(REAL[:7]))
    document = measured([MeanAsInception(published=True)], few, given)
    reason = "7 pictures are too few for 4 features: 8 are needed"
    assert document["fid"] == {"original": None, "compressed": None, "reason": reason}
    assert document["kid"]["compressed"]["value"] is not None


def test_one_picture_is_no_distribution() -> None:
    one = tuple(side[:1] for side in OUTPUTS)
    document = measured([Mean()], one, material(test=picture_set(REAL[:1])))
    assert (document["kid"], document["frechet"]) == (None, None)
    assert document["frechet_reason"] == document["kid_reason"] == "1 picture is no distribution"


@pytest.mark.parametrize(("outputs", "reals"), [(5, 5), (12, 5)])
def test_of_few_pictures_there_is_no_kid_and_a_reason(outputs: int, reals: int) -> None:
    few = tuple(side[:outputs] for side in OUTPUTS)
    truth = picture_set(REAL[:reals])
    document = measured([Mean()], few, material(test=picture_set(REAL[:outputs]), reals=(truth,)))
    assert (document["kid"], document["kid_reason"]) == (None, "5 pictures are too few for KID: 6 are needed")
    assert document["distances"][0]["kid_reason"] == document["kid_reason"]
    assert document["frechet"] is None
    enough = tuple(side[:6] for side in OUTPUTS)
    document = measured([Mean()], enough, material(test=picture_set(REAL[:6]), reals=(picture_set(REAL[:6]),)))
    assert document["kid_reason"] is None
    assert document["kid"]["compressed"]["subset_size"] == 3
    assert document["kid"]["compressed"]["ci95"] is not None


def test_without_a_network_there_are_no_distances() -> None:
    document = measured([], OUTPUTS, material(test=picture_set(REAL)))
    assert document == {"features": None, "kid": None, "kid_reason": None, "frechet": None, "frechet_reason": None,
                        "fid": None, "distributions_against": None, "distances": []}  # fmt: skip


def test_the_fid_of_unpaired_pictures_is_to_training_and_test_pictures_up_to_a_limit() -> None:
    reals = (picture_set(photographs(20, 4)), picture_set(REAL))
    given = material(test=picture_set(REAL), reals=reals)
    networks: list[Extractor] = [Mean(), MeanAsInception(published=True)]
    assert [row["against"] for row in measured(networks, OUTPUTS, given)["distances"]] == [
        "12 real pictures", "32 real pictures"
    ]  # fmt: skip
    assert [row["against"] for row in measured(networks, OUTPUTS, given, most=25)["distances"]] == [
        "12 real pictures", "25 real pictures"
    ]  # fmt: skip


def test_folders_say_which_real_pictures_the_fid_is_to(tmp_path: Path) -> None:
    write_unpaired(tmp_path / "a")
    reading = Reading((16, 16), (18, 18), RGB, RGB, seed=0)
    both = from_folders(
        find_folders(data=tmp_path / "a", layout="unpaired", source=None, target=None, direction="AtoB"), reading
    )
    assert [len(pictures) for pictures in both.all_target] == [8, 2]
    alone = from_folders(
        find_folders(
            data=None, layout=None, source=tmp_path / "a/trainA", target=tmp_path / "a/trainB", direction="AtoB"
        ),
        reading,
    )
    assert [len(pictures) for pictures in alone.all_target] == [8]


def test_a_network_that_cannot_be_used_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^there is no file 'none.onnx'"):
        feature_networks(Settings(), "none.onnx", None)
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="is not the Inception network of the FID"):
        feature_networks(Settings(), None, str(tmp_path / "x.pth"))
    assert feature_networks(Settings(), None, None) == []


# --- labels ---


def painter(folder: Path, channels: int = 3) -> str:
    """A network that gives its input back as a label picture, and with more channels no segmenter."""
    names = ["x"] * (channels // 3)
    nodes = [helper.make_node("Concat", names, ["y"], axis=1)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 48, 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 48, 48])
    path = folder / f"painter{channels}.onnx"
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


def labelled(photographs: PictureSet | None = None) -> Material:
    """Label pictures, and photographs that look like them."""
    train = picture_set([as_jpeg(label_picture(seed)) for seed in range(8)])
    test = [label_picture(seed) for seed in range(20, 27)]
    return material(test=picture_set(test), truth=photographs or picture_set(test), source=train)


def test_labels_found_in_pictures_are_compared_with_those_they_were_made_from(tmp_path: Path) -> None:
    told: list[str] = []
    segmenter = segmenter_for(Settings(), painter(tmp_path), labelled(), told.append)
    assert segmenter is not None
    assert told[0].startswith("the training labels have 4 colours: ")
    rubbed = Image.new("RGB", (48, 48), COLORS[0])
    with segmenter:
        agreements = Agreements(segmenter)
        for seed in range(20, 27):
            labels = label_picture(seed)
            agreements.add(labels, {"original": labels, "compressed": rubbed, "real": as_jpeg(labels)})
        document = agreements.to_json(seed=0)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["original"] == {"miou": 1, "pixel_accuracy": 1, "class_accuracy": 1, "miou_ci95": [1, 1]}
    ground = document["compressed"]["pixel_accuracy"]  # only the ground is found
    assert document["compressed"]["miou"] == pytest.approx(ground / 4)
    assert document["compressed"]["class_accuracy"] == 0.25
    assert 0.9 < document["real"]["miou"] <= 1
    assert document["difference"]["value"] == pytest.approx(ground / 4 - 1)
    low, high = document["difference"]["ci95"]
    assert low < document["difference"]["value"] < high < 0
    assert (document["segmenter"], len(document["palette"])) == ("painter3", 4)


def test_a_given_palette_is_taken_as_it_is(tmp_path: Path) -> None:
    settings = Settings({"segmenter.palette": "0000aa ff5500 ffff00 00aaff"})
    segmenter = segmenter_for(settings, painter(tmp_path), labelled(), pytest.fail)
    assert segmenter is not None
    assert segmenter.palette.colors == COLORS


def test_without_a_file_there_is_no_segmenter() -> None:
    assert segmenter_for(Settings(), None, material(test=picture_set(REAL)), pytest.fail) is None


def test_what_cannot_be_segmented_is_refused(tmp_path: Path) -> None:
    file = painter(tmp_path)

    def refused(error: type[Exception], given: Material, file: str = file, **settings: str) -> str:
        with pytest.raises(error) as caught:
            segmenter_for(
                Settings({f"segmenter.{name}": value for name, value in settings.items()}), file, given, print
            )
        return str(getattr(caught.value, "message", ""))

    assert refused(InputError, material(test=picture_set(REAL))) == (
        "mIoU compares with the labels that a photograph was made from, and these pictures have no pairs"
    )
    grey = GivenPictures(np.zeros((2, 1, 8, 8), np.uint8), PictureFormat(1, "L"))
    assert refused(InputError, material(test=grey, truth=grey)) == (
        "mIoU needs RGB label pictures that go in and RGB photographs that come out"
    )
    assert refused(ArtifactError, labelled(), "none.onnx") == "there is no file 'none.onnx'"
    assert refused(SettingError, labelled(), palette="blue") == "'blue' is no palette"
    six = painter(tmp_path, 6)
    assert refused(ArtifactError, labelled(), six) == f"'{six}' gives 6 channels, but the palette has 4 classes"
    noise = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)) for seed in range(3)]
    assert refused(PictureError, material(test=picture_set(noise), truth=picture_set(noise))) == (
        "there is no label picture with an even area to learn colours from"
    )
