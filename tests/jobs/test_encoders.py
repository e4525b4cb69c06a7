"""Which encoder a job uses, what is checked of its file, and that embeddings are made once, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.artifacts import sha256_of
from mggc_edge.errors import ArtifactError, CheckpointError, SettingError
from mggc_edge.jobs import encoders
from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.encoders import check_encoder, encoder_seconds, encoder_steps, find_neighbors
from mggc_edge.jobs.folder import start_job
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.pictures import PictureFormat
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from mggc_edge.pruning.mggc.resnet50 import ResNet50
from mggc_edge.settings import Settings
from mggc_edge.training.bank import PictureSet, ProceduralPictures
from mggc_edge.training.loop import Journal
from mggc_edge.training.material import Material, Reading, built_in

FORMAT = PictureFormat.for_channels(3)
COUNT = 10
SMALL = {"encoder.batch_size": 4, "encoder.steps": 3, "encoder.prototypes": 8, "encoder.swav_batch_size": 4}


def request(encoder: str = "self", weights: Path | None = None) -> CompressRequest:
    return CompressRequest("m.pth", "0.5", encoder=encoder, encoder_weights=None if weights is None else str(weights))


def pictures(count: int = COUNT) -> PictureSet:
    return ProceduralPictures(count, (32, 32), FORMAT, seed=0)


def material() -> Material:
    return built_in(Reading((32, 32), (32, 32), FORMAT, FORMAT, seed=0), 14)


@pytest.fixture
def work_in(tmp_path: Path) -> Iterator[Callable[..., Work]]:
    """Make what a stage of a job needs, in a new folder below tmp_path."""
    with ExitStack() as stack:

        def make(settings: Settings, told: list[str] | None = None, name: str = "run") -> Work:
            job = start_job(tmp_path / name, "compress", {}, settings, seed=0, threads=1)
            journal = stack.enter_context(Journal(job.folder / "logs/metrics.jsonl"))
            return Work(job, journal, "fp32", lambda _: None, (lambda _: None) if told is None else told.append)

        yield make


def feature_file(path: Path, seed: int = 0) -> Path:
    """x [1, 3, 8, 8] -> inner [1, 6, 7, 7] -> y [1, 6, 7, 7]."""
    weights = np.random.default_rng(seed).normal(size=(6, 3, 2, 2)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 8]), ("y", [1, 6, 7, 7]))
    ]
    nodes = [helper.make_node("Conv", ["x", "w"], ["inner"]), helper.make_node("Relu", ["inner"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save({name: value.half() for name, value in ResNet50().state_dict().items()}, path)
    return path


# --- what is asked for ---


def test_without_flags_the_small_encoder_is_trained() -> None:
    chosen = check_encoder(Settings(), request())
    assert (chosen.weights, chosen.onnx, chosen.facts) == (None, None, {"name": "self"})


@pytest.mark.parametrize(
    ("encoder", "weights", "message"),
    [
        ("inception", None, "encoder must be self, swav or onnx:FILE[:TENSOR], not 'inception'"),
        ("onnx:", None, "encoder must be self, swav or onnx:FILE[:TENSOR], not 'onnx:'"),
        (
            "swav",
            None,
            (
                "the encoder swav needs weights, which are not part of this package (give a ResNet-50 of SwAV or "
                "torchvision with --encoder-weights FILE, or leave out --encoder)"
            ),
        ),
        ("self", Path("w.pth"), "weights are for the encoder swav, not for self (add --encoder swav)"),
        ("onnx:a", Path("w.pth"), "weights are for the encoder swav, not for onnx:a (add --encoder swav)"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(encoder: str, weights: Path | None, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        request(encoder, weights)
    assert str(caught.value) == message


def test_a_request_with_an_encoder_survives_json() -> None:
    asked = request("swav", Path("w.pth"))
    assert CompressRequest.from_json(asked.to_json()) == asked


def test_the_facts_of_an_onnx_file_are_its_hash_tensor_and_preprocessing(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.onnx")
    chosen = check_encoder(Settings({"features.preprocessing": "caffe"}), request(f"onnx:{path}:inner"))
    assert chosen.onnx == f"{path}:inner"
    assert chosen.facts == {
        "name": "onnx", "file": "f.onnx", "tensor": "inner", "sha256": sha256_of(path), "preprocessing": "caffe",
    }  # fmt: skip


def test_the_facts_of_weights_are_their_hash(resnet_file: Path) -> None:
    chosen = check_encoder(Settings(), request("swav", resnet_file))
    assert chosen.facts == {"name": "swav", "file": "resnet50.pth", "sha256": sha256_of(resnet_file)}


def test_what_is_wrong_with_a_file_is_found_at_once(tmp_path: Path) -> None:
    path = feature_file(tmp_path / "f.onnx")
    for which, message in (("none.onnx", "there is no file 'none.onnx'"), (f"{path}:z", "has no inner tensor 'z'")):
        with pytest.raises(ArtifactError, match=message):
            check_encoder(Settings(), request(f"onnx:{which}"))
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        check_encoder(Settings(), request("swav", tmp_path / "w.pth"))
    with pytest.raises(CheckpointError, match="there is no file"):
        check_encoder(Settings(), request("swav", tmp_path / "none.pth"))


def test_steps_are_those_of_the_settings_of_the_epochs_or_none(tmp_path: Path, resnet_file: Path) -> None:
    own = check_encoder(Settings(), request())
    swav = check_encoder(Settings(), request("swav", resnet_file))
    frozen = check_encoder(Settings(), request(f"onnx:{feature_file(tmp_path / 'f.onnx')}"))
    settings = Settings({**SMALL, "encoder.swav_epochs": 2, "quick.encoder_steps": 5})
    assert [encoder_steps(settings, chosen, 10, quick=False) for chosen in (own, swav, frozen)] == [3, 5, 0]
    assert [encoder_steps(settings, chosen, 10, quick=True) for chosen in (own, swav, frozen)] == [5, 5, 0]
    assert encoder_steps(settings, swav, 2, quick=False) == 2  # a batch is all there is
    assert encoder_steps(settings.with_value("encoder.swav_epochs", 0), swav, 10, quick=True) == 0
    seconds = [encoder_seconds(settings, chosen, material(), quick=False) for chosen in (own, swav, frozen)]
    assert seconds[0] == 0
    assert seconds[1] > 0
    assert seconds[2] > 0


# --- neighbors ---


def test_neighbors_by_an_onnx_network_are_those_of_its_features(tmp_path: Path, work_in: Callable[..., Work]) -> None:
    path = feature_file(tmp_path / "f.onnx")
    settings = Settings({"features.preprocessing": "signed"})
    chosen = check_encoder(settings, request(f"onnx:{path}:inner"))
    told: list[str] = []
    outputs = ProceduralPictures(COUNT, (8, 8), FORMAT, seed=0)  # of the network's own size: nothing is resized
    found = find_neighbors(work_in(settings, told), chosen, material(), outputs, 3, quick=False)
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    maps = torch.nn.functional.conv2d(outputs.batch(range(COUNT)), torch.from_numpy(weights.copy()))
    assert found.tolist() == neighborhoods(maps.mean(dim=(2, 3)), 3).tolist()
    assert told == ["running f inner on 10 outputs"]


@pytest.mark.parametrize("objective", ["swav", "simclr"])
def test_the_small_encoder_learns_by_the_objective_that_is_set(objective: str, work_in: Callable[..., Work]) -> None:
    settings = Settings({**SMALL, "encoder.objective": objective})
    told: list[str] = []
    work = work_in(settings, told)
    found = find_neighbors(work, check_encoder(settings, request()), material(), pictures(), 2, quick=False)
    assert tuple(found.shape) == (COUNT, 2)
    assert told == ["training the encoder on 10 pictures: 3 steps"]
    keys = {"swav": "prototypes_used", "simclr": "found"}
    log = (work.job.folder / "logs/metrics.jsonl").read_text()
    assert [key for key, value in keys.items() if value in log] == [objective]
    assert work.job.facts["encoder_precision"] in ("fp32", "bf16")


def test_a_resnet_50_that_is_not_finetuned_is_taken_as_it_is(work_in: Callable[..., Work], resnet_file: Path) -> None:
    settings = Settings({**SMALL, "encoder.swav_epochs": 0})
    told: list[str] = []
    work = work_in(settings, told)
    chosen = check_encoder(settings, request("swav", resnet_file))
    found = find_neighbors(work, chosen, material(), pictures(), 2, quick=False)
    assert told == []
    assert not (work.job.work / "encoder.state").exists()
    encoder = ResNet50().eval()
    encoder.load_state_dict({name: value.float() for name, value in torch.load(resnet_file).items()})
    with torch.inference_mode():
        assert found.tolist() == neighborhoods(encoder(pictures().batch(range(COUNT))), 2).tolist()


@pytest.mark.slow
def test_a_resnet_50_is_finetuned_on_the_outputs(work_in: Callable[..., Work], resnet_file: Path) -> None:
    """Its state, 280 MB with the moments, is written twice."""
    settings = Settings({**SMALL, "encoder.swav_epochs": 0.4})
    told: list[str] = []
    work = work_in(settings, told)
    found = find_neighbors(
        work, check_encoder(settings, request("swav", resnet_file)), material(), pictures(), 2, quick=False
    )
    assert tuple(found.shape) == (COUNT, 2)
    assert told == ["training the encoder on 10 pictures: 1 step"]
    state = safetensors_keys(work.job.work / "encoder.state")
    assert {"encoder.layer4.2.conv3.weight", "projection.3.weight", "prototypes"} <= state


def safetensors_keys(path: Path) -> set[str]:
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return set(file.keys())


def test_without_neighbors_nothing_is_trained(work_in: Callable[..., Work]) -> None:
    work = work_in(Settings())
    found = find_neighbors(work, check_encoder(Settings(), request()), material(), pictures(), 0, quick=False)
    assert tuple(found.shape) == (COUNT, 0)
    assert not (work.job.work / "encoder.state").exists()


# --- pieces ---


class Counted:
    """Embeddings that are the pictures' numbers in a circle, and which numbers were asked for."""

    def __init__(self, end_after: int = 10**6) -> None:
        self.asked: list[list[int]] = []
        self._end_after = end_after

    def __call__(self, numbers: Sequence[int]) -> Any:
        if len(self.asked) >= self._end_after:
            raise KeyboardInterrupt
        self.asked.append(list(numbers))
        angles = np.array(numbers) * 0.3
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "PIECE", 4)


