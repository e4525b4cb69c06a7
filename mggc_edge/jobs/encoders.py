"""The encoder that says which of the original's outputs are alike: `self`, `swav`, or any ONNX network, frozen."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mggc_edge.artifacts import sha256_of, writing
from mggc_edge.compiler.facts import check_onnx
from mggc_edge.errors import ArtifactError, counted
from mggc_edge.jobs.distances import try_out
from mggc_edge.jobs.outputs import write_array
from mggc_edge.jobs.request import ONNX_ENCODER, CompressRequest
from mggc_edge.pictures import to_picture
from mggc_edge.pruning.mggc.encoder import Encoder, SmallEncoder, embed
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from mggc_edge.pruning.mggc.resnet50 import ResNet50
from mggc_edge.pruning.mggc.resnet50_file import ResNet50File, load_resnet50, read_resnet50
from mggc_edge.pruning.mggc.simclr import SimclrSettings, SimclrTraining
from mggc_edge.pruning.mggc.swav import LARGE_VIEWS, SMALL_SIDE, SwavSettings, SwavTraining
from mggc_edge.quality.features import FeatureNetwork, split_feature_net
from mggc_edge.settings import Settings
from mggc_edge.tensors import FloatArray
from mggc_edge.training.bank import PictureSet
from mggc_edge.training.loop import Progress
from mggc_edge.training.material import Material
from mggc_edge.training.order import step_seed, steps_of
from mggc_edge.training.precision import convolution_precision

if TYPE_CHECKING:
    from mggc_edge.jobs.choose import Work

PIECE = 64  # pictures whose embeddings are written together: what a stop may cost
EMBEDDINGS_FOLDER = "embeddings"
Encode = Callable[[range], FloatArray]  # numbers of pictures -> their embeddings, float32 [n, d]


@dataclass(frozen=True)
class ChosenEncoder:
    """An encoder whose files were checked.

    Attributes:
        weights: of `swav`. onnx: FILE or FILE:TENSOR of a frozen network. Of `self` both are None.
        preprocessing: what an ONNX network wants of a picture, see `features.preprocessing`.
        facts: what a job keeps of it: its name, and of its file the name and the hash.
    """

    weights: ResNet50File | None
    onnx: str | None
    preprocessing: str
    facts: dict[str, Any]


def check_encoder(settings: Settings, request: CompressRequest) -> ChosenEncoder:
    """Return the encoder that was asked for; what is wrong with its file is found now, before anything long.

    Raises:
        CheckpointError: the weights are no ResNet-50's, or cannot be read.
        ArtifactError: the ONNX file cannot be read, has no such tensor, or gives no finite features.
    """
    preprocessing: str = settings["features.preprocessing"]
    if request.encoder_weights is not None:
        path = Path(request.encoder_weights)
        weights = read_resnet50(path, max_bytes=settings["checkpoint.max_bytes"])
        return ChosenEncoder(
            weights, None, preprocessing, {"name": "swav", "file": path.name, "sha256": sha256_of(path)}
        )
    if not request.encoder.startswith(ONNX_ENCODER):
        return ChosenEncoder(None, None, preprocessing, {"name": "self"})
    which = request.encoder.removeprefix(ONNX_ENCODER)
    path, tensor = split_feature_net(which)
    check_onnx(path)
    try_out(FeatureNetwork(which, preprocessing=preprocessing))
    facts = {"name": "onnx", "file": path.name, "tensor": tensor, "sha256": sha256_of(path)}
    return ChosenEncoder(None, which, preprocessing, {**facts, "preprocessing": preprocessing})


def swav_settings(settings: Settings, *, pretrained: bool) -> SwavSettings:
    """Return how the small encoder is trained, or a pretrained one finetuned."""
    shared = "prototypes temperature epsilon iterations small_views large_area small_area frozen_epochs weight_decay"
    prefix = "encoder.swav_" if pretrained else "encoder."
    return SwavSettings(
        batch_size=settings[f"{prefix}batch_size"],
        learning_rate=settings[f"{prefix}learning_rate"],
        **{name: settings[f"encoder.{name}"] for name in shared.split()},
    )


def simclr_settings(settings: Settings) -> SimclrSettings:
    """Return how the small encoder is trained with SimCLR's objective, whose temperature is its own."""
    names = ("batch_size", "learning_rate", "weight_decay")
    return SimclrSettings(**{name: settings[f"encoder.{name}"] for name in names})


def encoder_steps(settings: Settings, chosen: ChosenEncoder, count: int, *, quick: bool) -> int:
    """Return for how many steps an encoder is trained on `count` pictures; 0 where it stays as it is."""
    if chosen.onnx is not None or (chosen.weights is not None and settings["encoder.swav_epochs"] == 0):
        return 0
    if quick:
        return int(settings["quick.encoder_steps"])
    if chosen.weights is None:
        return int(settings["encoder.steps"])
    return steps_of(settings["encoder.swav_epochs"], count, min(settings["encoder.swav_batch_size"], count))