@pytest.mark.usefixtures("small_pieces")
def test_pieces_that_are_there_are_not_made_again_and_the_whole_is_the_same(work_in: Callable[..., Work]) -> None:
    work = work_in(Settings())
    with pytest.raises(KeyboardInterrupt):
        encoders._embeddings(work, Counted(end_after=2), COUNT)
    second = Counted()
    found = encoders._embeddings(work, second, COUNT)
    assert second.asked == [[8, 9]]
    torch.testing.assert_close(found, torch.from_numpy(Counted()(range(COUNT))), rtol=0, atol=0)


@pytest.mark.usefixtures("small_pieces")
def test_a_damaged_piece_is_named(work_in: Callable[..., Work], monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_in(Settings())
    encoders._embeddings(work, Counted(), COUNT)
    folder = work.job.work / "embeddings"
    assert sorted(path.name for path in folder.iterdir()) == ["000000.npy", "000004.npy", "000008.npy"]
    path = folder / "000004.npy"
    hint = "(remove it; it will be made again)"
    np.save(path, np.zeros((4, 3), np.float32))
    with pytest.raises(ArtifactError) as caught:
        encoders._embeddings(work, Counted(), COUNT)
    assert str(caught.value) == f"'{path}' holds other embeddings {hint}"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"000004\.npy' is damaged"):
        encoders._embeddings(work, Counted(), COUNT)

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(ArtifactError, match=r"000000\.npy' cannot be read: Input/output error"):
        encoders._embeddings(work, Counted(), COUNT)