def find_neighbors(
    work: Work, chosen: ChosenEncoder, material: Material, outputs: PictureSet, k: int, *, quick: bool
) -> Tensor:
    """Return the k neighbors of every output, int64 [n, k], after training the encoder on the targets.

    Where there are no targets, the encoder learns on the original's outputs. An ONNX network learns nothing.
    """
    if k == 0:
        return torch.zeros(len(outputs), 0, dtype=torch.long)
    with ExitStack() as stack:
        if chosen.onnx is not None:
            network = stack.enter_context(
                FeatureNetwork(chosen.onnx, preprocessing=chosen.preprocessing, threads=work.job.threads)
            )
            work.tell(f"running {network.name} on {counted(len(outputs), 'output')}")
            encode = _with_onnx(network, outputs)
        else:
            encode = _with_torch(_trained(work, chosen, material, outputs, quick=quick), outputs)
        return neighborhoods(_embeddings(work, encode, len(outputs)), k)


def _trained(work: Work, chosen: ChosenEncoder, material: Material, outputs: PictureSet, *, quick: bool) -> Encoder:
    settings = work.job.settings
    taught = outputs if material.target is None else material.target
    form = taught.format
    head = None
    encoder: Encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(work.job.seed, "encoder/weights", 0))
        if chosen.weights is None:
            encoder = SmallEncoder(form.channels, low=form.low, high=form.high)
        else:
            encoder = resnet = ResNet50(form.color, low=form.low, high=form.high)
            head = load_resnet50(chosen.weights, resnet)
    encoder.to(work.processes.device)
    steps = encoder_steps(settings, chosen, len(taught), quick=quick)
    if steps:
        precision = work.job.facts.get("encoder_precision") or convolution_precision(
            settings["train.precision"], work.processes.device
        )
        work.job.remember("encoder_precision", precision, "the encoder's precision")
        common: dict[str, Any] = {"seed": work.job.seed, "steps": steps, "precision": precision}
        work.tell(f"training the encoder on {counted(len(taught), 'picture')}: {counted(steps, 'step')}")
        if chosen.weights is None and settings["encoder.objective"] == "simclr":
            work.run(SimclrTraining(encoder, taught, simclr_settings(settings), **common))
        else:
            chosen_settings = swav_settings(settings, pretrained=chosen.weights is not None)
            work.run(SwavTraining(encoder, taught, chosen_settings, head=head, **common))
    return encoder.eval()


def _with_torch(encoder: Encoder, outputs: PictureSet) -> Encode:
    def encode(numbers: range) -> FloatArray:
        values: FloatArray = embed(encoder, outputs, numbers=numbers).numpy()
        return values

    return encode


def _with_onnx(network: FeatureNetwork, outputs: PictureSet) -> Encode:
    def encode(numbers: range) -> FloatArray:
        return network.features(to_picture(outputs.batch([n])[0].numpy(), outputs.format) for n in numbers)

    return encode


def _embeddings(work: Work, encode: Encode, count: int) -> Tensor:
    """Return the embedding of every output, [n, d], from pieces on the disk; those that are not there are made."""
    folder = work.job.work / EMBEDDINGS_FOLDER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    whole: FloatArray | None = None
    for first in range(0, count, PIECE):
        numbers = range(first, min(first + PIECE, count))
        path = folder / f"{first:06d}.npy"
        if not path.is_file():
            write_array(path, encode(numbers))
        piece = _read_piece(path, len(numbers), None if whole is None else whole.shape[1])
        if whole is None:
            whole = np.empty((count, piece.shape[1]), np.float32)
        whole[first : first + PIECE] = piece
        work.watch(Progress("neighborhoods", numbers[-1] + 1, count, {}, None))
    assert whole is not None
    return torch.from_numpy(whole)


def _read_piece(path: Path, rows: int, columns: int | None) -> FloatArray:
    hint = "remove it; it will be made again"
    try:
        piece: FloatArray = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise ArtifactError(f"'{path}' is damaged: {error}", hint) from error
    if (
        piece.ndim != 2
        or len(piece) != rows
        or piece.dtype != np.float32
        or piece.shape[1] != (columns or len(piece.T))
    ):
        raise ArtifactError(f"'{path}' holds other embeddings", hint)
    return piece


def encoder_seconds(settings: Settings, chosen: ChosenEncoder, material: Material, *, quick: bool) -> float:
    """Return about how many seconds a large encoder takes, from the time of one picture; 0 for the small one."""
    pictures = material.source if material.target is None else material.target
    if chosen.onnx is not None:
        with FeatureNetwork(chosen.onnx, preprocessing=chosen.preprocessing) as network:
            encode = _with_onnx(network, pictures)
            encode(range(1))  # the first one also prepares
            return _seconds(lambda: encode(range(1))) * len(material.source)
    if chosen.weights is None:
        return 0.0
    with torch.random.fork_rng(devices=[]):
        encoder = ResNet50(pictures.format.color).eval()
    x = pictures.batch([0])
    with torch.inference_mode():
        encoder(x)
        once = _seconds(lambda: encoder(x))
    steps = encoder_steps(settings, chosen, len(pictures), quick=quick)
    seen = steps * min(settings["encoder.swav_batch_size"], len(pictures))
    views: float = LARGE_VIEWS + settings["encoder.small_views"] * SMALL_SIDE**2
    return float(once * (len(material.source) + 3 * views * seen))  # a backward pass takes as long as two forward


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
